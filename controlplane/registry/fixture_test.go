package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
	"github.com/vedette-edge/vedette/protocol/trust"
)

var day0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const year = 365 * 24 * time.Hour

// blobs are files in memory by digest.
type blobs map[release.Digest][]byte

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

func (b blobs) Open(_ context.Context, d release.Digest) (io.ReadSeekCloser, int64, error) {
	data, ok := b[d]
	if !ok {
		return nil, 0, errors.New("no such blob")
	}
	return blob{bytes.NewReader(data)}, int64(len(data)), nil
}

func (b blobs) add(name string, data []byte) release.File {
	d := release.DigestOf(data)
	b[d] = data
	return release.File{Name: name, Digest: d, Size: int64(len(data))}
}

// fixture is a registry with publishers, and everything it rests on.
type fixture struct {
	t       *testing.T
	bucket  *kvstore.Memory
	blobs   blobs
	dir     string
	now     time.Time
	changed []string
	*Registry

	rootKey, targetsKey *trust.Key
	root, targets       []byte // newest, as the publishers hold them
}

// newFixture has no root yet.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, bucket: kvstore.NewMemory(), blobs: blobs{}, dir: t.TempDir(), now: day0}
	f.start()
	f.rootKey, f.targetsKey = f.key(), f.key()
	var err error
	if f.root, f.targets, err = trust.Init(f.plan(), day0.Add(year)); err != nil {
		t.Fatal(err)
	}
	f.root = f.sign(f.root, f.rootKey)
	f.targets = f.sign(f.targets, f.targetsKey)
	return f
}

// installed has root 1 and empty targets 1.
func installed(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	if err := f.InstallRoot(t.Context(), "ada", f.root); err != nil {
		t.Fatal(err)
	}
	f.mustPublish(f.targets)
	return f
}

// start is a restart of the control plane.
func (f *fixture) start() {
	f.t.Helper()
	r, err := New(f.t.Context(), Config{
		Bucket: f.bucket, Blobs: f.blobs, KeyDir: filepath.Join(f.dir, "keys"),
		Now: func() time.Time { return f.now }, Changed: func(m ...string) { f.changed = append(f.changed, m...) },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.Registry = r
}

func (f *fixture) key() *trust.Key {
	f.t.Helper()
	k, err := trust.GenerateKey()
	if err != nil {
		f.t.Fatal(err)
	}
	return k
}

func (f *fixture) plan() trust.Plan {
	snapshot, timestamp := f.OnlineKeys()
	return trust.Plan{
		Root:     trust.Holders{Keys: []trust.PublicKey{f.rootKey.Public()}, Threshold: 1},
		Targets:  trust.Holders{Keys: []trust.PublicKey{f.targetsKey.Public()}, Threshold: 1},
		Snapshot: snapshot, Timestamp: timestamp, Expires: day0.Add(2 * year),
	}
}

func (f *fixture) sign(doc []byte, keys ...*trust.Key) []byte {
	f.t.Helper()
	b, err := trust.Sign(doc, keys...)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *fixture) mustPublish(targets []byte) Published {
	f.t.Helper()
	p, err := f.Publish(f.t.Context(), "ada", targets, f.Trust().Targets.Version)
	if err != nil {
		f.t.Fatal(err)
	}
	f.targets = targets
	return p
}

func schema() release.Schema {
	return release.Schema{
		Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 13}}},
		Outputs: []release.Tensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
			{Name: "probabilities", Datatype: "FP32", Shape: []int64{-1, 3}},
		},
		Classes: []string{"a", "b", "c"}, Label: "label", Scores: "probabilities",
	}
}

// manifest uploads a whole release of wine_lr and returns its manifest, which
// change may spoil before its bytes are made.
func (f *fixture) manifest(version string, sequence uint64, change func(*release.Manifest)) *release.Manifest {
	f.t.Helper()
	onnx, err := os.ReadFile("testdata/wine_lr.onnx")
	if err != nil {
		f.t.Fatal(err)
	}
	s := schema()
	m := &release.Manifest{
		Format: release.Format, Model: "wine", Version: version, Sequence: sequence,
		Variants: []release.Variant{{Name: "fp32", Precision: "fp32", Graph: f.blobs.add("wine.onnx", onnx)}},
		Schema:   s, Baseline: f.blobs.add("baseline.json", baseline(f.t, &s)), Golden: f.blobs.add("golden.json", golden(f.t)),
		Lineage: release.Lineage{Created: day0, Author: "ada"},
	}
	if change != nil {
		change(m)
	}
	raw, err := m.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	f.blobs.add(release.ManifestName, raw)
	return m
}

func baseline(t *testing.T, s *release.Schema) []byte {
	t.Helper()
	builder, err := sketch.NewBuilder(s)
	if err != nil {
		t.Fatal(err)
	}
	const rows = 100
	batch := &sketch.Batch{Rows: rows, Classes: 3, Scores: make([]float32, 3*rows), Class: make([]int64, rows)}
	x := sketch.Tensor{Name: "X", Shape: []int64{13}, Width: 13, Data: make([]float32, 13*rows)}
	for i := range x.Data {
		x.Data[i] = float32(i * 7919 % 1009)
	}
	for i := range batch.Class {
		batch.Class[i] = int64(i % 3)
		batch.Scores[3*i+i%3] = 1
	}
	batch.Inputs = []sketch.Tensor{x}
	if err := builder.Add(batch); err != nil {
		t.Fatal(err)
	}
	base, err := builder.Baseline()
	if err != nil {
		t.Fatal(err)
	}
	b, err := base.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func golden(t *testing.T) []byte {
	t.Helper()
	g := &release.Golden{
		Rows:   1,
		Inputs: []release.Values{{Name: "X", Shape: []int64{1, 13}, Data: make([]float64, 13)}},
		Outputs: []release.Expected{
			{Values: release.Values{Name: "label", Shape: []int64{1}, Data: []float64{0}}},
			{Values: release.Values{Name: "probabilities", Shape: []int64{1, 3}, Data: []float64{1, 0, 0}}, Abs: 1e-5},
		},
	}
	b, err := g.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// listing is the next targets with the manifest, signed by the given keys.
func (f *fixture) listing(m *release.Manifest, keys ...*trust.Key) []byte {
	f.t.Helper()
	b, err := trust.AddRelease(f.targets, m, day0.Add(year))
	if err != nil {
		f.t.Fatal(err)
	}
	return f.sign(b, keys...)
}

// release publishes a version and returns its digest.
func (f *fixture) release(version string, sequence uint64) release.Digest {
	f.t.Helper()
	m := f.manifest(version, sequence, nil)
	f.mustPublish(f.listing(m, f.targetsKey))
	d, err := m.Digest()
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

// Metadata makes the fixture a server for a device's trust store.
func (f *fixture) Metadata(_ context.Context, name string, _ int64) ([]byte, error) {
	b, err := f.TrustMetadata(name)
	if errors.Is(err, ErrNotFound) {
		return nil, trust.ErrNotFound
	}
	return slices.Clone(b), err
}
