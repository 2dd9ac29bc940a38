package trust

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

var (
	day0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	year = 365 * 24 * time.Hour
)

// repo is a publisher and a server in memory.
type repo struct {
	t                   *testing.T
	root, targets       []*Key // two holders of root, two of targets, both needed
	snapshot, timestamp *Key
	files               map[string][]byte // as a Fetcher names them
	newestTargets       []byte
	roles               map[string][]byte // newest file of each delegated role, by model
	serial              int64             // version of snapshot and timestamp
	asked               []string
	refresh             func() // of the device under attack
}

func (r *repo) Metadata(_ context.Context, name string, _ int64) ([]byte, error) {
	r.asked = append(r.asked, name)
	b, ok := r.files[name]
	if !ok {
		return nil, ErrNotFound
	}
	return b, nil
}

func newKey(t *testing.T) *Key {
	t.Helper()
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func must(t *testing.T, b []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func holders(threshold int, keys ...*Key) Holders {
	h := Holders{Threshold: threshold}
	for _, k := range keys {
		h.Keys = append(h.Keys, k.Public())
	}
	return h
}

func (r *repo) plan() Plan {
	return Plan{
		Root: holders(2, r.root...), Targets: holders(2, r.targets...),
		Snapshot: r.snapshot.Public(), Timestamp: r.timestamp.Public(), Expires: day0.Add(2 * year),
	}
}

// newRepo has root 1 and empty targets 1, snapshot 1, timestamp 1.
func newRepo(t *testing.T) *repo {
	t.Helper()
	r := &repo{
		t: t, root: []*Key{newKey(t), newKey(t)}, targets: []*Key{newKey(t), newKey(t)},
		snapshot: newKey(t), timestamp: newKey(t), files: map[string][]byte{}, roles: map[string][]byte{},
	}
	root, targets, err := Init(r.plan(), day0.Add(year))
	if err != nil {
		t.Fatal(err)
	}
	r.files["root.1"] = signed(t)(Sign(root, r.root...))
	r.publish(targets)
	return r
}

func signed(t *testing.T) func([]byte, error) []byte {
	t.Helper()
	return func(b []byte, err error) []byte {
		t.Helper()
		return must(t, b, err)
	}
}

// publish signs targets with all targets keys and makes them the newest.
func (r *repo) publish(targets []byte) {
	r.t.Helper()
	r.serve(signed(r.t)(Sign(targets, r.targets...)))
}

// serve makes a targets file the newest, whatever it is.
func (r *repo) serve(targets []byte) {
	r.t.Helper()
	h, err := ReadHeader(targets)
	if err != nil {
		r.t.Fatal(err)
	}
	r.newestTargets = targets
	r.files[fmt.Sprintf("targets.%d", h.Version)] = targets
	r.online(day0.Add(30*24*time.Hour), day0.Add(7*24*time.Hour))
}

// named are the files that a snapshot names.
func (r *repo) named() [][]byte {
	files := [][]byte{r.newestTargets}
	for _, b := range r.roles {
		files = append(files, b)
	}
	return files
}

// online signs the next snapshot and timestamp.
func (r *repo) online(snapshotExpires, timestampExpires time.Time) {
	r.t.Helper()
	r.serial++
	snapshot := signed(r.t)(SignSnapshot(r.snapshot, r.serial, r.named(), snapshotExpires))
	r.files[fmt.Sprintf("snapshot.%d", r.serial)] = snapshot
	r.files["timestamp"] = signed(r.t)(SignTimestamp(r.timestamp, r.serial, snapshot, timestampExpires))
}

func manifest(model, version string, sequence uint64) *release.Manifest {
	file := func(name string) release.File {
		return release.File{Name: name, Digest: release.DigestOf([]byte(name)), Size: 1}
	}
	return &release.Manifest{
		Format: release.Format, Model: model, Version: version, Sequence: sequence,
		Variants: []release.Variant{{Name: "fp32", Precision: "fp32", Graph: file("m.onnx")}},
		Schema: release.Schema{
			Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 4}}},
			Outputs: []release.Tensor{{Name: "y", Datatype: "INT64", Shape: []int64{-1}}},
		},
		Baseline: file("baseline.json"), Golden: file("golden.json"),
		Lineage: release.Lineage{Created: day0},
	}
}

// add releases a version and returns its digest.
func (r *repo) add(model, version string, sequence uint64) release.Digest {
	r.t.Helper()
	m := manifest(model, version, sequence)
	r.publish(signed(r.t)(AddRelease(r.newestTargets, m, day0.Add(year))))
	d, err := m.Digest()
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// rotate makes the next root after change has replaced keys of r.
func (r *repo) rotate(change func()) {
	r.t.Helper()
	version := 1
	for r.files[fmt.Sprintf("root.%d", version+1)] != nil {
		version++
	}
	current := r.files[fmt.Sprintf("root.%d", version)]
	signers := r.root
	change()
	next := signed(r.t)(NewRoot(current, r.plan()))
	r.files[fmt.Sprintf("root.%d", version+1)] = signed(r.t)(Sign(next, append(append([]*Key{}, signers...), r.root...)...))
}

// snapshotOf copies what the server serves, to come back to it later.
func (r *repo) snapshotOf() map[string][]byte { return maps.Clone(r.files) }

func (r *repo) pin() release.Digest { return release.DigestOf(r.files["root.1"]) }

func open(t *testing.T, dir string, pin release.Digest) *Store {
	t.Helper()
	s, err := Open(dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func refreshed(t *testing.T, dir string, r *repo, now time.Time) *Store {
	t.Helper()
	s := open(t, dir, r.pin())
	if err := s.Refresh(t.Context(), r, now); err != nil {
		t.Fatal(err)
	}
	return s
}
