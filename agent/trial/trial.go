// Package trial proves a candidate before it may serve: a child process loads
// the graph, runs the golden vectors, warms up and measures latency, under
// limits of memory and time. Whatever the candidate does to its process, to
// crash, to hang or to eat memory, the parent lives on and says what happened.
//
// Every variant is tried on every execution provider that the runtime offers and
// the variant allows, each pair in a child of its own: a driver that crashes,
// hangs or computes something else loses itself and no other. Golden vectors
// decide which pairs are right, the clock which of those is taken; the CPU is
// always among them and is preferred unless another is clearly faster.
//
// Parent and child talk in JSON, one value a line. The parent writes a request;
// the child answers "ready" when all but the candidate is loaded, so that its
// memory can be weighed bare; the parent writes "go"; the child names each stage
// it enters and ends with a result. It exits when its input closes: a child
// outlives neither its result nor its parent.
package trial

import (
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Codes of a verdict. They are reported and stay as they are.
const (
	CodeGolden = "golden_mismatch" // other outputs than the training framework computed
	CodeLoad   = "load_failed"     // the runtime refused the graph
	CodeSlow   = "too_slow"        // p95 above the manifest's limit
	CodeMemory = "memory"          // more memory than the manifest or the device allows
	CodeHang   = "hang"            // no result in time
	CodeCrash  = "crash"           // the child died
	CodeSchema = "schema_mismatch" // inputs or outputs are not those of the manifest
	// CodeProvider is that of a pair alone, never of a verdict: the execution
	// provider cannot be used on this device.
	CodeProvider = "no_provider"
	// CodeNoTime is that of a pair alone: others took all the time there was.
	CodeNoTime = "not_tried"
)

// Candidate is a verified release to be tried.
type Candidate struct {
	Digest   release.Digest
	Manifest *release.Manifest
	Dir      string // its files, each named by its digest in hex
	// Providers to try instead of the configured ones, nil for those.
	Providers []string
}

// Verdict is what a trial found. When OK is false, Code says why and Message
// says it to a person.
type Verdict struct {
	OK      bool
	Code    string
	Message string
	// Variant and Provider are the fastest pair that passed.
	Variant  string
	Provider string
	// P95 is its warm latency at batch 1.
	P95 time.Duration
	// PeakBytes is the memory it took above the bare process.
	PeakBytes uint64
	// Report is what the control plane is told; never nil. Its peak is PeakBytes.
	Report *protocol.Trial
}

// request is the parent's first line.
type request struct {
	Digest  release.Digest `json:"digest"`
	Dir     string         `json:"dir"`
	Variant string         `json:"variant"`
	// Provider to run it on, empty for the CPU.
	Provider string `json:"provider,omitempty"`
	// MemoryBytes the candidate may take above the bare process.
	MemoryBytes uint64 `json:"memory_bytes"`
}

// permit is the parent's second line.
type permit struct {
	Go bool `json:"go"`
}

// Stages of a child, as far as it got.
const (
	stageReady  = "ready"
	stageLoad   = "loading the graph"
	stageGolden = "running the golden vectors"
	stageTime   = "measuring latency"
)

// reply is one line of the child.
type reply struct {
	Stage  string  `json:"stage,omitempty"`
	Result *result `json:"result,omitempty"`
}

// result is the child's last line. An empty Code means that it passed.
type result struct {
	Code    string  `json:"code,omitempty"`
	Message string  `json:"message,omitempty"`
	Rows    int     `json:"rows"`
	Worst   float64 `json:"worst"`
	Wrong   int     `json:"wrong"`
	P95     int64   `json:"p95"` // nanoseconds

	Provider string `json:"provider,omitempty"`
	Runtime  string `json:"runtime,omitempty"`
}
