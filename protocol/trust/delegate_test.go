package trust

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/vedette-edge/vedette/protocol/release"
)

// delegate gives the model's role to keys, all of which must sign.
func (r *repo) delegate(model string, keys ...*Key) {
	r.t.Helper()
	r.publish(signed(r.t)(Delegate(r.newestTargets, model, holders(len(keys), keys...), day0.Add(year))))
}

// role is the newest file of a model's role, empty and unsigned at first.
func (r *repo) role(model string) []byte {
	r.t.Helper()
	if b, ok := r.roles[model]; ok {
		return b
	}
	return signed(r.t)(NewDelegated(model, 0))
}

// serveRole makes a file the newest of a model's role, whatever it is.
func (r *repo) serveRole(model string, doc []byte) {
	r.t.Helper()
	r.roles[model] = doc
	r.files[fmt.Sprintf("%s.%d", RoleOf(model), header(r.t, doc).Version)] = doc
	r.online(day0.Add(30*24*time.Hour), day0.Add(7*24*time.Hour))
}

// ci releases a version by the model's role, as CI does.
func (r *repo) ci(model, version string, sequence uint64, keys ...*Key) release.Digest {
	r.t.Helper()
	m := manifest(model, version, sequence)
	r.serveRole(model, signed(r.t)(Sign(signed(r.t)(AddRelease(r.role(model), m, day0.Add(year))), keys...)))
	d, err := m.Digest()
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// spoiled is the next file of the role of digits after change, signed.
func spoiled(r *repo, ci *Key, change func(*metadata.TargetsType)) []byte {
	m, err := parse[metadata.TargetsType](r.role("digits"), MaxDelegated)
	if err != nil {
		r.t.Fatal(err)
	}
	m.Signed.Version++
	m.Signatures = nil
	change(&m.Signed)
	return signed(r.t)(signAs[metadata.TargetsType](signed(r.t)(encode(m)), []*Key{ci}))
}

func TestDelegatedReleaseIsAccepted(t *testing.T) {
	r, ci := newRepo(t), newKey(t)
	own := r.add("digits", "v1", 1)
	r.delegate("digits", ci)
	byCI := r.ci("digits", "v2", 2, ci)
	dir := t.TempDir()
	s := open(t, dir, r.pin())
	if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]release.Digest{"by targets": own, "by the role": byCI} {
		if _, err := s.Release("digits", d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := open(t, dir, r.pin()).Accepted("digits", d); err != nil {
			t.Errorf("%s, offline after a restart: %v", name, err)
		}
	}
	r.asked = nil
	if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"root.2", "timestamp"}; !slices.Equal(r.asked, want) {
		t.Errorf("when nothing changed it asked for %v, want %v", r.asked, want)
	}
}

// TestRoleIsFetchedForItsModelOnly: a device with one model does not load the
// files of all others, and takes nothing new from a file it has not checked.
func TestRoleIsFetchedForItsModelOnly(t *testing.T) {
	r, ci := newRepo(t), newKey(t)
	r.delegate("digits", ci)
	r.delegate("wine", ci)
	d, w := r.ci("digits", "v1", 1, ci), r.ci("wine", "v1", 1, ci)
	s := open(t, t.TempDir(), r.pin())
	if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(r.asked, "model-wine.1") {
		t.Errorf("asked for %v", r.asked)
	}
	if _, err := s.Release("digits", d); err != nil {
		t.Error(err)
	}
	if _, err := s.Release("wine", w); !errors.Is(err, ErrUnchecked) {
		t.Errorf("got %v, want %v", err, ErrUnchecked)
	}
}

// TestDelegatedRefused repeats the catalogue of attacks for a delegated role:
// each starts with a device that knows v1 by the targets and v2 by the role of
// CI, and wants the reason why the release "evil" is refused. What was accepted
// before, and other models, must not suffer.
func TestDelegatedRefused(t *testing.T) {
	evil := manifest("digits", "evil", 66)
	tests := []struct {
		name   string
		attack func(r *repo, ci *Key)
		want   error
		lost   string // what suffers beside the release; empty for nothing
	}{
		{"signed by a key that is not delegated to", func(r *repo, _ *Key) {
			r.ci("digits", "evil", 66, newKey(r.t))
		}, ErrSignature, ""},
		{"signed by the key of another model's role", func(r *repo, _ *Key) {
			other := newKey(r.t)
			r.delegate("wine", other)
			r.ci("digits", "evil", 66, other)
		}, ErrSignature, ""},
		{"not signed", func(r *repo, _ *Key) { r.ci("digits", "evil", 66) }, ErrSignature, ""},
		{"signed by one key of two", func(r *repo, ci *Key) {
			r.delegate("digits", ci, newKey(r.t))
			r.ci("digits", "evil", 66, ci)
		}, ErrSignature, "digits"},
		{"signed twice by one key of two", func(r *repo, ci *Key) {
			r.delegate("digits", ci, newKey(r.t))
			doc := signed(r.t)(AddRelease(r.role("digits"), evil, day0.Add(year)))
			r.serveRole("digits", doubleSignature(r.t, signed(r.t)(Sign(doc, ci))))
		}, ErrMalformed, "digits"},
		{"another model's file in its place", func(r *repo, ci *Key) {
			r.delegate("wine", ci)
			doc := signed(r.t)(AddRelease(signed(r.t)(NewDelegated("wine", 7)), manifest("wine", "v1", 66), day0.Add(year)))
			doc = signed(r.t)(Sign(doc, ci))
			r.files["model-digits.8"] = doc
			mixed := named(r.t, r, map[string][]byte{"targets.json": r.newestTargets, "model-digits.json": doc})
			r.serveSnapshot(mixed)
		}, ErrNotDelegated, ""},
		{"the targets file in its place", func(r *repo, ci *Key) {
			r.files["model-digits.8"] = r.newestTargets
			m := metadata.Snapshot(day0.Add(year))
			m.Signed.Meta = map[string]*metadata.MetaFiles{
				"targets.json":      metaOf(header(r.t, r.newestTargets).Version, r.newestTargets),
				"model-digits.json": metaOf(8, r.newestTargets),
			}
			r.serveSnapshot(m)
		}, ErrNotDelegated, ""},
		{"release of another model", func(r *repo, ci *Key) {
			r.serveRole("digits", spoiled(r, ci, func(s *metadata.TargetsType) {
				target, err := TargetOf(manifest("wine", "evil", 66))
				if err != nil {
					r.t.Fatal(err)
				}
				s.Targets[target.Path()] = entry(r.t, target)
			}))
		}, ErrNotDelegated, ""},
		{"a floor", func(r *repo, ci *Key) {
			r.serveRole("digits", spoiled(r, ci, func(s *metadata.TargetsType) {
				s.UnrecognizedFields[floorsField] = map[string]uint64{"digits": 0}
			}))
		}, ErrNotDelegated, ""},
		{"a further delegation", func(r *repo, ci *Key) {
			r.serveRole("digits", spoiled(r, ci, func(s *metadata.TargetsType) {
				d, err := writeDelegations([]Delegation{{Model: "wine", Holders: holders(1, ci)}})
				if err != nil {
					r.t.Fatal(err)
				}
				s.Delegations = d
			}))
		}, ErrNotDelegated, ""},
		{"a file that says no role", func(r *repo, ci *Key) {
			doc := spoiled(r, ci, func(s *metadata.TargetsType) { delete(s.UnrecognizedFields, roleField) })
			r.files[fmt.Sprintf("model-digits.%d", header(r.t, doc).Version)] = doc
			r.serveSnapshot(named(r.t, r, map[string][]byte{"targets.json": r.newestTargets, "model-digits.json": doc}))
		}, ErrNotDelegated, ""},
		{"the file of an earlier day", func(r *repo, ci *Key) {
			r.ci("digits", "v3", 3, ci)
			r.refresh()
			r.roles["digits"] = r.files["model-digits.1"]
			r.serveSnapshotWithout() // the device's own snapshot would refuse it as well
		}, ErrRollback, "other"},
		{"a snapshot that names the role no longer", func(r *repo, _ *Key) {
			r.roles = map[string][]byte{}
			r.serveSnapshotWithout()
		}, ErrMalformed, "other"},
		{"expired", func(r *repo, ci *Key) {
			doc := signed(r.t)(AddRelease(r.role("digits"), evil, day0.Add(-time.Hour)))
			r.serveRole("digits", signed(r.t)(Sign(doc, ci)))
		}, ErrExpired, ""},
		{"changed on the way", func(r *repo, ci *Key) {
			r.ci("digits", "evil", 66, ci)
			r.files["model-digits.2"] = bytes.Replace(r.files["model-digits.2"], []byte("evil"), []byte("live"), 1)
		}, ErrTampered, ""},
		{"of another length", func(r *repo, ci *Key) {
			r.ci("digits", "evil", 66, ci)
			r.files["model-digits.2"] = append(slices.Clone(r.files["model-digits.2"]), ' ')
		}, ErrTampered, ""},
		{"of endless length", func(r *repo, ci *Key) {
			r.ci("digits", "evil", 66, ci)
			r.files["model-digits.2"] = make([]byte, MaxDelegated+1)
		}, ErrTampered, ""},
		{"withheld", func(r *repo, ci *Key) {
			r.ci("digits", "evil", 66, ci)
			delete(r.files, "model-digits.2")
		}, ErrUnavailable, ""},
		{"not JSON", func(r *repo, _ *Key) {
			page := []byte("<html>please log in</html>")
			r.files["model-digits.9"] = page
			m := named(r.t, r, map[string][]byte{"targets.json": r.newestTargets})
			m.Signed.Meta["model-digits.json"] = metaOf(9, page)
			r.serveSnapshot(m)
		}, ErrMalformed, ""},
		{"delegation taken away", func(r *repo, ci *Key) {
			r.ci("digits", "evil", 66, ci)
			r.publish(signed(r.t)(Undelegate(r.newestTargets, "digits", keptOf(r, "digits", "v2"), day0.Add(year))))
		}, ErrUnknownRelease, ""},
		{"keys replaced after it was signed", func(r *repo, ci *Key) {
			r.ci("digits", "evil", 66, ci)
			r.publish(signed(r.t)(Undelegate(r.newestTargets, "digits", keptOf(r, "digits", "v2"), day0.Add(year))))
			r.delegate("digits", newKey(r.t))
		}, ErrSignature, ""},
		{"below the floor that the targets state", func(r *repo, ci *Key) {
			r.add("digits", "v70", 70)
			r.ci("digits", "evil", 66, ci)
			r.publish(signed(r.t)(RaiseFloor(r.newestTargets, "digits", 67, day0.Add(year))))
		}, ErrBelowFloor, "digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, ci := newRepo(t), newKey(t)
			v1, other := r.add("digits", "v1", 1), r.add("other", "v1", 1)
			r.delegate("digits", ci)
			v2 := r.ci("digits", "v2", 2, ci)
			dir := t.TempDir()
			s := open(t, dir, r.pin())
			r.refresh = func() {
				t.Helper()
				if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
					t.Fatal(err)
				}
			}
			r.refresh()
			for _, d := range []release.Digest{v1, v2} {
				if _, err := s.Release("digits", d); err != nil {
					t.Fatal(err)
				}
			}
			tt.attack(r, ci)
			d, err := evil.Digest()
			if err != nil {
				t.Fatal(err)
			}
			again := t.TempDir()
			if err := os.CopyFS(again, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			for name, s := range map[string]*Store{"running": s, "restarted": open(t, again, r.pin())} {
				err := s.Refresh(t.Context(), r, day0, "digits")
				_, refused := s.Release("digits", d)
				if !errors.Is(errors.Join(err, refused), tt.want) || refused == nil {
					t.Errorf("%s: got %v and %v, want %v", name, err, refused, tt.want)
				}
				for _, accepted := range []release.Digest{v1, v2} {
					if _, err := s.Accepted("digits", accepted); err != nil && !strings.Contains(tt.lost, "digits") {
						t.Errorf("%s: what was accepted: %v", name, err)
					}
				}
				if _, err := s.Release("other", other); err != nil && !strings.Contains(tt.lost, "other") {
					t.Errorf("%s: another model: %v", name, err)
				}
			}
		})
	}
}

func entry(t *testing.T, target Target) *metadata.TargetFiles {
	t.Helper()
	f, err := target.file()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// keptOf are the named releases of a role.
func keptOf(r *repo, model string, versions ...string) []Target {
	r.t.Helper()
	listed, err := ReadTargets(r.roles[model])
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(listed.Releases, func(t Target) bool { return !slices.Contains(versions, t.Version) })
}

// named is a snapshot that names the files, each with the version it carries.
func named(t *testing.T, r *repo, files map[string][]byte) *metadata.Metadata[metadata.SnapshotType] {
	t.Helper()
	m := metadata.Snapshot(day0.Add(year))
	m.Signed.Meta = map[string]*metadata.MetaFiles{}
	for name, b := range files {
		m.Signed.Meta[name] = metaOf(header(t, b).Version, b)
	}
	return m
}

// serveSnapshot signs a snapshot of the attacker's own making.
func (r *repo) serveSnapshot(m *metadata.Metadata[metadata.SnapshotType]) {
	r.t.Helper()
	r.serial++
	m.Signed.Version = r.serial
	snapshot := signed(r.t)(signOnline(m, r.snapshot))
	r.files[fmt.Sprintf("snapshot.%d", r.serial)] = snapshot
	r.files["timestamp"] = signed(r.t)(SignTimestamp(r.timestamp, r.serial, snapshot, day0.Add(year)))
}

// serveSnapshotWithout signs a snapshot of what is served now.
func (r *repo) serveSnapshotWithout() { r.online(day0.Add(year), day0.Add(year)) }

// TestRoleMarksAlone takes away the device's own snapshot, which would refuse an
// older file of a role as well.
func TestRoleMarksAlone(t *testing.T) {
	for name, attack := range map[string]func(*repo){
		"older":   func(r *repo) { r.roles["digits"] = r.files["model-digits.1"] },
		"missing": func(r *repo) { r.roles = map[string][]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			r, ci := newRepo(t), newKey(t)
			r.delegate("digits", ci)
			r.ci("digits", "v1", 1, ci)
			r.ci("digits", "v2", 2, ci)
			dir := t.TempDir()
			s := open(t, dir, r.pin())
			if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{timestampFile, snapshotFile, delegatedFile("digits")} {
				breakFile(t, dir, file, "missing")
			}
			attack(r)
			r.online(day0.Add(year), day0.Add(year))
			s = open(t, dir, r.pin())
			if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
				t.Fatal(err)
			}
			d, err := manifest("digits", "v1", 1).Digest()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Release("digits", d); !errors.Is(err, ErrRollback) {
				t.Errorf("got %v, want %v", err, ErrRollback)
			}
		})
	}
}

// TestRevokedRoleIsForgotten: publishers take the role away; its releases are
// refused, offline too, but those that the targets now list.
func TestRevokedRoleIsForgotten(t *testing.T) {
	r, ci := newRepo(t), newKey(t)
	r.delegate("digits", ci)
	kept, lost := r.ci("digits", "v1", 1, ci), r.ci("digits", "v2", 2, ci)
	dir := t.TempDir()
	s := open(t, dir, r.pin())
	if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []release.Digest{kept, lost} {
		if _, err := s.Release("digits", d); err != nil {
			t.Fatal(err)
		}
	}
	r.publish(signed(t)(Undelegate(r.newestTargets, "digits", keptOf(r, "digits", "v1"), day0.Add(year))))
	if err := s.Refresh(t.Context(), r, day0); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Store{"running": s, "restarted": open(t, dir, r.pin())} {
		if _, err := s.Accepted("digits", kept); err != nil {
			t.Errorf("%s: kept: %v", name, err)
		}
		if _, err := s.Accepted("digits", lost); !errors.Is(err, ErrUnknownRelease) {
			t.Errorf("%s: lost: got %v, want %v", name, err, ErrUnknownRelease)
		}
	}
}

// TestStolenRoleKeyFastForward: whoever stole the role's key and the server
// signs the highest version there is. New keys for both get the model going.
func TestStolenRoleKeyFastForward(t *testing.T) {
	r, ci := newRepo(t), newKey(t)
	r.delegate("digits", ci)
	r.ci("digits", "v1", 1, ci)
	s := open(t, t.TempDir(), r.pin())
	m, err := parse[metadata.TargetsType](r.role("digits"), MaxDelegated)
	if err != nil {
		t.Fatal(err)
	}
	m.Signed.Version = 1 << 60
	honest := r.roles["digits"]
	r.serveRole("digits", signed(t)(signAs[metadata.TargetsType](signed(t)(encode(m)), []*Key{ci})))
	if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
		t.Fatal(err)
	}
	fresh := newKey(t)
	r.rotate(func() { r.snapshot, r.timestamp = newKey(t), newKey(t) })
	r.roles["digits"] = honest
	r.delegate("digits", fresh)
	r.roles["digits"] = signed(t)(NewDelegated("digits", 1))
	v2 := r.ci("digits", "v2", 2, fresh)
	if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release("digits", v2); err != nil {
		t.Error(err)
	}
}

// TestDamagedRole breaks the file of a role in each way. An honest server heals
// it; one that went back is refused; the offline device goes on.
func TestDamagedRole(t *testing.T) {
	for _, damage := range damages {
		t.Run(damage, func(t *testing.T) {
			r, ci := newRepo(t), newKey(t)
			r.delegate("digits", ci)
			v1 := r.ci("digits", "v1", 1, ci)
			before := r.snapshotOf()
			r.ci("digits", "v2", 2, ci)
			dir := t.TempDir()
			s := open(t, dir, r.pin())
			if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Release("digits", v1); err != nil {
				t.Fatal(err)
			}
			breakFile(t, dir, delegatedFile("digits"), damage)
			now := maps.Clone(r.files)
			r.files = before
			if err := open(t, dir, r.pin()).Refresh(t.Context(), r, day0, "digits"); !errors.Is(err, ErrRollback) {
				t.Errorf("server that went back: got %v, want %v", err, ErrRollback)
			}
			r.files = now
			s = open(t, dir, r.pin())
			if err := s.Refresh(t.Context(), r, day0); err != nil { // for another model
				t.Fatal(err)
			}
			if err := s.Refresh(t.Context(), r, day0, "digits"); err != nil {
				t.Fatal(err)
			}
			if _, err := open(t, dir, r.pin()).Accepted("digits", v1); err != nil {
				t.Errorf("after healing: %v", err)
			}
		})
	}
}

func TestCheckDelegated(t *testing.T) {
	r, ci := newRepo(t), newKey(t)
	r.delegate("digits", ci)
	r.ci("digits", "v1", 1, ci)
	current := r.roles["digits"]
	add := func(from []byte, version string, seq uint64, expires time.Time, keys ...*Key) []byte {
		return signed(t)(Sign(signed(t)(AddRelease(from, manifest("digits", version, seq), expires)), keys...))
	}
	next := add(current, "v2", 2, day0.Add(year), ci)
	tests := []struct {
		name          string
		current, next []byte
		want          error
	}{
		{"next", current, next, nil},
		{"first", nil, current, nil},
		{"the same again", current, current, ErrRollback},
		{"with a gap", nil, next, ErrRollback},
		{"by a stranger", current, add(current, "v2", 2, day0.Add(year), newKey(t)), ErrSignature},
		{"by the holders of targets", current, add(current, "v2", 2, day0.Add(year), r.targets...), ErrSignature},
		{"expired", current, add(current, "v2", 2, day0.Add(-time.Hour), ci), ErrExpired},
		{"of a model that is not delegated", nil, signed(t)(Sign(signed(t)(Extend(signed(t)(NewDelegated("wine", 0)), day0.Add(year))), ci)), ErrNotDelegated},
		{"the targets themselves", current, r.newestTargets, ErrNotDelegated},
		{"null entry", current, []byte(`{"signatures":[],"signed":{"_type":"targets","vedette_role":"model-digits","spec_version":"1.0.31","version":2,"expires":"2027-01-01T00:00:00Z","targets":{"a":null}}}`), ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := CheckDelegated(r.newestTargets, tt.current, tt.next, day0); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := CheckTargets(r.files["root.1"], nil, current, day0); err == nil {
		t.Error("the file of a role is taken for the targets")
	}
}

// TestRoleKeyThatIsATargetsKeyToo: only the signed name of the role keeps its
// file from being taken for the targets.
func TestRoleKeyThatIsATargetsKeyToo(t *testing.T) {
	r := newRepo(t)
	r.delegate("digits", r.targets...)
	r.ci("digits", "v1", 1, r.targets...)
	if _, err := CheckTargets(r.files["root.1"], nil, r.roles["digits"], day0); !errors.Is(err, ErrNotDelegated) {
		t.Errorf("server: got %v, want %v", err, ErrNotDelegated)
	}
	s := refreshed(t, t.TempDir(), r, day0)
	doc := signed(t)(Sign(signed(t)(AddRelease(signed(t)(NewDelegated("digits", 90)), manifest("digits", "evil", 66), day0.Add(year))), r.targets...))
	r.files["targets.91"] = doc
	m := named(t, r, map[string][]byte{"targets.json": doc, "model-digits.json": r.roles["digits"]})
	r.serveSnapshot(m)
	if err := s.Refresh(t.Context(), r, day0); !errors.Is(err, ErrNotDelegated) {
		t.Errorf("device: got %v, want %v", err, ErrNotDelegated)
	}
}

// TestForeignDelegations: patterns that reach further than one model, other
// kinds of delegation and of keys are never followed.
func TestForeignDelegations(t *testing.T) {
	ci := newKey(t)
	key, id, err := ci.Public().tuf()
	if err != nil {
		t.Fatal(err)
	}
	role := func(change func(*metadata.DelegatedRole)) *metadata.Delegations {
		one := metadata.DelegatedRole{Name: "model-digits", KeyIDs: []string{id}, Threshold: 1, Terminating: true, Paths: []string{"digits/*.json"}}
		change(&one)
		return &metadata.Delegations{Keys: map[string]*metadata.Key{id: key}, Roles: []metadata.DelegatedRole{one}}
	}
	for name, d := range map[string]*metadata.Delegations{
		"all models":         role(func(r *metadata.DelegatedRole) { r.Paths = []string{"*/*.json"} }),
		"two patterns":       role(func(r *metadata.DelegatedRole) { r.Paths = append(r.Paths, "wine/*.json") }),
		"hash bins":          role(func(r *metadata.DelegatedRole) { r.PathHashPrefixes = []string{"0"} }),
		"not terminating":    role(func(r *metadata.DelegatedRole) { r.Terminating = false }),
		"another model":      role(func(r *metadata.DelegatedRole) { r.Name = "model-wine" }),
		"a role of TUF":      role(func(r *metadata.DelegatedRole) { r.Name = "targets" }),
		"no signature":       role(func(r *metadata.DelegatedRole) { r.Threshold = 0 }),
		"one key twice":      role(func(r *metadata.DelegatedRole) { r.KeyIDs, r.Threshold = []string{id, id}, 2 }),
		"a key not there":    role(func(r *metadata.DelegatedRole) { r.KeyIDs = []string{"00"} }),
		"name that is a way": role(func(r *metadata.DelegatedRole) { r.Name, r.Paths = "model-../x", []string{"../x/*.json"} }),
	} {
		if list, odd, err := readDelegations(d); err != nil || len(odd) != 1 || len(list) != 0 {
			t.Errorf("%s: got %v, %v, %v", name, list, odd, err)
		}
	}
	twice := role(func(*metadata.DelegatedRole) {})
	twice.Roles = append(twice.Roles, twice.Roles[0])
	many := &metadata.Delegations{Roles: make([]metadata.DelegatedRole, MaxDelegations+1)}
	for name, d := range map[string]*metadata.Delegations{"twice": twice, "too many": many, "succinct": {SuccinctRoles: &metadata.SuccinctRoles{}}} {
		if _, _, err := readDelegations(d); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want %v", name, err, ErrMalformed)
		}
	}
}

func TestDelegationEditsRefuse(t *testing.T) {
	r, ci := newRepo(t), newKey(t)
	v1 := r.add("digits", "v1", 5)
	r.delegate("digits", ci)
	role, now, expires := r.role("digits"), r.newestTargets, day0.Add(year)
	top, err := ReadTargets(now)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		err     error
		mention string
	}{
		{"more signatures than keys", errOf(Delegate(now, "digits", Holders{Keys: []PublicKey{ci.Public()}, Threshold: 2}, expires)), "2 signatures of 1"},
		{"empty key", errOf(Delegate(now, "digits", Holders{Keys: []PublicKey{{}}, Threshold: 1}, expires)), "empty key"},
		{"bad name", errOf(Delegate(now, "../x", holders(1, ci), expires)), "name"},
		{"delegation by a role", errOf(Delegate(role, "digits", holders(1, ci), expires)), "states releases"},
		{"floor by a role", errOf(RaiseFloor(role, "digits", 1, expires)), "states releases"},
		{"taken away where none is", errOf(Undelegate(now, "wine", nil, expires)), "nothing of wine"},
		{"another model kept", errOf(Undelegate(now, "digits", []Target{{Model: "wine"}}, expires)), "no release of digits"},
		{"another model by a role", errOf(AddRelease(role, manifest("wine", "v1", 1), expires)), "lists no releases of wine"},
		{"version that targets list", errOf(AddRelease(role, manifest("digits", "v1", 6), expires, top)), "released already"},
		{"sequence that targets list", errOf(AddRelease(role, manifest("digits", "v2", 5), expires, top)), "needs a higher one"},
		{"release removed from where it is not", errOf(RemoveRelease(role, "digits", v1, expires)), "not released"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !errors.Is(tt.err, ErrEdit) || !strings.Contains(tt.err.Error(), tt.mention) {
				t.Errorf("got %v, want %v with %q", tt.err, ErrEdit, tt.mention)
			}
		})
	}
	online := signed(t)(Sign(signed(t)(Delegate(now, "digits", holders(1, r.snapshot), expires)), r.targets...))
	if _, err := CheckTargets(r.files["root.1"], now, online, day0); !errors.Is(err, ErrNotDelegated) {
		t.Errorf("key of the server: got %v, want %v", err, ErrNotDelegated)
	}
}

func TestCombineRefusesClashes(t *testing.T) {
	one := Target{Model: "digits", Version: "v1", Sequence: 1, Digest: release.DigestOf([]byte("a"))}
	for name, other := range map[string]Target{
		"same version":  {Model: "digits", Version: "v1", Sequence: 2, Digest: release.DigestOf([]byte("b"))},
		"same sequence": {Model: "digits", Version: "v2", Sequence: 1, Digest: release.DigestOf([]byte("b"))},
	} {
		if _, err := Combine(&Targets{Releases: []Target{one}}, &Targets{Releases: []Target{other}}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want %v", name, err, ErrMalformed)
		}
	}
	all, err := Combine(&Targets{Releases: []Target{one}}, &Targets{Releases: []Target{one}})
	if err != nil || len(all.Releases) != 1 {
		t.Errorf("the same release in both: got %v, %v", all, err)
	}
}
