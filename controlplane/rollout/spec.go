package rollout

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Defaults of a Spec.
const (
	// DefaultSoak holds three of the default five-minute windows, so that the
	// gates of a wave have evidence when it ends.
	DefaultSoak = 15 * time.Minute
	// DefaultLateness is how long an offered device may stay silent before it
	// no longer holds the wave up. A router restart is shorter, a night longer.
	DefaultLateness = time.Hour
	// DefaultDeviceDeadline bounds one device's update from its offer: a large
	// model over a slow link fits, a stuck download does not.
	DefaultDeviceDeadline = 2 * time.Hour
	// DefaultDeadline bounds the whole rollout.
	DefaultDeadline = 7 * 24 * time.Hour
	// DefaultDecision bounds every state that waits for a person. A weekend
	// fits.
	DefaultDecision = 72 * time.Hour
	// DefaultQuorum is the share of a wave's devices that must be healthy for it
	// to pass. In most fleets some devices are away at any moment; a wave that
	// fewer than half of its devices speak for has shown nothing.
	DefaultQuorum = 0.5
	// DefaultControl is the share of devices held out until the last wave.
	DefaultControl = 0.1
	// DefaultAlpha is the chance that the gates which compare devices, all of
	// them together and however often they are looked at, stop a release that
	// is no worse than their limits. It is split evenly over those that are on.
	DefaultAlpha = 0.05
	// DefaultShadowRows is what a device's shadow computes before the device
	// may switch: enough to see one disagreement in a hundred.
	DefaultShadowRows = 300
	// DefaultShadowDeadline bounds the shadow phase of one device. A device
	// without traffic goes on unproven then.
	DefaultShadowDeadline = time.Hour
)

// Limits of a Spec.
const (
	MaxWaves    = 50
	MaxSpecSize = 64 << 10 // bytes of YAML or JSON
)

// Spec is what an operator asks for. Shares and limits are fractions (0.05 is
// five percent) except WaveSpec.Percent.
type Spec struct {
	Model    string         `json:"model"`
	Version  string         `json:"version"`
	Release  release.Digest `json:"release,omitzero"`   // of that version; filled in at creation
	Selector string         `json:"selector,omitempty"` // label selector, empty selects all devices

	Waves   []WaveSpec  `json:"waves,omitempty"`
	Control *float64    `json:"control,omitempty"` // share of devices held out until the last wave
	Gates   []GateSpec  `json:"gates,omitempty"`   // those not named take their defaults
	Alpha   *float64    `json:"alpha,omitempty"`   // chance that the comparing gates stop a harmless release
	Shadow  *ShadowSpec `json:"shadow,omitempty"`  // nil for no shadow phase

	Budget  Budget       `json:"budget,omitzero"`        // of going forward
	Revert  Budget       `json:"revert_budget,omitzero"` // of going back
	Windows []WindowSpec `json:"windows,omitempty"`      // offers are made in one of them; none means always
	Require Require      `json:"require,omitzero"`       // of a device at the moment of its offer

	OnFailure  OnFailure  `json:"on_failure,omitempty"`
	OnConflict OnConflict `json:"on_conflict,omitempty"`
	Supersedes string     `json:"supersedes,omitempty"` // id of the rollout whose devices this one takes over when it starts
	Approval   bool       `json:"approval,omitempty"`   // a person approves before the first wave
	StartAt    time.Time  `json:"start_at,omitzero"`    // not before; zero for at once

	DeviceDeadline   release.Duration `json:"device_deadline,omitempty"`   // from offer to serving
	DecisionDeadline release.Duration `json:"decision_deadline,omitempty"` // for states that wait for a person
	Deadline         release.Duration `json:"deadline,omitempty"`          // of the whole rollout, from its start
}

// OnFailure says what follows when a gate fails.
type OnFailure string

// What follows when a gate fails.
const (
	Pause  OnFailure = "pause"  // halt and wait for a person
	Revert OnFailure = "revert" // halt and bring every device back
)

// OnConflict says what happens when another rollout of the model has some of
// the devices. Two rollouts never have the same model on one device.
type OnConflict string

// What happens when another rollout has some of the devices.
const (
	Refuse OnConflict = "refuse" // it cannot start
	Queue  OnConflict = "queue"  // it starts when the others have ended
)

// Budget bounds how much of the fleet is disturbed at a time. Zeros are no
// limit. In YAML and JSON a bare number is InFlight.
type Budget struct {
	InFlight       int           `json:"in_flight,omitempty"`        // devices under way at one time
	PerMinute      int           `json:"per_minute,omitempty"`       // orders a minute, evenly
	BytesPerSecond int64         `json:"bytes_per_second,omitempty"` // to download, over all devices, evenly
	Unavailable    []Unavailable `json:"unavailable,omitempty"`
}

// Unavailable bounds the devices that are under way or do not serve among those
// that share the value of a label, for example one per site. Devices without
// the label share the empty value. Exactly one of Max and Percent is set; of a
// percentage at least one device is allowed, so that no group is starved.
type Unavailable struct {
	Label   string  `json:"label"`
	Max     int     `json:"max,omitempty"`
	Percent float64 `json:"percent,omitempty"`
}

// WindowSpec is a recurring time in which devices may be offered the release.
// An offer that a device has not begun to follow is withdrawn at its end.
type WindowSpec struct {
	Cron     string           `json:"cron"`                // five fields; when it begins
	Duration release.Duration `json:"duration"`            // how long it is open
	TimeZone string           `json:"time_zone,omitempty"` // IANA name, or "device" for each device's own; empty is UTC
}

// Require is what a device must show in its newest report to be offered the
// release. What it does not say counts as not fulfilled.
type Require struct {
	Unmetered bool `json:"unmetered,omitempty"`   // its link is not billed by volume
	Mains     bool `json:"mains,omitempty"`       // it does not run on a battery
	Battery   int  `json:"min_battery,omitempty"` // percent, when it runs on one
}

// ShadowSpec is a phase before a device switches: the release computes the
// same rows beside the old one, which answers. The gate "shadow" judges how
// often they agree.
type ShadowSpec struct {
	Rows     uint64           `json:"rows,omitempty"`     // to compare on each device
	Share    int              `json:"share,omitempty"`    // parts per thousand of the calls, 0 for all
	Deadline release.Duration `json:"deadline,omitempty"` // after it a device goes on without
}

// EvidenceSpec is what a wave needs before it passes, beside its quorum: what
// has not been seen is no success.
type EvidenceSpec struct {
	Devices    int     `json:"devices,omitempty"`    // of the wave that served predictions
	Inferences uint64  `json:"inferences,omitempty"` // rows they predicted, together
	Hours      float64 `json:"hours,omitempty"`      // since the wave was opened
}

// WaveSpec is one step. Exactly one of Count and Percent is set. Percent (1 to
// 100) is of all devices of the rollout and includes the waves before; the last
// wave is 100 percent.
type WaveSpec struct {
	Name     string            `json:"name,omitempty"`
	Count    int               `json:"count,omitempty"`
	Percent  float64           `json:"percent,omitempty"`
	Soak     *release.Duration `json:"soak,omitempty"`     // time a device must be seen healthy, and the wave's gates watched
	Quorum   float64           `json:"quorum,omitempty"`   // share of members that must be healthy
	Lateness release.Duration  `json:"lateness,omitempty"` // silence after which a device no longer holds the wave up
	Deadline release.Duration  `json:"deadline,omitempty"` // from its opening; a wave not passed by then halts the rollout; 0 leaves it to the rollout's
	Evidence EvidenceSpec      `json:"evidence,omitzero"`
	Approval bool              `json:"approval,omitempty"` // a person approves before it opens
}

// GateKind names a gate.
type GateKind string

// Gates in the order they are judged and shown.
const (
	Golden   GateKind = "golden"   // devices on which golden vectors disagree, over those that tried
	Install  GateKind = "install"  // devices that failed to get there, over those that tried
	Crash    GateKind = "crash"    // devices that fell back after activation, over those that activated
	Errors   GateKind = "errors"   // rise of the share of failed rows against the old release
	Latency  GateKind = "latency"  // rise of p95 latency against the old release, 0.25 is a quarter slower
	Drift    GateKind = "drift"    // PSI of predicted classes against devices on the old release
	Shadow   GateKind = "shadow"   // share of rows on which the release and the old one disagree in shadow
	Accuracy GateKind = "accuracy" // fall of accuracy against the old release
)

// Kinds lists all gates in order.
func Kinds() []GateKind {
	return []GateKind{Golden, Install, Crash, Errors, Latency, Drift, Shadow, Accuracy}
}

// Inconclusive says what a gate without an answer does at the end of a wave.
type Inconclusive string

// What a gate without an answer does at the end of a wave.
const (
	Hold Inconclusive = "hold" // the wave waits, until the rollout's deadline
	Pass Inconclusive = "pass" // the wave passes after its soak time and the gate is recorded as unproven
)

// GateSpec is one gate. Limit is the largest value that is still good.
type GateSpec struct {
	Kind         GateKind     `json:"kind"`
	Limit        *float64     `json:"limit,omitempty"`
	Min          uint64       `json:"min,omitempty"` // rows (accuracy: labels) a device needs before it counts
	Inconclusive Inconclusive `json:"inconclusive,omitempty"`
	Off          bool         `json:"off,omitempty"`
}
