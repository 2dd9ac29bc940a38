package slots_test

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"testing"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/protocol/release"
)

// activateFor takes a release of any model all the way.
func activateFor(t *testing.T, fsys slots.FS, s *slots.Slots, b *agenttest.Bundle) {
	t.Helper()
	model := b.Manifest.Model
	dir, err := s.Stage(model, b.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	err = agenttest.NewPuller(fsys, b).Fetch(t.Context(), b.Manifest, dir, func(int64, int64) {})
	if err := errors.Join(err, s.Verify(model, b.Digest), s.Activate(model, b.Digest)); err != nil {
		t.Fatal(err)
	}
}

// Files come with the model's own first, and only what was verified.
func TestFiles(t *testing.T) {
	fsys := agenttest.NewMemFS()
	s, v1, v2, v3 := open(t, fsys), bundle(t, "v1"), bundle(t, "v2"), bundle(t, "v3")
	wine, err := agenttest.NewBundle("wine", "w1", 1, release.Limits{}, agenttest.Script{Name: "w1"})
	if err != nil {
		t.Fatal(err)
	}
	activateFor(t, fsys, s, wine)
	activateFor(t, fsys, s.Challengers(), v3)
	activateFor(t, fsys, s, v1)
	activateFor(t, fsys, s, v2)
	if _, err := s.Stage("meter", bundle(t, "v4").Manifest); err != nil { // not verified
		t.Fatal(err)
	}
	var want []string
	for _, x := range []struct {
		slots *slots.Slots
		*agenttest.Bundle
	}{{s, v2}, {s, v1}, {s.Challengers(), v3}, {s, wine}} {
		for _, f := range x.Manifest.Files() {
			want = append(want, path.Join(x.slots.Dir(x.Manifest.Model, x.Digest), f.Digest.String()))
		}
	}
	var got []string
	for at, f := range s.Files("meter") {
		got = append(got, at)
		if info, err := fs.Stat(fsys, at); err != nil || info.Size() != f.Size || path.Base(at) != f.Digest.String() {
			t.Errorf("%s at %s: %v, %v", f.Name, at, info, err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := fsys.RemoveAll(path.Join(s.Dir("meter", v2.Digest), release.ManifestName)); err != nil {
		t.Fatal(err)
	}
	for at := range s.Files("meter") {
		if at == want[0] {
			t.Error("files of a release without a manifest are listed")
		}
		break // whoever has seen enough may leave
	}
}
