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
		u.cfg.Log.Info("update state", "model", m.name, "from", string(old.State), "to", string(next.State),
			"release", cmp.Or(next.Target.Release, old.Target.Release).Short())
		u.nudge()
	}
	if next.Cause != nil && old.Cause == nil && next.Cause.Code == update.CodeCrashLoop {
		u.emit(update.CodeCrashLoop, m.name, next.Cause.Release, next.Cause.Message)
	}
	if o := next.Last; o != nil && o != old.Last {
		u.cfg.Log.Info("update ended", "model", m.name, "release", o.Release.Short(), "result", o.Result, "code", o.Code, "reason", o.Message)
		u.cfg.Events(&protocol.Event{
			Kind: "update_" + o.Result, Model: m.name, Release: o.Release.Bytes(), Message: o.Message,
			Attributes: map[string]string{"code": o.Code},
		})
		u.nudge()
	}
}

func (u *Updater) emit(kind, name string, d release.Digest, message string) {
	u.cfg.Events(&protocol.Event{Kind: kind, Model: name, Release: wire(d), Message: message})
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
	now := time.Now()
	states := make([]*protocol.ModelState, 0, len(u.models))
	for _, name := range u.names() {
		states = append(states, u.state(u.models[name], now))
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
		Provider:   u.cfg.Slots.Get(m.name).Active.Provider,
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
