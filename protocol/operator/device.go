package operator

import (
	"encoding/json"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Presence is whether a device's connection is open, as far as known. It is
// for display: no gate reads it.
type Presence string

// Presences.
const (
	Online          Presence = "online"
	Offline         Presence = "offline"
	PresenceUnknown Presence = "unknown" // since the server's start nothing was heard
)

// DeviceQuery selects devices. Empty fields select all.
type DeviceQuery struct {
	Paging

	Selector string          `json:"selector,omitempty" query:"selector"` // label selector, e.g. "site=b,ring!=canary"
	Presence Presence        `json:"presence,omitempty" query:"presence"`
	Model    string          `json:"model,omitempty" query:"model"`     // devices that hold or are to hold this model
	Release  *release.Digest `json:"release,omitempty" query:"release"` // and serve this release
	Text     string          `json:"text,omitempty" query:"text"`       // part of the id or of a label's value
}

// Device is one row of the fleet.
type Device struct {
	ID       string            `json:"id"`
	Labels   map[string]string `json:"labels"`
	Revision string            `json:"revision"`       // of the labels; give it back as If-Match
	Site     string            `json:"site,omitempty"` // the label "site"
	Profile  string            `json:"profile,omitempty"`
	Facts    Facts             `json:"facts"`
	Presence Presence          `json:"presence"`
	Enrolled time.Time         `json:"enrolled,omitzero"`
	LastSeen time.Time         `json:"last_seen,omitzero"` // newest message of any kind, server time
	Models   []DeviceModel     `json:"models"`
	Outbox   Outbox            `json:"outbox"`
	Marks    []Mark            `json:"marks,omitempty"`

	Generation        uint64    `json:"generation"`                // desired state the device acts on
	DesiredGeneration uint64    `json:"desired_generation"`        // newest one made for it
	AgentVersion      string    `json:"agent_version,omitempty"`   //
	BootCount         uint64    `json:"boot_count,omitempty"`      // starts of this installation
	BootUnclean       bool      `json:"boot_unclean,omitempty"`    // the boot before ended without a clean stop
	DiskFreeBytes     uint64    `json:"disk_free_bytes,omitempty"` //
	Metered           string    `json:"metered,omitempty"`         // its link is billed by volume: yes, no; absent when not known
	Power             string    `json:"power,omitempty"`           // it runs on: mains, battery; absent when not known
	Battery           int       `json:"battery,omitempty"`         // percent; absent also when it has none
	RSSBytes          uint64    `json:"rss_bytes,omitempty"`       // resident memory of the agent
	Rollout           string    `json:"rollout,omitempty"`         // running rollout the device is part of
	RolloutState      string    `json:"rollout_state,omitempty"`   // its state there
	RolloutWave       int       `json:"rollout_wave,omitempty"`    // 1 is the first; 0 when in no wave
	ClockOffsetMS     int64     `json:"clock_offset_ms,omitempty"` // device's wall clock minus the server's, at the last message
	Uncertain         bool      `json:"clock_uncertain,omitempty"` // records of boots without a known clock exist
	ReportedAt        time.Time `json:"reported_at,omitzero"`      // when Models and Outbox were reported, server time
	RootDigest        string    `json:"root_digest,omitempty"`     // of the TUF root the device trusts
	ReportedProtocol  uint32    `json:"protocol,omitempty"`        // wire version it speaks
}

// Facts are what a device is.
type Facts struct {
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
	TimeZone       string   `json:"time_zone,omitempty"` // IANA name
}

// Mark is something about a device that a person should see.
type Mark struct {
	Kind    string    `json:"kind"` // a Mark… constant
	Message string    `json:"message"`
	Since   time.Time `json:"since,omitzero"`
}

// Kinds of marks.
const (
	MarkRevoked     = "revoked"        // its certificate is not accepted any more
	MarkCloned      = "cloned"         // its identity was used by two installations; nothing more is taken
	MarkLost        = "lost"           // records were lost; their number is in the totals
	MarkUncertain   = "time_uncertain" // some records cannot be placed in time
	MarkSensorFault = "sensor_fault"   // its inputs are apart from those of its cohort
	MarkCrashLoop   = "crash_loop"     // the agent restarted repeatedly after an activation
	MarkUnclean     = "unclean_boot"   // the last boot ended without a clean stop
	MarkRefused     = "refused"        // it refused a release
	MarkDiskFull    = "disk_full"      // its disk has no room for releases and records
)

// Outbox is what a device still has to send.
type Outbox struct {
	Bytes   uint64 `json:"bytes"`
	Pending uint64 `json:"pending"` // records without a number yet
	Sent    uint64 `json:"sent"`    // numbered, not yet acknowledged
}

// ReleaseRef names a release for people and machines. Version is empty when
// the server does not know the digest.
type ReleaseRef struct {
	Model   string         `json:"model"`
	Version string         `json:"version,omitempty"`
	Release release.Digest `json:"release"`
}

// DeviceModel is one model name on one device.
type DeviceModel struct {
	Model       string      `json:"model"`
	Desired     *ReleaseRef `json:"desired,omitempty"` // what decisions ask for
	Role        string      `json:"role,omitempty"`    // primary, shadow, share
	Active      *ReleaseRef `json:"active,omitempty"`
	Previous    *ReleaseRef `json:"previous,omitempty"`
	Target      *ReleaseRef `json:"target,omitempty"` // what the update machine works on
	State       string      `json:"state"`            // idle, resolving, downloading, verifying, trialing, activating, watching, reverting
	StateSince  time.Time   `json:"state_since,omitzero"`
	DoneBytes   uint64      `json:"done_bytes,omitempty"`
	TotalBytes  uint64      `json:"total_bytes,omitempty"`
	Waiting     string      `json:"waiting,omitempty"` // why the state does not move on; empty when it does
	Serving     bool        `json:"serving"`
	ActiveSince time.Time   `json:"active_since,omitzero"`
	Starts      uint32      `json:"starts,omitempty"` // starts with the active release in the crash-loop window
	Provider    string      `json:"provider,omitempty"`
	Outcome     *Outcome    `json:"outcome,omitempty"` // of the last finished update
	Refused     []Outcome   `json:"refused,omitempty"` // releases it will not try again without a new decision
	Trial       *Trial      `json:"trial,omitempty"`   // of the last release tried
	Challenger  *Challenger `json:"challenger,omitempty"`
}

// Challenger is what runs beside the model's active release on a device.
type Challenger struct {
	DeviceModel // its own; Desired and Challenger in it are not set

	Share int `json:"share,omitempty"` // parts per thousand of the calls
}

// Outcome is how one update ended.
type Outcome struct {
	Release    ReleaseRef `json:"release"`
	Result     string     `json:"result"`         // active, failed, reverted, refused, superseded
	Code       string     `json:"code,omitempty"` // golden_mismatch, digest_mismatch, crash_loop, …
	Message    string     `json:"message,omitempty"`
	Generation uint64     `json:"generation,omitempty"`
	At         time.Time  `json:"at,omitzero"`
}

// Trial is what a candidate showed in the child process on the device.
type Trial struct {
	Release        ReleaseRef `json:"release"`
	GoldenRows     uint32     `json:"golden_rows"`
	GoldenWrong    uint32     `json:"golden_wrong"` // rows outside tolerance
	GoldenWorst    float64    `json:"golden_worst"` // largest |got−want|
	P95US          uint64     `json:"p95_us"`       // warm latency at batch 1
	PeakBytes      uint64     `json:"peak_bytes"`   // resident
	Provider       string     `json:"provider,omitempty"`
	RuntimeVersion string     `json:"runtime_version,omitempty"`
	Tried          []Tried    `json:"tried,omitempty"` // every variant on every execution provider, in order of trial
}

// Tried is one variant of a release on one execution provider.
type Tried struct {
	Variant     string  `json:"variant"`
	Provider    string  `json:"provider"`
	Code        string  `json:"code,omitempty"` // why it is not fit: golden_mismatch, crash, no_provider, …; empty when it is
	Message     string  `json:"message,omitempty"`
	P95US       uint64  `json:"p95_us,omitempty"`       // warm latency at batch 1
	PeakBytes   uint64  `json:"peak_bytes,omitempty"`   // resident
	GoldenWorst float64 `json:"golden_worst,omitempty"` // largest |got−want|
	Chosen      bool    `json:"chosen,omitempty"`
}

// DeviceDetail is everything known about one device.
type DeviceDetail struct {
	Device

	Totals   []Total        `json:"totals"` // per release
	Drift    []DeviceDrift  `json:"drift"`  // per model it serves
	Lost     *Loss          `json:"lost,omitempty"`
	Epochs   []Epoch        `json:"epochs"`   // counters of the exact accounting
	Events   []DeviceEvent  `json:"events"`   // newest first, bounded
	Rollouts []DeviceInWave `json:"rollouts"` // it is or was part of, newest first, bounded
}

// Epoch is one counter of the exact accounting as device and server see it.
type Epoch struct {
	ID           string `json:"id"`           // hex
	Sent         uint64 `json:"sent"`         // highest number given out by the device
	Acknowledged uint64 `json:"acknowledged"` // highest number the device knows to be held
	Current      bool   `json:"current"`      // new records are numbered here
}

// DeviceEvent is something a device told that is neither a count nor a state.
type DeviceEvent struct {
	Device     string            `json:"device"`
	Kind       string            `json:"kind"` // boot_unclean, salvage, crash_loop, call_hung, …
	Model      string            `json:"model,omitempty"`
	Release    *release.Digest   `json:"release,omitempty"`
	Message    string            `json:"message,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	At         time.Time         `json:"at,omitzero"`       // by the device's clock
	Received   time.Time         `json:"received,omitzero"` // by the server's
}

// DeviceInWave is a device's part in a rollout.
type DeviceInWave struct {
	Rollout string `json:"rollout"`
	Wave    int    `json:"wave"` // 1 is the first; 0 is not yet in a wave
	State   string `json:"state"`
}

// LabelChange sets and removes labels. Revision, when given, must be the
// device's: otherwise the change is refused as Stale. Over HTTP it is the
// If-Match header.
type LabelChange struct {
	Set      map[string]string `json:"set,omitempty"`
	Remove   []string          `json:"remove,omitempty"`
	Reason   string            `json:"reason"`
	Revision string            `json:"-"`
}

// Reasoned is the body of commands that need nothing but a reason.
type Reasoned struct {
	Reason string `json:"reason"`
}

// TapMessage is one envelope between a device and the server, decoded.
type TapMessage struct {
	Device   string          `json:"device"`
	Received time.Time       `json:"received"`
	Kind     string          `json:"kind"`     // hello, report, record, skip, mark; missed: the reader was too slow
	Envelope json.RawMessage `json:"envelope"` // protobuf as JSON
}

// Total is what one device counted for one release, and what is known to be
// missing. Predictions of a device = Rows + FailedRows; they and Labels equal
// what the device generated minus what is lost, exactly.
type Total struct {
	Device        string         `json:"device"`
	Model         string         `json:"model"`
	Version       string         `json:"version,omitempty"`
	Release       release.Digest `json:"release"`
	Role          string         `json:"role,omitempty"`
	Rows          uint64         `json:"rows"`
	FailedRows    uint64         `json:"failed_rows"`
	Calls         uint64         `json:"calls"`
	FailedCalls   uint64         `json:"failed_calls"`
	Labels        uint64         `json:"labels"` // matched and unmatched
	Matched       uint64         `json:"matched"`
	Correct       uint64         `json:"correct"`
	UncertainRows uint64         `json:"uncertain_rows,omitempty"` // of Rows: cannot be placed in time, in no series
}

// Loss is what one device is known to have lost. It cannot be split by
// release: what was lost is what would have said so.
type Loss struct {
	Device  string `json:"device"`
	Records uint64 `json:"records"`
	Rows    uint64 `json:"rows"`
	Labels  uint64 `json:"labels"`
	Unknown bool   `json:"unknown,omitempty"` // more may be gone than can be proven
}

// Totals adds the fleet up.
type Totals struct {
	Items []Total   `json:"items"`
	Lost  []Loss    `json:"lost"`
	AsOf  time.Time `json:"as_of"`
}

// TotalQuery selects totals. Empty fields select all.
type TotalQuery struct {
	Model  string `json:"model,omitempty" query:"model"`
	Device string `json:"device,omitempty" query:"device"`
}
