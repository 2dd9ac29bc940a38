package operator

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Incident is one cause of trouble and what became of it. The same cause raised
// again is the same incident.
type Incident struct {
	ID       string          `json:"id"`
	Key      string          `json:"key"`      // names the cause
	Kind     string          `json:"kind"`     // drift, prediction, missing, new_values, accuracy, sensor_fault, apart, gate_failed, rollout_stopped, delivery_dead, publish_failed, storage_full, notify_dead
	Severity string          `json:"severity"` // critical, warning, info
	State    string          `json:"state"`    // open, acknowledged, resolved
	Model    string          `json:"model,omitempty"`
	Version  string          `json:"version,omitempty"`
	Cohort   string          `json:"cohort,omitempty"`
	Device   string          `json:"device,omitempty"`
	Summary  string          `json:"summary"`
	Detail   string          `json:"detail,omitempty"` // evidence, and what to do next
	Link     string          `json:"link,omitempty"`   // path of the page that shows it
	Count    int             `json:"count"`            // times raised
	Flaps    int             `json:"flaps,omitempty"`  // times it came back soon after it was resolved
	Opened   time.Time       `json:"opened"`
	Last     time.Time       `json:"last"` // raised last
	Resolved time.Time       `json:"resolved,omitzero"`
	Owner    string          `json:"owner,omitempty"`    // who acknowledged it
	Silence  string          `json:"silence,omitempty"`  // id of the silence that keeps it quiet
	Timeline []IncidentEntry `json:"timeline,omitempty"` // oldest first; of one incident alone
}

// IncidentEntry is one thing that happened to an incident.
type IncidentEntry struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`          // opened, reopened, worse, acknowledged, resolved, told, not told
	Who  string    `json:"who,omitempty"` // person, or receiver of a message
	Text string    `json:"text,omitempty"`
}

// IncidentQuery selects incidents, those that are not resolved first, then the
// newest.
type IncidentQuery struct {
	Paging

	Model string `json:"model,omitempty" query:"model"`
	Kind  string `json:"kind,omitempty" query:"kind"`
	Open  bool   `json:"open,omitempty" query:"open"` // only those not resolved
}

// Silence keeps messages of the incidents it matches back until it ends. An
// empty field matches all; at least one must be given.
type Silence struct {
	ID     string    `json:"id"`
	Model  string    `json:"model,omitempty"`
	Kind   string    `json:"kind,omitempty"`
	Cohort string    `json:"cohort,omitempty"`
	Device string    `json:"device,omitempty"`
	Key    string    `json:"key,omitempty"` // one cause
	From   time.Time `json:"from"`
	Until  time.Time `json:"until"`
	Who    string    `json:"who"`
	Reason string    `json:"reason"`
	Active bool      `json:"active"`
}

// SilenceCreate asks for a silence.
type SilenceCreate struct {
	Model  string           `json:"model,omitempty"`
	Kind   string           `json:"kind,omitempty"`
	Cohort string           `json:"cohort,omitempty"`
	Device string           `json:"device,omitempty"`
	Key    string           `json:"key,omitempty"`
	For    release.Duration `json:"for"` // at most 90 days
	Reason string           `json:"reason"`
}

// NotifySettings say who is told of incidents. The fields of a file have the
// same names.
type NotifySettings struct {
	Receivers []Receiver       `json:"receivers"`
	GroupWait release.Duration `json:"group_wait,omitempty"` // how long what belongs together is gathered; 0: 30s
	Repeat    release.Duration `json:"repeat,omitempty"`     // how often an open incident is told again; 0: 4h
	Link      string           `json:"link,omitempty"`       // URL of the dashboard as people reach it, for links in messages
	Reason    string           `json:"reason,omitempty"`     // of the change, in requests
}

// Receiver is told of incidents by exactly one of its three ways. Secrets are
// never read back: a receiver sent without one keeps what is stored, as long as
// it goes to the same place.
type Receiver struct {
	Name     string   `json:"name"`
	Kinds    []string `json:"kinds,omitempty"`       // of incidents; none means all
	Models   []string `json:"models,omitempty"`      // none means all
	Severity string   `json:"severity,omitempty"`    // the least that is told: info, warning, critical; empty: info
	Quiet    bool     `json:"no_resolved,omitempty"` // do not tell that something is over

	Webhook *NotifyWebhook `json:"webhook,omitempty"`
	Email   *NotifyEmail   `json:"email,omitempty"`
	Slack   *NotifySlack   `json:"slack,omitempty"`
}

// NotifyWebhook is a URL that gets JSON by POST.
type NotifyWebhook struct {
	URL    string `json:"url"`
	Secret string `json:"secret,omitempty"` // signs the body (HMAC-SHA256, X-Vedette-Signature)
}

// NotifyEmail is a mail server and whom it writes to.
type NotifyEmail struct {
	To       []string `json:"to"`
	From     string   `json:"from"`
	Server   string   `json:"server"`             // host:port
	Security string   `json:"security,omitempty"` // starttls (default), tls, none
	Username string   `json:"username,omitempty"` // with a password: AUTH PLAIN, never without TLS but to loopback
	Password string   `json:"password,omitempty"`
}

// NotifySlack is an incoming webhook of Slack or of what takes the same
// (Mattermost, Rocket.Chat, Discord with /slack). The URL is a secret.
type NotifySlack struct {
	URL string `json:"url,omitempty"`
}

// NotifyTest tells how a trial message went.
type NotifyTest struct {
	Receiver string `json:"receiver"`
	Sent     bool   `json:"sent"`
	Error    string `json:"error,omitempty"`
}

// IncidentReader reads incidents, silences, and who is told.
type IncidentReader interface {
	Incidents(ctx context.Context, q IncidentQuery) (*Page[Incident], error)
	Incident(ctx context.Context, id string) (*Incident, error)
	Silences(ctx context.Context) ([]Silence, error)
	NotifySettings(ctx context.Context) (*NotifySettings, error)
}

// IncidentCommander is what people do about incidents.
type IncidentCommander interface {
	AcknowledgeIncident(ctx context.Context, id string, r Reasoned) (*Incident, error)
	ResolveIncident(ctx context.Context, id string, r Reasoned) (*Incident, error)
	CreateSilence(ctx context.Context, c SilenceCreate) (*Silence, error)
	ExpireSilence(ctx context.Context, id string, r Reasoned) error
	SetNotifySettings(ctx context.Context, s NotifySettings) (*NotifySettings, error)
	TestReceiver(ctx context.Context, name string, r Reasoned) (*NotifyTest, error)
}
