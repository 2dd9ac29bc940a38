package operator

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// States of a retrain event.
const (
	RetrainPending   = "pending"    // a destination is still being tried
	RetrainDelivered = "delivered"  // every destination has taken it
	RetrainFailed    = "failed"     // a destination was given up: it is a dead letter
	RetrainAnswered  = "answered"   // a version with its tag was registered
	RetrainValidated = "validated"  // that version is a release, and passed its gates
	RetrainRolledOut = "rolled_out" // a rollout of it was completed
	RetrainRejected  = "rejected"   // gates or a rollout refused it
)

// RetrainEvent is one request for retraining and what became of it.
type RetrainEvent struct {
	ID         string         `json:"id"` // CloudEvents id
	Model      string         `json:"model"`
	Version    string         `json:"version,omitempty"` // that showed the evidence
	At         time.Time      `json:"at"`
	State      string         `json:"state"`               // a Retrain… constant
	Cause      string         `json:"cause"`               // drift, prediction, accuracy, schedule, asked
	Condition  string         `json:"condition,omitempty"` // of the policy, by its name
	Text       string         `json:"text"`                // why, for people
	Cohorts    []string       `json:"cohorts,omitempty"`
	Alarm      Alarm          `json:"alarm"` // that asked, or the evidence in the same form
	Tag        string         `json:"tag"`   // to be put on the registered version that answers it
	Deliveries []Delivery     `json:"deliveries"`
	Answer     *RetrainAnswer `json:"answer,omitempty"`
}

// RetrainAnswer is the version that answers a request.
type RetrainAnswer struct {
	Version string    `json:"version"`           // of the registered model, in MLflow's counting
	Release string    `json:"release,omitempty"` // version of the release made of it
	At      time.Time `json:"at"`
	Text    string    `json:"text,omitempty"` // how it stands, for people
}

// Delivery is how one destination of a retrain event stands. It is a dead letter
// when it is neither done nor to be tried again.
type Delivery struct {
	Target   string    `json:"target"` // webhook URL without user and query, or "nats:" and the subject
	Done     bool      `json:"done"`
	Attempts int       `json:"attempts"`
	Error    string    `json:"error,omitempty"` // of the last attempt
	Last     time.Time `json:"last,omitzero"`   // attempt
	Next     time.Time `json:"next,omitzero"`   // attempt; absent when there is none
}

// RetrainQuery selects retrain events, newest first.
type RetrainQuery struct {
	Paging

	Model string `json:"model,omitempty" query:"model"`
	State string `json:"state,omitempty" query:"state"`
	Dead  bool   `json:"dead,omitempty" query:"dead"` // only those with a dead letter
}

// RetrainPolicy says when a model asks for retraining and whom. The fields of a
// file have the same names. OnDrift and AccuracyFloor are short for conditions
// that go by alarms.
type RetrainPolicy struct {
	Model         string               `json:"model"`
	OnDrift       bool                 `json:"on_drift"`                 // ask when a cohort drifts
	AccuracyFloor float64              `json:"accuracy_floor,omitempty"` // ask when accuracy is proven below; 0 for never
	When          []RetrainWhen        `json:"when,omitempty"`           // any of these asks
	Schedule      *RetrainSchedule     `json:"schedule,omitempty"`       // ask at these times as well
	Cooldown      release.Duration     `json:"cooldown,omitempty"`       // least time between two requests of the model; 0: 24h
	MaxOpen       int                  `json:"max_open,omitempty"`       // requests that nothing has answered yet, within 30 days; 0 for no limit
	Webhooks      []string             `json:"webhooks,omitempty"`       // http or https URLs that share Secret
	Subject       string               `json:"subject,omitempty"`        // NATS subject the event is published to as well
	Secret        string               `json:"secret,omitempty"`         // signs webhooks (HMAC-SHA256, X-Vedette-Signature); never read back, and an empty one keeps what is stored
	Destinations  []RetrainDestination `json:"destinations,omitempty"`   // webhooks, each with a secret of its own
	Reason        string               `json:"reason,omitempty"`         // of the change, in requests
}

// RetrainWhen is one condition; it has exactly one of Drift, Prediction and
// Accuracy.
type RetrainWhen struct {
	Name       string           `json:"name"`                 // in requests
	Level      string           `json:"level,omitempty"`      // what is judged: cohort (default), site, version, fleet
	Drift      *DriftWhen       `json:"drift,omitempty"`      // inputs left the training data
	Prediction *DriftWhen       `json:"prediction,omitempty"` // predictions did
	Accuracy   *AccuracyWhen    `json:"accuracy,omitempty"`   // labels say that the model is wrong too often
	For        release.Duration `json:"for,omitempty"`        // without a break
	Groups     int              `json:"groups,omitempty"`     // of the level that it holds for at once; 0: 1
	Devices    int              `json:"devices,omitempty"`    // that are themselves apart from training, in each group
	Share      float64          `json:"share,omitempty"`      // of a group's devices that are
}

// DriftWhen is how far inputs or predictions are from training. Without Above it
// holds when the monitor's own verdict is drift.
type DriftWhen struct {
	Measure  string   `json:"measure,omitempty"`  // psi (default) or js
	Above    float64  `json:"above,omitempty"`    // and above what the sizes of the samples alone explain
	Features int      `json:"features,omitempty"` // that are; 0: 1
	Of       []string `json:"of,omitempty"`       // among these features; none means all
}

// AccuracyWhen is how often the model is wrong.
type AccuracyWhen struct {
	Below  float64 `json:"below"`
	Proof  string  `json:"proof,omitempty"`  // bound (default): the upper end of the confidence sequence is below; point: the estimate is
	Labels uint64  `json:"labels,omitempty"` // needed; 0: 1 for bound, 100 for point
}

// RetrainSchedule asks by the clock.
type RetrainSchedule struct {
	Cron     string `json:"cron"`                // five fields: minute hour day month weekday
	TimeZone string `json:"time_zone,omitempty"` // IANA name; UTC if empty
}

// RetrainDestination is a webhook with a secret of its own.
type RetrainDestination struct {
	URL    string `json:"url"`
	Secret string `json:"secret,omitempty"` // never read back; an empty one keeps what is stored for the same URL
}

// RetrainReader reads requests for retraining.
type RetrainReader interface {
	RetrainEvents(ctx context.Context, q RetrainQuery) (*Page[RetrainEvent], error)
	RetrainEvent(ctx context.Context, id string) (*RetrainEvent, error)
	RetrainPolicy(ctx context.Context, model string) (*RetrainPolicy, error)
}

// RetrainCommander says when retraining is asked for.
type RetrainCommander interface {
	SetRetrainPolicy(ctx context.Context, p RetrainPolicy) (*RetrainPolicy, error)
	// RequestRetraining asks now, whatever the policy's conditions are.
	RequestRetraining(ctx context.Context, model string, r Reasoned) (*RetrainEvent, error)
	// Redeliver tries the dead letters of a request again.
	Redeliver(ctx context.Context, id string, r Reasoned) (*RetrainEvent, error)
}
