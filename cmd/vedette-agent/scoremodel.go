package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// maxSchema bounds a schema or manifest file in bytes; maxSlots one of slots,
// maxBaseline a baseline.
const (
	maxSchema   = 4 << 20
	maxSlots    = 64 << 10
	maxBaseline = 64 << 20
)

// manifestFile is what `vedette model pack` and the agent's slots call it.
const manifestFile = "manifest.json"

// scored is the model to score with.
type scored struct {
	graph    string
	schema   *release.Schema
	baseline string            // path
	golden   string            // path; empty for none
	manifest *release.Manifest // nil when there is none
}

// find returns what the flags name.
func (f *scoreFlags) find() (*scored, error) {
	switch {
	case f.graph != "":
		s, err := readSchema(f.schema)
		return &scored{graph: f.graph, schema: s, baseline: f.baseline}, err
	case f.release != "":
		return releaseFolder(f.release)
	}
	r, err := activeRelease(f.state, f.model)
	if err != nil {
		return nil, err
	}
	v, err := r.Graph()
	if err != nil {
		return nil, err
	}
	return &scored{graph: r.Path(v.Graph), schema: &r.Manifest.Schema, baseline: r.Path(r.Manifest.Baseline)}, nil
}

// releaseFolder reads the folder of a version: one with a manifest, whose files
// have their names or their digests, or one that is not packed yet.
func releaseFolder(dir string) (*scored, error) {
	raw, err := readBounded(filepath.Join(dir, manifestFile), maxSchema)
	if errors.Is(err, fs.ErrNotExist) {
		return unpackedFolder(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := release.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, manifestFile), err)
	}
	v, err := infer.Release{Manifest: m}.Graph()
	if err != nil {
		return nil, err
	}
	graph, err := releaseFile(dir, v.Graph)
	if err != nil {
		return nil, err
	}
	baseline, err := releaseFile(dir, m.Baseline)
	if err != nil {
		return nil, err
	}
	golden, err := releaseFile(dir, m.Golden)
	return &scored{graph: graph, schema: &m.Schema, baseline: baseline, golden: golden, manifest: m}, err
}

// releaseFile finds a file of a manifest and checks that it is the one.
func releaseFile(dir string, f release.File) (string, error) {
	for _, name := range []string{f.Digest.String(), f.Name} {
		path := filepath.Join(dir, name)
		got, err := fileDigest(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if got != f.Digest {
			return "", fmt.Errorf("%s is not the file that the manifest names: pack the folder again with `vedette model pack`", path)
		}
		return path, nil
	}
	return "", fmt.Errorf("%s lacks %s, which its manifest names", dir, f.Name)
}

// unpackedFolder reads a folder as profile writes it, with the one graph in it.
func unpackedFolder(dir string) (*scored, error) {
	schema, err := readSchema(filepath.Join(dir, schemaFile))
	if err != nil {
		return nil, fmt.Errorf("%s is no folder of a version: %w", dir, err)
	}
	graphs, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil {
		return nil, fmt.Errorf("read folder: %w", err)
	}
	if len(graphs) != 1 {
		return nil, fmt.Errorf("%s has %d graphs (*.onnx) and no manifest: give a folder that `vedette-agent profile` or `vedette model pack` wrote, or the graph itself with --schema", dir, len(graphs))
	}
	m := &scored{graph: graphs[0], schema: schema, baseline: filepath.Join(dir, baselineFile)}
	golden := filepath.Join(dir, goldenFile)
	if _, err := os.Stat(golden); err == nil {
		m.golden = golden
	}
	return m, nil
}

// readBaseline reads what the training data looked like.
func (m *scored) readBaseline() (*sketch.Baseline, error) {
	raw, err := readBounded(m.baseline, maxBaseline)
	if err != nil {
		return nil, fmt.Errorf("read baseline: %w", err)
	}
	b, err := sketch.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.baseline, err)
	}
	if err := b.Fits(m.schema); err != nil {
		return nil, fmt.Errorf("%s: %w", m.baseline, err)
	}
	return b, nil
}

func readSchema(name string) (*release.Schema, error) {
	raw, err := readBounded(name, maxSchema)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	s, err := decodeSchema(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// activeRelease reads which release of a model is active, without disturbing an
// agent that runs: nothing is opened for writing.
func activeRelease(state, model string) (infer.Release, error) {
	if err := protocol.CheckName(model); err != nil {
		return infer.Release{}, usagef("--model: %w", err)
	}
	files := os.DirFS(state)
	raw, err := slots.ReadRecord(files, path.Join(slots.Folder, model, "slots.json"), maxSlots)
	if errors.Is(err, os.ErrNotExist) {
		return infer.Release{}, fmt.Errorf("model %q is not on this device; it has %s", model, onDevice(state))
	}
	if err != nil {
		return infer.Release{}, fmt.Errorf("read slots of %s: %w", model, err)
	}
	var set slots.Set
	if err := json.Unmarshal(raw, &set); err != nil {
		return infer.Release{}, fmt.Errorf("read slots of %s: %w", model, err)
	}
	if set.Active.Empty() {
		return infer.Release{}, fmt.Errorf("no version of model %q is active on this device yet", model)
	}
	r := infer.Release{Digest: set.Active.Release, Variant: set.Active.Variant, P95: set.Active.P95}
	r.Dir = filepath.Join(state, slots.Folder, model, r.Digest.String())
	manifest, err := readBounded(filepath.Join(r.Dir, "manifest.json"), maxSchema)
	if err != nil {
		return infer.Release{}, fmt.Errorf("read manifest: %w", err)
	}
	if release.DigestOf(manifest) != r.Digest {
		return infer.Release{}, fmt.Errorf("the manifest of %s on this device is damaged; let the agent fetch it again", model)
	}
	r.Manifest, err = release.Decode(manifest)
	return r, err
}

// onDevice lists the models of a state directory for an error message.
func onDevice(state string) string {
	entries, err := os.ReadDir(filepath.Join(state, slots.Folder))
	if err != nil || len(entries) == 0 {
		return "none"
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, ", ")
}
