package agenttest_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

func write(t *testing.T, m *agenttest.MemFS, name, data string, synced bool) {
	t.Helper()
	f, err := m.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if synced {
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

func read(m *agenttest.MemFS, name string) string {
	b, err := fs.ReadFile(m, name)
	if err != nil {
		return "gone"
	}
	return string(b)
}

func TestWhatACutTakes(t *testing.T) {
	tests := []struct {
		name          string
		do            func(*agenttest.MemFS) error
		keep, dropped string // content of "f" afterwards
	}{
		{"a synced file in a synced folder", func(m *agenttest.MemFS) error { return nil }, "old", "old"},
		{"an unsynced rename", func(m *agenttest.MemFS) error { return m.Rename("g", "f") }, "new", "old"},
		{"a synced rename", func(m *agenttest.MemFS) error { return errors.Join(m.Rename("g", "f"), m.Sync(".")) }, "new", "new"},
		{"an unsynced removal", func(m *agenttest.MemFS) error { return m.RemoveAll("f") }, "gone", "old"},
		{"a synced removal", func(m *agenttest.MemFS) error { return errors.Join(m.RemoveAll("f"), m.Sync(".")) }, "gone", "gone"},
		{"an unsynced file under a synced name", func(m *agenttest.MemFS) error {
			write(t, m, "h", "h", false)
			return errors.Join(m.Rename("h", "f"), m.Sync("."))
		}, "h", ""},
		{"a link to a removed file", func(m *agenttest.MemFS) error {
			return errors.Join(m.Link("f", "l"), m.RemoveAll("f"), m.Rename("l", "f"), m.Sync("."))
		}, "old", "old"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for loss, want := range map[agenttest.Loss]string{agenttest.Keep: tt.keep, agenttest.Drop: tt.dropped} {
				m := agenttest.NewMemFS()
				write(t, m, "f", "old", true)
				write(t, m, "g", "new", true)
				if err := errors.Join(m.Sync("."), tt.do(m)); err != nil {
					t.Fatal(err)
				}
				m.CutNow()
				if _, err := m.Open("f"); !errors.Is(err, agenttest.ErrPowerCut) {
					t.Errorf("reading without power: %v", err)
				}
				m.Reboot(loss, nil)
				if got := read(m, "f"); got != want {
					t.Errorf("%s: %q, want %q", loss, got, want)
				}
			}
		})
	}
}

func TestTornWriteShowsEveryKindOfDamage(t *testing.T) {
	const whole = "0123456789abcdef0123456789abcdef"
	zeros := string(make([]byte, len(whole)))
	seen := map[string]int{}
	for seed := range uint64(400) {
		m := agenttest.NewMemFS()
		write(t, m, "f", whole, false)
		if err := m.Sync("."); err != nil {
			t.Fatal(err)
		}
		m.Reboot(agenttest.Tear, rand.New(rand.NewPCG(seed, 1)))
		switch got := read(m, "f"); {
		case got == "":
			seen["empty"]++
		case got == whole:
			seen["whole"]++
		case got == zeros:
			seen["zeros"]++
		case strings.HasPrefix(whole, got):
			seen["short"]++
		default:
			seen["mixed"]++
		}
	}
	for _, damage := range []string{"empty", "whole", "zeros", "short", "mixed"} {
		if seen[damage] < 10 {
			t.Errorf("%s only %d times in 400: %v", damage, seen[damage], seen)
		}
	}
}

func TestCutAtCountsOperations(t *testing.T) {
	m := agenttest.NewMemFS()
	m.CutAt(3)
	f, err := m.Create("f") // 1
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err != nil { // 2
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, agenttest.ErrPowerCut) { // 3
		t.Errorf("the third operation: %v", err)
	}
	select {
	case <-m.Cut():
	default:
		t.Error("the power is still on")
	}
}

// A scripted release is a real one: manifest, baseline and golden vectors fit
// each other, and the scripted runtime computes what they say.
func TestBundleIsWhole(t *testing.T) {
	b, err := agenttest.NewBundle("meter", "v1", 1, release.Limits{}, agenttest.Script{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := b.Write(dir); err != nil {
		t.Fatal(err)
	}
	base, err := sketch.Decode(b.Files[b.Manifest.Baseline.Digest])
	if err != nil {
		t.Fatal(err)
	}
	if err := base.Fits(&b.Manifest.Schema); err != nil {
		t.Error(err)
	}
	engine := infer.New(agenttest.Runtime{}, infer.Config{})
	if err := engine.Activate(t.Context(), infer.Release{Digest: b.Digest, Manifest: b.Manifest, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	resp, err := engine.Infer(t.Context(), &infer.Request{Model: "meter", Inputs: []infer.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{1, 4}, Data: []float32{1, 2, 3, 6}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Outputs[1].Data.([]float32); got[0] != 12 || got[1] != 6 || got[2] != 4 {
		t.Errorf("scores %v, want 12 6 4", got)
	}
	if err := engine.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A disk may refuse: it is full, or has gone read-only.
func TestDiskRefuses(t *testing.T) {
	m := agenttest.NewMemFS()
	write(t, m, "f", "0123456789", true)
	m.Room(m.Room(0) + 70)
	f, err := m.Create("g") // an entry takes 64
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write([]byte("0123456789")); n != 6 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d bytes: %v, want 6 and no space", n, err)
	}
	if err := m.Mkdir("d"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a folder where there is no room: %v", err)
	}
	if err := m.RemoveAll("f"); err != nil {
		t.Errorf("removing from a full disk: %v", err)
	}
	if _, err := f.Write([]byte("67")); err != nil {
		t.Errorf("writing where there is room again: %v", err)
	}
	m.Fault(func(op, name string) error {
		if op == "sync" && name == "g" {
			return syscall.EROFS
		}
		return nil
	})
	if err := f.Sync(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("sync of a read-only disk: %v", err)
	}
	m.Fault(nil)
	if err := errors.Join(f.Sync(), m.Sync(".")); err != nil {
		t.Error(err)
	}
	m.Reboot(agenttest.Drop, nil)
	if got := read(m, "g"); got != "01234567" {
		t.Errorf("%q after all, want 01234567", got)
	}
}

// What was synced before more was appended is safe, whatever is torn.
func TestAppendingEndangersOnlyWhatIsNew(t *testing.T) {
	for seed := range uint64(200) {
		m := agenttest.NewMemFS()
		f, err := m.Create("f")
		if err != nil {
			t.Fatal(err)
		}
		f.Write([]byte("safe"))
		if err := errors.Join(f.Sync(), m.Sync(".")); err != nil {
			t.Fatal(err)
		}
		f.Write([]byte("endangered"))
		m.Reboot(agenttest.Tear, rand.New(rand.NewPCG(seed, 1)))
		if got := read(m, "f"); !strings.HasPrefix(got, "safe") {
			t.Fatalf("seed %d left %q", seed, got)
		}
	}
}
