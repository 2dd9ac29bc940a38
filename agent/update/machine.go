package update

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// MaxRefused bounds the releases remembered as refused. Only the wanted one
// matters for what happens next; the rest is for people.
const MaxRefused = 8

// maxRounds is how often a release that does not read back right is fetched:
// a second time because a write may have been torn, a third because cards have
// bad days, and no more because cards also wear out.
const maxRounds = 3

// Machine is the update of one model. It is a value: Step leaves its receiver
// as it was. The exported fields are what the journal keeps.
type Machine struct {
	Format int    `json:"format"`
	Model  string `json:"model"`
	State  State  `json:"state"`
	// Challenger says that the release runs beside the active one of its model.
	// One that fails is left for nothing: nobody needs its answers.
	Challenger bool `json:"challenger,omitempty"`
	// Spent is how long the agent ran in State, Ran how long with the machine.
	Spent time.Duration `json:"spent"`
	Ran   time.Duration `json:"ran"`

	Want   Want `json:"want"`   // newest wish
	Target Want `json:"target"` // wish being worked on; zero when idle

	// Active and Previous repeat what the slots say; the slots are right.
	Active   release.Digest `json:"active"`
	Previous release.Digest `json:"previous"`
	Order    uint64         `json:"order"` // of the activation of Active, over all models

	// Starts are recent unclean starts with Active that it may be to blame for.
	Starts      []Start `json:"starts,omitempty"`
	Interrupted int     `json:"interrupted,omitempty"` // unclean starts in State
	Rounds      int     `json:"rounds,omitempty"`      // downloads of Target begun

	Cause   *Outcome  `json:"cause,omitempty"`   // reverting: the outcome to be
	Last    *Outcome  `json:"last,omitempty"`    // newest outcome
	Refused []Outcome `json:"refused,omitempty"` // need a new decision, oldest first
	Resting *Rest     `json:"resting,omitempty"` // failed for a passing reason

	clock   time.Time // of the last step
	attempt int       // tries of the state's action so far
	retry   time.Time // when to try again; zero when not waiting
	trouble Failed    // why the state's action is tried again, zero for none
}

// Start is one unclean start, on both clocks.
type Start struct {
	Ran  time.Duration `json:"ran"` // the machine's Ran then
	Wall time.Time     `json:"wall"`
}

// Rest keeps a release from being tried again at once.
type Rest struct {
	Want
	Until time.Duration `json:"until"` // of the machine's Ran
}

// New is the machine of a model that nothing is known of. Feed it Started
// before anything else.
func New(model string) Machine {
	return Machine{Format: Format, Model: model, State: Idle}
}

// NewChallenger is the machine of a model's challenger, else as New.
func NewChallenger(model string) Machine {
	m := New(model)
	m.Challenger = true
	return m
}

// Lacks says whether the machine still has to bring w's files onto the disk, or
// to begin with it: it is wanted, does not serve, was not given up, and has not
// been read back from disk yet.
func (m Machine) Lacks(w Want) bool {
	if w.Release.IsZero() || w.Release == m.Active || m.gaveUp(w) {
		return false
	}
	if m.Target.Release != w.Release {
		return true
	}
	return m.State == Idle || m.State == Resolving || m.State == Downloading || m.State == Verifying
}

// gaveUp says whether w needs a new decision. Any other decision is a new one,
// also a lower one: the ledger that numbers them may have been restored from a
// backup.
func (m Machine) gaveUp(w Want) bool {
	return slices.ContainsFunc(m.Refused, func(o Outcome) bool { return o.Release == w.Release && o.Decision == w.Decision })
}

// Gone says whether the model is neither wanted nor here, and nothing is at work.
func (m Machine) Gone() bool {
	return m.State == Idle && m.Active.IsZero() && m.Want.Release.IsZero()
}

// Removes says whether the machine is switching the model off as it was told to.
func (m Machine) Removes() bool { return m.State == Activating && m.Target.Release.IsZero() }

// At is the machine with the time up to now accounted for.
func (m Machine) At(now time.Time) Machine {
	if !m.clock.IsZero() {
		d := max(now.Sub(m.clock), 0)
		m.Spent += d
		m.Ran += d
	}
	m.clock = now
	return m
}

// Wake is when the machine wants a Tick; false for never.
func (m Machine) Wake(l Limits) (time.Time, bool) {
	if m.State == Idle {
		return time.Time{}, false
	}
	at := m.clock.Add(l.of(m.State) - m.Spent)
	if !m.retry.IsZero() && m.retry.Before(at) {
		at = m.retry
	}
	return at, true
}

// Timed says whether anything depends on how long the machine goes on running:
// a deadline, a crash window or a rest.
func (m Machine) Timed(l Limits) bool {
	return m.State != Idle || m.RecentStarts(l) > 0 || (m.Resting != nil && m.Ran < m.Resting.Until)
}

// RecentStarts counts the unclean starts within the crash window.
func (m Machine) RecentStarts(l Limits) int { return len(m.recent(l)) }

// recent keeps starts that are young on every clock that can be trusted. The
// time the agent ran can always; the wall clock only where it has been set, or
// a device without one would seem to start at the same instant every morning.
func (m Machine) recent(l Limits) []Start {
	return slices.DeleteFunc(slices.Clone(m.Starts), func(s Start) bool {
		old := m.Ran-s.Ran >= l.CrashWindow
		return old || (wallIsSet(s.Wall) && wallIsSet(m.clock) && m.clock.Sub(s.Wall) >= l.CrashWindow)
	})
}

// wallIsSet says whether t can come from a clock that somebody set.
func wallIsSet(t time.Time) bool { return t.Year() >= 2020 }

// of is the deadline of a state.
func (l Limits) of(s State) time.Duration {
	switch s {
	case Resolving:
		return l.Resolve
	case Downloading:
		return l.Download
	case Verifying:
		return l.Verify
	case Trialing:
		return l.Trial
	case Activating:
		return l.Activate
	case Watching:
		return l.Watch
	case Reverting:
		return l.Revert
	case Idle:
	}
	return 0
}

// Backoff is the wait before try n+1 (n from 1): twice as long each time, and
// spread over its upper half so that a fleet does not come back in step.
func (l Limits) Backoff(n int, rnd float64) time.Duration {
	d := l.RetryMin << min(n-1, 20)
	if d > l.RetryMax || d <= 0 {
		d = l.RetryMax
	}
	return d/2 + time.Duration(rnd*float64(d/2))
}

// Check refuses a machine that another format wrote or that cannot be.
func (m *Machine) Check() error {
	if m.Format != Format {
		return fmt.Errorf("journal has format %d, this agent reads %d", m.Format, Format)
	}
	if !slices.Contains(States(), m.State) {
		return fmt.Errorf("journal has state %q, which this agent does not know", m.State)
	}
	if m.State == Reverting && m.Cause == nil {
		return errors.New("journal is reverting without a cause")
	}
	return nil
}
