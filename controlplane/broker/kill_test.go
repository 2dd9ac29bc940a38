package broker_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
)

// childDir names the directory of a broker that this test binary runs as a
// child, to be killed.
const childDir = "VEDETTE_TEST_BROKER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := publishForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

var killed = jetstream.StreamConfig{Name: "KILLED", Subjects: []string{"killed.>"}, Storage: jetstream.FileStorage}

// publishForever prints each number after the broker has acknowledged it.
func publishForever(dir string) error {
	ca, err := access.OpenCA(dir, access.DefaultHosts(), nil)
	if err != nil {
		return err
	}
	b, err := broker.Start(broker.Config{Dir: dir, MQTT: "127.0.0.1:0", TLS: ca.ServerTLS()})
	if err != nil {
		return err
	}
	js, err := jetstream.New(b.Conn())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := js.CreateOrUpdateStream(ctx, killed)
	if err != nil {
		return err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return err
	}
	for n := info.State.LastSeq + 1; ; n++ {
		ack, err := js.Publish(ctx, "killed.x", binary.BigEndian.AppendUint64(make([]byte, 1000), n))
		if err != nil {
			return err
		}
		fmt.Println(ack.Sequence)
	}
}

// What was acknowledged before a kill -9 is there after it, three times over, and
// the lock of the killed process holds nobody up.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	var last uint64
	for range 3 {
		last = publishAndKill(t, dir, last+100)
	}
	ca, err := access.OpenCA(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(brokertest.StartAt(t, dir, ca).Conn())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), killed.Name)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= last; seq++ {
		msg, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatalf("message %d of %d acknowledged: %v", seq, last, err)
		}
		if n := binary.BigEndian.Uint64(msg.Data[1000:]); n != seq {
			t.Fatalf("message %d holds %d", seq, n)
		}
	}
}

// publishAndKill runs a child until it has printed at least n, kills it, and
// returns the last number it had printed.
func publishAndKill(t *testing.T, dir string, n uint64) (last uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if last, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if last == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || last < n {
		t.Fatalf("child ended after %d: %v %s", last, err, complaint.String())
	}
	return last
}
