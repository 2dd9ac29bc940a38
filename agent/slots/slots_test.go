package slots_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/protocol/release"
)

func bundle(t *testing.T, version string) *agenttest.Bundle {
	t.Helper()
	b, err := agenttest.NewBundle("meter", version, 1, release.Limits{}, agenttest.Script{Name: version})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// implementations are the file systems that must behave the same.
func implementations(t *testing.T) map[string]slots.FS {
	t.Helper()
	root, err := slots.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return map[string]slots.FS{"disk": root, "memory": agenttest.NewMemFS()}
}

func open(t *testing.T, fsys slots.FS) *slots.Slots {
	t.Helper()
	s, err := slots.Open(fsys, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stage fetches a release into its slot.
func stage(t *testing.T, fsys slots.FS, s *slots.Slots, b *agenttest.Bundle) {
	t.Helper()
	dir, err := s.Stage("meter", b.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := agenttest.NewPuller(fsys, b).Fetch(t.Context(), b.Manifest, dir, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
}

// activate takes a release all the way.
func activate(t *testing.T, fsys slots.FS, s *slots.Slots, b *agenttest.Bundle) {
	t.Helper()
	stage(t, fsys, s, b)
	for _, err := range []error{
		s.Verify("meter", b.Digest),
		s.Prove("meter", slots.Slot{Release: b.Digest, Variant: "variant-0", P95: 5, PeakBytes: 7}),
		s.Activate("meter", b.Digest),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func folders(t *testing.T, fsys slots.FS) int {
	t.Helper()
	entries, err := fs.ReadDir(fsys, "models/meter")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if e.IsDir() {
			n++
		}
	}
	return n
}

func TestLifeOfARelease(t *testing.T) {
	for name, fsys := range implementations(t) {
		t.Run(name, func(t *testing.T) {
			a, b, c := bundle(t, "a"), bundle(t, "b"), bundle(t, "c")
			s := open(t, fsys)
			activate(t, fsys, s, a)
			activate(t, fsys, s, b)
			activate(t, fsys, s, c)
			s = open(t, fsys)
			set := s.Get("meter")
			if set.Active.Release != c.Digest || set.Previous.Release != b.Digest {
				t.Fatalf("slots %+v", set)
			}
			if set.Active.Variant != "variant-0" || set.Active.P95 != 5 || set.Active.PeakBytes != 7 {
				t.Errorf("what the trial found is lost: %+v", set.Active)
			}
			if n := folders(t, fsys); n != 2 {
				t.Errorf("%d releases on disk, want 2", n)
			}
			if err := s.Activate("meter", c.Digest); err != nil || s.Get("meter") != set {
				t.Errorf("activating again: %v, %+v", err, s.Get("meter"))
			}
			if set, err := s.Revert("meter", c.Digest); err != nil || set.Active.Release != b.Digest || !set.Previous.Empty() {
				t.Errorf("revert: %v, %+v", err, set)
			}
			if err := s.Check("meter", b.Digest); err != nil {
				t.Error(err)
			}
			if err := s.Check("meter", c.Digest); !errors.Is(err, slots.ErrEmpty) {
				t.Errorf("check of the release reverted: %v", err)
			}
			if err := s.Remove("meter"); err != nil {
				t.Fatal(err)
			}
			if got := open(t, fsys).Models(); len(got) != 0 {
				t.Errorf("models %q after the last was removed", got)
			}
		})
	}
}

func TestOrderIsKept(t *testing.T) {
	fsys := agenttest.NewMemFS()
	s, a := open(t, fsys), bundle(t, "a")
	for what, err := range map[string]error{
		"verify":   s.Verify("meter", a.Digest),
		"prove":    s.Prove("meter", slots.Slot{Release: a.Digest}),
		"activate": s.Activate("meter", a.Digest),
		"check":    s.Check("meter", a.Digest),
		"adopt":    s.Adopt("meter", slots.Slot{}),
	} {
		if !errors.Is(err, slots.ErrEmpty) {
			t.Errorf("%s of what is not there: %v", what, err)
		}
	}
	if _, err := s.Stage("../meter", a.Manifest); err == nil {
		t.Error("a model whose name is a path was staged")
	}
	if err := errors.Join(s.Discard("meter"), s.Remove("meter")); err != nil {
		t.Error(err)
	}
}

// What an attacker or a failing card puts in place of a file never gets the
// verified name.
func TestDamagedFilesAreFetchedAgain(t *testing.T) {
	for name, fsys := range implementations(t) {
		t.Run(name, func(t *testing.T) {
			a := bundle(t, "a")
			graph := a.Manifest.Variants[0].Graph.Digest.String()
			for _, file := range []string{graph, a.Manifest.Golden.Digest.String(), release.ManifestName} {
				s := open(t, fsys)
				stage(t, fsys, s, a)
				spoil(t, fsys, "models/meter/"+a.Digest.String()+".part/"+file)
				if err := s.Verify("meter", a.Digest); !errors.Is(err, slots.ErrDamaged) {
					t.Fatalf("verify with another %s: %v", file, err)
				}
				if set := s.Get("meter"); !set.Trial.Empty() {
					t.Errorf("on trial: %+v", set)
				}
				stage(t, fsys, s, a)
				if err := s.Verify("meter", a.Digest); err != nil {
					t.Errorf("verify after fetching again: %v", err)
				}
				if err := s.Discard("meter"); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func spoil(t *testing.T, fsys slots.FS, name string) {
	t.Helper()
	raw, err := fs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	f.Write(raw)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Files that two releases share are on disk once, and removing one release
// leaves them to the other.
func TestSharedFilesAreLinked(t *testing.T) {
	dir := t.TempDir()
	root, err := slots.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s, err := slots.Open(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := bundle(t, "a"), bundle(t, "b") // one golden file for both
	for _, x := range []*agenttest.Bundle{a, b} {
		staged, err := s.Stage("meter", x.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		if x == b {
			first, second := stat(t, s.Dir("meter", a.Digest), a), stat(t, staged, b)
			if !os.SameFile(first, second) {
				t.Error("the golden vectors are on disk twice")
			}
		}
		writeMissing(t, x, staged)
		if err := errors.Join(s.Verify("meter", x.Digest), s.Activate("meter", x.Digest)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Revert("meter", b.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Check("meter", a.Digest); err != nil {
		t.Errorf("after its sister was removed: %v", err)
	}
}

func stat(t *testing.T, dir string, b *agenttest.Bundle) os.FileInfo {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, b.Manifest.Golden.Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// writeMissing is a download that leaves alone what is there.
func writeMissing(t *testing.T, b *agenttest.Bundle, dir string) {
	t.Helper()
	fresh := t.TempDir()
	if err := b.Write(fresh); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(fresh)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name())); err == nil {
			continue
		}
		if err := os.Rename(filepath.Join(fresh, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGoingBackToThePreviousKeepsItsFolder(t *testing.T) {
	for name, fsys := range implementations(t) {
		t.Run(name, func(t *testing.T) {
			a, b := bundle(t, "a"), bundle(t, "b")
			s := open(t, fsys)
			activate(t, fsys, s, a)
			activate(t, fsys, s, b)
			activate(t, fsys, s, a)
			if set := s.Get("meter"); set.Active.Release != a.Digest || set.Previous.Release != b.Digest {
				t.Errorf("slots %+v", set)
			}
			for _, x := range []*agenttest.Bundle{a, b} {
				if err := s.Check("meter", x.Digest); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOpenRemovesWhatNobodyNames(t *testing.T) {
	fsys := agenttest.NewMemFS()
	s, a, b := open(t, fsys), bundle(t, "a"), bundle(t, "b")
	activate(t, fsys, s, a)
	for _, stray := range []string{b.Digest.String(), b.Digest.String() + ".part", "slots.json.tmp", "lost+found"} {
		if err := fsys.Mkdir(path.Join("models/meter", stray)); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, fsys)
	if n := folders(t, fsys); n != 1 {
		t.Errorf("%d folders, want the active one alone", n)
	}
	if err := s.Check("meter", a.Digest); err != nil {
		t.Error(err)
	}
}

func TestLostRecordIsAdopted(t *testing.T) {
	fsys := agenttest.NewMemFS()
	s, a := open(t, fsys), bundle(t, "a")
	activate(t, fsys, s, a)
	if err := fsys.Corrupt("models/meter/slots.json"); err != nil {
		t.Fatal(err)
	}
	s = open(t, fsys)
	if got := s.Lost(); len(got) != 1 || got[0] != "meter" {
		t.Fatalf("lost %q", got)
	}
	if err := s.Adopt("meter", slots.Slot{Release: bundle(t, "b").Digest}); !errors.Is(err, slots.ErrDamaged) {
		t.Errorf("adopted a release that is not here: %v", err)
	}
	if err := s.Adopt("meter", slots.Slot{Release: a.Digest}); err != nil {
		t.Fatal(err)
	}
	if got := open(t, fsys).Get("meter").Active.Release; got != a.Digest {
		t.Errorf("active %s after adoption", got.Short())
	}
}

// A record is the old one or the new one, whatever the cut does to it.
func TestRecordIsReplacedWhole(t *testing.T) {
	old, next := []byte("{\"the\": \"old one, and quite long\"}\n"), []byte("{\"the\": \"new\"}\n")
	for k := 1; k <= 5; k++ {
		for seed := range uint64(40) {
			fsys := agenttest.NewMemFS()
			if err := errors.Join(fsys.Mkdir("d"), fsys.Sync("."), slots.WriteRecord(fsys, "d/r", old)); err != nil {
				t.Fatal(err)
			}
			fsys.CutAt(k)
			err := slots.WriteRecord(fsys, "d/r", next)
			fsys.Reboot(agenttest.Tear, rand.New(rand.NewPCG(seed, 1)))
			got, readErr := slots.ReadRecord(fsys, "d/r", 100)
			if readErr != nil {
				t.Fatalf("cut at %d: %v", k, readErr)
			}
			if !bytes.Equal(got, next) && (err == nil || !bytes.Equal(got, old)) {
				t.Fatalf("cut at %d (%v): %q", k, err, got)
			}
		}
	}
}

func TestRecordIsBounded(t *testing.T) {
	fsys := agenttest.NewMemFS()
	if err := slots.WriteRecord(fsys, "r", bytes.Repeat([]byte("x"), 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := slots.ReadRecord(fsys, "r", 50); !errors.Is(err, slots.ErrDamaged) {
		t.Errorf("a long record: %v", err)
	}
	if _, err := slots.ReadRecord(fsys, "none", 50); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
}

// Whatever a cut during the whole way of a release leaves, every slot that only
// verified releases reach holds a whole one.
func TestSlotsNeverNameWhatIsNotWhole(t *testing.T) {
	a, b := bundle(t, "a"), bundle(t, "b")
	life := func(fsys *agenttest.MemFS, s *slots.Slots) error {
		dir, err := s.Stage("meter", b.Manifest)
		if err != nil {
			return err
		}
		if err := agenttest.NewPuller(fsys, b).Fetch(t.Context(), b.Manifest, dir, func(int64, int64) {}); err != nil {
			return err
		}
		return errors.Join(s.Verify("meter", b.Digest), s.Activate("meter", b.Digest))
	}
	cuts := 0
	for k := 1; ; k++ {
		var err error
		for seed := range uint64(30) {
			fsys := agenttest.NewMemFS()
			s := open(t, fsys)
			activate(t, fsys, s, a)
			fsys.CutAt(k)
			err = life(fsys, s)
			fsys.CutNow()
			fsys.Reboot(agenttest.Tear, rand.New(rand.NewPCG(seed, uint64(k))))
			s = open(t, fsys)
			set := s.Get("meter")
			for _, slot := range []slots.Slot{set.Trial, set.Active, set.Previous} {
				if slot.Empty() {
					continue
				}
				if err := s.Check("meter", slot.Release); err != nil {
					t.Errorf("cut at %d, seed %d: %v", k, seed, err)
				}
			}
			if set.Active.Empty() {
				t.Errorf("cut at %d, seed %d: nothing is active", k, seed)
			}
			cuts++
		}
		if err == nil {
			break
		}
	}
	if cuts < 1000 {
		t.Errorf("only %d cuts", cuts)
	}
}

// A challenger that becomes the primary release is linked and not fetched
// again, and a challenger keeps no release to go back to.
func TestChallengersShareFilesWithTheModels(t *testing.T) {
	fsys := agenttest.NewMemFS()
	s, v1, v2 := open(t, fsys), bundle(t, "v1"), bundle(t, "v2")
	activate(t, fsys, s.Challengers(), v1)
	activate(t, fsys, s.Challengers(), v2)
	if got := s.Challengers().Get("meter"); got.Active.Release != v2.Digest || !got.Previous.Empty() {
		t.Errorf("challenger's slots are %+v, want v2 alone", got)
	}
	if got := s.Get("meter"); got != (slots.Set{}) {
		t.Errorf("the model's own slots are %+v, want none", got)
	}
	dir, err := s.Stage("meter", v2.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v2.Manifest.Files() {
		if _, err := fs.Stat(fsys, path.Join(dir, f.Digest.String())); err != nil {
			t.Errorf("%s is not linked: %v", f.Name, err)
		}
	}
	if err := s.Challengers().Remove("meter"); err != nil {
		t.Fatal(err)
	}
	activate(t, fsys, s, v2)
	fsys.CutNow()
	fsys.Reboot(agenttest.Drop, rand.New(rand.NewPCG(1, 1)))
	s = open(t, fsys)
	if err := s.Check("meter", v2.Digest); err != nil {
		t.Errorf("after a power cut: %v", err)
	}
	if got := s.Challengers().Get("meter"); !got.Active.Empty() {
		t.Errorf("the challenger is back: %+v", got)
	}
}

// On a full disk a record takes the room that is kept for it.
func TestReserve(t *testing.T) {
	for name, fsys := range implementations(t) {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(slots.KeepReserve(fsys), slots.KeepReserve(fsys)); err != nil {
				t.Fatal(err)
			}
			if info, err := fs.Stat(fsys, "reserve"); err != nil || info.Size() < 32<<10 {
				t.Errorf("the reserve is not there: %v", err)
			}
		})
	}
	m := agenttest.NewMemFS()
	if err := slots.KeepReserve(m); err != nil {
		t.Fatal(err)
	}
	m.Room(m.Room(0))
	if err := slots.KeepReserve(m); err != nil {
		t.Errorf("a reserve that is there takes no room: %v", err)
	}
	if err := slots.WriteRecord(m, "r", []byte("important\n")); err != nil {
		t.Errorf("a record on a full disk: %v", err)
	}
	if err := slots.KeepReserve(m); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a reserve where there is no room: %v", err)
	}
	if _, err := fs.Stat(m, "reserve"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a reserve is left: %v", err)
	}
}
