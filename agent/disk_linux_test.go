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

// disk is a small file system of its own.
func disk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("needs root, to mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func remount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
		t.Fatalf("remount with flags %#x: %v", flags, err)
	}
}

// A device with a full disk goes on serving, and starts serving.
func TestFullDiskKeepsServing(t *testing.T) {
	state := disk(t)
	enrol(t, state)
	install(t, state, agenttest.Script{})
	d := launch(t, config(state))
	d.url()
	filler := filepath.Join(state, "filler")
	fill(t, filler)
	d.serves("as the disk fills up")
	if err := d.halt(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a stop that cannot be written down: %v, want %v", err, syscall.ENOSPC)
	}
	d = launch(t, config(state))
	d.serves("after a start on a full disk")
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
	d.serves("with room again")
	if d.boot.Unclean {
		t.Error("the start before ended by itself")
	}
	if err := d.halt(); err != nil {
		t.Error(err)
	}
}

func (d *device) serves(when string) {
	d.t.Helper()
	if status, answer := d.infer(); status != http.StatusOK {
		d.t.Errorf("%s: %d %s", when, status, answer)
	}
}

// A card that is worn out turns read-only. What the device has, it serves, as
// often as it starts; with a disk that takes writes again it is as before.
func TestReadOnlyDiskKeepsServing(t *testing.T) {
	for name, c := range map[string]struct {
		killed  bool
		missing []string // below the state directory
		rows    uint64   // counted on a disk that takes writes: two a call
	}{
		"after a clean stop":          {rows: 6},
		"after a kill":                {killed: true, rows: 6},
		"what records is not there":   {rows: 4, missing: []string{ringDir, "boot", outboxFile, outboxFile + ".lock", "reserve"}},
		"predictions cannot be found": {rows: 6, missing: []string{filepath.Join(ringDir, "predictions")}},
	} {
		t.Run(name, func(t *testing.T) {
			state := disk(t)
			before(t, state, c.killed)
			for _, path := range c.missing {
				if err := os.RemoveAll(filepath.Join(state, path)); err != nil {
					t.Fatal(err)
				}
			}
			remount(t, state, syscall.MS_RDONLY)
			for range 4 { // more than a loop of crashes would take
				startReadOnly(t, state)
			}
			remount(t, state, 0)
			for _, unclean := range []bool{c.killed, false} {
				d := launch(t, config(state))
				d.serves("with a disk that takes writes again")
				if d.boot.Unclean != unclean {
					t.Errorf("start %d: unclean %t, want %t", d.boot.Count, d.boot.Unclean, unclean)
				}
				if err := d.halt(); err != nil {
					t.Error(err)
				}
				if got := d.log.String(); strings.Contains(got, "level=ERROR") {
					t.Errorf("logged\n%s", got)
				}
			}
			if rows, _ := counted(t, state); rows != c.rows {
				t.Errorf("%d rows are counted, want %d: those of the starts that could write", rows, c.rows)
			}
		})
	}
}

// before leaves in state what an agent leaves that has served a call and then
// stopped, or was killed: that is what is on disk while it runs.
func before(t *testing.T, state string, killed bool) {
	t.Helper()
	was := t.TempDir()
	enrol(t, was)
	install(t, was, agenttest.Script{})
	d := launch(t, config(was))
	d.serves("before")
	if err := d.observer.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if killed {
		defer func() { _ = d.halt() }()
	} else if err := d.halt(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(state, os.DirFS(was)); err != nil {
		t.Fatal(err)
	}
}

func startReadOnly(t *testing.T, state string) {
	t.Helper()
	d := launch(t, config(state))
	d.serves("on a disk that takes no writes")
	if err := d.halt(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a stop that cannot be written down: %v, want %v", err, syscall.EROFS)
	}
	got := d.log.String()
	for _, told := range []string{"mount it for writing", "in memory only"} {
		if n := strings.Count(got, told); n == 0 || told == "in memory only" && n != 1 {
			t.Errorf("%q is said %d times:\n%s", told, n, got)
		}
	}
}
