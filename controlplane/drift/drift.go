// Package drift watches what devices report and says what it means: whether
// one device has left its cohort (its sensor is at fault) or a cohort has left
// the training data (the world has changed), whether the accuracy measured from
// late labels still meets its floor, and how much every release has served.
//
// It is a pure fold. Apply takes the accepted records of the uplink stream in
// their order, Evaluate scores what was folded, and time is always an argument:
// the same records and the same calls give the same alarms. A Monitor's methods
// may be called from several goroutines.
//
// Statistics. Bins are those of the release's baseline, coarsened to at most
// MaxBins bins of near equal training mass, so that an answer needs few rows.
// Without drift PSI is about (1/n + 1/m)·χ²(B−1) (Yurdakul & Naranjo 2020),
// which gives every feature a p-value; Benjamini–Hochberg holds the share of
// false discoveries over a model's features. A feature has drifted when its PSI
// is above the threshold and its p-value is discovered. The size m of a sample
// is capped at the number of distinct input rows in it, because a repeated row
// tells nothing new. Accuracy is held against its floor by the beta-binomial
// confidence sequence (Robbins 1970), which stays valid however often it is
// looked at.
package drift

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/divergence"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Defaults of Config, with the reasons.
const (
	// DefaultThreshold, DefaultAlpha and DefaultRowsPerBin are those of comparisons
	// anywhere; RaiseAfter makes alarms rarer still.
	DefaultThreshold  = divergence.DefaultThreshold
	DefaultAlpha      = divergence.DefaultAlpha
	DefaultRowsPerBin = divergence.DefaultRowsPerBin
	// DefaultShare is that of comparisons anywhere too.
	DefaultShare = divergence.DefaultShare
	// DefaultMaxAge is how far back windows count for a verdict.
	DefaultMaxAge = 24 * time.Hour
	// DefaultBlock lets a fall of accuracy show before a day of good labels hides it.
	DefaultBlock = time.Hour
	// DefaultBucket and DefaultBuckets bound a chart to a day of minutes.
	DefaultBucket  = time.Minute
	minBucket      = 2 * time.Second // of the default
	DefaultBuckets = 1440
	// DefaultCohortBy is the label that devices of one cohort share.
	DefaultCohortBy = "site"
	// DefaultRaiseAfter and DefaultClearAfter are how many looks at new data
	// must agree: going up is confirmed once, coming down twice.
	DefaultRaiseAfter = 2
	DefaultClearAfter = 3
	// MaxBins is the most bins a feature is scored on.
	MaxBins = divergence.MaxBins
)

// Config of a Monitor. Zero fields take the defaults above.
type Config struct {
	Threshold  float64       // PSI above which a difference matters
	Alpha      float64       // false discovery rate over the features of one comparison; of a confidence sequence too
	RowsPerBin int           // rows needed for each bin before a feature is judged
	Share      float64       // change of a share of missing or of new values that matters
	MaxAge     time.Duration // windows older than this no longer count for verdicts
	Block      time.Duration // length of one confidence sequence of accuracy; no longer than MaxAge by default
	Bucket     time.Duration // resolution of series; finer by default where MaxAge is short
	Buckets    int           // buckets kept per series
	CohortBy   string        // device label that makes a cohort
	RaiseAfter int           // looks in a row that must see a problem before an alarm is raised
	ClearAfter int           // looks in a row that must see none before it is cleared
}

// Release is what the monitor must know to score windows of a release.
type Release struct {
	Digest  release.Digest
	Model   string
	Version string
	// Sequence orders versions of one model.
	Sequence uint64
}

// Verdict is what a comparison amounts to.
type Verdict string

// Verdicts. A device is ok, sensor_fault, drift, apart or insufficient; a
// cohort ok, drift or insufficient; accuracy ok, breach, undecided or insufficient.
const (
	OK           Verdict = "ok"
	SensorFault  Verdict = "sensor_fault" // the device left a cohort that is fine
	Drift        Verdict = "drift"        // the cohort left training; of a device: it moves with such a cohort
	Apart        Verdict = "apart"        // the device left training and has no cohort to tell why
	Breach       Verdict = "breach"       // accuracy is below its floor
	Undecided    Verdict = "undecided"    // the floor lies inside the confidence sequence
	Insufficient Verdict = "insufficient" // too few rows, or labels, to say anything
)

// FeatureScore compares one stream of the baseline between two samples.
type FeatureScore = divergence.FeatureScore

// Comparison is one sample against one reference, over all streams.
type Comparison = divergence.Comparison

// DeviceScore is one device on one release.
type DeviceScore struct {
	Device     string      `json:"device"`
	Cohort     string      `json:"cohort"` // "" for none
	Verdict    Verdict     `json:"verdict"`
	Rows       uint64      `json:"rows"` // in the windows judged
	FromMS     int64       `json:"from_ms"`
	ToMS       int64       `json:"to_ms"`
	Training   Comparison  `json:"training"`             // device against training
	Neighbours *Comparison `json:"neighbours,omitempty"` // device against the rest of its cohort
}

// CohortScore is the devices of one model and release that share a label.
type CohortScore struct {
	Cohort   string        `json:"cohort"`
	Verdict  Verdict       `json:"verdict"`
	Devices  int           `json:"devices"`
	Drifted  int           `json:"drifted"` // devices that are themselves apart from training
	Rows     uint64        `json:"rows"`
	FromMS   int64         `json:"from_ms"`
	ToMS     int64         `json:"to_ms"`
	Training Comparison    `json:"training"`
	Accuracy AccuracyScore `json:"accuracy"`
	// Prediction is the verdict on the outputs alone: ok, drift or insufficient.
	Prediction Verdict `json:"prediction"`
	// Missing and New tell that most devices report more, or less, missing values
	// or values that training did not know.
	Missing bool `json:"missing"`
	New     bool `json:"new"`
}

// AccuracyScore is what labels say, with an interval that holds at every look.
type AccuracyScore struct {
	Labels   uint64  `json:"labels"` // matched
	Correct  uint64  `json:"correct"`
	Accuracy float64 `json:"accuracy"`
	Lower    float64 `json:"lower"`
	Upper    float64 `json:"upper"`
	Floor    float64 `json:"floor"` // 0 when none is set
	Verdict  Verdict `json:"verdict"`
	Cause    string  `json:"cause,omitempty"` // of a breach, where it can be told: a Cause… constant
}

// Causes of an accuracy below its floor.
const (
	CauseConcept = "concept" // the inputs are as in training: the same inputs mean something else now
	CauseInputs  = "inputs"  // the inputs left the training data
)

// Score is everything known of one release of one model.
type Score struct {
	Model   string         `json:"model"`
	Release release.Digest `json:"release"`
	Version string         `json:"version"`
	AtMS    int64          `json:"at_ms"`
	Devices []DeviceScore  `json:"devices"`
	Cohorts []CohortScore  `json:"cohorts"`
}

// Total is what a device has reported of one release since the beginning. A
// Total without model holds losses, which no release can be named for.
type Total struct {
	Device      string         `json:"device"`
	Model       string         `json:"model"`
	Release     release.Digest `json:"release"`
	Rows        uint64         `json:"rows"` // answered
	FailedRows  uint64         `json:"failed_rows"`
	Calls       uint64         `json:"calls"`
	FailedCalls uint64         `json:"failed_calls"`
	Labels      uint64         `json:"labels"` // matched and unmatched
	Matched     uint64         `json:"matched"`
	Correct     uint64         `json:"correct"`
	Uncertain   uint64         `json:"uncertain_rows"` // rows whose time is not known: in no series and no score

	LostRecords uint64 `json:"lost_records"`
	LostRows    uint64 `json:"lost_rows"`
	LostLabels  uint64 `json:"lost_labels"`
	UnknownLoss bool   `json:"unknown_loss"` // more may be gone than was proven
	Cloned      bool   `json:"cloned"`
}

// Evidence is what one device showed on one release since a moment.
type Evidence struct {
	Rows, FailedRows   uint64
	Calls, FailedCalls uint64
	P95                time.Duration   // of a call, 0 when none
	Latency            *sketch.Latency `json:"-"` // of all calls counted
	Labels, Correct    uint64
	Classes            []uint64 // rows by predicted class, nil when the model has none
	// Outputs are the counts of all output streams on the bins of the baseline;
	// devices of the same release can be compared bin by bin.
	Outputs []OutputCounts
	FromMS  int64 // start of the oldest window counted
	ToMS    int64 // end of the newest
}

// OutputCounts is one output stream's histogram.
type OutputCounts struct {
	Name           string
	Bins           []uint64
	Missing, Other uint64
}

// AlarmKind says what an alarm is about.
type AlarmKind string

// Kinds of alarms. Only DriftAlarm and AccuracyAlarm speak for retraining.
// PredictionAlarm, MissingAlarm and NewAlarm are raised only where no other one
// of the same cohort or device tells of the same cause already.
const (
	DriftAlarm      AlarmKind = "drift"        // the inputs of a cohort left training
	PredictionAlarm AlarmKind = "prediction"   // its predictions did, its inputs did not
	SensorAlarm     AlarmKind = "sensor_fault" // a device left its cohort
	ApartAlarm      AlarmKind = "apart"        // a device left training and nobody can tell why
	AccuracyAlarm   AlarmKind = "accuracy"     // proven to be below its floor
	MissingAlarm    AlarmKind = "missing"      // another share of missing values, of a cohort or a device
	NewAlarm        AlarmKind = "new_values"   // another share of values unknown to training
)

// AlarmKinds are all of them.
func AlarmKinds() []AlarmKind {
	return []AlarmKind{DriftAlarm, PredictionAlarm, SensorAlarm, ApartAlarm, AccuracyAlarm, MissingAlarm, NewAlarm}
}

// Alarm is a finding that held long enough to be told.
type Alarm struct {
	ID        string         `json:"id"` // stable: the same finding raised at the same time has the same id
	Kind      AlarmKind      `json:"kind"`
	Model     string         `json:"model"`
	Release   release.Digest `json:"release"`
	Version   string         `json:"version"`
	Cohort    string         `json:"cohort,omitempty"`
	Device    string         `json:"device,omitempty"`
	RaisedMS  int64          `json:"raised_ms"`
	ClearedMS int64          `json:"cleared_ms,omitempty"` // 0 while it is raised
	Reason    string         `json:"reason,omitempty"`     // why it was cleared: recovered, superseded, no_data
	Features  []FeatureScore `json:"features,omitempty"`   // the furthest apart, at most five, when raised
	Accuracy  *AccuracyScore `json:"accuracy,omitempty"`
	Message   string         `json:"message"` // for people
}

// Raised tells whether the finding still holds.
func (a Alarm) Raised() bool { return a.ClearedMS == 0 }

// Point is one bucket of a chart.
type Point struct {
	AtMS     int64   `json:"at_ms"` // start of the bucket
	Rows     uint64  `json:"rows"`
	Failed   uint64  `json:"failed_rows"`
	Labels   uint64  `json:"labels"` // matched, by the time of their predictions
	Correct  uint64  `json:"correct"`
	MaxPSI   float64 `json:"max_psi"`  // cohort against training, −1 when not evaluated
	Accuracy float64 `json:"accuracy"` // −1 without labels
	// Of labels whose predictions had a confidence: their number and the sums that
	// its mean and the Brier score are made of.
	Rated      uint64  `json:"rated,omitempty"`
	RatedRight uint64  `json:"rated_right,omitempty"`
	Confidence float64 `json:"confidence,omitempty"`
	Squared    float64 `json:"squared,omitempty"`
	Hits       float64 `json:"hits,omitempty"`
}

// Brier is the point's Brier score, ok when it has one.
func (p *Point) Brier() (score float64, ok bool) {
	if p.Rated == 0 {
		return 0, false
	}
	return max(0, (p.Squared-2*p.Hits+float64(p.RatedRight))/float64(p.Rated)), true
}

// Series is a chart of one cohort on one release.
type Series struct {
	Model   string         `json:"model"`
	Release release.Digest `json:"release"`
	Version string         `json:"version"`
	Cohort  string         `json:"cohort"`
	Bucket  time.Duration  `json:"bucket_ns"`
	Points  []Point        `json:"points"` // oldest first, empty buckets left out
}
