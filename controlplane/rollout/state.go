package rollout

import (
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// State is one rollout. It is a value: Step never changes the one it is given.
// Times are UTC in whole milliseconds, so that they survive the ledger.
type State struct {
	Format   int          `json:"format"`
	ID       string       `json:"id"`
	Spec     Spec         `json:"spec"`
	Requires Requirements `json:"requires"`
	Header   Header       `json:"header"`
	Waves    []Wave       `json:"waves"`
	// Devices are all that were ever selected while a wave opened.
	// The values are never changed, only replaced.
	Devices map[string]*Device `json:"devices"`

	// What is kept beside Devices, so that a step costs what it changes.
	counted  census             // by class; nil for not yet
	summed   *sum               // of Devices, or of those before replaced; nil for not yet
	replaced map[string]*Device // by this step: the records before, nil for none
}

// Header is the part of State that belongs to no wave and no device.
type Header struct {
	Status   Status    `json:"status"`
	Since    time.Time `json:"since"`             // in this status
	Deadline time.Time `json:"deadline,omitzero"` // of this status; zero when final
	Cause    string    `json:"cause,omitempty"`   // why it is in this status, for people
	Creator  string    `json:"creator"`
	Created  time.Time `json:"created"`
	Started  time.Time `json:"started,omitzero"`
	Overall  time.Time `json:"overall,omitzero"`  // deadline of the whole rollout
	Wave     int       `json:"wave"`              // number of the newest wave opened, 1 is the first, 0 for none
	Approved int       `json:"approved"`          // waves up to this number may open
	Recalled time.Time `json:"recalled,omitzero"` // going back since
	Waived   []Waiver  `json:"waived,omitempty"`
	Revision int       `json:"revision,omitempty"` // changes of the spec since it was created
	Behind   []string  `json:"behind,omitempty"`   // rollouts that a queued one waits for, by id
	By       string    `json:"by,omitempty"`       // of a replaced one: the rollout that took over

	// When the next order may be given by the budget's rates (GCRA, ITU-T
	// I.371: theoretical arrival times), zero for at once.
	NextOrder time.Time `json:"next_order,omitzero"`
	NextBytes time.Time `json:"next_bytes,omitzero"`
}

// Waiver is a failing gate that a person resumed over. It is judged again
// when it gets worse.
type Waiver struct {
	Gate   GateKind `json:"gate"`
	Wave   int      `json:"wave"`
	Failed float64  `json:"failed"` // numerator of the gate then
}

// Wave is one wave.
type Wave struct {
	State    WaveState    `json:"state"`
	Since    time.Time    `json:"since,omitzero"`     // in this state
	Opened   time.Time    `json:"opened,omitzero"`    //
	SoakEnds time.Time    `json:"soak_ends,omitzero"` // while soaking
	Deadline time.Time    `json:"deadline,omitzero"`  // while open or soaking; zero for the rollout's
	Closed   time.Time    `json:"closed,omitzero"`
	Planned  int          `json:"planned,omitempty"`  // members when it opened
	Replaced int          `json:"replaced,omitempty"` // offered devices that others took the place of
	Forced   bool         `json:"forced,omitempty"`   // closed by a person
	Cause    string       `json:"cause,omitempty"`    // why it is in this state
	Gates    []GateResult `json:"gates,omitempty"`    // as they stood when an outcome last changed
	Control  *Sums        `json:"control,omitempty"`  // what the control group had counted when it opened, nil for nothing
}

// Device is one device of the rollout.
type Device struct {
	State    DeviceState    `json:"state"`
	Wave     int            `json:"wave,omitempty"`    // 1 is the first, 0 for none yet
	Since    time.Time      `json:"since"`             // in this state
	Deadline time.Time      `json:"deadline,omitzero"` // zero for the rollout's; see State.DeadlineOf
	Profile  string         `json:"profile,omitempty"`
	Site     string         `json:"site,omitempty"`
	Zone     string         `json:"zone,omitempty"`    // its time zone, where windows go by it
	Control  bool           `json:"control,omitempty"` // held out until the last wave
	Already  bool           `json:"already,omitempty"` // was on the release before
	Late     bool           `json:"late,omitempty"`    // passed a deadline unheard: holds nothing up
	Home     bool           `json:"home,omitempty"`    // seen off the release after the newest order back
	Old      release.Digest `json:"old,omitzero"`      // what it goes back to, zero for nothing
	Order    Order          `json:"order"`
	Offered  time.Time      `json:"offered,omitzero"` // newest offer
	Tries    int            `json:"tries,omitempty"`  // offers made
	Code     string         `json:"code,omitempty"`
	Message  string         `json:"message,omitempty"`
	Signs    Signs          `json:"signs,omitzero"`
}

// Signs are how a device compares with itself before, by comparing gate. Each
// is taken once, when the device has the evidence for it, and never again:
// what a test valid at any time adds up must not change its mind.
type Signs struct {
	Errors   Sign `json:"errors,omitzero"`
	Latency  Sign `json:"latency,omitzero"`
	Drift    Sign `json:"drift,omitzero"`
	Shadow   Sign `json:"shadow,omitzero"`
	Accuracy Sign `json:"accuracy,omitzero"`
}

// Sign is the outcome of one comparison. There are five for each device, so it
// is a byte here and a word wherever it is written.
type Sign uint8

// Outcomes of a comparison. The zero Sign was not taken yet.
const (
	Worse Sign = iota + 1 // by more than the gate's limit
	Fine                  // by no more than the limit
	Even                  // too close to say; counts against both
)

var signWords = [...]string{"", "worse", "fine", "even"}

// MarshalText writes the word.
func (s Sign) MarshalText() ([]byte, error) {
	if int(s) >= len(signWords) {
		return nil, fmt.Errorf("there is no sign %d", uint8(s))
	}
	return []byte(signWords[s]), nil
}

// UnmarshalText reads the word.
func (s *Sign) UnmarshalText(text []byte) error {
	for sign := range Even + 1 {
		if signWords[sign] == string(text) {
			*s = sign
			return nil
		}
	}
	return fmt.Errorf("there is no sign %.20q", text)
}

// Order is what the rollout last asked of a device.
type Order struct {
	Kind OrderKind `json:"kind,omitempty"`
	Seq  uint64    `json:"seq,omitempty"` // ledger sequence of the decision, set when it is committed
}

// OrderKind is a direction.
type OrderKind string

// Directions.
const (
	Beside  OrderKind = "beside"  // run the rollout's release as a shadow
	Forward OrderKind = "forward" // run the rollout's release
	Back    OrderKind = "back"    // run the old one
)

// Result is what a gate says.
type Result string

// What a gate says.
const (
	GatePass         Result = "pass"
	GateFail         Result = "fail"
	GateInconclusive Result = "inconclusive"
	GateUnproven     Result = "unproven" // inconclusive at the end of a wave that passed
	GateWaived       Result = "waived"   // fails no worse than when a person resumed over it
)

// GateResult is the answer of one gate with what it rests on.
type GateResult struct {
	Gate        GateKind `json:"gate"`
	Result      Result   `json:"result"`
	Numerator   float64  `json:"numerator"`
	Denominator float64  `json:"denominator"`
	Value       float64  `json:"value"`
	Limit       float64  `json:"limit"`

	// Of gates that compare devices: how many were worse and how many fine, and
	// what that is worth as evidence. EHarm is an e-value against "no worse
	// than the limit", which fails the gate from 1/Alpha on; EFine is one
	// against "worse than the limit", which passes it; EControl is EHarm over
	// the control group: when it is large, too, the world has changed, not the
	// release. All are capped at 1e300.
	Worse    int     `json:"worse,omitempty"`
	Fine     int     `json:"fine,omitempty"`
	EHarm    float64 `json:"e_harm,omitempty"`
	EFine    float64 `json:"e_fine,omitempty"`
	EControl float64 `json:"e_control,omitempty"`
	Alpha    float64 `json:"alpha,omitempty"` // its part of Spec.Alpha

	From time.Time `json:"from,omitzero"` // window of the evidence
	To   time.Time `json:"to,omitzero"`
	Text string    `json:"text"` // what was counted and what it means
}
