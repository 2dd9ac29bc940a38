package operator

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Verdict is what a comparison means.
type Verdict string

// Verdicts. A device is ok, sensor_fault, drift, apart or insufficient; a
// cohort ok, drift or insufficient; accuracy ok, breach, undecided or
// insufficient.
const (
	VerdictOK           Verdict = "ok"
	VerdictDrift        Verdict = "drift"        // the cohort left its training data; of a device: it moves with such a cohort
	VerdictSensorFault  Verdict = "sensor_fault" // the device left a cohort that is fine
	VerdictApart        Verdict = "apart"        // the device left training and has no cohort to tell why
	VerdictBreach       Verdict = "breach"       // accuracy is below its floor
	VerdictUndecided    Verdict = "undecided"    // the floor lies inside the confidence interval
	VerdictInsufficient Verdict = "insufficient" // too little evidence to say
)

// Drift is the state of one model's inputs and outputs against training.
type Drift struct {
	Model     string         `json:"model"`
	Threshold float64        `json:"threshold"` // PSI that counts when it is above the noise too
	CohortBy  string         `json:"cohort_by"` // label that devices of one cohort share
	Releases  []DriftRelease `json:"releases"`  // with evidence, highest sequence first
	AsOf      time.Time      `json:"as_of"`
}

// DriftRelease is one release's heat map: cohorts × devices × features.
type DriftRelease struct {
	ReleaseRef

	Features []string      `json:"features"` // column names, in the order of every Cells
	Cohorts  []CohortDrift `json:"cohorts"`
}

// CohortDrift is one cohort of devices, by default one site.
type CohortDrift struct {
	Cohort    string        `json:"cohort"` // empty: devices without the label
	Verdict   Verdict       `json:"verdict"`
	Text      string        `json:"text,omitempty"` // what the verdict means, for people
	Rows      uint64        `json:"rows"`           // in the windows judged
	From      time.Time     `json:"from,omitzero"`
	To        time.Time     `json:"to,omitzero"`
	MaxPSI    float64       `json:"max_psi"`             // against training, over features with enough rows
	Condition string        `json:"condition,omitempty"` // of the training data that is nearest, where the baseline knows several
	Drifted   int           `json:"drifted"`             // devices that are themselves apart from training
	Cells     []DriftCell   `json:"cells"`
	Accuracy  Accuracy      `json:"accuracy"`
	Devices   []DeviceDrift `json:"devices"`

	Prediction Verdict `json:"prediction,omitempty"` // on what the model answers, alone
	Missing    bool    `json:"missing,omitempty"`    // most devices have another share of missing values than training
	New        bool    `json:"new,omitempty"`        // most devices have values that training did not know
}

// Accuracy is what labels say, with an interval that holds however often one looks.
type Accuracy struct {
	Labels   uint64  `json:"labels"` // matched
	Correct  uint64  `json:"correct"`
	Accuracy float64 `json:"accuracy"`
	Lower    float64 `json:"lower"`
	Upper    float64 `json:"upper"`
	Floor    float64 `json:"floor,omitempty"` // asked for by the policy
	Verdict  Verdict `json:"verdict"`
	Cause    string  `json:"cause,omitempty"` // of a breach, where it can be told: a Cause… constant
}

// Causes of an accuracy below its floor.
const (
	CauseConcept = "concept" // the inputs are as in training: concept drift
	CauseInputs  = "inputs"  // the inputs left the training data
)

// DeviceDrift is one device on one release.
type DeviceDrift struct {
	ReleaseRef

	Device    string      `json:"device"`
	Cohort    string      `json:"cohort,omitempty"`
	Verdict   Verdict     `json:"verdict"`
	Text      string      `json:"text,omitempty"`
	Rows      uint64      `json:"rows"`
	MaxPSI    float64     `json:"max_psi"`             // against training
	Condition string      `json:"condition,omitempty"` // of the training data that is nearest
	Cells     []DriftCell `json:"cells"`
}

// DriftCell is one feature or output of one device or cohort, compared with
// training, and of a device also with the rest of its cohort.
type DriftCell struct {
	Feature string  `json:"feature"`
	Side    string  `json:"side"` // input, output
	PSI     float64 `json:"psi"`
	Noise   float64 `json:"noise"`           // PSI that the sizes of the samples alone explain
	JS      float64 `json:"js"`              // Jensen–Shannon distance, base 2, 0 to 1
	KS      float64 `json:"ks,omitempty"`    // lower bound of the Kolmogorov–Smirnov distance
	KSUp    float64 `json:"ks_up,omitempty"` // its upper bound
	KSP     float64 `json:"ks_p,omitempty"`  // of the lower bound: that of the values is no larger
	Chi2P   float64 `json:"chi2_p"`          // of the χ² test of homogeneity; the larger of it and P decides
	LInf    float64 `json:"l_inf,omitempty"` // largest difference of a bin's share
	P       float64 `json:"p"`               // of PSI under no drift, before correction for many features
	Rows    uint64  `json:"rows"`            // effective rows judged
	Enough  bool    `json:"enough"`          // rows suffice to judge
	Apart   bool    `json:"apart"`           // PSI above the threshold and above the noise

	Missing *ShareChange `json:"missing,omitempty"` // absent when neither training nor the rows judged have any
	New     *ShareChange `json:"new,omitempty"`

	CohortPSI   float64 `json:"cohort_psi,omitempty"` // device against the rest of its cohort
	CohortNoise float64 `json:"cohort_noise,omitempty"`
	CohortApart bool    `json:"cohort_apart,omitempty"`
}

// Alarm is a standing finding, raised and later cleared.
type Alarm struct {
	ID       string         `json:"id"`
	Kind     string         `json:"kind"` // an Alarm… constant
	Model    string         `json:"model"`
	Version  string         `json:"version,omitempty"`
	Release  release.Digest `json:"release"`
	Cohort   string         `json:"cohort,omitempty"`
	Device   string         `json:"device,omitempty"`
	Text     string         `json:"text"`
	Cells    []DriftCell    `json:"cells,omitempty"` // furthest apart when it was raised, at most five
	Accuracy *Accuracy      `json:"accuracy,omitempty"`
	Raised   time.Time      `json:"raised"`
	Cleared  time.Time      `json:"cleared,omitzero"`
	Reason   string         `json:"reason,omitempty"` // why it was cleared: recovered, superseded, no_data
}

// Kinds of alarms. Only drift and accuracy ask for retraining.
const (
	AlarmDrift       = "drift"      // the inputs of a cohort left training
	AlarmPrediction  = "prediction" // its predictions did, its inputs did not
	AlarmSensorFault = "sensor_fault"
	AlarmApart       = "apart"
	AlarmAccuracy    = "accuracy"
	AlarmMissing     = "missing"    // another share of missing values than in training
	AlarmNewValues   = "new_values" // values that training did not know
)

// AlarmQuery selects alarms, newest first.
type AlarmQuery struct {
	Paging

	Model string `json:"model,omitempty" query:"model"`
	Open  bool   `json:"open,omitempty" query:"open"` // only those not cleared
}

// QualityQuery selects time series of one model.
type QualityQuery struct {
	Model   string    `json:"model" query:"model"`
	Version string    `json:"version,omitempty" query:"version"`
	Cohort  string    `json:"cohort,omitempty" query:"cohort"`
	Since   time.Time `json:"since,omitzero" query:"since"`
	Until   time.Time `json:"until,omitzero" query:"until"`
}

// Quality is what a model did over time.
type Quality struct {
	Model     string          `json:"model"`
	Series    []QualitySeries `json:"series"`              // by sequence of the release, then cohort
	Floor     float64         `json:"floor,omitempty"`     // accuracy asked for by the policy
	Threshold float64         `json:"threshold,omitempty"` // of PSI
	AsOf      time.Time       `json:"as_of"`
}

// QualitySeries is one curve: a version in a cohort, by default a site.
type QualitySeries struct {
	ReleaseRef

	Cohort string           `json:"cohort"`
	Step   release.Duration `json:"step"`
	Points []QualityPoint   `json:"points"` // oldest first, empty steps left out
}

// QualityPoint is one step of a series.
type QualityPoint struct {
	At         time.Time `json:"at"` // start of the step
	Rows       uint64    `json:"rows"`
	FailedRows uint64    `json:"failed_rows,omitempty"`
	Labels     uint64    `json:"labels,omitempty"` // matched, by the time of their predictions
	Correct    uint64    `json:"correct,omitempty"`
	Accuracy   *float64  `json:"accuracy,omitempty"` // absent without labels
	PSI        *float64  `json:"psi,omitempty"`      // largest over features, against training; absent when not evaluated
	// Of labels whose predictions had a confidence; absent without.
	Confidence *float64 `json:"confidence,omitempty"` // mean
	Brier      *float64 `json:"brier,omitempty"`      // mean squared distance of the confidence from being right
}
