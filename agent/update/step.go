package update

import (
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Step is the machine after e at the time now, and what to do, in order. rnd is
// a random number in [0, 1) that spreads retries. The caller makes the new
// machine durable before it does anything of it.
func (m Machine) Step(now time.Time, e Event, l Limits, rnd float64) (Machine, []Action) {
	s := &step{Machine: m.At(now), limits: l, now: now, rnd: rnd}
	s.take(e)
	return s.Machine, s.actions
}

// step is a machine on its way from one state to the next.
type step struct {
	Machine
	limits  Limits
	now     time.Time
	rnd     float64
	actions []Action
}

func (s *step) take(e Event) {
	switch e := e.(type) {
	case Desired:
		s.desired(e.Want)
	case Started:
		s.started(e)
	case Tick:
		s.tick()
	case Broken:
		s.broken(e)
	case Hung:
		s.hung(e)
	case Failed:
		s.failed(e)
	case Judged:
		s.judged(e)
	case Resolved:
		s.pass(Resolving, e.Release, Downloading)
	case Fetched:
		s.pass(Downloading, e.Release, Verifying)
	case Verified:
		s.pass(Verifying, e.Release, Trialing)
	case Progress:
		// A disk that takes no more is not better for a link that works.
		if s.is(Downloading, e.Release) && !OfDisk(s.trouble.Code) {
			s.attempt, s.trouble = 0, Failed{}
		}
	case Activated:
		s.activated(e)
	case Reverted:
		s.reverted(e)
	}
}

// is reports whether the machine is in the state, for that release.
func (s *step) is(state State, r release.Digest) bool {
	return s.State == state && s.Target.Release == r
}

func (s *step) do(v Verb, r release.Digest) {
	s.actions = append(s.actions, Action{Do: v, Release: r})
}

// enter starts a state and its deadline, and does its work.
func (s *step) enter(state State) {
	s.State, s.Spent, s.Interrupted = state, 0, 0
	s.attempt, s.retry, s.trouble = 0, time.Time{}, Failed{}
	s.again()
}

func (s *step) again() {
	if verb, ok := s.work(); ok {
		s.do(verb, s.Target.Release)
	}
}

// pass goes on to the next state when the news is of the present one.
func (s *step) pass(from State, r release.Digest, to State) {
	if s.is(from, r) {
		s.enter(to)
	}
}

func (s *step) desired(w Want) {
	s.Want = w
	switch s.State {
	case Idle:
		s.settle()
	case Activating, Reverting:
		// A switch is not left half way: the wish is looked at when it ends.
	case Resolving, Downloading, Verifying, Trialing:
		if s.adopts(w) {
			return
		}
		s.do(Discard, s.Target.Release)
		s.conclude(ResultSuperseded, "", superseded(w))
	case Watching:
		if !s.adopts(w) {
			s.conclude(ResultSuperseded, "", superseded(w))
		}
	}
}

// adopts takes over the newer decision for a release already worked on.
func (s *step) adopts(w Want) bool {
	if w.Release != s.Target.Release {
		return false
	}
	s.Target = w
	return true
}

func superseded(w Want) string {
	if w.Release.IsZero() {
		return "the model was taken off the device"
	}
	return "it gave way to release " + w.Release.Short()
}

// settle compares what is with what is wanted, and starts what is needed.
func (s *step) settle() {
	switch w := s.Want; {
	case w.Release == s.Active:
	case w.Release.IsZero():
		s.Target = w
		s.enter(Activating)
	case s.barred(w):
	default:
		s.begin(w)
	}
}

// begin starts an update; asking again for a refused release forgives it.
func (s *step) begin(w Want) {
	s.Refused = slices.DeleteFunc(slices.Clone(s.Refused), func(o Outcome) bool { return o.Release == w.Release })
	s.Target, s.Rounds, s.Resting = w, 1, nil
	s.enter(Resolving)
}

// barred says whether w must wait: for a new decision, or for its rest to end.
func (s *step) barred(w Want) bool {
	if s.gaveUp(w) {
		return true
	}
	r := s.Resting
	return r != nil && r.Release == w.Release && r.Decision == w.Decision && s.Ran < r.Until
}

// conclude ends the update of the target and looks at what is wanted now.
func (s *step) conclude(result, code, message string) {
	s.record(Outcome{Want: s.Target, Result: result, Code: code, Message: message})
	s.rest()
	s.settle()
}

func (s *step) record(o Outcome) {
	s.Last = &o
	if o.Result == ResultRefused || o.Result == ResultReverted {
		s.bar(o)
	}
}

// bar keeps the outcome's release from being tried again without a new decision.
func (s *step) bar(o Outcome) {
	kept := slices.DeleteFunc(slices.Clone(s.Refused), func(r Outcome) bool { return r.Release == o.Release })
	kept = append(kept, o)
	s.Refused = kept[max(0, len(kept)-MaxRefused):]
}

func (s *step) rest() {
	s.Target, s.Cause, s.Rounds = Want{}, nil, 0
	s.enter(Idle)
}

// refuse ends the update because this device must not run the target.
func (s *step) refuse(code, message string) {
	s.do(Discard, s.Target.Release)
	s.conclude(ResultRefused, code, message)
}

// giveUp ends the update for a reason that may pass: what was fetched stays,
// and the same decision may start again after a rest.
func (s *step) giveUp(code, message string) {
	s.do(Stop, s.Target.Release)
	s.Resting = &Rest{Want: s.Target, Until: s.Ran + s.limits.Cooldown}
	s.conclude(ResultFailed, code, message)
}

func (s *step) judged(e Judged) {
	if !s.is(Trialing, e.Release) {
		return
	}
	if !e.OK {
		s.refuse(e.Code, e.Message)
		return
	}
	s.enter(Activating)
}

func (s *step) activated(e Activated) {
	if !s.is(Activating, e.Release) {
		return
	}
	if s.Active != e.Release && !s.Challenger {
		s.Previous = s.Active
	}
	s.Active, s.Order, s.Starts = e.Release, e.Order, nil
	if e.Release.IsZero() {
		s.Previous = release.Digest{}
		s.rest()
		s.settle()
		return
	}
	s.enter(Watching)
	if !s.adopts(s.Want) { // asked for during the switch
		s.conclude(ResultSuperseded, "", superseded(s.Want))
	}
}

func (s *step) failed(e Failed) {
	if e.Release != s.Target.Release {
		return
	}
	switch s.State {
	case Resolving, Downloading:
		s.retryOrRefuse(e)
	case Verifying, Trialing:
		if e.Code == CodeDamaged {
			s.fetchAgain(e)
			return
		}
		s.retryOrRefuse(e)
	case Activating:
		if e.Release.IsZero() || e.Retryable {
			s.waitFor(e)
			return
		}
		s.goBack(ResultFailed, e.Code, e.Message)
	case Reverting:
		s.waitFor(e)
	case Idle, Watching:
	}
}

func (s *step) retryOrRefuse(e Failed) {
	if e.Retryable {
		s.waitFor(e)
		return
	}
	s.refuse(e.Code, e.Message)
}

// waitFor plans another try of the state's work. The deadline still holds.
func (s *step) waitFor(e Failed) {
	s.trouble = e
	s.attempt++
	s.retry = s.now.Add(s.limits.Backoff(s.attempt, s.rnd))
}

func (s *step) fetchAgain(e Failed) {
	if s.Rounds >= maxRounds {
		s.do(Discard, s.Target.Release)
		s.giveUp(e.Code, fmt.Sprintf("%s, also after fetching it %d times: the storage may be failing", e.Message, s.Rounds))
		return
	}
	s.Rounds++
	s.enter(Downloading)
}

func (s *step) tick() {
	switch {
	case s.State == Idle:
	case s.Spent >= s.limits.of(s.State):
		s.overdue()
	case !s.retry.IsZero() && !s.now.Before(s.retry):
		s.retry = time.Time{}
		s.again()
	}
}

// overdue is the deadline of each state. For watching it is the good end: the
// release served that long and nothing spoke against it.
func (s *step) overdue() {
	code, message := CodeDeadline, fmt.Sprintf("%s did not end within %v", s.State, s.limits.of(s.State))
	tried := s.trouble.Code != "" // and failed for reasons that say nothing about the release
	if tried {
		code, message = s.trouble.Code, message+": "+s.trouble.Message
	}
	switch s.State {
	case Resolving, Downloading, Verifying:
		s.giveUp(code, message)
	case Trialing:
		if tried {
			s.giveUp(code, message)
			return
		}
		s.refuse(code, message)
	case Activating:
		if s.Target.Release.IsZero() {
			s.do(Stop, s.Target.Release)
			s.record(Outcome{Want: s.Target, Result: ResultFailed, Code: code, Message: message})
			s.rest()
			return
		}
		s.goBack(ResultFailed, code, message)
	case Watching:
		s.conclude(ResultActive, "", "")
	case Reverting:
		s.abandonRevert(message)
	case Idle:
	}
}
