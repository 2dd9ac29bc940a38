// Package onnx computes graphs with ONNX Runtime, loaded as a shared library at
// run time. It is the only package that uses cgo. Every worker of a session
// owns buffers that are bound to the graph once, so that a run copies the rows
// in, computes and copies the outputs out, and allocates nothing.
package onnx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Name is how the runtime is reported.
const Name = "onnxruntime"

// MinVersion is the oldest ONNX Runtime whose interface the binding speaks.
const MinVersion = "1.24"

// envTelemetry keeps the library from reporting to its makers. 1.30.0 otherwise
// makes up a device id, keeps a database of events in the home directory, syncs
// it to disk at every start and uploads it: tens of milliseconds, 2.6 MB, and
// nothing that a device may say without being asked to.
const envTelemetry = "ORT_DISABLE_TELEMETRY"

// cpuProvider is what every build of the library offers.
const cpuProvider = release.CPUProvider

var (
	// ErrLibrary says that no usable ONNX Runtime library was found.
	ErrLibrary = errors.New("no usable ONNX Runtime library")
	// ErrProvider says that an execution provider cannot be used here, or not for
	// this variant.
	ErrProvider = infer.ErrProvider
	// ErrClosed says that the session was closed.
	ErrClosed = errors.New("the session is closed")
)

// Runtime is ONNX Runtime in this process.
type Runtime struct {
	info    infer.RuntimeInfo
	plugins map[string]*plugin // by the provider's key
}

var _ infer.Runtime = (*Runtime)(nil)

// loaded is the process's one environment: the library keeps global state, so
// it is opened once and stays.
var loaded struct {
	mu      sync.Mutex // guards runtime
	runtime *Runtime
}

// Open loads the library at path (see Find) or returns the runtime that an
// earlier call opened from the same path. Another path is refused: a process
// can hold one ONNX Runtime.
func Open(path string) (*Runtime, error) {
	loaded.mu.Lock()
	defer loaded.mu.Unlock()
	if loaded.runtime != nil {
		if loaded.runtime.info.Library != path {
			return nil, fmt.Errorf("%w: %s is loaded already, not %s", ErrLibrary, loaded.runtime.info.Library, path)
		}
		return loaded.runtime, nil
	}
	if err := os.Setenv(envTelemetry, "1"); err != nil {
		return nil, fmt.Errorf("%w: keep it from reporting: %w", ErrLibrary, err)
	}
	lib, err := inspect(path)
	if err != nil {
		return nil, err
	}
	ort.SetSharedLibraryPath(path)
	if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
		return nil, fmt.Errorf("%w: start %s: %w", ErrLibrary, path, err)
	}
	loaded.runtime = &Runtime{plugins: findPlugins(path, lib.base)}
	loaded.runtime.info = infer.RuntimeInfo{
		Name: Name, Version: lib.version, Library: path, Providers: loaded.runtime.providers(lib.providers),
	}
	return loaded.runtime, nil
}

// providers are those that the library was built with and those of plugins.
func (r *Runtime) providers(built []string) []string {
	for _, p := range r.plugins {
		if !slices.ContainsFunc(built, func(name string) bool { return release.SameProvider(name, p.name) }) {
			built = append(built, p.name)
		}
	}
	slices.Sort(built)
	return built
}

// Info says which library computes and what it offers.
func (r *Runtime) Info() infer.RuntimeInfo { return r.info }

// Load makes a session of the release's variant on its provider. The names and
// shapes are those of the manifest; a graph that has others fails its first run.
func (r *Runtime) Load(ctx context.Context, rel infer.Release) (infer.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load graph: %w", err)
	}
	v, err := rel.Graph()
	if err != nil {
		return nil, err
	}
	if err := usable(v, rel.Provider); err != nil {
		return nil, err
	}
	return r.open(rel.Path(v.Graph), &rel.Manifest.Schema, rel.Provider)
}

// OpenGraph makes a session of a graph file on the CPU. Open must have
// succeeded.
func OpenGraph(path string, schema *release.Schema) (infer.Session, error) {
	loaded.mu.Lock()
	r := loaded.runtime
	loaded.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("%w: none was opened", ErrLibrary)
	}
	return r.open(path, schema, cpuProvider)
}

func (r *Runtime) open(path string, schema *release.Schema, provider string) (infer.Session, error) {
	inputs, outputs := ports(schema.Inputs), ports(schema.Outputs)
	if err := checkHalf(outputs); err != nil {
		return nil, err
	}
	maps := markMaps(path, outputs, schema.Classes)
	opts, err := options()
	if err != nil {
		return nil, err
	}
	defer opts.Destroy() //nolint:errcheck // frees memory only
	used, err := r.use(opts, provider)
	if err != nil {
		return nil, err
	}
	if s := openUnzipped(path, used, inputs, outputs, maps, opts); s != nil {
		return s, nil
	}
	g, err := ort.NewDynamicAdvancedSession(path, names(inputs), names(outputs), opts)
	if err != nil {
		return nil, fmt.Errorf("load graph: %w", err)
	}
	return newSession(g, used, inputs, outputs), nil
}

// openUnzipped makes a session of a classifier without the maps that it wraps
// its scores in, nil when that does not work: then they are read as they come.
func openUnzipped(path, provider string, inputs, outputs []port, maps map[string]bool, opts *ort.SessionOptions) *session {
	if len(maps) == 0 {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	model, scores := unzip(raw, maps)
	if model == nil {
		return nil
	}
	outputs = slices.Clone(outputs)
	for i := range outputs {
		if from, ok := scores[outputs[i].name]; ok {
			outputs[i].source, outputs[i].columns = from, nil
		}
	}
	g, err := ort.NewDynamicAdvancedSessionWithONNXData(model, names(inputs), names(outputs), opts)
	if err != nil {
		return nil
	}
	return newSession(g, provider, inputs, outputs)
}

// options of every session: one thread, which does not spin. A device serves
// several callers, each on a worker of its own; a second thread within one run
// was slower on every model measured, and a spinning one burns a core.
func options() (*ort.SessionOptions, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("make session options: %w", err)
	}
	err = errors.Join(
		o.SetIntraOpNumThreads(1),
		o.SetInterOpNumThreads(1),
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		o.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set session options: %w", err), o.Destroy())
	}
	return o, nil
}
