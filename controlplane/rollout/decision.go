package rollout

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Action is what a person does to a rollout.
type Action string

// Actions.
const (
	Start    Action = "start"
	Approve  Action = "approve"  // lets the next wave open
	Deny     Action = "deny"     // ends a rollout that has offered nothing, halts one that has
	Stop     Action = "pause"    // nobody new is offered
	Resume   Action = "resume"   // from paused; from halted it waives what failed
	Next     Action = "next"     // closes the open wave as it is and opens the next
	Abort    Action = "abort"    // ends; devices keep what they have, unfinished offers are withdrawn
	Rollback Action = "rollback" // every device goes back
	Retry    Action = "retry"    // failed devices are offered again
	Revise   Action = "revise"   // the rest of the rollout follows a new spec
	Replace  Action = "replace"  // another rollout takes its devices over; the server gives it, not a person
)

// Command is an action of one person.
type Command struct {
	Action Action `json:"action"`
	Actor  string `json:"actor"`
	Reason string `json:"reason"`
	Spec   *Spec  `json:"spec,omitempty"`   // of Revise, with its defaults and valid
	Number *int   `json:"number,omitempty"` // of Revise: the revision that Spec was made from, nil for whichever
	By     string `json:"by,omitempty"`     // of Replace: the rollout that takes over
}

// Decision is one step: what changed, why, and what is asked of devices.
type Decision struct {
	Format  int        `json:"format"`
	At      time.Time  `json:"at"`
	Command *Command   `json:"command,omitempty"`
	Changes []Change   `json:"changes,omitempty"` // for people, in the order they happened
	Patch   Patch      `json:"patch"`
	Assign  []Assigned `json:"assign,omitempty"` // what devices are to run from now on
}

// Subjects of a Change.
const (
	SubjectRollout = "rollout"
	SubjectWave    = "wave"
	SubjectDevices = "devices"
)

// Change is one transition with its reason.
type Change struct {
	Subject string   `json:"subject"`        // a Subject… constant
	Wave    int      `json:"wave,omitempty"` // for a wave
	From    string   `json:"from,omitempty"`
	To      string   `json:"to"`
	Why     string   `json:"why"`
	Devices []string `json:"devices,omitempty"`
}

// Assigned names what some devices are to run. A zero release means that the
// model is taken off them.
type Assigned struct {
	Model   string         `json:"model"`
	Release release.Digest `json:"release,omitzero"`
	Devices []string       `json:"devices"`
	Role    string         `json:"role,omitempty"`  // "" for primary, which also ends a shadow; protocol.RoleShadow to run beside what is assigned
	Share   int            `json:"share,omitempty"` // of a shadow, parts per thousand of the calls, 0 for all
}

// Patch is the difference between two states. Parts that are present replace
// the old ones whole.
type Patch struct {
	Header  *Header            `json:"header,omitempty"`
	Spec    *Spec              `json:"spec,omitempty"`
	Waves   map[int]Wave       `json:"waves,omitempty"` // by number; of a new spec all of them
	Devices map[string]*Device `json:"devices,omitempty"`
}

// FactsPatch is the difference between two sets of facts.
type FactsPatch struct {
	Devices map[string]*DeviceFacts `json:"devices,omitempty"`
	Gone    []string                `json:"gone,omitempty"`
}
