// Package retrain asks for a new version of a model when the world has
// changed: a cohort that left its training data, or an accuracy below its
// floor. A device at fault asks for nothing. The request is a CloudEvents 1.0
// event with the evidence in it, sent to webhooks and published to a subject.
//
// One finding asks once. The event's id is derived from the alarm, the request is
// stored before it is sent, and every destination is struck off when it has
// taken the event; so a restart neither forgets a request nor makes a second
// one of it. A destination may see the same id twice, after a lost answer.
package retrain

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// Policy says when a model asks for retraining and whom.
type Policy struct {
	Model         string   `json:"model" yaml:"model"`
	OnDrift       bool     `json:"on_drift" yaml:"on_drift"`                                 // ask when a cohort drifts
	AccuracyFloor float64  `json:"accuracy_floor,omitempty" yaml:"accuracy_floor,omitempty"` // ask when accuracy is proven below; 0 for never
	CooldownMS    int64    `json:"cooldown_ms,omitempty" yaml:"cooldown_ms,omitempty"`       // least time between two requests of the model; DefaultCooldown if 0
	Webhooks      []string `json:"webhooks,omitempty" yaml:"webhooks,omitempty"`             // http or https URLs, trusted because an operator set them
	Secret        string   `json:"secret,omitempty" yaml:"secret,omitempty"`                 // key of the HMAC-SHA256 in the header X-Vedette-Signature; none if empty
	Subject       string   `json:"subject,omitempty" yaml:"subject,omitempty"`               // published to as well, unless empty
}

// Publisher publishes an event to a subject; nats.Conn is one.
type Publisher interface {
	Publish(subject string, data []byte) error
}

// Request is one retraining asked for, with how its deliveries stand.
type Request struct {
	ID         string      `json:"id"` // the event's id
	Model      string      `json:"model"`
	AtMS       int64       `json:"at_ms"`
	Alarm      drift.Alarm `json:"alarm"`
	Status     string      `json:"status"` // pending, delivered, failed
	Deliveries []Delivery  `json:"deliveries"`
}

// Delivery is how one destination stands.
type Delivery struct {
	Destination string `json:"destination"` // URL without credentials and query, or "nats:" and the subject
	Attempts    int    `json:"attempts"`
	LastMS      int64  `json:"last_ms"`
	NextMS      int64  `json:"next_ms,omitempty"` // next attempt, 0 when there is none
	Done        bool   `json:"done"`
	Error       string `json:"error,omitempty"` // of the last attempt
}

// Config of a Trigger.
type Config struct {
	Publisher Publisher    // nil: policies with a subject are refused
	Client    *http.Client // nil: one with timeouts that follows no redirects
	Logger    *slog.Logger // nil discards
	Source    string       // of events: the control plane's URL
}

// DefaultCooldown is a day: training and rolling out takes at least that.
const DefaultCooldown = 24 * time.Hour

// Trigger asks for retraining. Make one with New.
type Trigger struct{ store kvstore.Bucket }

// New loads policies and unfinished requests.
func New(ctx context.Context, store kvstore.Bucket, cfg Config) (*Trigger, error) {
	return &Trigger{store: store}, nil
}

// SetPolicy stores the policy of its model.
func (t *Trigger) SetPolicy(ctx context.Context, p Policy) error { return nil }

// Policies returns all policies by model, without their secrets.
func (t *Trigger) Policies() []Policy { return nil }

// Consider takes alarms as drift.Monitor's Evaluate returned them, or all raised
// ones of Alarms after a restart, and stores the requests that policies ask for.
// It does not wait for their delivery.
func (t *Trigger) Consider(ctx context.Context, now time.Time, alarms []drift.Alarm) ([]Request, error) {
	return nil, nil
}

// Requests returns the newest requests of a model first, "" for all.
func (t *Trigger) Requests(model string) []Request { return nil }

// Run delivers until ctx ends.
func (t *Trigger) Run(ctx context.Context) error { return nil }
