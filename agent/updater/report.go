package updater

import (
	"cmp"
	"time"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// announce tells what a step changed.
func (u *Updater) announce(m *model, old, next update.Machine) {
	if next.State != old.State {
		u.cfg.Log.Info("update state", "model", m.String(), "from", string(old.State), "to", string(next.State),
			"release", cmp.Or(next.Target.Release, old.Target.Release).Short())
		u.nudge()
	}
	if next.Cause != nil && old.Cause == nil && next.Cause.Code == update.CodeCrashLoop {
		u.emit(update.CodeCrashLoop, m.lane, next.Cause.Release, next.Cause.Message)
	}
	if o := next.Last; o != nil && o != old.Last {
		u.cfg.Log.Info("update ended", "model", m.String(), "release", o.Release.Short(), "result", o.Result, "code", o.Code, "reason", o.Message)
		e := event("update_"+o.Result, m.lane, o.Release, o.Message)
		e.Attributes["code"] = o.Code
		u.cfg.Events(e)
		u.nudge()
	}
}

func (u *Updater) emit(kind string, l lane, d release.Digest, message string) {
	u.cfg.Events(event(kind, l, d, message))
}

// event tells something of a lane.
func event(kind string, l lane, d release.Digest, message string) *protocol.Event {
	e := &protocol.Event{Kind: kind, Model: l.name, Release: wire(d), Message: message, Attributes: map[string]string{}}
	if l.challenger {
		e.Attributes["lane"] = "challenger"
	}
	return e
}

// wire is a digest as reported: empty for none.
func wire(d release.Digest) []byte {
	if d.IsZero() {
		return nil
	}
	return d.Bytes()
}

// States is what the device reports of its models, by name.
func (u *Updater) States() []*protocol.ModelState {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.cfg.Now()
	states := make([]*protocol.ModelState, 0, len(u.models))
	byName := make(map[string]*protocol.ModelState, len(u.models))
	for _, l := range u.lanes() {
		own := u.state(u.models[l], now)
		s := own
		if l.challenger {
			s = byName[l.name]
		}
		if s == nil { // a challenger without a model beside it
			s = &protocol.ModelState{Model: l.name, State: string(update.Idle)}
		}
		if byName[l.name] == nil {
			byName[l.name], states = s, append(states, s)
		}
		if l.challenger {
			u.reportChallenger(s, u.models[l], own)
		}
	}
	return states
}

func (u *Updater) state(m *model, now time.Time) *protocol.ModelState {
	machine := m.machine.At(now)
	s := &protocol.ModelState{
		Model:      m.name,
		Active:     wire(machine.Active),
		Previous:   wire(machine.Previous),
		Target:     wire(machine.Target.Release),
		State:      string(machine.State),
		StateForMs: milliseconds(machine.Spent),
		Starts:     uint32(min(machine.RecentStarts(u.cfg.Limits), 1<<16)), //nolint:gosec // bounded
		Serving:    !m.serving.IsZero() && m.serving == machine.Active,
		Trial:      m.trial,
		Provider:   m.slots.Get(m.name).Active.Provider,
		Waiting:    m.waits.text(),
	}
	if s.Serving {
		s.ActiveForMs = milliseconds(now.Sub(m.since))
	}
	if machine.State == update.Downloading {
		s.DoneBytes, s.TotalBytes = count(m.load.done.Load()), count(m.load.total.Load())
	}
	if machine.Last != nil {
		s.Outcome = outcome(*machine.Last)
		s.Outcome.At = m.at
	}
	for _, o := range machine.Refused {
		s.Refused = append(s.Refused, outcome(o))
	}
	return s
}

func outcome(o update.Outcome) *protocol.Outcome {
	return &protocol.Outcome{
		Release: wire(o.Release), Result: o.Result, Code: o.Code, Message: o.Message, Generation: o.Generation,
	}
}

func milliseconds(d time.Duration) uint64 { return count(d.Milliseconds()) }

func count(n int64) uint64 { return uint64(max(n, 0)) }
