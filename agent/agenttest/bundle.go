package agenttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Bundle is a whole release: manifest and files.
type Bundle struct {
	Manifest *release.Manifest
	Digest   release.Digest
	Files    map[release.Digest][]byte
}

// Schema is that of every scripted release: rows of four numbers in, a label
// and three scores out.
func Schema() release.Schema {
	return release.Schema{
		Inputs: []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 4}}},
		Outputs: []release.Tensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
			{Name: "scores", Datatype: "FP32", Shape: []int64{-1, 3}},
		},
		Label: "label", Scores: "scores", Classes: []string{"a", "b", "c"},
	}
}

// NewBundle makes the release of a script, one variant per script. Its golden
// vectors are those of an unshifted one. limits may be zero.
func NewBundle(model, version string, sequence uint64, limits release.Limits, scripts ...Script) (*Bundle, error) {
	b := &Bundle{Files: map[release.Digest][]byte{}, Manifest: &release.Manifest{
		Format: release.Format, Model: model, Version: version, Sequence: sequence, Schema: Schema(), Limits: limits,
		Lineage: release.Lineage{Created: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)},
	}}
	for i, s := range scripts {
		raw, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("variant-%d", i)
		b.Manifest.Variants = append(b.Manifest.Variants, release.Variant{Name: name, Precision: "fp32", Graph: b.file(name+".json", raw)})
	}
	golden, err := goldenVectors().Encode()
	if err != nil {
		return nil, fmt.Errorf("encode golden vectors: %w", err)
	}
	baseline, err := trainingBaseline()
	if err != nil {
		return nil, fmt.Errorf("make baseline: %w", err)
	}
	b.Manifest.Golden, b.Manifest.Baseline = b.file("golden.json", golden), b.file("baseline.json", baseline)
	b.Digest, err = b.Manifest.Digest()
	return b, err
}

// file adds a file to the bundle.
func (b *Bundle) file(name string, data []byte) release.File {
	d := release.DigestOf(data)
	b.Files[d] = data
	return release.File{Name: name, Digest: d, Size: int64(len(data))}
}

// rows are the golden inputs: four rows of four numbers, and their sums.
func rows() (data, sums []float64) {
	for r := range 4 {
		sum := 0.0
		for c := range 4 {
			x := float64(r) + float64(c)/4
			data, sum = append(data, x), sum+x
		}
		sums = append(sums, sum)
	}
	return data, sums
}

func goldenVectors() *release.Golden {
	schema := Schema()
	data, sums := rows()
	g := &release.Golden{
		Rows: len(sums), Source: "a script",
		Inputs: []release.Values{{Name: "X", Shape: []int64{int64(len(sums)), 4}, Data: data}},
	}
	for _, t := range schema.Outputs {
		e := release.Expected{Values: Row(t, sums, 0)}
		if t.Datatype == "FP32" {
			e.Abs = 1e-5
		}
		g.Outputs = append(g.Outputs, e)
	}
	return g
}

func trainingBaseline() ([]byte, error) {
	schema := Schema()
	b, err := sketch.NewBuilder(&schema)
	if err != nil {
		return nil, err
	}
	data, sums := rows()
	batch := &sketch.Batch{Rows: len(sums), Classes: 3, Class: make([]int64, len(sums)), Inputs: []sketch.Tensor{{Name: "X", Shape: []int64{4}, Width: 4, Data: floats(data)}}}
	batch.Scores = floats(Row(schema.Outputs[1], sums, 0).Data)
	if err := b.Add(batch); err != nil {
		return nil, err
	}
	base, err := b.Baseline()
	if err != nil {
		return nil, err
	}
	return base.Encode()
}

func floats(in []float64) []float32 {
	out := make([]float32, len(in))
	for i, x := range in {
		out[i] = float32(x)
	}
	return out
}

// Write puts the bundle into a folder as package pull would.
func (b *Bundle) Write(dir string) error {
	raw, err := b.Manifest.Encode()
	if err != nil {
		return err
	}
	for d, data := range b.Files {
		if err := os.WriteFile(filepath.Join(dir, d.String()), data, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, release.ManifestName), raw, 0o600)
}

// ErrUnknown is the Puller's answer for a release it was not given.
var ErrUnknown = errors.New("no such release in this test")

// Puller brings bundles into a file system without syncing anything: what it
// leaves is as unsafe as can be.
type Puller struct {
	fsys    slots.FS
	fetched atomic.Int64 // files of releases written

	mu      sync.Mutex // guards bundles and fault
	bundles map[release.Digest]*Bundle
	fault   func(ctx context.Context, step string) error
}

// NewPuller makes a Puller of the bundles.
func NewPuller(fsys slots.FS, bundles ...*Bundle) *Puller {
	p := &Puller{fsys: fsys, bundles: map[release.Digest]*Bundle{}}
	for _, b := range bundles {
		p.bundles[b.Digest] = b
	}
	return p
}

// Fault makes fn decide before each step, "resolve" or "fetch", whether it
// fails. It may block until ctx ends.
func (p *Puller) Fault(fn func(ctx context.Context, step string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fn
}

func (p *Puller) step(ctx context.Context, name string) error {
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	if fault != nil {
		return fault(ctx, name)
	}
	return ctx.Err()
}

// Fetched counts the files of releases that had to be written so far, without
// manifests.
func (p *Puller) Fetched() int { return int(p.fetched.Load()) }

// Resolve returns the bundle's manifest.
func (p *Puller) Resolve(ctx context.Context, _ string, d release.Digest) (*release.Manifest, error) {
	if err := p.step(ctx, "resolve"); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.bundles[d]
	if b == nil {
		return nil, fmt.Errorf("resolve %s: %w", d.Short(), ErrUnknown)
	}
	return b.Manifest, nil
}

// Fetch writes the bundle's files into dir, but for those already there.
func (p *Puller) Fetch(ctx context.Context, m *release.Manifest, dir string, progress func(done, total int64)) error {
	if err := p.step(ctx, "fetch"); err != nil {
		return err
	}
	d, err := m.Digest()
	if err != nil {
		return err
	}
	p.mu.Lock()
	b := p.bundles[d]
	p.mu.Unlock()
	done, total := int64(0), m.Size()
	for _, f := range m.Files() {
		progress(done, total)
		if err := p.write(path.Join(filepath.ToSlash(dir), f.Digest.String()), b.Files[f.Digest]); err != nil {
			return err
		}
		done += f.Size
	}
	progress(done, total)
	raw, err := m.Encode()
	if err != nil {
		return err
	}
	return p.write(path.Join(filepath.ToSlash(dir), release.ManifestName), raw)
}

// write writes a file in two halves, unless it is there.
func (p *Puller) write(name string, data []byte) error {
	if have, err := fs.ReadFile(p.fsys, name); err == nil && release.DigestOf(have) == release.DigestOf(data) {
		return nil
	}
	if path.Base(name) != release.ManifestName {
		p.fetched.Add(1)
	}
	// A name of its own, for the old one may be linked to a release in use.
	f, err := p.fsys.Create(name + ".new")
	if err != nil {
		return err
	}
	for _, half := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		if _, err := f.Write(half); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return p.fsys.Rename(name+".new", name)
}
