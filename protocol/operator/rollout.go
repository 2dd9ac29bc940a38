package operator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// RolloutSpec is what an operator asks for. Absent fields take the defaults
// that a plan shows. Shares and limits are fractions (0.05 is five percent)
// except WaveSpec.Percent.
type RolloutSpec struct {
	Model    string `json:"model"`
	Version  string `json:"version"`            // its digest is fixed when the rollout is created
	Selector string `json:"selector,omitempty"` // label selector; empty selects all devices

	Waves   []WaveSpec  `json:"waves,omitempty"`
	Control *float64    `json:"control,omitempty"` // share of devices held out until the last wave
	Gates   []GateSpec  `json:"gates,omitempty"`   // those not named take their defaults
	Alpha   *float64    `json:"alpha,omitempty"`   // chance that the comparing gates, together, stop a harmless release
	Shadow  *ShadowSpec `json:"shadow,omitempty"`  // nil for no shadow phase

	Budget  Budget       `json:"budget,omitzero"`        // of going forward
	Revert  Budget       `json:"revert_budget,omitzero"` // of going back
	Windows []WindowSpec `json:"windows,omitempty"`      // offers are made in one of them; none means always
	Require Require      `json:"require,omitzero"`       // of a device at the moment of its offer

	OnFailure  OnFailure `json:"on_failure,omitempty"`
	OnConflict string    `json:"on_conflict,omitempty"` // refuse, queue: when another rollout of the model has some of the devices
	Supersedes string    `json:"supersedes,omitempty"`  // rollout whose devices this one takes over when it starts
	Approval   bool      `json:"approval,omitempty"`    // a person approves before the first wave
	StartAt    time.Time `json:"start_at,omitzero"`     // not before; zero for at once

	DeviceDeadline   release.Duration `json:"device_deadline,omitempty"`   // from offer to serving
	DecisionDeadline release.Duration `json:"decision_deadline,omitempty"` // for states that wait for a person
	Deadline         release.Duration `json:"deadline,omitempty"`          // of the whole rollout
}

// OnFailure says what follows when a gate fails.
type OnFailure string

// What follows when a gate fails.
const (
	OnFailurePause  OnFailure = "pause"  // halt and wait for a person
	OnFailureRevert OnFailure = "revert" // halt and bring every device back
)

// Budget bounds how much of the fleet is disturbed at a time. Zeros are no
// limit. In YAML and JSON a bare number is InFlight.
type Budget struct {
	InFlight       int                `json:"in_flight,omitempty"`        // devices under way at one time
	PerMinute      int                `json:"per_minute,omitempty"`       // orders a minute, evenly
	BytesPerSecond int64              `json:"bytes_per_second,omitempty"` // to download, over all devices, evenly
	Unavailable    []UnavailableLimit `json:"unavailable,omitempty"`
}

// UnmarshalJSON reads a budget, or a bare number as its InFlight.
func (b *Budget) UnmarshalJSON(data []byte) error {
	if n := 0; json.Unmarshal(data, &n) == nil {
		*b = Budget{InFlight: n}
		return nil
	}
	type plain Budget
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode((*plain)(b)); err != nil {
		return fmt.Errorf("budget: %w", err)
	}
	return nil
}

// UnavailableLimit bounds the devices that are under way or do not serve among those
// that share the value of a label, for example one per site. Devices without
// the label share the empty value. Exactly one of Max and Percent is set; of a
// percentage at least one device is allowed, so that no group is starved.
type UnavailableLimit struct {
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

// WaveSpec is one step of a rollout. Exactly one of Count and Percent is set;
// Percent (1 to 100) is of all devices of the rollout and includes the waves
// before.
type WaveSpec struct {
	Name     string            `json:"name,omitempty"`
	Count    int               `json:"count,omitempty"`
	Percent  float64           `json:"percent,omitempty"`
	Soak     *release.Duration `json:"soak,omitempty"`     // devices must be seen healthy this long
	Quorum   float64           `json:"quorum,omitempty"`   // share of the wave's devices that must be healthy
	Lateness release.Duration  `json:"lateness,omitempty"` // silence after which a device no longer holds the wave up
	Deadline release.Duration  `json:"deadline,omitempty"` // from its opening; a wave not passed by then halts the rollout
	Evidence EvidenceSpec      `json:"evidence,omitzero"`
	Approval bool              `json:"approval,omitempty"` // a person approves before it opens
}

// GateSpec is a condition that a wave must keep. Limit is the largest value
// that is still good.
type GateSpec struct {
	Kind         string   `json:"kind"` // golden, install, crash, errors, latency, drift, shadow, accuracy
	Limit        *float64 `json:"limit,omitempty"`
	Min          uint64   `json:"min,omitempty"`          // rows (accuracy: labels) a device needs before it counts
	Inconclusive string   `json:"inconclusive,omitempty"` // hold, pass (after soak, recorded as unproven)
	Off          bool     `json:"off,omitempty"`
}

// RolloutState is the state of a rollout by name.
type RolloutState string

// States of a rollout.
const (
	RolloutDraft     RolloutState = "draft"
	RolloutQueued    RolloutState = "queued"
	RolloutAwaiting  RolloutState = "awaiting_approval"
	RolloutRunning   RolloutState = "running"
	RolloutPaused    RolloutState = "paused"
	RolloutHalted    RolloutState = "halted"
	RolloutReverting RolloutState = "reverting"
	RolloutReverted  RolloutState = "reverted"
	RolloutCompleted RolloutState = "completed"
	RolloutAborted   RolloutState = "aborted"
	RolloutReplaced  RolloutState = "replaced"
)

// Ended says whether nothing more happens in the rollout.
func (s RolloutState) Ended() bool {
	switch s {
	case RolloutReverted, RolloutCompleted, RolloutAborted, RolloutReplaced:
		return true
	case RolloutDraft, RolloutQueued, RolloutAwaiting, RolloutRunning, RolloutPaused, RolloutHalted, RolloutReverting:
	}
	return false
}

// RolloutSummary is one row of the list of rollouts.
type RolloutSummary struct {
	ID        string         `json:"id"`
	Model     string         `json:"model"`
	Version   string         `json:"version"`
	Release   release.Digest `json:"release"`
	State     RolloutState   `json:"state"`
	Cause     string         `json:"cause,omitempty"`  // why it is in this state, for people
	Wave      int            `json:"wave"`             // open or last; 1 is the first, 0 before it
	Waves     int            `json:"waves"`            //
	Devices   int            `json:"devices"`          // selected
	Counts    map[string]int `json:"counts"`           // devices by state
	Created   time.Time      `json:"created,omitzero"` //
	Started   time.Time      `json:"started,omitzero"` //
	Ended     time.Time      `json:"ended,omitzero"`   //
	Since     time.Time      `json:"since,omitzero"`   // in this state
	CreatedBy string         `json:"created_by,omitempty"`
}

// Rollout is everything about one rollout but its devices and decisions one by
// one, of which it has some: the others come in pages.
type Rollout struct {
	RolloutSummary

	Spec     RolloutSpec `json:"spec"` // with defaults filled in
	WaveList []Wave      `json:"wave_list"`
	Gates    []Gate      `json:"gates,omitempty"`   // of the newest wave, judged now
	Control  []string    `json:"control,omitempty"` // devices held out until the last wave, at most MaxListed
	Waiting  []string    `json:"waiting,omitempty"` // selected, in no wave yet, at most MaxListed
	Timeline []Decision  `json:"timeline"`          // newest first, at most MaxTimeline; of those that only follow devices, the newest MaxFollowing
	Actions  []string    `json:"actions"`           // that are possible now
	Deadline time.Time   `json:"deadline,omitzero"` // of this state
	Overall  time.Time   `json:"overall,omitzero"`  // of the whole rollout
	Revision uint64      `json:"revision"`          // ledger sequence of its newest record

	WaitingTotal  int            `json:"waiting_total,omitempty"`  // selected, in no wave yet
	Decisions     int            `json:"decisions"`                // of its ledger chain, all
	ControlCounts map[string]int `json:"control_counts,omitempty"` // control group by state
	Returns       map[string]int `json:"returns,omitempty"`        // devices that a rollback would send back, by version; "" for having none
	Next          *NextWave      `json:"next,omitempty"`           // the wave that waits for approval; absent when none does
	Stuck         []WaveDevice   `json:"stuck,omitempty"`          // devices that hold it up, the longest in their state first, at most MaxStuck
	StuckTotal    int            `json:"stuck_total,omitempty"`    // of them in all
	Revisions     []SpecRevision `json:"revisions,omitempty"`      // of the spec, oldest first; the first is what it was created with
}

// Bounds of a Rollout, so that one over a hundred thousand devices is read as
// easily as one over ten.
const (
	MaxStuck    = 50  // devices in Rollout.Stuck
	MaxListed   = 256 // devices in Wave.Devices, Rollout.Control and Rollout.Waiting
	MaxTimeline = 200 // decisions in Rollout.Timeline
	MaxNamed    = 20  // devices in Change.Devices

	// MaxFollowing bounds the decisions in Rollout.Timeline that moved neither
	// the rollout nor a wave and that no person took: a large one has thousands.
	MaxFollowing = 50
)

// SpecRevision is the spec as it was from one ledger record on.
type SpecRevision struct {
	Number int         `json:"number"` // 0 is the one it was created with
	Seq    uint64      `json:"seq"`    // of the record
	At     time.Time   `json:"at"`
	Actor  string      `json:"actor"`
	Reason string      `json:"reason,omitempty"`
	Spec   RolloutSpec `json:"spec"` // with defaults filled in
}

// Wave is one wave of a rollout.
type Wave struct {
	Number   int            `json:"number"` // 1 is the first
	Name     string         `json:"name,omitempty"`
	State    string         `json:"state"`           // pending, open, soaking, passed, failed
	Cause    string         `json:"cause,omitempty"` // why it is in this state, for people
	Planned  int            `json:"planned"`         // devices it was to have
	Counts   map[string]int `json:"counts"`          // devices by state
	Late     map[string]int `json:"late,omitempty"`  // of them, those that hold nothing up any more
	Devices  []WaveDevice   `json:"devices"`         // those in trouble and under way first, at most MaxListed
	More     int            `json:"more,omitempty"`  // devices that are not among these
	Gates    []Gate         `json:"gates"`           // as they stood when an outcome last changed
	Since    time.Time      `json:"since,omitzero"`  // in this state
	Opened   time.Time      `json:"opened,omitzero"`
	SoakEnds time.Time      `json:"soak_ends,omitzero"`
	Closed   time.Time      `json:"closed,omitzero"`
	Deadline time.Time      `json:"deadline,omitzero"` // of this state
	Forced   bool           `json:"forced,omitempty"`  // closed by a person
	Spec     WaveSpec       `json:"spec"`
	Progress WaveProgress   `json:"progress,omitzero"`
}

// NextWave is a wave that a person is asked to approve, as it would be if it were
// opened now. Whom it gets is only settled when it opens.
type NextWave struct {
	Number   int            `json:"number"`
	Name     string         `json:"name,omitempty"`
	Total    int            `json:"total"`    // devices
	Devices  []string       `json:"devices"`  // in the order they would be offered it, at most MaxListed
	Profiles map[string]int `json:"profiles"` // devices by firmware profile
	Sites    map[string]int `json:"sites"`    // devices by site
}

// WaveProgress is how much of what a wave needs is there.
type WaveProgress struct {
	Healthy    int     `json:"healthy"`    // devices seen healthy
	Needed     int     `json:"needed"`     // of them, by the quorum
	Counted    int     `json:"counted"`    // devices the quorum is a share of
	Devices    int     `json:"devices"`    // that served predictions
	Inferences uint64  `json:"inferences"` // rows they predicted, together
	Hours      float64 `json:"hours"`      // since the wave was opened
}

// WaveDevice is a device in a wave.
type WaveDevice struct {
	Device   string    `json:"device"`
	State    string    `json:"state"` // waiting, shadowing, offered, downloading, verifying, trialing, active, healthy; failed, reverted, refused, superseded
	Since    time.Time `json:"since,omitzero"`
	Code     string    `json:"code,omitempty"` // why it failed
	Message  string    `json:"message,omitempty"`
	Site     string    `json:"site,omitempty"`
	Profile  string    `json:"profile,omitempty"`
	Presence Presence  `json:"presence,omitempty"`
	Tries    int       `json:"tries,omitempty"`   // offers made
	Late     bool      `json:"late,omitempty"`    // passed a deadline unheard: holds nothing up
	Already  bool      `json:"already,omitempty"` // served the release before

	Wave     int       `json:"wave,omitempty"`    // 1 is the first, 0 for none yet
	Control  bool      `json:"control,omitempty"` // held out until the last wave
	Old      string    `json:"old,omitempty"`     // version it goes back to; empty for nothing
	Deadline time.Time `json:"deadline,omitzero"` // of its state
	Heard    time.Time `json:"heard,omitzero"`    // newest message of any kind
	Why      string    `json:"why,omitempty"`     // it is where it is, for people; not in Wave.Devices
}

// Gate is what one gate says now.
type Gate struct {
	Kind        string  `json:"kind"`
	Result      string  `json:"result"` // pass, fail, inconclusive, unproven (a wave passed without an answer), waived (by a person)
	Numerator   float64 `json:"numerator"`
	Denominator float64 `json:"denominator"`
	Value       float64 `json:"value"`
	Limit       float64 `json:"limit"`
	Unit        string  `json:"unit,omitempty"`

	// Of gates that compare devices: how many were worse by more than the limit
	// and how many were not, and e-values of that. EHarm fails the gate from
	// 1/Alpha on, EFine passes it; EControl is EHarm over the control group.
	Worse    int     `json:"worse,omitempty"`
	Fine     int     `json:"fine,omitempty"`
	EHarm    float64 `json:"e_harm,omitempty"`
	EFine    float64 `json:"e_fine,omitempty"`
	EControl float64 `json:"e_control,omitempty"`
	Alpha    float64 `json:"alpha,omitempty"` // its part of the spec's

	From time.Time `json:"from,omitzero"` // window of the evidence
	To   time.Time `json:"to,omitzero"`
	Text string    `json:"text"` // for people: what was counted, and what it means
}

// Decision is one entry of a rollout's timeline: one ledger record.
type Decision struct {
	Seq     uint64    `json:"seq"` // in the ledger
	At      time.Time `json:"at"`
	Actor   string    `json:"actor"` // an operator, or "engine"
	Kind    string    `json:"kind"`
	Action  string    `json:"action,omitempty"` // of an operator
	Reason  string    `json:"reason,omitempty"`
	Text    string    `json:"text"` // what changed and why, for people
	Changes []Change  `json:"changes,omitempty"`
	Hash    string    `json:"hash,omitempty"` // of the record in its chain
}

// Change is one transition of a decision.
type Change struct {
	Subject string   `json:"subject"` // rollout, wave, devices
	Wave    int      `json:"wave,omitempty"`
	From    string   `json:"from,omitempty"`
	To      string   `json:"to"`
	Why     string   `json:"why"`
	Devices []string `json:"devices,omitempty"` // at most MaxNamed
	Count   int      `json:"count,omitempty"`   // devices, all
}

// Explanation says why a rollout is where it is and what it waits for.
type Explanation struct {
	ID        string       `json:"id"`
	State     RolloutState `json:"state"`
	Summary   string       `json:"summary"` // one sentence
	Waiting   []string     `json:"waiting"` // what must happen before it moves, one sentence each
	Gates     []Gate       `json:"gates"`
	Decisions []Decision   `json:"decisions"` // oldest first, the newest MaxTimeline
	Total     int          `json:"total"`     // decisions, all
}

// Plan is what a rollout would do, told before it starts. Its times come from
// replays: in each, the devices are there at the hours at which they were heard
// of in the last 14 days, begun at another of these days, and all of them do well.
// Time that people take to approve is not in them.
type Plan struct {
	Spec       RolloutSpec       `json:"spec"` // with defaults filled in
	Release    release.Digest    `json:"release"`
	Begins     time.Time         `json:"begins,omitzero"`      // when the times below begin
	FirstOffer time.Time         `json:"first_offer,omitzero"` // the first device is asked then, after a window has opened; absent when none is
	Devices    int               `json:"devices"`              // that would be offered it
	Already    []string          `json:"already,omitempty"`    // run it now
	Refused    map[string]string `json:"refused,omitempty"`    // cannot run it, with the reason
	Unmet      map[string]string `json:"unmet,omitempty"`      // do not fulfil now what the rollout requires, with the reason
	Held       map[string]string `json:"held,omitempty"`       // are in another rollout, by its id
	Conflicts  []PlanConflict    `json:"conflicts,omitempty"`  // those rollouts, by id
	Control    []string          `json:"control,omitempty"`    // held out until the last wave
	Unheard    []string          `json:"unheard,omitempty"`    // not heard of in the last 14 days
	Waves      []PlanWave        `json:"waves"`
	Bytes      int64             `json:"bytes"`                // to be downloaded at most, by all devices together, deltas included
	FullBytes  int64             `json:"full_bytes,omitempty"` // the same without deltas
	Expected   release.Duration  `json:"expected"`             // half of the replays end sooner; 0 when they do not end in time
	Slow       release.Duration  `json:"expected_p90"`         // nine of ten do; 0 likewise
	Replays    int               `json:"replays"`
	Unfinished int               `json:"unfinished,omitempty"` // replays that did not end by the rollout's deadline
	Warnings   []string          `json:"warnings,omitempty"`
}

// PlanConflict is another rollout of the model that has some of the devices.
type PlanConflict struct {
	Rollout string `json:"rollout"`
	Devices int    `json:"devices"`
	Outcome string `json:"outcome"` // refused: this one cannot start; queued: it waits for the other; superseded: it takes the devices over
}

// PlanWave is one wave of a plan.
type PlanWave struct {
	Number     int              `json:"number"`
	Name       string           `json:"name,omitempty"`
	Devices    []string         `json:"devices"`  // in the order they would be offered it
	Profiles   map[string]int   `json:"profiles"` // devices by firmware profile
	Sites      map[string]int   `json:"sites"`    // devices by site
	Bytes      int64            `json:"bytes"`
	Expected   release.Duration `json:"expected"`             // from its opening, as of the whole rollout
	Slow       release.Duration `json:"expected_p90"`         //
	Unfinished int              `json:"unfinished,omitempty"` // replays in which it did not end in time
	Stalls     []string         `json:"stalls,omitempty"`     // what it waits for longest, for people
	Approval   bool             `json:"approval,omitempty"`   // a person approves before it opens
	Detectable []Detectable     `json:"detectable,omitempty"`
}

// Detectable is the smallest regression that one gate would find in one wave in
// four of five cases.
type Detectable struct {
	Kind  string  `json:"kind"`
	Limit float64 `json:"limit"`
	Least float64 `json:"least"` // 0 when nothing can be said
	Text  string  `json:"text"`
}

// RolloutQuery selects rollouts, newest first.
type RolloutQuery struct {
	Paging

	Model  string       `json:"model,omitempty" query:"model"`
	State  RolloutState `json:"state,omitempty" query:"state"`
	Active bool         `json:"active,omitempty" query:"active"` // only those that have not ended
}

// RolloutDeviceQuery selects devices of a rollout, by id.
type RolloutDeviceQuery struct {
	Paging

	Wave    int    `json:"wave,omitempty" query:"wave"`       // only of this wave, 1 is the first
	State   string `json:"state,omitempty" query:"state"`     // only in this state
	Site    string `json:"site,omitempty" query:"site"`       //
	Stuck   bool   `json:"stuck,omitempty" query:"stuck"`     // only those that hold the rollout up
	Late    bool   `json:"late,omitempty" query:"late"`       // only those that no longer do
	Control bool   `json:"control,omitempty" query:"control"` // only the control group
}

// RolloutCreate makes a rollout. Start also starts it.
type RolloutCreate struct {
	Spec   RolloutSpec `json:"spec"`
	Reason string      `json:"reason"`
	Start  bool        `json:"start,omitempty"`
}

// RolloutAction is what an operator does to a rollout.
type RolloutAction struct {
	Action string       `json:"action"` // an Act… constant
	Reason string       `json:"reason"`
	Spec   *RolloutSpec `json:"spec,omitempty"` // of a revision: the whole new one
	// Number is, of a revision, the newest one that the new spec was made from.
	// When there is a newer one by now, the answer is Stale. Absent takes any.
	Number *int `json:"number,omitempty"`
}

// Actions on a rollout.
const (
	ActStart    = "start"
	ActApprove  = "approve"
	ActDeny     = "deny"
	ActPause    = "pause"
	ActResume   = "resume"
	ActNext     = "next"     // opens the next wave now
	ActAbort    = "abort"    // stops; devices keep what they have
	ActRollback = "rollback" // devices go back, in waves, observed
	ActRetry    = "retry"    // failed devices are asked again
	ActRevise   = "revise"   // the rest of the rollout follows a new spec
)

// Actions lists all actions.
func Actions() []string {
	return []string{ActStart, ActApprove, ActDeny, ActPause, ActResume, ActNext, ActAbort, ActRollback, ActRetry, ActRevise}
}
