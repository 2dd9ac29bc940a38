// Package infer serves the active models of a device. It owns the small
// Runtime interface that hides the library computing the graphs, checks every
// request against the release's schema, bounds what runs and waits at once, and
// swaps a model between two calls, so that no request fails because of an
// update. It knows nothing of HTTP and nothing of the network.
package infer

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Roles a release can have for its model.
const (
	RolePrimary = protocol.RolePrimary // its answers are the ones given out
	RoleShadow  = protocol.RoleShadow  // computes the same calls, answers nobody
	RoleShare   = protocol.RoleShare   // answers a share of the calls
)

// Tensor is an array in row-major order. Datatype is a name of the Open
// Inference Protocol and fixes the type of Data:
//
//	BOOL []bool   UINT8 []uint8   UINT16 []uint16   UINT32 []uint32   UINT64 []uint64
//	INT8 []int8   INT16 []int16   INT32 []int32     INT64 []int64
//	FP16 []Float16   BF16 []BFloat16   FP32 []float32   FP64 []float64   BYTES []string
type Tensor struct {
	Name     string
	Datatype string
	Shape    []int64
	Data     any
}

// Release is a verified release on this device's disk.
type Release struct {
	Digest   release.Digest
	Manifest *release.Manifest
	// Variant names the variant to run; empty means the first one.
	Variant string
	// Dir holds the release's files, each named by its digest in hex.
	Dir string
	// Provider is the execution provider to run it on, as RuntimeInfo names
	// them; empty means the CPU.
	Provider string
	// Role is RolePrimary when empty.
	Role string
	// Share is what of the calls a challenger takes part in, in parts per
	// thousand; 0 is all of them for a shadow and none for a share.
	Share int
	// P95 is the warm latency at batch 1 that the trial measured; zero means
	// not known. The deadline of a call follows from it.
	P95 time.Duration
}

// Path is where a file of the release lies.
func (r Release) Path(f release.File) string {
	return filepath.Join(r.Dir, f.Digest.String())
}

// Graph is the variant to run.
func (r Release) Graph() (release.Variant, error) {
	if r.Manifest == nil || len(r.Manifest.Variants) == 0 {
		return release.Variant{}, fmt.Errorf("release %s has no variants", r.Digest.Short())
	}
	if r.Variant == "" {
		return r.Manifest.Variants[0], nil
	}
	for _, v := range r.Manifest.Variants {
		if v.Name == r.Variant {
			return v, nil
		}
	}
	return release.Variant{}, fmt.Errorf("release %s has no variant %q", r.Digest.Short(), r.Variant)
}

// RuntimeInfo says what computes the graphs.
type RuntimeInfo struct {
	Name      string   // for example "onnxruntime"
	Version   string   // for example "1.30.0"
	Library   string   // path of the shared library, empty for none
	Providers []string // execution providers that it offers
}

// Runtime loads releases.
type Runtime interface {
	// Load makes a session of the release's variant. It reads only files of
	// r.Dir, which are verified already.
	Load(ctx context.Context, r Release) (Session, error)
	Info() RuntimeInfo
}

// Session is one loaded graph. Run may be called from many goroutines.
type Session interface {
	// Run computes rows rows. in holds the inputs in the order of the schema,
	// with the schema's datatypes and shapes whose free first dimension is rows.
	// out has one element per output of the schema, in its order; Run fills
	// them, writing into the Data it finds there when type and length fit, so
	// that a caller that passes the same out again allocates nothing. in is not
	// kept after the return. A run that has started may not be cancellable: ctx
	// is looked at before the run.
	Run(ctx context.Context, rows int, in, out []Tensor) error
	// Provider is the execution provider in use, for example "CPU".
	Provider() string
	// Close frees the session; no Run may be in progress.
	Close() error
}

// Request asks for predictions.
type Request struct {
	Model string
	// Version, when set, must be the version that serves.
	Version string
	// ID names the prediction for later labels; empty asks for a generated one.
	ID string
	// Key is what a challenger's share of the calls is chosen by: calls with the
	// same key are answered by the same release. Empty means the ID.
	Key string
	// Inputs in any order.
	Inputs []Tensor
	// Outputs names those wanted, nil for all.
	Outputs []string
	// Abandon, if set, lets the run go on the caller's goroutine, which is faster
	// but leaves nobody there to answer when the run hangs: Abandon is called
	// then, once, on another goroutine. InferInto returns when the run ends after
	// all, if ever.
	Abandon func()
}

// Response holds the answer. Its slices belong to whoever owns the response.
type Response struct {
	Model   string
	Version string
	Release release.Digest
	ID      string
	Rows    int
	Outputs []Tensor
	Latency time.Duration // of the run itself, without waiting
	Waited  time.Duration // before the run, for a turn and for company
	// Role is RoleShare when the challenger answered.
	Role string
	// Held says that a run which hangs still reads the request's inputs: they
	// must not be written to any more, although there may be an answer.
	Held bool

	all    []Tensor // outputs of the schema, in its order
	chosen []Tensor // those of all that were asked for
}

// Call is one request that fits the schema, answered or not.
type Call struct {
	Model   string
	Release release.Digest
	Role    string
	ID      string // RowID gives the id of one row
	Rows    int
	// Inputs and Outputs are in the order of the schema and valid only during
	// the callback. Outputs is nil when the call failed.
	Inputs, Outputs []Tensor
	At              time.Time     // when the call arrived
	Latency         time.Duration // of the run, zero when it did not run
	Waited          time.Duration // before the run, zero when it did not run
	Err             error         // nil when answered
	// Beside is what the primary release made of the same rows, for a shadow.
	Beside *Beside

	ordered []Tensor // room for Inputs
	told    bool     // it hung, and was counted then
}

// calls that ended, with the room they had.
var calls sync.Pool

func newCall(req *Request, s *served) *Call {
	c, ok := calls.Get().(*Call)
	if !ok {
		c = &Call{}
	}
	*c = Call{Model: req.Model, Release: s.digest, Role: RolePrimary, ID: req.ID, At: time.Now(), ordered: c.ordered}
	return c
}

func (c *Call) recycle() {
	clear(c.ordered[:cap(c.ordered)])
	*c = Call{ordered: c.ordered[:0]}
	calls.Put(c)
}

// Observer is told of every call that fits the schema of a known model, on the
// call's own path: it must be quick and must not keep the call or its slices.
type Observer interface {
	Served(c *Call)
}

// RowID is the prediction id of one row: the call's id itself when the call has
// one row, else the id, a slash and the row counted from zero.
func RowID(id string, row, rows int) string {
	if rows == 1 {
		return id
	}
	return id + "/" + strconv.Itoa(row)
}
