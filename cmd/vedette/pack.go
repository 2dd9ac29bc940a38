package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/graph"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Files of a model's folder. "vedette-agent profile" writes all but the
// manifest and the targets; graphs end in .onnx.
const (
	schemaFile   = "schema.json"
	baselineFile = "baseline.json"
	goldenFile   = "golden.json"
	manifestFile = "manifest.json"
	graphSuffix  = ".onnx"
)

// versionFlags say what a folder becomes.
type versionFlags struct {
	graphs         []string
	model, version string
	sequence       uint64
	precision      string

	p95        time.Duration
	memory     string
	minAgent   string
	minRuntime string

	author, run, source, data, commit, parent string
	metrics                                   map[string]string
	metricsFile                               string

	sampling samplingFlags
}

func (f *versionFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&f.graphs, "graph", nil, "graph that is not in the folder yet: it is copied there, in the place of one of the same precision (repeat)")
	fs.StringVar(&f.model, "model", "", "name of the model")
	fs.StringVar(&f.version, "version", "", "name of the version, unique within the model")
	fs.Uint64Var(&f.sequence, "sequence", 0, "number that rises with every version (default: the highest plus one)")
	fs.StringVar(&f.precision, "precision", "fp32", "precision of a single graph: fp32, fp16 or int8")
	fs.DurationVar(&f.p95, "max-p95", 0, "devices refuse it when the warm 95th percentile of its latency is above this")
	fs.StringVar(&f.memory, "max-memory", "", "devices refuse it when it needs more memory than this, e.g. 64MiB")
	fs.StringVar(&f.minAgent, "min-agent", "", "oldest agent version that may run it")
	fs.StringVar(&f.minRuntime, "min-runtime", "", "oldest ONNX Runtime version that may run it")
	fs.StringVar(&f.author, "author", "", "lineage: who trained it")
	fs.StringVar(&f.run, "run", "", "lineage: id of the training run")
	fs.StringVar(&f.source, "source", "", "lineage: registered version it was packed from, e.g. models:/digits/7")
	fs.StringVar(&f.data, "data-version", "", "lineage: version of the training data")
	fs.StringVar(&f.commit, "commit", "", "lineage: commit of the training code")
	fs.StringVar(&f.parent, "parent", "", "lineage: version (or digest) it was derived from")
	fs.StringToStringVar(&f.metrics, "metric", nil, "lineage: metric, e.g. accuracy=0.98 (repeat)")
	fs.StringVar(&f.metricsFile, "metrics-file", "", "lineage: JSON object of metrics")
	f.sampling.register(fs)
}

// folder is a model's folder, read and checked.
type folder struct {
	dir      string
	graphs   []release.File
	schema   release.Schema
	baseline release.File
	golden   release.File
}

// gather copies graphs into the folder, so that it holds the whole version.
// Nothing is copied before every graph has been found to fit.
func (a *app) gather(dir string, graphs []string) error {
	if err := fitting(dir, graphs); err != nil {
		return err
	}
	for _, path := range graphs {
		if filepath.Clean(filepath.Dir(path)) == filepath.Clean(dir) {
			continue
		}
		if err := copyFile(filepath.Join(dir, filepath.Base(path)), path); err != nil {
			return err
		}
		if err := a.displace(dir, path, graphs); err != nil {
			return err
		}
	}
	return nil
}

// fitting checks graphs against the schema of the folder.
func fitting(dir string, graphs []string) error {
	f := &folder{dir: dir}
	for i, path := range graphs {
		if filepath.Ext(path) != graphSuffix {
			return usagef("--graph %s: the name of a graph ends in %s", path, graphSuffix)
		}
		if i == 0 {
			if err := f.readSchema(); err != nil {
				return err
			}
		}
		if _, err := checkGraph(path, &f.schema); err != nil {
			return err
		}
	}
	return nil
}

// displace sets aside the graph whose place a given one takes: that of the same
// precision under another name, which an earlier push has copied. It is renamed,
// not removed: it may be somebody's only copy.
func (a *app) displace(dir, path string, graphs []string) error {
	const setAside = ".old"
	there, err := filepath.Glob(filepath.Join(dir, "*"+graphSuffix))
	if err != nil {
		return fileError(err)
	}
	for _, old := range there {
		name := filepath.Base(old)
		given := slices.ContainsFunc(graphs, func(g string) bool { return filepath.Base(g) == name })
		if given || precisionOf(name) != precisionOf(filepath.Base(path)) {
			continue
		}
		if err := atomicfile.Rename(old, old+setAside); err != nil {
			return fileError(err)
		}
		a.remark("%s takes the place of %s, which is now %s", filepath.Base(path), name, old+setAside)
	}
	return nil
}

// copyFile copies a file whole or not at all.
func copyFile(to, from string) error {
	return withFile(from, func(r *os.File) error {
		w, err := os.CreateTemp(filepath.Dir(to), ".new-*")
		if err != nil {
			return fileError(err)
		}
		defer func() { _ = os.Remove(w.Name()) }()
		_, err = io.Copy(w, r)
		if err = errors.Join(err, w.Chmod(0o644), w.Sync(), w.Close()); err == nil {
			err = atomicfile.Rename(w.Name(), to)
		}
		if err != nil {
			return fileError(err)
		}
		return nil
	})
}

// openFolder reads a folder and checks that its parts fit each other: what a
// device would refuse later is refused here first.
func openFolder(dir string) (*folder, error) {
	f := &folder{dir: dir}
	if err := f.readSchema(); err != nil {
		return nil, err
	}
	if err := f.readGraphs(); err != nil {
		return nil, err
	}
	var err error
	if f.baseline, err = f.check(baselineFile, sketch.MaxBaseline, func(b []byte) error {
		_, err := sketch.Decode(b)
		return err
	}); err != nil {
		return nil, err
	}
	f.golden, err = f.check(goldenFile, maxLargeFile, func(b []byte) error {
		g, err := release.DecodeGolden(bytes.NewReader(b))
		if err != nil {
			return err
		}
		return g.Check(&f.schema)
	})
	return f, err
}

// check reads one file and says whether it is sound.
func (f *folder) check(name string, limit int64, sound func([]byte) error) (release.File, error) {
	path := filepath.Join(f.dir, name)
	b, err := readFile(path, limit)
	if errors.Is(err, os.ErrNotExist) {
		return release.File{}, operator.Errorf(operator.Invalid, "%s has no %s", f.dir, name).
			WithHint(`"vedette-agent profile" writes it`)
	}
	if err == nil {
		err = sound(b)
	}
	if err != nil {
		return release.File{}, operator.Errorf(operator.Invalid, "%s: %w", path, err)
	}
	return release.File{Name: name, Digest: release.DigestOf(b), Size: int64(len(b))}, nil
}

func (f *folder) readSchema() error {
	_, err := f.check(schemaFile, maxSmallFile, func(b []byte) error {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&f.schema); err != nil {
			return err
		}
		return f.schema.Validate()
	})
	return err
}

func (f *folder) readGraphs() error {
	paths, err := filepath.Glob(filepath.Join(f.dir, "*"+graphSuffix))
	if err != nil {
		return fileError(err)
	}
	if len(paths) == 0 {
		return operator.Errorf(operator.Invalid, "%s has no graph (*%s)", f.dir, graphSuffix).
			WithHint(`give the folder that "vedette-agent profile" wrote`)
	}
	for _, path := range paths {
		file, err := checkGraph(path, &f.schema)
		if err != nil {
			return err
		}
		f.graphs = append(f.graphs, file)
	}
	return nil
}

// checkGraph reads an ONNX file's header, compares it with the schema, and
// hashes the file.
func checkGraph(path string, schema *release.Schema) (release.File, error) {
	file, size, err := hashFile(path)
	if err != nil {
		return file, err
	}
	r, err := os.Open(path)
	if err != nil {
		return file, fileError(err)
	}
	defer func() { _ = r.Close() }()
	g, err := graph.Read(r, size)
	if err == nil {
		err = graph.Check(g, schema)
	}
	if err != nil {
		return file, operator.Errorf(operator.Invalid, "%s: %w", path, err).
			WithHint(`make schema, baseline and golden vectors from this very graph: "vedette-agent profile"`)
	}
	return file, nil
}

// variants names each graph: one graph by the precision given, several by
// their file names.
func (f *folder) variants(precision string) ([]release.Variant, error) {
	if len(f.graphs) == 1 {
		return []release.Variant{{Name: precision, Precision: precision, Graph: f.graphs[0]}}, nil
	}
	var list []release.Variant
	for _, g := range f.graphs {
		name := strings.TrimSuffix(g.Name, graphSuffix)
		p := precisionOf(name)
		if p == "" {
			return nil, operator.Errorf(operator.Invalid, "%s: of several graphs each must say its precision in its name", g.Name).
				WithHint("call them fp32.onnx, int8.onnx and so on")
		}
		list = append(list, release.Variant{Name: strings.ToLower(name), Precision: p, Graph: g})
	}
	return list, nil
}

func precisionOf(name string) string {
	for _, p := range []string{"fp32", "fp16", "int8"} {
		if strings.Contains(strings.ToLower(name), p) {
			return p
		}
	}
	return ""
}

// manifest makes the manifest of the folder. Targets tell which sequence is
// next and what a parent's name stands for.
func (f *folder) manifest(flags versionFlags, others []operator.Version, now time.Time) (*release.Manifest, error) {
	m := &release.Manifest{
		Model: flags.model, Version: flags.version, Sequence: flags.sequence,
		Schema: f.schema, Baseline: f.baseline, Golden: f.golden,
	}
	var err error
	if m.Variants, err = f.variants(flags.precision); err != nil {
		return nil, err
	}
	if m.Limits, err = flags.limits(); err != nil {
		return nil, err
	}
	if m.Lineage, err = flags.lineage(others, now); err != nil {
		return nil, err
	}
	if m.Sampling, err = flags.sampling.plan(&f.schema); err != nil {
		return nil, err
	}
	m.Format = m.LeastFormat()
	if m.Sequence == 0 {
		for _, v := range others {
			m.Sequence = max(m.Sequence, v.Sequence)
		}
		m.Sequence++
	}
	if err := m.Validate(); err != nil {
		return nil, operator.Errorf(operator.Invalid, "%w", err)
	}
	return m, nil
}

func (f versionFlags) limits() (release.Limits, error) {
	l := release.Limits{P95: release.Duration(f.p95), MinAgent: f.minAgent, MinRuntime: f.minRuntime}
	if f.memory == "" {
		return l, nil
	}
	var err error
	l.MemoryBytes, err = parseBytes(f.memory)
	return l, err
}

func (f versionFlags) lineage(others []operator.Version, now time.Time) (release.Lineage, error) {
	l := release.Lineage{
		Created: now.UTC().Truncate(time.Second), Author: f.author, Run: f.run, Source: f.source, DataVersion: f.data, Commit: f.commit,
		Metrics: map[string]float64{},
	}
	if f.metricsFile != "" {
		b, err := readFile(f.metricsFile, maxSmallFile)
		if err == nil {
			err = json.Unmarshal(b, &l.Metrics)
		}
		if err != nil {
			return l, operator.Errorf(operator.Invalid, "metrics file: %w", err).WithHint("it must be a JSON object of numbers")
		}
	}
	for name, text := range f.metrics {
		var v float64
		if _, err := fmt.Sscan(text, &v); err != nil {
			return l, usagef("--metric %s=%s: %w", name, text, err)
		}
		l.Metrics[name] = v
	}
	if f.parent != "" {
		d, err := parentOf(f.parent, others)
		l.Parent = &d
		return l, err
	}
	return l, nil
}

func parentOf(name string, others []operator.Version) (release.Digest, error) {
	i := slices.IndexFunc(others, func(v operator.Version) bool { return v.Version == name })
	if i >= 0 {
		return others[i].Release, nil
	}
	d, err := release.ParseDigest(name)
	if err != nil {
		return d, usagef("--parent %s is neither a version of the model nor a digest", name)
	}
	return d, nil
}

// parseBytes reads a size such as 64MiB, 64M or 1000000.
func parseBytes(text string) (uint64, error) {
	var n float64
	var unit string
	if _, err := fmt.Sscanf(text, "%f%s", &n, &unit); err != nil && !errors.Is(err, io.EOF) && unit != "" {
		return 0, usagef("size %q: %w", text, err)
	}
	factor, ok := map[string]float64{"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(unit), "b"), "i")]
	if !ok || n <= 0 {
		return 0, usagef("size %q: give it like 64MiB", text)
	}
	return uint64(n * factor), nil
}
