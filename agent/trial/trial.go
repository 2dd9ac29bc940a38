// Package trial proves a candidate before it may serve: a child process loads
// the graph, runs the golden vectors, warms up and measures latency, under
// limits of memory and time. Whatever the candidate does to its process, to
// crash, to hang or to eat memory, the parent lives on and says what happened.
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
)

// Candidate is a verified release to be tried.
type Candidate struct {
	Digest   release.Digest
	Manifest *release.Manifest
	Dir      string // its files, each named by its digest in hex
}

// Verdict is what a trial found. When OK is false, Code says why and Message
// says it to a person.
type Verdict struct {
	OK      bool
	Code    string
	Message string
	// Variant is the fastest one that passed.
	Variant string
	// P95 is its warm latency at batch 1.
	P95 time.Duration
	// PeakBytes is the memory it took above the bare process.
	PeakBytes uint64
	// Report is what the control plane is told; never nil.
	Report *protocol.Trial
}
