package operator

import (
	"context"
	"time"
)

// Bounds of truths in one request.
const (
	MaxTruthRows = 5000    // rows of one chunk
	MaxTruthBody = 4 << 20 // bytes of one chunk as JSON
)

// TruthReader reads what became of uploaded truths, newest upload first.
type TruthReader interface {
	Truths(ctx context.Context, model string) (*Truths, error)
	TruthUpload(ctx context.Context, model, upload string) (*TruthUpload, error)
}

// TruthCommander uploads truths. An upload is begun and then given chunks; the
// same id or the same chunk again changes nothing but that rows which were
// rejected are tried again.
type TruthCommander interface {
	BeginTruths(ctx context.Context, model string, b TruthBegin) (*TruthUpload, error)
	PushTruths(ctx context.Context, model, upload, chunk string, c TruthChunk) (*TruthChunkResult, error)
}

// TruthBegin begins an upload, or finds how far it is.
type TruthBegin struct {
	ID     string `json:"id"`             // 8 to 64 hex digits that follow from the content
	Name   string `json:"name,omitempty"` // of the file, for people
	Reason string `json:"reason"`
}

// TruthChunk is rows of an upload. A chunk is named by 16 to 64 hex digits that
// follow from its content.
type TruthChunk struct {
	Rows []TruthRow `json:"rows"` // at most MaxTruthRows
}

// TruthRow is what was right about one prediction.
type TruthRow struct {
	Line   int64  `json:"line"` // in the file, counted from 1
	ID     string `json:"id"`   // of the prediction
	Label  string `json:"label"`
	Device string `json:"device,omitempty"` // empty: found by the id
}

// TruthChunkResult is what became of a chunk.
type TruthChunkResult struct {
	Queued   int           `json:"queued"` // truths that wait for their device now
	Rejected int           `json:"rejected"`
	Rejects  []TruthReject `json:"rejects,omitempty"` // the first ones
}

// TruthReject is a row that was not taken.
type TruthReject struct {
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
}

// TruthCounts sum up truths. Queued = waiting + matched + unmatched + repeated +
// refused + expired.
type TruthCounts struct {
	Queued    uint64 `json:"queued"`
	Rejected  uint64 `json:"rejected"`  // of no device: never queued
	Waiting   uint64 `json:"waiting"`   // for their devices
	Matched   uint64 `json:"matched"`   // and counted
	Unmatched uint64 `json:"unmatched"` // the device holds no such prediction (any more)
	Repeated  uint64 `json:"repeated"`  // the prediction had its truth already
	Refused   uint64 `json:"refused"`   // by the device: no class of the model
	Expired   uint64 `json:"expired"`   // the device was away for too long
}

// TruthUpload is one file of truths.
type TruthUpload struct {
	TruthCounts

	ID      string        `json:"id"`
	Model   string        `json:"model"`
	Name    string        `json:"name,omitempty"`
	Actor   string        `json:"actor"`
	Reason  string        `json:"reason,omitempty"`
	At      time.Time     `json:"at"`
	Devices int           `json:"devices"`           // that truths were for
	Behind  []string      `json:"behind,omitempty"`  // devices that truths wait for, at most 100
	Chunks  []string      `json:"chunks,omitempty"`  // taken whole
	Rejects []TruthReject `json:"rejects,omitempty"` // the first ones
}

// Truths are the uploads of a model.
type Truths struct {
	TruthCounts

	Model   string        `json:"model"`
	Uploads []TruthUpload `json:"uploads"`
}

// Add adds other counts to these.
func (c *TruthCounts) Add(o *TruthCounts) {
	c.Queued += o.Queued
	c.Rejected += o.Rejected
	c.Waiting += o.Waiting
	c.Matched += o.Matched
	c.Unmatched += o.Unmatched
	c.Repeated += o.Repeated
	c.Refused += o.Refused
	c.Expired += o.Expired
}
