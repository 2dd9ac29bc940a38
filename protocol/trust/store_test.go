package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/vedette-edge/vedette/protocol/release"
)

func TestReleaseIsAcceptedWhenSigned(t *testing.T) {
	r := newRepo(t)
	d := r.add("digits", "v1", 1)
	s := refreshed(t, t.TempDir(), r, day0)
	got, err := s.Release("digits", d)
	if err != nil {
		t.Fatal(err)
	}
	want, err := TargetOf(manifest("digits", "v1", 1))
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestRefused is the catalogue of attacks: each starts with a device that knows
// release v1, then lets the server do something, and wants the reason.
func TestRefused(t *testing.T) {
	tests := []struct {
		name   string
		attack func(r *repo)
		now    time.Time
		want   error
	}{
		{"timestamp of an earlier day", func(r *repo) {
			r.files["timestamp"] = sign(r, 1)
		}, day0, ErrRollback},
		{"snapshot of an earlier day under a new timestamp", func(r *repo) {
			r.files["timestamp"] = signed(r.t)(SignTimestamp(r.timestamp, r.serial+1, r.files["snapshot.1"], day0.Add(time.Hour)))
		}, day0, ErrRollback},
		{"targets of an earlier day under a new snapshot", func(r *repo) {
			r.newestTargets = r.files["targets.1"]
			r.online(day0.Add(year), day0.Add(year))
		}, day0, ErrRollback},
		{"frozen timestamp", func(*repo) {}, day0.Add(8 * 24 * time.Hour), ErrExpired},
		{"new timestamp that expired already", func(r *repo) {
			r.online(day0.Add(year), day0.Add(-time.Hour))
		}, day0, ErrExpired},
		{"expired snapshot", func(r *repo) {
			r.online(day0.Add(-time.Hour), day0.Add(year))
		}, day0, ErrExpired},
		{"expired targets", func(r *repo) {
			r.publish(signed(r.t)(Extend(r.newestTargets, day0.Add(-time.Hour))))
		}, day0, ErrExpired},
		{"expired root", func(r *repo) {
			r.online(day0.Add(3*year), day0.Add(3*year))
		}, day0.Add(2*year + time.Hour), ErrExpired},
		{"targets signed by one key of two", func(r *repo) {
			r.serve(signed(r.t)(Sign(draft(r.t, r), r.targets[0])))
		}, day0, ErrSignature},
		{"targets signed twice by one key", func(r *repo) {
			doc := signed(r.t)(Sign(draft(r.t, r), r.targets[0]))
			r.serve(doubleSignature(r.t, doc))
		}, day0, ErrMalformed},
		{"targets without a signature", func(r *repo) { r.serve(draft(r.t, r)) }, day0, ErrSignature},
		{"targets signed by the online keys", func(r *repo) {
			r.serve(signed(r.t)(Sign(draft(r.t, r), r.snapshot, r.timestamp)))
		}, day0, ErrSignature},
		{"targets signed by strangers", func(r *repo) {
			r.serve(signed(r.t)(Sign(draft(r.t, r), newKey(r.t), newKey(r.t))))
		}, day0, ErrSignature},
		{"timestamp signed by a stranger", func(r *repo) {
			r.timestamp = newKey(r.t)
			r.online(day0.Add(year), day0.Add(year))
		}, day0, ErrSignature},
		{"targets changed on the way", func(r *repo) {
			r.publish(draft(r.t, r))
			name := fmt.Sprintf("targets.%d", header(r.t, r.newestTargets).Version)
			r.files[name] = bytes.Replace(r.newestTargets, []byte("digits"), []byte("digitz"), 1)
		}, day0, ErrTampered},
		{"targets of another length", func(r *repo) {
			r.publish(draft(r.t, r))
			name := fmt.Sprintf("targets.%d", header(r.t, r.newestTargets).Version)
			r.files[name] = append(slices.Clone(r.newestTargets), ' ')
		}, day0, ErrTampered},
		{"targets of endless length", func(r *repo) {
			r.publish(draft(r.t, r))
			name := fmt.Sprintf("targets.%d", header(r.t, r.newestTargets).Version)
			r.files[name] = make([]byte, MaxTargets+1)
		}, day0, ErrTampered},
		{"targets with a null entry", func(r *repo) {
			bad := []byte(`{"signatures":[],"signed":{"_type":"targets","spec_version":"1.0.31","version":9,"expires":"2027-01-01T00:00:00Z","targets":{"a":null}}}`)
			r.serve(bad)
		}, day0, ErrMalformed},
		{"timestamp that names nothing", func(r *repo) {
			m := metadata.Timestamp(day0.Add(year))
			m.Signed.Version = 99
			m.Signed.Meta = map[string]*metadata.MetaFiles{}
			r.files["timestamp"] = signed(r.t)(signOnline(m, r.timestamp))
		}, day0, ErrMalformed},
		{"next root signed by strangers", func(r *repo) {
			other := newRepo(r.t)
			next := signed(r.t)(NewRoot(other.files["root.1"], other.plan()))
			r.files["root.2"] = signed(r.t)(Sign(next, other.root...))
		}, day0, ErrSignature},
		{"next root with a gap", func(r *repo) {
			r.rotate(func() {})
			r.rotate(func() {})
			r.files["root.2"] = r.files["root.3"]
		}, day0, ErrRollback},
		{"captive portal", func(r *repo) {
			r.files["timestamp"] = []byte("<html>please log in</html>")
		}, day0, ErrMalformed},
		{"nothing there", func(r *repo) { delete(r.files, "timestamp") }, day0, ErrUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t)
			d := r.add("digits", "v1", 1)
			r.online(day0.Add(30*24*time.Hour), day0.Add(7*24*time.Hour))
			dir := t.TempDir()
			s := refreshed(t, dir, r, day0)
			if _, err := s.Release("digits", d); err != nil {
				t.Fatal(err)
			}
			tt.attack(r)
			if err := s.Refresh(t.Context(), r, tt.now); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err := open(t, dir, r.pin()).Refresh(t.Context(), r, tt.now); !errors.Is(err, tt.want) {
				t.Errorf("after a restart: got %v, want %v", err, tt.want)
			}
			if _, err := s.Release("digits", d); err != nil {
				t.Errorf("the accepted release: %v", err)
			}
		})
	}
}

// sign repeats the timestamp that version had.
func sign(r *repo, version int64) []byte {
	return signed(r.t)(SignTimestamp(r.timestamp, version, r.files[fmt.Sprintf("snapshot.%d", version)], day0.Add(year)))
}

func draft(t *testing.T, r *repo) []byte {
	t.Helper()
	return signed(t)(AddRelease(r.newestTargets, manifest("digits", "evil", 66), day0.Add(year)))
}

func header(t *testing.T, b []byte) Header {
	t.Helper()
	h, err := ReadHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func doubleSignature(t *testing.T, doc []byte) []byte {
	t.Helper()
	m, err := parse[metadata.TargetsType](doc, MaxTargets)
	if err != nil {
		t.Fatal(err)
	}
	m.Signatures = append(m.Signatures, m.Signatures[0])
	return signed(t)(encode(m))
}

func TestReleaseThatPublishersDoNotList(t *testing.T) {
	r := newRepo(t)
	d := r.add("digits", "v1", 1)
	s := refreshed(t, t.TempDir(), r, day0)
	for name, try := range map[string]struct {
		model  string
		digest release.Digest
	}{
		"unsigned":      {"digits", release.DigestOf([]byte("x"))},
		"another model": {"wine", d},
	} {
		if _, err := s.Release(try.model, try.digest); !errors.Is(err, ErrUnknownRelease) {
			t.Errorf("%s: got %v, want %v", name, err, ErrUnknownRelease)
		}
	}
}

func TestWrongRootDigest(t *testing.T) {
	r := newRepo(t)
	s := open(t, t.TempDir(), release.DigestOf([]byte("another root")))
	if err := s.Refresh(t.Context(), r, day0); !errors.Is(err, ErrRoot) {
		t.Errorf("got %v, want %v", err, ErrRoot)
	}
	if _, err := Open(t.TempDir(), release.Digest{}); !errors.Is(err, ErrRoot) {
		t.Errorf("no pin: got %v, want %v", err, ErrRoot)
	}
}

func TestFloor(t *testing.T) {
	r := newRepo(t)
	v1, v2 := r.add("digits", "v1", 1), r.add("digits", "v2", 2)
	dir := t.TempDir()
	s := refreshed(t, dir, r, day0)
	for _, d := range []release.Digest{v1, v2} {
		if _, err := s.Release("digits", d); err != nil {
			t.Fatal(err)
		}
	}
	r.publish(signed(t)(RaiseFloor(r.newestTargets, "digits", 2, day0.Add(year))))
	if err := s.Refresh(t.Context(), r, day0); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Store{"now": s, "after a restart": open(t, dir, r.pin())} {
		if _, err := s.Accepted("digits", v1); !errors.Is(err, ErrBelowFloor) {
			t.Errorf("%s: v1: got %v, want %v", name, err, ErrBelowFloor)
		}
		if _, err := s.Accepted("digits", v2); err != nil {
			t.Errorf("%s: v2: %v", name, err)
		}
		if got := s.Floor("digits"); got != 2 {
			t.Errorf("%s: floor is %d, want 2", name, got)
		}
	}
}

// TestFloorOutlivesTargets damages the file that stated the floor.
func TestFloorOutlivesTargets(t *testing.T) {
	r := newRepo(t)
	r.add("digits", "v1", 1)
	r.add("digits", "v2", 2)
	r.publish(signed(t)(RaiseFloor(r.newestTargets, "digits", 2, day0.Add(year))))
	dir := t.TempDir()
	refreshed(t, dir, r, day0)
	breakFile(t, dir, targetsFile, "missing")
	if got := open(t, dir, r.pin()).Floor("digits"); got != 2 {
		t.Errorf("floor is %d, want 2", got)
	}
}

func TestRemovedReleaseIsForgotten(t *testing.T) {
	r := newRepo(t)
	v1 := r.add("digits", "v1", 1)
	s := refreshed(t, t.TempDir(), r, day0)
	if _, err := s.Release("digits", v1); err != nil {
		t.Fatal(err)
	}
	r.publish(signed(t)(RemoveRelease(r.newestTargets, "digits", v1, day0.Add(year))))
	if err := s.Refresh(t.Context(), r, day0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accepted("digits", v1); !errors.Is(err, ErrUnknownRelease) {
		t.Errorf("got %v, want %v", err, ErrUnknownRelease)
	}
}

// TestOffline says what a device may do without the server.
func TestOffline(t *testing.T) {
	r := newRepo(t)
	old, other := r.add("digits", "v1", 1), r.add("digits", "v2", 2)
	dir := t.TempDir()
	if _, err := refreshed(t, dir, r, day0).Release("digits", old); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, r.pin())
	if _, err := s.Release("digits", old); err != nil {
		t.Errorf("accepted release: %v", err)
	}
	if _, err := s.Release("digits", other); !errors.Is(err, ErrUnchecked) {
		t.Errorf("new release: got %v, want %v", err, ErrUnchecked)
	}
	// Much later the server still serves what has expired meanwhile.
	if err := s.Refresh(t.Context(), r, day0.Add(year)); !errors.Is(err, ErrExpired) {
		t.Errorf("refresh: got %v, want %v", err, ErrExpired)
	}
	if _, err := s.Release("digits", old); err != nil {
		t.Errorf("accepted release after expiry: %v", err)
	}
	if _, err := s.Release("digits", other); !errors.Is(err, ErrUnchecked) {
		t.Errorf("new release after expiry: got %v, want %v", err, ErrUnchecked)
	}
}

func TestNewReleaseNeedsUnexpiredMetadata(t *testing.T) {
	r := newRepo(t)
	d := r.add("digits", "v1", 1)
	s := refreshed(t, t.TempDir(), r, day0)
	if err := s.Refresh(t.Context(), r, day0.Add(8*24*time.Hour)); !errors.Is(err, ErrExpired) {
		t.Fatalf("got %v, want %v", err, ErrExpired)
	}
	if _, err := s.Release("digits", d); !errors.Is(err, ErrExpired) {
		t.Errorf("got %v, want %v", err, ErrExpired)
	}
}

func TestRefreshFetchesOnlyWhatChanged(t *testing.T) {
	r := newRepo(t)
	r.add("digits", "v1", 1)
	s := refreshed(t, t.TempDir(), r, day0)
	r.asked = nil
	if err := s.Refresh(t.Context(), r, day0); err != nil {
		t.Fatal(err)
	}
	if want := []string{"root.2", "timestamp"}; !slices.Equal(r.asked, want) {
		t.Errorf("asked for %v, want %v", r.asked, want)
	}
}

func TestRefreshStopsWithItsContext(t *testing.T) {
	r := newRepo(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fetcher := fetchFunc(func(ctx context.Context, _ string) ([]byte, error) { return nil, ctx.Err() })
	err := open(t, t.TempDir(), r.pin()).Refresh(ctx, fetcher, day0)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want only %v", err, context.Canceled)
	}
}

type fetchFunc func(context.Context, string) ([]byte, error)

func (f fetchFunc) Metadata(ctx context.Context, name string, _ int64) ([]byte, error) {
	return f(ctx, name)
}

func TestRootRotation(t *testing.T) {
	r := newRepo(t)
	v1 := r.add("digits", "v1", 1)
	dir := t.TempDir()
	s := refreshed(t, dir, r, day0)
	r.rotate(func() { r.root = []*Key{newKey(t), newKey(t)} })
	r.rotate(func() { r.targets = []*Key{newKey(t), newKey(t)} })
	r.publish(signed(t)(Extend(r.newestTargets, day0.Add(year))))
	for name, s := range map[string]*Store{
		"a device that knows root 1": s, "a device that was reinstalled": open(t, t.TempDir(), r.pin()),
	} {
		if err := s.Refresh(t.Context(), r, day0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := s.Release("digits", v1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The chain is walked again from the pin at every start.
	if _, err := open(t, dir, r.pin()).Accepted("digits", v1); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestRootLearnedBeforeAnErrorIsKept has a server that shows a new root and then
// goes back to the time before it.
func TestRootLearnedBeforeAnErrorIsKept(t *testing.T) {
	r := newRepo(t)
	dir := t.TempDir()
	s := refreshed(t, dir, r, day0)
	before := r.snapshotOf()
	r.rotate(func() { r.timestamp = newKey(t) })
	if err := s.Refresh(t.Context(), r, day0); !errors.Is(err, ErrSignature) {
		t.Fatalf("got %v, want %v", err, ErrSignature) // the timestamp is still signed by the old key
	}
	r.files = before
	if err := open(t, dir, r.pin()).Refresh(t.Context(), r, day0); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v, want %v", err, ErrSignature)
	}
}

// TestFastForward: stolen online keys sign the highest versions there are. New
// keys in a new root must get the fleet going again.
func TestFastForward(t *testing.T) {
	r := newRepo(t)
	v1 := r.add("digits", "v1", 1)
	s := refreshed(t, t.TempDir(), r, day0)
	honest := r.serial
	r.serial = 1 << 60
	r.online(day0.Add(year), day0.Add(year))
	if err := s.Refresh(t.Context(), r, day0); err != nil {
		t.Fatal(err)
	}
	r.serial = honest
	r.rotate(func() { r.snapshot, r.timestamp = newKey(t), newKey(t) })
	r.online(day0.Add(year), day0.Add(year))
	if err := s.Refresh(t.Context(), r, day0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release("digits", v1); err != nil {
		t.Error(err)
	}
}

// TestAddedKeyDoesNotAllowRollback: a root that only adds a key leaves old
// targets valid by signature, so the marks must stay.
func TestAddedKeyDoesNotAllowRollback(t *testing.T) {
	r := newRepo(t)
	r.add("digits", "v1", 1)
	r.add("digits", "v2", 2)
	dir := t.TempDir()
	refreshed(t, dir, r, day0)
	breakFile(t, dir, snapshotFile, "missing") // it would refuse as well
	r.rotate(func() { r.targets = append(r.targets, newKey(t)) })
	r.newestTargets = r.files["targets.2"]
	r.online(day0.Add(year), day0.Add(year))
	if err := open(t, dir, r.pin()).Refresh(t.Context(), r, day0); !errors.Is(err, ErrRollback) {
		t.Errorf("got %v, want %v", err, ErrRollback)
	}
}

// TestMarksAlone takes away everything but the marks that could refuse one
// older file, while all others are the newest.
func TestMarksAlone(t *testing.T) {
	tests := []struct {
		name  string
		lost  []string
		older func(r *repo)
	}{
		{"timestamp", []string{timestampFile}, func(r *repo) {
			snapshot := r.files[fmt.Sprintf("snapshot.%d", r.serial)]
			r.files["timestamp"] = signed(r.t)(SignTimestamp(r.timestamp, r.serial-1, snapshot, day0.Add(year)))
		}},
		{"snapshot", []string{timestampFile, snapshotFile}, func(r *repo) {
			older := signed(r.t)(SignSnapshot(r.snapshot, r.serial-1, r.named(), day0.Add(year)))
			r.files[fmt.Sprintf("snapshot.%d", r.serial-1)] = older
			r.files["timestamp"] = signed(r.t)(SignTimestamp(r.timestamp, r.serial+1, older, day0.Add(year)))
		}},
		{"targets", []string{timestampFile, snapshotFile, targetsFile}, func(r *repo) {
			r.newestTargets = r.files["targets.1"]
			r.online(day0.Add(year), day0.Add(year))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t)
			r.add("digits", "v1", 1)
			dir := t.TempDir()
			refreshed(t, dir, r, day0)
			for _, name := range tt.lost {
				breakFile(t, dir, name, "missing")
			}
			tt.older(r)
			if err := open(t, dir, r.pin()).Refresh(t.Context(), r, day0); !errors.Is(err, ErrRollback) {
				t.Errorf("got %v, want %v", err, ErrRollback)
			}
		})
	}
}

var setFiles = []string{rootFile(1), rootFile(2), timestampFile, snapshotFile, targetsFile, marksFile}

var damages = []string{"missing", "empty", "zeros", "half", "garbage"}

// breakFile damages one file in every set on disk.
func breakFile(t *testing.T, dir, name, damage string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, setPrefix+"*", name))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s to break (%v)", name, err)
	}
	for _, path := range paths {
		if damage == "missing" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damaged(b, damage), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func damaged(b []byte, damage string) []byte {
	switch damage {
	case "empty":
		return nil
	case "zeros":
		return make([]byte, len(b))
	case "half":
		return b[:len(b)/2]
	default:
		return bytes.Repeat([]byte{0xa5, '{'}, len(b)/2)
	}
}

// TestDamagedFile breaks each file of the set in each way. The device must come
// up, get well with an honest server, and still refuse one that went back.
func TestDamagedFile(t *testing.T) {
	for _, name := range setFiles {
		for _, damage := range damages {
			t.Run(name+"/"+damage, func(t *testing.T) {
				r := newRepo(t)
				r.rotate(func() { r.root = []*Key{newKey(t), newKey(t)} })
				v1 := r.add("digits", "v1", 1)
				before := r.snapshotOf()
				v2 := r.add("digits", "v2", 2)
				dir := t.TempDir()
				refreshed(t, dir, r, day0)

				breakFile(t, dir, name, damage)
				now := r.files
				r.files = before
				if err := open(t, dir, r.pin()).Refresh(t.Context(), r, day0); !errors.Is(err, ErrRollback) {
					t.Errorf("server that went back: got %v, want %v", err, ErrRollback)
				}
				r.files = now
				s := open(t, dir, r.pin())
				if err := s.Refresh(t.Context(), r, day0); err != nil {
					t.Fatalf("honest server: %v", err)
				}
				for _, d := range []release.Digest{v1, v2} {
					if _, err := s.Release("digits", d); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// TestDamagedRootRefusesOlderChain: a server that hides the newest root is
// refused even when the device has lost its own copy.
func TestDamagedRootRefusesOlderChain(t *testing.T) {
	r := newRepo(t)
	r.rotate(func() {})
	dir := t.TempDir()
	refreshed(t, dir, r, day0)
	breakFile(t, dir, rootFile(2), "zeros")
	delete(r.files, "root.2")
	if err := open(t, dir, r.pin()).Refresh(t.Context(), r, day0); !errors.Is(err, ErrRollback) {
		t.Errorf("got %v, want %v", err, ErrRollback)
	}
}

// TestPowerCutWhileWriting leaves every prefix of an unfinished set behind.
func TestPowerCutWhileWriting(t *testing.T) {
	r := newRepo(t)
	d := r.add("digits", "v1", 1)
	dir := t.TempDir()
	if _, err := refreshed(t, dir, r, day0).Release("digits", d); err != nil {
		t.Fatal(err)
	}
	for n := range setFiles {
		temp := filepath.Join(dir, tempPrefix+"00000099")
		if err := os.MkdirAll(temp, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range setFiles[:n] {
			if err := os.WriteFile(filepath.Join(temp, name), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, dir, r.pin())
		if _, err := s.Accepted("digits", d); err != nil {
			t.Errorf("after %d files: %v", n, err)
		}
		if _, err := os.Stat(temp); !os.IsNotExist(err) {
			t.Errorf("after %d files: the unfinished set is still there", n)
		}
	}
}

func TestOnlyTwoSetsAreKept(t *testing.T) {
	r := newRepo(t)
	dir := t.TempDir()
	s := refreshed(t, dir, r, day0)
	for range 5 {
		r.online(day0.Add(year), day0.Add(year))
		if err := s.Refresh(t.Context(), r, day0); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "set.00000005 set.00000006"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPlaceThatCannotBeWritten(t *testing.T) {
	r := newRepo(t)
	d := r.add("digits", "v1", 1)
	dir := filepath.Join(t.TempDir(), "trust")
	s := open(t, dir, r.pin())
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Refresh(t.Context(), r, day0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
	if _, err := s.Release("digits", d); !errors.Is(err, ErrUnchecked) {
		t.Errorf("what was not persisted is used: got %v, want %v", err, ErrUnchecked)
	}
}
