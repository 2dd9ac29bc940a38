// Package updater carries updates out. It owns one update.Machine per model,
// writes each step to the journal before acting on it, keeps the deadlines, and
// enters every machine again after a power cut. What is active on disk is
// loaded first, before anything needs the network.
package updater

import (
	"context"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Puller brings releases from the control plane. Errors that may pass by
// themselves have a method Retryable() bool that reports true.
type Puller interface {
	// Resolve returns the manifest of a release that the device may trust now.
	Resolve(ctx context.Context, model string, d release.Digest) (*release.Manifest, error)
	// Fetch puts the files of m and manifest.json into dir, going on with what
	// is there already.
	Fetch(ctx context.Context, m *release.Manifest, dir string, progress func(done, total int64)) error
}

// Trier proves a release outside of the serving process.
type Trier interface {
	Try(ctx context.Context, c trial.Candidate) (trial.Verdict, error)
}

// Engine serves releases.
type Engine interface {
	// Activate loads r and switches to it; after an error the release before
	// goes on serving.
	Activate(ctx context.Context, r infer.Release) error
	// Remove stops serving the model; an unknown one is no error.
	Remove(ctx context.Context, model string) error
}
