// Package sketch holds the summaries that travel instead of data: histograms
// over the bins of a release's baseline, class counts, distinct-row and latency
// sketches. All of them merge by addition (or union), so devices, hours and
// cohorts can be added up in any order. It knows no thresholds: what a
// difference means is decided in the control plane.
package sketch

// BaselineFormat is the version of the baseline file. History:
//
//	1  2026-11-23  first
const BaselineFormat = 1

// Baseline is what the training data looked like, stream by stream. It is a
// signed part of the release, so it changes exactly when the version does.
type Baseline struct {
	Format  int      `json:"format"`
	Rows    uint64   `json:"rows"` // training rows
	Streams []Stream `json:"streams"`
	// Conditions split the same rows by the circumstances they were taken
	// under (day and night, new lens and old one). A device sees one of them at
	// a time, which is no drift though it looks unlike their mixture. Empty, or
	// two at least.
	Conditions []Condition `json:"conditions,omitempty"`
}

// Condition is the part of the training rows that was taken under one
// circumstance. Histograms are those of Streams, in their order, over the same bins.
type Condition struct {
	Name       string      `json:"name"`
	Rows       uint64      `json:"rows"`
	Histograms []BinCounts `json:"histograms"`
}

// BinCounts counts one stream.
type BinCounts struct {
	Counts  []uint64 `json:"counts"`
	Missing uint64   `json:"missing,omitempty"`
	Other   uint64   `json:"other,omitempty"`
}

// Side says where a stream is taken from.
type Side string

// Sides of a stream.
const (
	Input  Side = "input"  // one feature of an input row
	Output Side = "output" // derived from the outputs of a row
)

// Kind says how values are put into bins.
type Kind string

// Kinds of streams.
const (
	Continuous  Kind = "continuous"  // bins between Edges: bin i holds Edges[i-1] < v ≤ Edges[i], outer bins open
	Discrete    Kind = "discrete"    // one bin per value of Values; any other value is counted as other
	Categorical Kind = "categorical" // one bin per label of Labels; any other is counted as other
)

// Source says how a stream's value is computed from a row.
type Source string

// Sources of a stream.
const (
	Feature    Source = "feature"    // element Index of input tensor Tensor
	Scalar     Source = "scalar"     // Derive over all elements of input tensor Tensor
	Class      Source = "class"      // index of the predicted class
	Confidence Source = "confidence" // highest score
	Entropy    Source = "entropy"    // of the scores, in nats
)

// Stream is one watched quantity. Exactly one of Edges, Values and Labels is
// set, by Kind.
type Stream struct {
	Name   string `json:"name"`
	Side   Side   `json:"side"`
	Kind   Kind   `json:"kind"`
	Source Source `json:"source"`
	Tensor string `json:"tensor,omitempty"`
	Index  int    `json:"index,omitempty"`
	Derive string `json:"derive,omitempty"` // mean, stddev, min, max, zeros, gradient

	Edges  []float32 `json:"edges,omitempty"`  // len = bins − 1, strictly rising
	Values []float32 `json:"values,omitempty"` // len = bins
	Labels []string  `json:"labels,omitempty"` // len = bins

	Counts  []uint64 `json:"counts"` // training rows per bin
	Missing uint64   `json:"missing,omitempty"`
	Other   uint64   `json:"other,omitempty"`
}
