package controlplane

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// A start on a damaged store ends with an error that says what to do.
func TestStartNamesDamage(t *testing.T) {
	data := t.TempDir()
	s := launch(t, loopback(data))
	var made operator.TokenSecret
	for _, name := range []string{"one", "two"} {
		ask(t, s, "POST", operator.Prefix+"/tokens", operator.TokenCreate{Name: name, Role: operator.Viewer}, &made)
	}
	// UPLINK begins at 1 with something that a fold has not seen.
	if err := s.broker.Conn().Publish("in.cam-1", []byte("not seen yet")); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	for stream, want := range map[string]error{"LEDGER": ledger.ErrDamaged, "KV_access": kvstore.ErrDamaged, "UPLINK": ingest.ErrGap} {
		t.Run(stream, func(t *testing.T) {
			t.Parallel()
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(data)); err != nil {
				t.Fatal(err)
			}
			private(t, copied)
			overwrite(t, filepath.Join(copied, "nats", "jetstream", "$G", "streams", stream, "msgs", "1.blk"))
			s, err := New(loopback(copied))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { stop(t, s) })
			if err := s.Start(t.Context()); !errors.Is(err, want) {
				t.Errorf("Start: got %v, want %v", err, want)
			}
		})
	}
}

// private takes the rights from others that a copy gave them.
func private(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// overwrite damages the newest record of a block.
func overwrite(t *testing.T, block string) {
	t.Helper()
	data, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[len(data)-12:], "XXXXX")
	if err := os.WriteFile(block, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
