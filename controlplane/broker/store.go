package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// lockName is the file that one process holds locked while it uses the store:
// two servers on one store destroy it.
const lockName = "lock"

// lockDir makes the store directory if need be and locks it for this process.
// The lock goes with the process, so a killed one leaves nothing behind.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s (process %s): stop it, or give this one another data directory", ErrLocked, dir, holder(f))
		}
		return nil, fmt.Errorf("lock store directory %s: %w", dir, err)
	}
	if err := writeHolder(f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, errors.Join(err, f.Close()))
	}
	return f, nil
}

func holder(f *os.File) string {
	var b [20]byte
	n, _ := f.ReadAt(b[:], 0)
	if pid := strings.TrimSpace(string(b[:n])); pid != "" {
		return pid
	}
	return "unknown"
}

// writeHolder notes the process for the error message of the next one. It also
// shows that the disk takes a write before the server finds out the hard way.
func writeHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		return err
	}
	return f.Sync()
}

// prepareMQTT makes the streams in which the server would otherwise keep its
// MQTT bookkeeping in synced files. Sessions are clean and subscriptions QoS 0,
// so it may forget all of it; and a retained message finds no room, which is the
// only way to refuse one.
func prepareMQTT(nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("prepare MQTT: %w", err)
	}
	for _, cfg := range mqttStreams() {
		cfg.Storage = jetstream.MemoryStorage
		if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("prepare MQTT stream %s: %w", cfg.Name, err)
		}
	}
	return nil
}

func mqttStreams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{Name: "$MQTT_sess", Subjects: []string{"$MQTT.sess.>"}, MaxMsgsPerSubject: 1},
		{Name: "$MQTT_msgs", Subjects: []string{"$MQTT.msgs.>"}, Retention: jetstream.InterestPolicy, MaxBytes: 64 << 20},
		{Name: "$MQTT_out", Subjects: []string{"$MQTT.out.>"}, Retention: jetstream.InterestPolicy, MaxBytes: 1 << 20},
		{
			Name: "$MQTT_qos2in", Subjects: []string{"$MQTT.qos2.in.>"}, MaxMsgsPerSubject: 1,
			Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxBytes: 1 << 20,
		},
		// A retained message is larger than this by its headers alone.
		{Name: "$MQTT_rmsgs", Subjects: []string{"$MQTT.rmsgs.>"}, MaxMsgsPerSubject: 1, MaxMsgSize: 1},
	}
}
