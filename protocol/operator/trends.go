package operator

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// TrendReader reads what a model did over months.
type TrendReader interface {
	Trends(ctx context.Context, model string, q TrendQuery) (*Trends, error)
}

// Ways to split trends.
const (
	ByVersion = "version" // a series for each version
	ByCohort  = "cohort"  // a series for each version in each cohort
)

// TrendQuery selects what a model did over time. Hours are kept for 90 days,
// days for two years; a step of a day or more is read from days.
type TrendQuery struct {
	From     time.Time        `json:"from,omitzero" query:"from"`          // a week before To by default
	To       time.Time        `json:"to,omitzero" query:"to"`              // now by default
	Step     release.Duration `json:"step,omitempty" query:"step"`         // whole hours or whole days; by default one that gives some hundred points
	Version  string           `json:"version,omitempty" query:"version"`   // only this version
	Cohort   string           `json:"cohort,omitempty" query:"cohort"`     // only this cohort
	Device   string           `json:"device,omitempty" query:"device"`     // only this device; not with cohort
	By       string           `json:"by,omitempty" query:"by"`             // version (default), cohort
	Features bool             `json:"features,omitempty" query:"features"` // every feature of each point, not the largest PSI alone
}

// Trends are what a model did over time.
type Trends struct {
	Model     string           `json:"model"`
	From      time.Time        `json:"from"`
	To        time.Time        `json:"to"`
	Step      release.Duration `json:"step"`
	Threshold float64          `json:"threshold"` // of PSI
	Series    []TrendSeries    `json:"series"`    // by sequence of the release, then cohort
	AsOf      time.Time        `json:"as_of"`
}

// TrendSeries is one version, in all devices that were asked for or in one cohort.
type TrendSeries struct {
	ReleaseRef

	Cohort  string       `json:"cohort,omitempty"`
	Classes []string     `json:"classes,omitempty"` // names of what Shares counts
	Points  []TrendPoint `json:"points"`            // oldest first, empty steps left out
}

// TrendPoint is one step of a series. It is what one window of that length
// would have been.
type TrendPoint struct {
	At          time.Time      `json:"at"`      // start of the step, UTC
	Devices     uint64         `json:"devices"` // most that counted in one hour, or day
	Windows     uint64         `json:"windows"` // merged
	Rows        uint64         `json:"rows"`    // predictions answered
	FailedRows  uint64         `json:"failed_rows,omitempty"`
	Calls       uint64         `json:"calls"`
	FailedCalls uint64         `json:"failed_calls,omitempty"`
	P50US       uint64         `json:"p50_us,omitempty"` // latency of a call
	P95US       uint64         `json:"p95_us,omitempty"`
	Labels      uint64         `json:"labels,omitempty"` // matched, by the time of their predictions
	Correct     uint64         `json:"correct,omitempty"`
	Accuracy    *float64       `json:"accuracy,omitempty"`    // absent without labels
	ECE         *float64       `json:"ece,omitempty"`         // expected calibration error over ten bins of confidence; absent without labels
	PSI         *float64       `json:"psi,omitempty"`         // largest over features, against training; absent when there are too few rows
	Furthest    string         `json:"furthest,omitempty"`    // the feature that PSI is of
	Shares      []float64      `json:"shares,omitempty"`      // of the predicted classes
	Calibration []TrendBin     `json:"calibration,omitempty"` // ten bins of confidence, when features are asked for
	Features    []TrendFeature `json:"features,omitempty"`    // when asked for
}

// TrendBin is one tenth of the confidence range.
type TrendBin struct {
	Labels     uint64  `json:"labels"`
	Confidence float64 `json:"confidence"` // mean
	Correct    uint64  `json:"correct"`
}

// TrendFeature compares one feature or output of a step with training.
type TrendFeature struct {
	Feature string  `json:"feature"`
	PSI     float64 `json:"psi"`
	Noise   float64 `json:"noise"`  // PSI that the sizes of the samples alone explain
	Enough  bool    `json:"enough"` // rows suffice to judge
	Apart   bool    `json:"apart"`  // PSI above the threshold and above the noise
}
