package update

import (
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Codes of a disk at fault. No release is to blame for it and no decision wrong,
// so the same one may be tried again: at once where fetching anew may help, after
// a rest where only somebody else can.
const (
	CodeDamaged  = "damaged"        // files do not read back as they were signed
	CodeStorage  = "storage_failed" // the disk did not take or give what it should
	CodeDiskFull = "disk_full"
	CodeReadOnly = "disk_read_only"
	codeDisk     = "disk" // as CodeStorage, of package pull
)

// OfDisk reports whether the code is that of a disk which may work again later.
func OfDisk(code string) bool {
	return code == CodeStorage || code == CodeDiskFull || code == CodeReadOnly || code == codeDisk
}

// maxStarts bounds the starts remembered; no crash loop needs more.
const maxStarts = 16

// started enters the machine again, unless the start itself says that what is
// active must go.
func (s *step) started(e Started) {
	s.retry, s.attempt = time.Time{}, 0
	s.Active, s.Previous = e.Active, e.Previous
	if s.Want == (Want{}) {
		s.Want.Release = s.Active // no wish known: what serves goes on serving
	}
	if e.Unclean {
		s.Interrupted++
	}
	switch {
	case s.State == Reverting:
		s.again()
	case s.State == Watching && s.Active != s.Target.Release:
		s.conclude(ResultFailed, CodeDamaged, "the slots no longer hold the release")
	case e.Unclean && e.Suspect && s.State != Activating && s.crashLoops():
		s.goBack(ResultReverted, CodeCrashLoop, fmt.Sprintf("the agent died %d times within %v with this release active", s.limits.CrashStarts, s.limits.CrashWindow))
	case s.Interrupted > s.limits.Interruptions && s.interruptible():
		s.interrupt()
	case s.State == Idle && s.Resting == nil:
		s.do(Discard, release.Digest{})
		s.settle()
	default:
		s.again()
	}
}

// crashLoops counts one unclean start and reports whether they are a loop that
// going back can end.
func (s *step) crashLoops() bool {
	if s.Active.IsZero() {
		return false
	}
	s.Starts = append(s.recent(s.limits), Start{Ran: s.Ran, Wall: s.now.Round(0)})
	s.Starts = s.Starts[max(0, len(s.Starts)-maxStarts):]
	return len(s.Starts) >= s.limits.CrashStarts && s.canGoBack()
}

// canGoBack says whether leaving the active release makes things better. One
// that is being watched can always go: it has proven nothing. So can a
// challenger. One that was proven is left only for another.
func (s *step) canGoBack() bool {
	return !s.Active.IsZero() && (!s.Previous.IsZero() || s.State == Watching || s.Challenger)
}

// interruptible says whether dying in this state again and again counts against
// the target. Fetching goes over a link and a day, so restarts are normal there.
func (s *step) interruptible() bool {
	return s.State == Verifying || s.State == Trialing || s.State == Activating
}

func (s *step) interrupt() {
	message := fmt.Sprintf("the agent died %d times while %s this release", s.Interrupted, s.State)
	if s.State == Activating && !s.Target.Release.IsZero() {
		s.goBack(ResultFailed, CodeInterrupted, message)
		return
	}
	s.giveUp(CodeInterrupted, message)
}

// broken leaves an active release that cannot serve. A damaged one is left even
// for nothing, so that it can be fetched again.
func (s *step) broken(e Broken) {
	if e.Release != s.Active || s.Active.IsZero() || s.State == Activating || s.State == Reverting {
		return
	}
	switch {
	case e.Code == CodeDamaged:
		s.goBack(ResultFailed, e.Code, e.Message)
	case s.canGoBack():
		s.goBack(ResultReverted, e.Code, e.Message)
	}
}

func (s *step) hung(e Hung) {
	if e.Release != s.Active || s.State == Activating || s.State == Reverting || !s.canGoBack() {
		return
	}
	s.goBack(ResultReverted, CodeCallHung, "a call to this release did not return")
}

// goBack leaves the target of an activation, or else the active release. An
// update in flight is dropped: it starts again when the device is well.
func (s *step) goBack(result, code, message string) {
	if s.State != Activating && s.State != Watching {
		s.Target = Want{Release: s.Active}
		if s.Want.Release == s.Active {
			s.Target = s.Want
		}
	}
	s.Cause = &Outcome{Want: s.Target, Result: result, Code: code, Message: message}
	s.enter(Reverting)
}

func (s *step) reverted(e Reverted) {
	if s.is(Reverting, e.Release) {
		s.endRevert(e.Active, e.Previous, *s.Cause)
	}
}

// endRevert is idle again, with active serving.
func (s *step) endRevert(active, previous release.Digest, o Outcome) {
	if s.Active != active {
		s.Starts = nil
	}
	s.Active, s.Previous = active, previous
	s.Last = &o
	switch code := s.Cause.Code; {
	case code == CodeDamaged:
	case OfDisk(code) && o.Release != active:
		s.Resting = &Rest{Want: o.Want, Until: s.Ran + s.limits.Cooldown}
	default:
		s.bar(o)
	}
	s.rest()
	s.settle()
}

// abandonRevert gives up making the old release serve. The slots have most
// likely been changed already, and the next start tries again by itself.
func (s *step) abandonRevert(message string) {
	active, previous := s.Active, s.Previous
	if active == s.Target.Release {
		active, previous = previous, release.Digest{}
	}
	s.do(Stop, s.Target.Release)
	s.endRevert(active, previous, Outcome{
		Want: s.Target, Result: ResultFailed, Code: CodeRevertFailed,
		Message: s.Cause.Message + "; then " + message,
	})
}
