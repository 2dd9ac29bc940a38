package operator

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// MaxSamplePage bounds the sealed samples of one page: some 5 MiB as JSON.
const MaxSamplePage = 64

// SampleReader reads the rows that devices sent for labelling, as far as that
// can be done without the publisher's identity.
type SampleReader interface {
	Samples(ctx context.Context, model string, q SampleQuery) (*Samples, error)
	SealedSamples(ctx context.Context, model string, q SampleQuery) (*Page[SealedSample], error)
}

// SampleQuery chooses samples of a model.
type SampleQuery struct {
	Paging

	Since   time.Time `json:"since,omitzero" query:"since"`      // of the window's end; zero: all
	Version string    `json:"version,omitempty" query:"version"` // or a release digest; empty: all
}

// Samples is what is held of a model, and what its versions allow.
type Samples struct {
	Model   string         `json:"model"`
	Samples int            `json:"samples"`
	Rows    int            `json:"rows"`
	Bytes   uint64         `json:"bytes"`
	Oldest  time.Time      `json:"oldest,omitzero"`
	Newest  time.Time      `json:"newest,omitzero"`
	Expires time.Time      `json:"expires,omitzero"` // when the next one is deleted
	Strata  []SampledPart  `json:"strata"`
	Plans   []SamplingPlan `json:"plans"`
}

// SampledPart is one stratum of one version.
type SampledPart struct {
	Version string `json:"version"`
	Stratum string `json:"stratum"`
	Rows    int    `json:"rows"`    // held
	Seen    uint64 `json:"seen"`    // that the rows held were chosen from
	Devices int    `json:"devices"` // that they come from
}

// SamplingPlan is what one version's signed manifest allows.
type SamplingPlan struct {
	release.Sampling

	Version string         `json:"version"`
	Release release.Digest `json:"release"`
}

// SealedSample is rows of one window of one device that the publisher's identity
// opens: protocol.SampleRows, encrypted with age.
type SealedSample struct {
	ID      string          `json:"id"`
	Model   string          `json:"model"`
	Version string          `json:"version,omitempty"`
	Release release.Digest  `json:"release"`
	Device  string          `json:"device"`
	From    time.Time       `json:"from"`
	To      time.Time       `json:"to"`
	Expires time.Time       `json:"expires"`
	Strata  []SampleStratum `json:"strata"`
	Sealed  []byte          `json:"sealed"`
}

// SampleStratum is one stratum of one sample.
type SampleStratum struct {
	Name string `json:"name"`
	Seen uint64 `json:"seen"`
	Rows int    `json:"rows"`
}
