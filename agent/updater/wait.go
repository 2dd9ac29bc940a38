package updater

import (
	"cmp"
	"strings"

	"github.com/vedette-edge/vedette/agent/update"
)

// maxWaiting bounds a reason that is reported, in bytes: what a server answered
// may be in it.
const maxWaiting = 1 << 10

// wait is why a machine does not move on by itself.
type wait struct {
	code    string // of the failure told last in this state, empty for none
	reason  string // for people; empty while the step gets on
	journal string // why the journal takes no step, empty when it does
	serve   string // why what is active does not serve, empty when it does
}

// text is the reason as reported, empty for none.
func (w wait) text() string {
	text := cmp.Or(w.journal, w.serve, w.reason)
	return strings.ToValidUTF8(text[:min(len(text), maxWaiting)], "")
}

// after is what holds the machine up once it has taken e.
func (w wait) after(e update.Event, old, next update.Machine) wait {
	if next.State != old.State || next.Target.Release != old.Target.Release {
		w.code, w.reason = "", ""
	}
	switch e := e.(type) {
	case update.Failed:
		if e.Release == old.Target.Release && triesAgain(old, next) {
			w.code, w.reason = e.Code, e.Message
		}
	case update.Activated, update.Reverted:
		w.serve = ""
	case update.Progress:
		w.reason = "" // the code stays: a link that breaks again and again is told of once
	}
	return w
}

// triesAgain says whether a machine goes on with the same release after a
// failure, which is neither to end the update nor to begin taking it back.
func triesAgain(old, next update.Machine) bool {
	over := next.State == update.Idle || next.State == update.Watching
	back := next.State == update.Reverting && old.State != update.Reverting
	return !over && !back && next.Target == old.Target
}

// hinder notes what holds the model up, nothing perhaps. Each cause is told of
// once in a state, and so is its end, unless that is the end of the update.
func (u *Updater) hinder(m *model, w wait, goesOn bool) {
	before, state := m.waits, string(m.machine.State)
	u.set(func() { m.waits = w })
	switch release := m.machine.Target.Release.Short(); {
	case w.code != "" && w.code != before.code:
		u.cfg.Log.Warn("update waits", "model", m.String(), "release", release, "state", state, "code", w.code, "reason", w.text())
		u.nudge()
	case w.code == "" && before.code != "" && goesOn:
		u.cfg.Log.Info("update goes on", "model", m.String(), "release", release, "state", state)
	}
	if (w.text() == "") != (before.text() == "") {
		u.nudge()
	}
}
