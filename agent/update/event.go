package update

import "github.com/vedette-edge/vedette/protocol/release"

// Event is what happened. Those that end an action name the release it was for,
// so that news of an action given up meanwhile is told from news that counts.
type Event interface{ event() }

type (
	// Desired says what the control plane wants now. The same wish again changes
	// nothing, unless the last try failed for a passing reason and has rested.
	Desired struct{ Want }
	// Resolved says that the manifest is here and trusted.
	Resolved struct{ Release release.Digest }
	// Progress says that bytes arrived: the link works, back-off starts anew.
	Progress struct{ Release release.Digest }
	// Fetched says that all files are here.
	Fetched struct{ Release release.Digest }
	// Verified says that all files, read back from disk, are what was signed.
	Verified struct{ Release release.Digest }
	// Judged is the verdict of the trial, admission included.
	Judged struct {
		Release       release.Digest
		OK            bool
		Code, Message string
	}
	// Activated says that the release serves and that the slots say so; for the
	// zero release, that the model is off. Order counts all activations of the
	// device.
	Activated struct {
		Release release.Digest
		Order   uint64
	}
	// Reverted says that the target is gone, what serves instead (zero for
	// nothing) and what could be gone back to from there.
	Reverted struct{ Release, Active, Previous release.Digest }
	// Failed says that the action for the release did not succeed.
	Failed struct {
		Release       release.Digest
		Code, Message string
		Retryable     bool // it may work later
	}
	// Started says that the agent began, and what the slots hold.
	Started struct {
		Active, Previous release.Digest
		Unclean          bool // the start before did not end by itself
		Suspect          bool // if something on this device is to blame, it is this model
	}
	// Broken says that the active release cannot be served.
	Broken struct {
		Release       release.Digest
		Code, Message string
	}
	// Hung says that a call to the release did not return.
	Hung struct{ Release release.Digest }
	// Tick says that the time Wake named has come.
	Tick struct{}
)

func (Desired) event()   {}
func (Resolved) event()  {}
func (Progress) event()  {}
func (Fetched) event()   {}
func (Verified) event()  {}
func (Judged) event()    {}
func (Activated) event() {}
func (Reverted) event()  {}
func (Failed) event()    {}
func (Started) event()   {}
func (Broken) event()    {}
func (Hung) event()      {}
func (Tick) event()      {}

// Verb names what is to be done.
type Verb string

// What a machine asks for. Each action first ends the one in progress, if any.
const (
	Stop     Verb = "stop"     // nothing more; what was fetched stays for another try
	Discard  Verb = "discard"  // remove what is staged or on trial
	Resolve  Verb = "resolve"  // then Resolved
	Fetch    Verb = "fetch"    // then Fetched
	Verify   Verb = "verify"   // then Verified
	Trial    Verb = "trial"    // then Judged
	Activate Verb = "activate" // then Activated
	Remove   Verb = "remove"   // serve nothing and forget all releases, then Activated with the zero release
	Revert   Verb = "revert"   // away from the release, then Reverted
)

// Action is one thing to do. All but Stop and Discard end with the event named
// beside the verb, or with Failed.
type Action struct {
	Do      Verb
	Release release.Digest
}

// work is the action of a state, done on entering it and again after a restart.
func (m *Machine) work() (Verb, bool) {
	switch m.State {
	case Resolving:
		return Resolve, true
	case Downloading:
		return Fetch, true
	case Verifying:
		return Verify, true
	case Trialing:
		return Trial, true
	case Activating:
		if m.Target.Release.IsZero() {
			return Remove, true
		}
		return Activate, true
	case Reverting:
		return Revert, true
	case Idle, Watching:
	}
	return "", false
}
