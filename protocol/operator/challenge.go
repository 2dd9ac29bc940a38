package operator

import (
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Roles of a challenger. Shares are parts per thousand of the calls, chosen by
// request key.
const (
	Shadow = protocol.RoleShadow // computes the same calls, answers nobody
	Share  = protocol.RoleShare  // answers a share of the calls
)

// ChallengeCreate puts a version beside the primary one, in place of the
// model's present challenge. Selector and Device are not given together; none
// of both selects all devices that have the model.
type ChallengeCreate struct {
	Version  string `json:"version"`
	Role     string `json:"role"`            // shadow, share
	Share    int    `json:"share,omitempty"` // parts per thousand of the calls; 0 is all of them for a shadow
	Selector string `json:"selector,omitempty"`
	Device   string `json:"device,omitempty"`
	// Rules of the test that decides whether it may take the other's place.
	Margin   float64          `json:"margin,omitempty"`   // how much worse it may be at most, as a part of the rate of what serves; 0 is 0.25
	Duration release.Duration `json:"duration,omitempty"` // after which a human is asked; 0 is 14 days
	Reason   string           `json:"reason"`
}

// Challenge is a version that runs beside the primary one of its model.
type Challenge struct {
	Model    string         `json:"model"`
	Version  string         `json:"version"`
	Release  release.Digest `json:"release"`
	Role     string         `json:"role"`
	Share    int            `json:"share,omitempty"`
	Selector string         `json:"selector,omitempty"`
	Device   string         `json:"device,omitempty"`
	Reason   string         `json:"reason"`
	Actor    string         `json:"actor"`
	Since    time.Time      `json:"since"`
	Decision uint64         `json:"decision"` // ledger sequence
	Ended    *ChallengeEnd  `json:"ended,omitempty"`
	Devices  int            `json:"devices"` // that are to run it
	Running  int            `json:"running"` // that do
	Evidence Versus         `json:"evidence"`
	Test     *ChallengeTest `json:"test,omitempty"` // absent before the first look
	Needs    int            `json:"needs_devices"`  // that must take part before the test proposes it
}

// ChallengeEnd is how a challenge ended.
type ChallengeEnd struct {
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
}

// ChallengeDetail is a challenge with its devices.
type ChallengeDetail struct {
	Challenge

	List []ChallengeDevice `json:"list"` // by id
}

// ChallengeDevice is a challenge on one device.
type ChallengeDevice struct {
	Device   string      `json:"device"`
	Site     string      `json:"site,omitempty"`
	Primary  *ReleaseRef `json:"primary,omitempty"` // that it is to serve
	State    string      `json:"state,omitempty"`   // of the challenger's update; empty until the device has said so
	Running  bool        `json:"running"`
	Waiting  string      `json:"waiting,omitempty"` // why it does not run, when the device knows
	Outcome  *Outcome    `json:"outcome,omitempty"` // of the challenger's last update
	Evidence Versus      `json:"evidence"`
}

// Versus sets a challenger beside the primary releases since the challenge
// began. For a shadow, both latencies are of the same calls.
type Versus struct {
	Rows       uint64 `json:"rows"`        // computed by the challenger
	FailedRows uint64 `json:"failed_rows"` // it could not compute; of a share, the primary release answered them
	Calls      uint64 `json:"calls"`
	// Of a shadow:
	Compared  uint64      `json:"compared,omitempty"`
	Agreed    uint64      `json:"agreed,omitempty"`    // of those compared
	Agreement *Proportion `json:"agreement,omitempty"` // absent without rows
	Skipped   uint64      `json:"skipped,omitempty"`   // rows it had no time for
	Worst     float64     `json:"worst,omitempty"`     // largest difference of a score

	P50US        uint64 `json:"p50_us,omitempty"` // latency
	P95US        uint64 `json:"p95_us,omitempty"`
	PrimaryP50US uint64 `json:"primary_p50_us,omitempty"`
	PrimaryP95US uint64 `json:"primary_p95_us,omitempty"`

	Labels          uint64      `json:"labels,omitempty"` // matched
	Accuracy        *Proportion `json:"accuracy,omitempty"`
	PrimaryLabels   uint64      `json:"primary_labels,omitempty"`
	PrimaryAccuracy *Proportion `json:"primary_accuracy,omitempty"`
}

// Proportion is a share with its 95 percent score interval (Wilson 1927).
type Proportion struct {
	Share float64 `json:"share"`
	Lower float64 `json:"lower"`
	Upper float64 `json:"upper"`
}
