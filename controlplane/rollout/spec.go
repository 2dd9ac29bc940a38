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

	Waves   []WaveSpec `json:"waves,omitempty"`
	Control *float64   `json:"control,omitempty"` // share of devices held out until the last wave
	Gates   []GateSpec `json:"gates,omitempty"`   // those not named take their defaults

	Budget    int       `json:"budget,omitempty"` // devices under way at one time, 0 for no limit
	OnFailure OnFailure `json:"on_failure,omitempty"`
	Approval  bool      `json:"approval,omitempty"` // a person approves before the first wave

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
	Accuracy GateKind = "accuracy" // fall of accuracy against the old release
)

// Kinds lists all gates in order.
func Kinds() []GateKind {
	return []GateKind{Golden, Install, Crash, Errors, Latency, Drift, Accuracy}
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
