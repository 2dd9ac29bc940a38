// Package rollout decides how a release moves through a fleet. It is a pure
// function: Step takes the state of one rollout, the facts known about its
// devices, the time and perhaps an operator's command, and returns the next
// state with the decision that leads to it. It reads no clock, draws no random
// number and does no I/O, so every decision can be replayed from the ledger.
//
// A rollout goes through waves. A wave's members are ranked by a hash of
// rollout and device within each firmware profile and frozen when the wave
// opens. A device counts as done when it was *observed* to serve the release
// for the soak time, never because it acknowledged something. Devices that
// cannot be heard of neither block a wave nor count for it; a quorum and
// deadlines close it. Gates judge harm at any moment and success at the end of
// a wave; a gate without evidence is "unproven", never passed.
package rollout

// Format is the version of State and Record as stored in the ledger. History:
//
//	1  2026-11-23  first
//	2  2026-11-23  e-processes, shadow phase, windows, budgets by label, revisions; digests are sums
const Format = 2

// Status is where a rollout stands.
type Status string

// Statuses of a rollout. Each has a deadline until it is final.
const (
	StatusDraft     Status = "draft"             // created, not started
	StatusQueued    Status = "queued"            // started, waits for its time or for another rollout to end
	StatusAwaiting  Status = "awaiting_approval" // a person must approve before the next wave opens
	StatusRunning   Status = "running"
	StatusPaused    Status = "paused"    // by a person; devices under way go on, nobody new is offered
	StatusHalted    Status = "halted"    // by a gate or deadline; unfinished offers are withdrawn
	StatusReverting Status = "reverting" // devices are going back
	StatusReverted  Status = "reverted"  // all devices were observed off the release
	StatusCompleted Status = "completed" // every wave passed; it admits later devices, see GoesOn
	StatusAborted   Status = "aborted"   // ended early; devices keep what they have
	StatusReplaced  Status = "replaced"  // another rollout took its devices over
)

// Final says whether the rollout has come to its end: it holds no device and
// waits for nothing. A final rollout can still be rolled back by a person, and a
// completed one goes on for devices that come later.
func (s Status) Final() bool {
	return s == StatusReverted || s == StatusCompleted || s == StatusAborted || s == StatusReplaced
}

// WaveState is where a wave stands.
type WaveState string

// States of a wave.
const (
	WavePending WaveState = "pending"
	WaveOpen    WaveState = "open"    // members are being offered the release
	WaveSoaking WaveState = "soaking" // all members serve it or are out; waiting for health and gates
	WavePassed  WaveState = "passed"
	WaveFailed  WaveState = "failed"
)

// DeviceState is where a device stands in a rollout.
type DeviceState string

// States of a device.
const (
	DeviceWaiting     DeviceState = "waiting"     // nothing is asked of it yet, or the offer was withdrawn
	DeviceShadowing   DeviceState = "shadowing"   // runs the release beside the old one, which answers
	DeviceOffered     DeviceState = "offered"     // desired state names the release; no sign of work seen
	DeviceDownloading DeviceState = "downloading" // resolving included
	DeviceVerifying   DeviceState = "verifying"
	DeviceTrialing    DeviceState = "trialing" // activating included
	DeviceActive      DeviceState = "active"   // observed to serve it
	DeviceHealthy     DeviceState = "healthy"  // observed to serve it for the soak time
	DeviceFailed      DeviceState = "failed"   // tried and did not get there
	DeviceReverted    DeviceState = "reverted" // was on it and went back
	DeviceRefused     DeviceState = "refused"  // cannot run it; never tried
	DeviceSuperseded  DeviceState = "superseded"
)
