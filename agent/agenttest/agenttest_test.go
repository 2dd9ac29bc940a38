package agenttest_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
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
	seen := map[string]bool{}
	for seed := range uint64(200) {
		m := agenttest.NewMemFS()
		write(t, m, "f", "0123456789abcdef0123456789abcdef", false)
		if err := m.Sync("."); err != nil {
			t.Fatal(err)
		}
		m.Reboot(agenttest.Tear, rand.New(rand.NewPCG(seed, 1)))
		switch got := read(m, "f"); {
		case len(got) < 32:
			seen["short"] = true
		case got[:16] == string(make([]byte, 16)):
			seen["zeros"] = true
		default:
			seen["whole"] = true
		}
	}
	if len(seen) < 2 {
		t.Errorf("tearing shows only %v", seen)
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
