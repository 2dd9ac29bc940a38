package rollout

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Facts is what is known about the devices a rollout selects or has selected.
type Facts struct {
	Devices map[string]*DeviceFacts `json:"devices"` // the values are never changed, only replaced

	summed *sum // of Devices, nil for not yet
}

// DeviceFacts is what is known about one device, for the rollout's model.
// Presence is not among them: no gate reads it.
type DeviceFacts struct {
	Selected bool   `json:"selected"`          // the selector matches its labels now
	Revoked  bool   `json:"revoked,omitempty"` // or cloned: nothing it says is taken
	Profile  string `json:"profile,omitempty"`
	Site     string `json:"site,omitempty"`
	Holder   string `json:"holder,omitempty"` // another rollout that has this device and model
	Bytes    int64  `json:"bytes,omitempty"`  // to download for the release from where it is, deltas included; 0 for not known
	TimeZone string `json:"time_zone,omitempty"`
	Metered  string `json:"metered,omitempty"` // its link: "yes", "no", "" for not known
	Power    string `json:"power,omitempty"`   // "mains", "battery", "" for not known
	Battery  int    `json:"battery,omitempty"` // percent

	// Groups are the values of the labels that the budget names.
	Groups map[string]string `json:"groups,omitempty"`

	Arch        string   `json:"arch,omitempty"`
	Agent       string   `json:"agent,omitempty"`   // version
	Runtime     string   `json:"runtime,omitempty"` // version
	MemoryBytes uint64   `json:"memory_bytes,omitempty"`
	Providers   []string `json:"providers,omitempty"`

	Assigned   release.Digest `json:"assigned,omitzero"`    // by the newest decision, this rollout's included
	Generation uint64         `json:"generation,omitempty"` // desired state the report below acted on
	Reported   time.Time      `json:"reported,omitzero"`    // when the newest report arrived, zero for never
	Active     release.Digest `json:"active,omitzero"`
	Target     release.Digest `json:"target,omitzero"`
	Update     string         `json:"update,omitempty"` // state of the update machine by name
	Serving    bool           `json:"serving,omitempty"`
	Outcomes   []Outcome      `json:"outcomes,omitempty"` // of this rollout's release

	New  *Evidence `json:"new,omitempty"`  // on the rollout's release
	Old  *Evidence `json:"old,omitempty"`  // on any other release of the model, since the rollout started
	Past *Evidence `json:"past,omitempty"` // on any other release of the model, before the rollout started, as far back as is kept

	Shadow *Agreement `json:"shadow,omitempty"` // of the release as a shadow, since the rollout started

	// Back is what it goes back to, where what its record says has been taken
	// back itself since; nil for what its record says.
	Back *release.Digest `json:"back,omitempty"`
}

// Agreement is what a shadow showed beside the release that answers.
type Agreement struct {
	Rows   uint64 `json:"rows"` // compared
	Agreed uint64 `json:"agreed"`
	Failed uint64 `json:"failed,omitempty"` // rows that the shadow could not compute
}

// Outcome is how an attempt to run the release ended on a device.
type Outcome struct {
	Result     string `json:"result"` // active, failed, reverted, refused, superseded
	Code       string `json:"code,omitempty"`
	Message    string `json:"message,omitempty"`
	Generation uint64 `json:"generation"` // desired state that asked for it
}

// Evidence sums what one device counted with one release.
type Evidence struct {
	Rows       uint64   `json:"rows,omitempty"`
	FailedRows uint64   `json:"failed_rows,omitempty"`
	P95US      float64  `json:"p95_us,omitempty"` // of call latency, microseconds; 0 for unknown
	Labels     uint64   `json:"labels,omitempty"` // matched
	Correct    uint64   `json:"correct,omitempty"`
	Classes    []uint64 `json:"classes,omitempty"` // rows per predicted class
}

// Requirements is what a device must offer to run the release, from its
// manifest. They are frozen when the rollout is created.
type Requirements struct {
	MinAgent    string    `json:"min_agent,omitempty"`
	MinRuntime  string    `json:"min_runtime,omitempty"`
	MemoryBytes uint64    `json:"memory_bytes,omitempty"`
	Variants    []Variant `json:"variants,omitempty"` // none means unknown: every device may try
}

// Variant is one graph that computes the model, and where it can run.
type Variant struct {
	Name      string   `json:"name"`
	Arch      []string `json:"arch,omitempty"`      // GOARCH values; none means any
	Providers []string `json:"providers,omitempty"` // one of which it needs; none means any
	Bytes     int64    `json:"bytes"`               // to download for it, all files
}
