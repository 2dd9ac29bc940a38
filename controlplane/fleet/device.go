package fleet

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Presence is whether a device's connection is open, as far as it is known.
// It is for display: no gate reads it.
type Presence string

// Presences.
const (
	Online          Presence = "online"
	Offline         Presence = "offline"
	PresenceUnknown Presence = "unknown" // nothing heard since the server started
)

// SiteLabel is the label that says where a device is.
const SiteLabel = "site"

// Device is everything the control plane knows of one device, except what it
// counted (package drift) and what it is asked to be (package desired). It is a
// copy: whoever holds one may keep it.
type Device struct {
	ID       string            `json:"id"`
	Labels   map[string]string `json:"labels,omitempty"`
	Revision uint64            `json:"revision"` // of the operator's facts, 0 for none yet
	Enrolled time.Time         `json:"enrolled,omitzero"`
	Revoked  *Mark             `json:"revoked,omitempty"` // by an operator
	Cloned   *Mark             `json:"cloned,omitempty"`  // its identity was seen used twice

	Presence   Presence  `json:"presence"`
	LastSeen   time.Time `json:"last_seen,omitzero"` // newest message, server time
	HelloAt    time.Time `json:"hello_at,omitzero"`
	ReportedAt time.Time `json:"reported_at,omitzero"` // of Models, Outbox and Generation

	Protocol     uint32         `json:"protocol,omitempty"`
	AgentVersion string         `json:"agent_version,omitempty"`
	Facts        Facts          `json:"facts"`
	Root         release.Digest `json:"root,omitzero"` // TUF root it trusts
	Boot         Boot           `json:"boot"`
	ClockOffset  time.Duration  `json:"clock_offset,omitempty"` // its wall clock minus the server's at the newest message
	Epochs       []Epoch        `json:"epochs,omitempty"`

	Generation    uint64  `json:"generation,omitempty"` // desired state it acts on
	Models        []Model `json:"models,omitempty"`     // by name
	DiskFreeBytes uint64  `json:"disk_free_bytes,omitempty"`
	Metered       string  `json:"metered,omitempty"` // its link is billed by volume: "yes", "no", "" for not known
	Power         string  `json:"power,omitempty"`   // it runs on "mains" or "battery", "" for not known
	Battery       int     `json:"battery,omitempty"` // percent; 0 also when it has none
	RSSBytes      uint64  `json:"rss_bytes,omitempty"`
	Outbox        Outbox  `json:"outbox"`
	Events        []Event `json:"events,omitempty"` // newest first, at most MaxEvents
}

// Site is where the device is, from its labels.
func (d *Device) Site() string { return d.Labels[SiteLabel] }

// Model returns what the device reports of one model.
func (d *Device) Model(name string) (Model, bool) {
	for _, m := range d.Models {
		if m.Name == name {
			return m, true
		}
	}
	return Model{}, false
}

// Mark is something an operator should see, with who or what set it.
type Mark struct {
	At     time.Time `json:"at"`
	Actor  string    `json:"actor,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Facts are what the device says it is.
type Facts struct {
	Profile        string   `json:"profile,omitempty"`
	OS             string   `json:"os,omitempty"`
	Arch           string   `json:"arch,omitempty"`
	Kernel         string   `json:"kernel,omitempty"`
	Hostname       string   `json:"hostname,omitempty"`
	CPUModel       string   `json:"cpu_model,omitempty"`
	CPUs           uint32   `json:"cpus,omitempty"`
	MemoryBytes    uint64   `json:"memory_bytes,omitempty"`
	DiskBytes      uint64   `json:"disk_bytes,omitempty"`
	Runtime        string   `json:"runtime,omitempty"`
	RuntimeVersion string   `json:"runtime_version,omitempty"`
	Providers      []string `json:"providers,omitempty"`
	TimeZone       string   `json:"time_zone,omitempty"` // IANA name, "" for not known
}

// Boot is the newest start of the agent that was heard of.
type Boot struct {
	ID      string    `json:"id,omitempty"`      // hex
	Count   uint64    `json:"count,omitempty"`   // starts of this installation
	Unclean bool      `json:"unclean,omitempty"` // the boot before ended without a clean stop
	Seen    time.Time `json:"seen,omitzero"`     // first message of it, server time
	// UncleanTotal counts boots heard of that followed an unclean end.
	UncleanTotal uint64 `json:"unclean_total,omitempty"`
}

// Epoch is one counter of the exact accounting as the device sees it.
type Epoch struct {
	ID      string `json:"id"` // hex
	Sent    uint64 `json:"sent"`
	Acked   uint64 `json:"acked"`
	Current bool   `json:"current,omitempty"`
}

// Outbox is what the device still has to send.
type Outbox struct {
	Bytes   uint64 `json:"bytes"`
	Pending uint64 `json:"pending"` // records without a number yet
	Sent    uint64 `json:"sent"`    // numbered, not acknowledged
}

// Model is one model name on the device.
type Model struct {
	Name       string         `json:"name"`
	Active     release.Digest `json:"active,omitzero"`
	Previous   release.Digest `json:"previous,omitzero"`
	Target     release.Digest `json:"target,omitzero"`
	State      string         `json:"state,omitempty"`
	StateSince time.Time      `json:"state_since,omitzero"` // server time
	DoneBytes  uint64         `json:"done_bytes,omitempty"`
	TotalBytes uint64         `json:"total_bytes,omitempty"`
	Waiting    string         `json:"waiting,omitempty"` // why the state does not move on
	Starts     uint32         `json:"starts,omitempty"`  // with the active release, in the crash-loop window
	Serving    bool           `json:"serving"`
	ActiveFor  time.Duration  `json:"active_for,omitempty"` // when reported, in that boot
	Provider   string         `json:"provider,omitempty"`
	Outcome    *Outcome       `json:"outcome,omitempty"` // of the last finished update
	Refused    []Outcome      `json:"refused,omitempty"` // not tried again without a new decision
	Trial      *Trial         `json:"trial,omitempty"`
	Challenger *Challenger    `json:"challenger,omitempty"`
}

// Challenger is the release that runs beside the model's active one.
type Challenger struct {
	Model        // its own; Challenger in it is not set
	Role  string `json:"role"`            // shadow or share
	Share int    `json:"share,omitempty"` // parts per thousand of the calls
}

// Outcome is how one update ended.
type Outcome struct {
	Release    release.Digest `json:"release"`
	Result     string         `json:"result"`
	Code       string         `json:"code,omitempty"`
	Message    string         `json:"message,omitempty"`
	Generation uint64         `json:"generation,omitempty"`
	At         time.Time      `json:"at,omitzero"` // device's wall clock
}

// Trial is what a candidate showed on the device before it could serve.
type Trial struct {
	Release        release.Digest `json:"release"`
	GoldenRows     uint32         `json:"golden_rows"`
	GoldenWrong    uint32         `json:"golden_wrong"`
	GoldenWorst    float64        `json:"golden_worst"`
	P95US          uint64         `json:"p95_us"`
	PeakBytes      uint64         `json:"peak_bytes"`
	Provider       string         `json:"provider,omitempty"`
	RuntimeVersion string         `json:"runtime_version,omitempty"`
	Tried          []Tried        `json:"tried,omitempty"` // in order of trial, at most maxTried
}

// Tried is one variant of a release on one execution provider.
type Tried struct {
	Variant     string  `json:"variant"`
	Provider    string  `json:"provider"`
	Code        string  `json:"code,omitempty"` // why it is not fit; empty when it is
	Message     string  `json:"message,omitempty"`
	P95US       uint64  `json:"p95_us,omitempty"`
	PeakBytes   uint64  `json:"peak_bytes,omitempty"`
	GoldenWorst float64 `json:"golden_worst,omitempty"`
	Chosen      bool    `json:"chosen,omitempty"`
}

// Event is something the device told that is neither a count nor a state.
type Event struct {
	Kind       string            `json:"kind"`
	Model      string            `json:"model,omitempty"`
	Release    release.Digest    `json:"release,omitzero"`
	Message    string            `json:"message,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	At         time.Time         `json:"at"`       // device's wall clock
	Received   time.Time         `json:"received"` // server's
}
