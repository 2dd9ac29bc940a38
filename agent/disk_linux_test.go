package agent

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vedette-edge/vedette/agent/agenttest"
)

// fill takes all the room of a file system.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 1 << 20; n > 0; n /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// A device with a full disk goes on serving, and starts serving.
func TestFullDiskKeepsServing(t *testing.T) {
	state := t.TempDir()
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("needs root, to mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(state, 0); err != nil {
			t.Error(err)
		}
	})
	enrol(t, state)
	install(t, state, agenttest.Script{})
	d := launch(t, config(state))
	d.url()
	filler := filepath.Join(state, "filler")
	fill(t, filler)
	serves := func(d *device, when string) {
		t.Helper()
		if status, answer := d.infer(); status != http.StatusOK {
			t.Errorf("%s: %d %s", when, status, answer)
		}
	}
	serves(d, "as the disk fills up")
	if err := d.halt(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a stop that cannot be written down: %v, want %v", err, syscall.ENOSPC)
	}
	d = launch(t, config(state))
	serves(d, "after a start on a full disk")
	if got := d.log.String(); !strings.Contains(got, "free some space") {
		t.Errorf("nobody is told:\n%s", got)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := d.halt(); err != nil {
		t.Errorf("stop with room again: %v", err)
	}
	d = launch(t, config(state))
	serves(d, "with room again")
	if d.boot.Unclean {
		t.Error("the start before ended by itself")
	}
	if err := d.halt(); err != nil {
		t.Error(err)
	}
}
