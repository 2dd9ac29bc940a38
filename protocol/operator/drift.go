package operator

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Verdict is what a comparison means.
type Verdict string

// Verdicts.
const (
	VerdictOK           Verdict = "ok"
	VerdictDrift        Verdict = "drift"        // a cohort left its training data: the world changed
	VerdictSensorFault  Verdict = "sensor_fault" // a device left its cohort
	VerdictInsufficient Verdict = "insufficient" // too little evidence to say
)

// Drift is the state of one model's inputs and outputs against training.
type Drift struct {
	Model    string         `json:"model"`
	Releases []DriftRelease `json:"releases"` // with data, newest first
	AsOf     time.Time      `json:"as_of"`
}

// DriftRelease is one release's heat map: cohorts × devices × features.
type DriftRelease struct {
	ReleaseRef

	Threshold float64       `json:"threshold"` // PSI that counts as drift when above the noise too
	Features  []string      `json:"features"`  // column names, order of Cells
	Cohorts   []CohortDrift `json:"cohorts"`
}

// CohortDrift is one cohort of devices, by default one site.
type CohortDrift struct {
	Cohort  string        `json:"cohort"`
	Verdict Verdict       `json:"verdict"`
	Text    string        `json:"text,omitempty"`
	Rows    uint64        `json:"rows"`
	Since   time.Time     `json:"since,omitzero"` // oldest evidence
	MaxPSI  float64       `json:"max_psi"`
	Cells   []DriftCell   `json:"cells"`
	Devices []DeviceDrift `json:"devices"`
}

// DeviceDrift is one device of a cohort.
type DeviceDrift struct {
	ReleaseRef

	Device  string      `json:"device"`
	Cohort  string      `json:"cohort,omitempty"`
	Verdict Verdict     `json:"verdict"`
	Text    string      `json:"text,omitempty"`
	Rows    uint64      `json:"rows"`
	MaxPSI  float64     `json:"max_psi"` // against training
	Cells   []DriftCell `json:"cells"`
}

// DriftCell is one feature or output of one device or cohort, compared with
// training.
type DriftCell struct {
	Feature     string  `json:"feature"`
	Side        string  `json:"side"` // input, output
	PSI         float64 `json:"psi"`
	Noise       float64 `json:"noise"`                // PSI that chance alone stays below
	JS          float64 `json:"js"`                   // Jensen–Shannon divergence, bits
	KS          float64 `json:"ks,omitempty"`         // lower bound of the largest difference of the distributions
	P           float64 `json:"p"`                    // of homogeneity, before correction for many features
	Missing     float64 `json:"missing,omitempty"`    // share of missing values
	CohortPSI   float64 `json:"cohort_psi,omitempty"` // device against the rest of its cohort
	CohortNoise float64 `json:"cohort_noise,omitempty"`
	Rows        uint64  `json:"rows"`
	Verdict     Verdict `json:"verdict"`
}

// Alarm is a standing finding, raised and later cleared.
type Alarm struct {
	ID       string          `json:"id"`
	Kind     string          `json:"kind"`     // drift, sensor_fault, accuracy, capacity, …
	Severity string          `json:"severity"` // info, warning, critical
	Model    string          `json:"model,omitempty"`
	Version  string          `json:"version,omitempty"`
	Release  *release.Digest `json:"release,omitempty"`
	Cohort   string          `json:"cohort,omitempty"`
	Device   string          `json:"device,omitempty"`
	Features []string        `json:"features,omitempty"` // the worst first
	Value    float64         `json:"value"`
	Limit    float64         `json:"limit"`
	Text     string          `json:"text"`
	Raised   time.Time       `json:"raised"`
	Cleared  time.Time       `json:"cleared,omitzero"`
}

// AlarmQuery selects alarms, newest first.
type AlarmQuery struct {
	Paging

	Model string `json:"model,omitempty" query:"model"`
	Open  bool   `json:"open,omitempty" query:"open"` // only those not cleared
}

// RetrainEvent is one request for retraining and what became of it.
type RetrainEvent struct {
	ID         string     `json:"id"` // CloudEvents id
	Type       string     `json:"type"`
	Model      string     `json:"model"`
	Version    string     `json:"version,omitempty"`
	Cause      string     `json:"cause"` // drift, accuracy
	Alarm      string     `json:"alarm,omitempty"`
	Cohort     string     `json:"cohort,omitempty"`
	Text       string     `json:"text,omitempty"`
	At         time.Time  `json:"at"`
	Deliveries []Delivery `json:"deliveries"`
	Body       any        `json:"body,omitempty"` // the event as sent
}

// Delivery is one target of a retrain event and its last try.
type Delivery struct {
	Target   string    `json:"target"` // webhook URL without its query and user, or NATS subject
	State    string    `json:"state"`  // pending, delivered, given_up
	Attempts int       `json:"attempts"`
	Status   int       `json:"status,omitempty"` // HTTP
	Error    string    `json:"error,omitempty"`
	At       time.Time `json:"at,omitzero"`   // of the last try
	Next     time.Time `json:"next,omitzero"` // try
}

// RetrainQuery selects retrain events, newest first.
type RetrainQuery struct {
	Paging

	Model string `json:"model,omitempty" query:"model"`
}

// RetrainPolicy says when a model asks for retraining and whom.
type RetrainPolicy struct {
	Model       string           `json:"model"`
	Enabled     bool             `json:"enabled"`
	OnDrift     bool             `json:"on_drift"`               // a drift alarm of a cohort asks
	AccuracySLO float64          `json:"accuracy_slo,omitempty"` // accuracy below this asks; 0 is off
	Cooldown    release.Duration `json:"cooldown,omitempty"`     // least time between two requests of one cause
	Webhooks    []string         `json:"webhooks,omitempty"`     // http(s) URLs
	Revision    string           `json:"revision,omitempty"`     // give it back as If-Match
}

// QualityQuery selects time series of one model.
type QualityQuery struct {
	Model  string           `json:"model" query:"model"`
	By     string           `json:"by,omitempty" query:"by"` // site (the default cohort), version, device
	Since  time.Time        `json:"since,omitzero" query:"since"`
	Until  time.Time        `json:"until,omitzero" query:"until"`
	Step   release.Duration `json:"step,omitempty" query:"step"` // 0: chosen so that about 200 points come back
	Device string           `json:"device,omitempty" query:"device"`
}

// Quality is what a model did over time.
type Quality struct {
	Model  string           `json:"model"`
	Step   release.Duration `json:"step"`
	Series []QualitySeries  `json:"series"`
	SLO    float64          `json:"slo,omitempty"` // accuracy asked for by the policy
	AsOf   time.Time        `json:"as_of"`
}

// QualitySeries is one curve: a version at a site.
type QualitySeries struct {
	Version string         `json:"version,omitempty"`
	Release release.Digest `json:"release"`
	Cohort  string         `json:"cohort,omitempty"`
	Device  string         `json:"device,omitempty"`
	Points  []QualityPoint `json:"points"`
}

// QualityPoint is one step of a series.
type QualityPoint struct {
	At         time.Time `json:"at"` // start of the step
	Rows       uint64    `json:"rows"`
	FailedRows uint64    `json:"failed_rows,omitempty"`
	Labels     uint64    `json:"labels,omitempty"` // matched
	Correct    uint64    `json:"correct,omitempty"`
	Accuracy   *float64  `json:"accuracy,omitempty"` // absent without labels
	Low        *float64  `json:"low,omitempty"`      // confidence bounds of Accuracy
	High       *float64  `json:"high,omitempty"`     //
	PSI        *float64  `json:"psi,omitempty"`      // largest over features; absent without evidence
	P95US      uint64    `json:"p95_us,omitempty"`   // call latency
}
