// Package update decides one update of one model. A Machine is plain data: an
// event and the present time go in, the next machine and the actions to take
// come out. It does no work, reads no clock and draws no random number, so each
// of its paths can be walked in a test.
//
//	                    ┌──────────────────────── refused, failed, superseded ───────────────────────┐
//	                    │            │              │             │                                   ▼
//	idle ─ desired ─▶ resolving ▶ downloading ▶ verifying ▶ trialing ▶ activating ▶ watching ─ ok ─▶ idle
//	                                                                       │            │              ▲
//	                                                                       └─ error ────┴▶ reverting ──┘
//
// Every state but idle has a deadline, counted over the time the device ran, so
// that a clock that jumps or a night without power changes nothing. A machine
// that was interrupted is entered again where it was, by [Started].
package update

import (
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Format is the version of a journaled Machine. History:
//
//	1  2026-11-23  first
const Format = 1

// State names where an update is. The names are stored and reported: they are
// never changed and never given another meaning.
type State string

// The states of an update.
const (
	Idle        State = "idle"        // nothing to do; what is active serves
	Resolving   State = "resolving"   // asking for the release's manifest and its trust
	Downloading State = "downloading" // fetching its files
	Verifying   State = "verifying"   // reading them back from disk
	Trialing    State = "trialing"    // running it in a child process
	Activating  State = "activating"  // switching to it; with no target, switching the model off
	Watching    State = "watching"    // it serves, and must survive
	Reverting   State = "reverting"   // going back to what served before
)

// States lists all states in the order an update passes them.
func States() []State {
	return []State{Idle, Resolving, Downloading, Verifying, Trialing, Activating, Watching, Reverting}
}

// Results of a finished update, as reported.
const (
	ResultActive     = "active"     // it serves and has survived the watch
	ResultFailed     = "failed"     // it could not be tried to the end
	ResultReverted   = "reverted"   // it served and was taken back
	ResultRefused    = "refused"    // this device must not run it
	ResultSuperseded = "superseded" // another release was asked for meanwhile
)

// Codes that the machine itself gives; others come with the events.
const (
	CodeDeadline     = "deadline"      // a state took too long
	CodeInterrupted  = "interrupted"   // the agent died in the same state again and again
	CodeCrashLoop    = "crash_loop"    // the agent kept dying with the release active
	CodeCallHung     = "call_hung"     // a call to the release did not return
	CodeLoadHung     = "load_hung"     // the runtime did not return from loading the release
	CodeRevertFailed = "revert_failed" // what served before could not be loaded any more
)

// Want is what the control plane asked for.
type Want struct {
	Release    release.Digest `json:"release"` // zero for no release: the model is switched off
	Decision   uint64         `json:"decision,omitempty"`
	Generation uint64         `json:"generation,omitempty"`
}

// Outcome is how an update ended. Decision is the one it was tried under: only
// a newer one permits another try of a release that was refused.
type Outcome struct {
	Want
	Result  string `json:"result"`
	Code    string `json:"code,omitempty"`    // stable; empty when active
	Message string `json:"message,omitempty"` // for people
}

// Failed says whether the update ended with a release that does not serve for a
// reason of its own; no outcome has not.
func (o *Outcome) Failed() bool {
	return o != nil && o.Result != ResultActive && o.Result != ResultSuperseded
}

// Limits are the deadlines and counts of a machine. Each duration is time the
// agent ran in the state; time without power does not count.
type Limits struct {
	Resolve, Download, Verify, Trial, Activate, Revert time.Duration

	// Load is how long serving what is active may take after a start.
	Load time.Duration
	// Watch is how long a new release must serve before it is trusted.
	Watch time.Duration
	// CrashWindow and CrashStarts: that many unclean starts in that time are a
	// crash loop.
	CrashWindow time.Duration
	CrashStarts int
	// Interruptions is how many unclean starts one state from verifying on
	// survives before its release is given up.
	Interruptions int
	// RetryMin and RetryMax bound the wait between two tries in one state.
	RetryMin, RetryMax time.Duration
	// Cooldown is how long a release that failed for a passing reason rests
	// before the same decision may start it again.
	Cooldown time.Duration
}

// DefaultLimits suit a device on a slow, broken link.
func DefaultLimits() Limits {
	return Limits{
		Resolve:       time.Hour,        // one exchange of metadata, behind any back-off
		Download:      24 * time.Hour,   // a gigabyte at 12 KB/s
		Verify:        30 * time.Minute, // a gigabyte from the slowest card
		Trial:         30 * time.Minute, // several variants, each bounded by the trial itself
		Activate:      10 * time.Minute,
		Revert:        30 * time.Minute, // with retries: a device without a model is the worst outcome
		Load:          5 * time.Minute,  // as a trial; half of Activate, which may have to wait for it
		Watch:         10 * time.Minute, // as long as the crash window, so a loop is always seen
		CrashWindow:   10 * time.Minute,
		CrashStarts:   3,
		Interruptions: 3,
		RetryMin:      2 * time.Second,
		RetryMax:      5 * time.Minute,
		Cooldown:      15 * time.Minute,
	}
}
