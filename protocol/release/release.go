// Package release is the manifest of one model version: what files it consists
// of, what goes in and out, what is watched, how a device proves it before it
// serves, and under which limits. The manifest's canonical bytes are what a
// publisher signs; their SHA-256 is the release's digest, its only identity.
package release

import (
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// Versions of the manifest's layout. A manifest has the lowest one that has all
// of its fields, so older devices go on reading what they can. History:
//
//	1  2026-11-23  first
//	2  2026-11-23  lineage.source, sampling
const (
	Format       = 1 // of a manifest that uses no later field
	FormatSample = 2 // of one with lineage.source or sampling
)

// Digest is the SHA-256 of a file or of a manifest's canonical bytes. As text
// and in JSON it is 64 lower-case hex digits.
type Digest [protocol.DigestSize]byte

// Manifest describes one version of one model.
type Manifest struct {
	Format   int       `json:"format"`
	Model    string    `json:"model"`    // protocol.CheckName
	Version  string    `json:"version"`  // protocol.CheckName, for people; unique per model
	Sequence uint64    `json:"sequence"` // rises with every release of the model; the signed floor refers to it
	Variants []Variant `json:"variants"`
	Schema   Schema    `json:"schema"`
	Baseline File      `json:"baseline"` // sketch.Baseline as JSON
	Golden   File      `json:"golden"`   // Golden as JSON
	Limits   Limits    `json:"limits"`
	Lineage  Lineage   `json:"lineage"`
	// Sampling lets rows leave the device for labelling; nil: none ever do.
	Sampling *Sampling `json:"sampling,omitempty"` // since format 2
}

// File is content by digest. Name is a plain file name for people: no path.
type File struct {
	Name   string `json:"name"`
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"` // bytes
}

// Variant is one graph that computes the model: fp32, int8, an engine.
type Variant struct {
	Name      string   `json:"name"`
	Precision string   `json:"precision"` // fp32, fp16, int8
	Graph     File     `json:"graph"`
	Providers []string `json:"providers,omitempty"` // execution providers it may run on, of which the device takes the fastest that is right; none means any
	Arch      []string `json:"arch,omitempty"`      // GOARCH values; none means any
}

// Schema is the model's interface.
type Schema struct {
	Inputs  []Tensor `json:"inputs"`
	Outputs []Tensor `json:"outputs"`
	Classes []string `json:"classes,omitempty"` // class labels in index order
	// Label and Scores name the outputs that hold the predicted class [N] and
	// the scores per class [N, k]. Either may be empty.
	Label  string `json:"label,omitempty"`
	Scores string `json:"scores,omitempty"`
}

// Tensor is one input or output. Datatype is a name of the Open Inference
// Protocol (FP32, INT64, BOOL, BYTES, …). Shape uses −1 for a free dimension;
// the first dimension is the batch. An output that the graph gives as a sequence
// of maps from class to score (skl2onnx's zipmap) is described as the tensor that
// devices make of it: FP32 [−1, k], column i for class i of the schema.
type Tensor struct {
	Name     string    `json:"name"`
	Datatype string    `json:"datatype"`
	Shape    []int64   `json:"shape"`
	Features []Feature `json:"features,omitempty"` // of one row, in order; inputs only
}

// Feature is one number of an input row.
type Feature struct {
	Name    string   `json:"name"`
	Unit    string   `json:"unit,omitempty"`
	Min     *float64 `json:"min,omitempty"` // of the valid range
	Max     *float64 `json:"max,omitempty"`
	Missing string   `json:"missing,omitempty"` // policy: "" and "nan" pass NaN on, "refuse" fails the row
}

// Limits are what a device must keep before the release may serve on it.
// Zero means no limit.
type Limits struct {
	P95         Duration `json:"p95,omitempty"`          // warm latency at batch 1
	MemoryBytes uint64   `json:"memory_bytes,omitempty"` // resident, of the trial process above its own floor
	MinAgent    string   `json:"min_agent,omitempty"`    // semantic version
	MinRuntime  string   `json:"min_runtime,omitempty"`  // of ONNX Runtime
}

// Duration is a time.Duration written as text ("50ms").
type Duration time.Duration

// Lineage says where a version came from.
type Lineage struct {
	Created     time.Time          `json:"created"`
	Author      string             `json:"author,omitempty"`
	Run         string             `json:"run,omitempty"`
	Source      string             `json:"source,omitempty"` // registered version it was packed from, "models:/NAME/VERSION"; since format 2
	DataVersion string             `json:"data_version,omitempty"`
	Commit      string             `json:"commit,omitempty"`
	Parent      *Digest            `json:"parent,omitempty"` // release it was derived from
	Metrics     map[string]float64 `json:"metrics,omitempty"`
}

// Golden is a set of inputs with the outputs that the training framework gave
// for them. Rows are batched along the first dimension.
type Golden struct {
	Rows    int        `json:"rows"`
	Inputs  []Values   `json:"inputs"`
	Outputs []Expected `json:"outputs"`
	Source  string     `json:"source,omitempty"` // what computed the outputs, e.g. "scikit-learn 1.2.1"
}

// Values are the elements of one tensor in row-major order. Integers and
// booleans are exact in a float64 up to 2^53; strings have their own list.
type Values struct {
	Name    string   `json:"name"`
	Shape   []int64  `json:"shape"`
	Data    Floats   `json:"data,omitempty"`
	Strings []string `json:"strings,omitempty"`
}

// Floats are numbers that may be missing: NaN, written as null.
type Floats []float64

// Expected is a golden output: |got − want| ≤ Abs + Rel·|want| for every
// element. Integers, booleans and strings must be equal.
type Expected struct {
	Values
	Abs float64 `json:"abs"`
	Rel float64 `json:"rel"`
}
