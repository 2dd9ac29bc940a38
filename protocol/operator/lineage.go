package operator

import (
	"context"
	"time"
)

// LineageReader walks from what devices predicted back to what it came from.
type LineageReader interface {
	Lineage(ctx context.Context, model, version string) (*Provenance, error)
	DeviceLineage(ctx context.Context, device string, q LineageQuery) (*Provenance, error)
}

// LineageQuery selects the prediction of a device that is walked back from.
type LineageQuery struct {
	Model string    `json:"model,omitempty" query:"model"` // empty: the device's only one
	At    time.Time `json:"at,omitzero" query:"at"`        // zero: now
}

// Provenance is where a version comes from and how it came to devices. What is not
// known is left out, and Gaps says why.
type Provenance struct {
	Window    *LineageWindow    `json:"window,omitempty"` // only of a device
	Release   ReleaseRef        `json:"release"`
	Sequence  uint64            `json:"sequence"`
	Stage     Stage             `json:"stage"`
	Published time.Time         `json:"published,omitzero"`
	By        string            `json:"published_by,omitempty"`
	Signature Signature         `json:"signature"`
	Rollouts  []LineageRollout  `json:"rollouts"`            // that brought it, newest first
	Candidate *LineageCandidate `json:"candidate,omitempty"` // registered version that it was packed from
	Run       *LineageRun       `json:"run,omitempty"`
	Commit    string            `json:"commit,omitempty"`
	Author    string            `json:"author,omitempty"`
	Data      string            `json:"data,omitempty"` // version or hash of the training data
	Parent    *ReleaseRef       `json:"parent,omitempty"`
	Gaps      []string          `json:"gaps,omitempty"`
}

// LineageWindow is what a device predicted in one hour.
type LineageWindow struct {
	Device string    `json:"device"`
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
	Rows   uint64    `json:"rows"`
	// Others are the releases that it also predicted with in that hour, by rows: it
	// switched between them.
	Others []LineageShare `json:"others,omitempty"`
}

// LineageShare is how much of an hour a release predicted.
type LineageShare struct {
	ReleaseRef

	Rows uint64 `json:"rows"`
}

// LineageRollout brought a version to devices.
type LineageRollout struct {
	ID      string    `json:"id"`
	Status  string    `json:"status"`
	Creator string    `json:"creator"`
	Created time.Time `json:"created"`
	Wave    int       `json:"wave,omitempty"` // in which the device got it; only of a device
}

// LineageCandidate is a registered version.
type LineageCandidate struct {
	Source     string    `json:"source"` // models:/NAME/VERSION
	User       string    `json:"user,omitempty"`
	Registered time.Time `json:"registered"`
	Retrain    string    `json:"retrain,omitempty"` // request that it answers
}

// LineageRun is the training run.
type LineageRun struct {
	ID          string            `json:"id"`
	Name        string            `json:"name,omitempty"`
	User        string            `json:"user,omitempty"`
	Status      string            `json:"status"`
	Started     time.Time         `json:"started"`
	Seed        string            `json:"seed,omitempty"`
	Params      map[string]string `json:"params,omitempty"`
	Environment map[string]string `json:"environment,omitempty"` // tags that describe it
	Datasets    []LineageDataset  `json:"datasets,omitempty"`
}

// LineageDataset is data that the run used.
type LineageDataset struct {
	Name    string `json:"name"`
	Digest  string `json:"digest"`
	Context string `json:"context,omitempty"` // training, evaluation
	Source  string `json:"source,omitempty"`
}
