// Package onnx computes graphs with ONNX Runtime, loaded as a shared library at
// run time. It is the only package that uses cgo. Every worker of a session
// owns buffers that are bound to the graph once, so that a run copies the rows
// in, computes and copies the outputs out, and allocates nothing.
package onnx

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Name is how the runtime is reported.
const Name = "onnxruntime"

// MinVersion is the oldest ONNX Runtime whose interface the binding speaks.
const MinVersion = "1.24"

// cpuProvider is what every build of the library offers.
const cpuProvider = "CPUExecutionProvider"

var (
	// ErrLibrary says that no usable ONNX Runtime library was found.
	ErrLibrary = errors.New("no usable ONNX Runtime library")
	// ErrProvider says that a variant needs an execution provider that is not here.
	ErrProvider = errors.New("no execution provider for this variant")
	// ErrClosed says that the session was closed.
	ErrClosed = errors.New("the session is closed")
)

// Runtime is ONNX Runtime in this process.
type Runtime struct {
	info infer.RuntimeInfo
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
	lib, err := inspect(path)
	if err != nil {
		return nil, err
	}
	ort.SetSharedLibraryPath(path)
	if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
		return nil, fmt.Errorf("%w: start %s: %w", ErrLibrary, path, err)
	}
	loaded.runtime = &Runtime{info: infer.RuntimeInfo{
		Name: Name, Version: lib.version, Library: path, Providers: lib.providers,
	}}
	return loaded.runtime, nil
}

// Info says which library computes and what it offers.
func (r *Runtime) Info() infer.RuntimeInfo { return r.info }

// Load makes a session of the release's variant on the CPU. The names and
// shapes are those of the manifest; a graph that has others fails its first run.
func (r *Runtime) Load(ctx context.Context, rel infer.Release) (infer.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load graph: %w", err)
	}
	v, err := rel.Graph()
	if err != nil {
		return nil, err
	}
	if err := usable(v); err != nil {
		return nil, err
	}
	return OpenGraph(rel.Path(v.Graph), &rel.Manifest.Schema)
}

// usable reports whether the variant may run here. Only the CPU provider is
// used so far.
func usable(v release.Variant) error {
	if len(v.Arch) > 0 && !slices.Contains(v.Arch, runtime.GOARCH) {
		return fmt.Errorf("%w: %q is for %s, this is %s", ErrProvider, v.Name, strings.Join(v.Arch, ", "), runtime.GOARCH)
	}
	if len(v.Providers) > 0 && !slices.Contains(v.Providers, cpuProvider) {
		return fmt.Errorf("%w: %q needs %s", ErrProvider, v.Name, strings.Join(v.Providers, ", "))
	}
	return nil
}

// OpenGraph makes a session of a graph file. Open must have succeeded.
func OpenGraph(path string, schema *release.Schema) (infer.Session, error) {
	inputs, outputs := ports(schema.Inputs), ports(schema.Outputs)
	opts, err := options()
	if err != nil {
		return nil, err
	}
	defer opts.Destroy() //nolint:errcheck // frees memory only
	g, err := ort.NewDynamicAdvancedSession(path, names(inputs), names(outputs), opts)
	if err != nil {
		return nil, fmt.Errorf("load graph: %w", err)
	}
	return newSession(g, inputs, outputs), nil
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
