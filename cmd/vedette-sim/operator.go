package main

import (
	"errors"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// planOperators lets people begin rollouts and meddle with them.
func (w *world) planOperators() {
	for i := range 1 + w.rnd.IntN(3) {
		w.after(w.between(time.Minute, time.Duration(i+1)*time.Hour), w.createRollout)
	}
	if w.length > days(1) {
		w.nowAndThen(8*time.Hour, w.createRollout)
	}
	w.nowAndThen(w.between(10*time.Minute, 2*time.Hour), w.meddle)
	w.approveSoon()
}

// createRollout makes a rollout and starts it, at once or later. An operator
// whom the server does not answer tries again.
func (w *world) createRollout() {
	created := false
	w.server.guarded(func() {
		spec := w.spec()
		view, err := w.server.runner.Create(w.ctx, "sim", "the simulation wants it", spec)
		if err != nil {
			w.answered("create", spec.Version, err)
			return
		}
		created = true
		w.note("operator", "creates %s of %s: %d waves, selector %q", view.State.ID, spec.Version, len(spec.Waves), spec.Selector)
		w.count("rollout created")
		w.after(w.between(0, 10*time.Minute), func() { w.act(view.State.ID, command(rollout.Start)) })
	})
	if !created && !w.healed {
		w.after(w.between(time.Minute, 20*time.Minute), w.createRollout)
	}
}

// act gives a command. It may be refused, for a reason that is known.
func (w *world) act(id string, c rollout.Command) {
	w.server.guarded(func() {
		_, err := w.server.runner.Act(w.ctx, id, c)
		w.answered(string(c.Action), id, err)
		if err == nil {
			w.count("command " + string(c.Action))
			w.server.lookIn(0)
		}
	})
}

// answered notes what a command was answered. Only known answers are right.
func (w *world) answered(action, id string, err error) {
	w.note("operator", "%s %s: %v", action, id, err)
	known := []error{rollout.ErrNotNow, rollout.ErrHeld, rollout.ErrNobody, rollout.ErrSpec, ledger.ErrConflict, errLedger}
	if err != nil && !slices.ContainsFunc(known, func(k error) bool { return errors.Is(err, k) }) {
		w.fail("%s %s is answered %w", action, id, err)
	}
}

// meddle gives a random command that is possible now.
func (w *world) meddle() {
	x := w.anyRollout()
	if x == nil {
		return
	}
	actions := slices.DeleteFunc(x.state.Actions(), func(a rollout.Action) bool { return a == rollout.Revise || a == rollout.Replace })
	if w.rnd.IntN(6) == 0 {
		w.revise(x)
		return
	}
	if len(actions) == 0 {
		return
	}
	w.act(x.state.ID, command(actions[w.rnd.IntN(len(actions))]))
}

// revise lets a rollout go on by a spec that differs here and there.
func (w *world) revise(x *watched) {
	spec, other := x.state.Spec, w.spec()
	spec.Waves = slices.Clone(spec.Waves)
	switch w.rnd.IntN(5) {
	case 0:
		spec.Budget = other.Budget
	case 1:
		spec.Windows = other.Windows
	case 2:
		spec.OnFailure, spec.Deadline = other.OnFailure, other.Deadline
	case 3:
		spec.Waves[len(spec.Waves)-1].Soak = other.Waves[len(other.Waves)-1].Soak
	case 4:
		spec.Gates = other.WithDefaults().Gates
	}
	c := command(rollout.Revise)
	c.Spec = &spec
	w.act(x.state.ID, c)
}

func (w *world) anyRollout() *watched {
	ids := w.check.ids()
	if len(ids) == 0 {
		return nil
	}
	return w.check.rollouts[ids[w.rnd.IntN(len(ids))]]
}

// approveSoon approves what waits for a person, more often than not.
func (w *world) approveSoon() {
	w.nowAndThen(15*time.Minute, func() {
		for _, id := range w.check.ids() {
			if w.check.rollouts[id].state.Header.Status == rollout.StatusAwaiting && w.rnd.IntN(3) > 0 {
				w.act(id, command(rollout.Approve))
			}
		}
	})
}

// spec is what an operator asks for.
func (w *world) spec() rollout.Spec {
	r := w.rnd
	soak := release.Duration(time.Duration(r.IntN(20)) * time.Minute)
	s := rollout.Spec{
		Model: model, Version: w.releases[1+r.IntN(len(w.releases)-1)].version,
		Selector:  sometimes(r, "", "ring=a", "site=s0", "ring in (a,b)"),
		Control:   sometimes(r, nil, new(0.0), new(0.3), new(0.5)),
		Budget:    w.budget(),
		Revert:    rollout.Budget{InFlight: sometimes(r, 0, 1, 3)},
		Windows:   w.windows(),
		Require:   rollout.Require{Unmetered: r.IntN(10) == 0, Mains: r.IntN(10) == 0},
		OnFailure: sometimes(r, rollout.Revert, rollout.Pause), Approval: r.IntN(6) == 0,
		Deadline:       release.Duration(w.between(time.Hour, 6*time.Hour)),
		DeviceDeadline: release.Duration(w.between(20*time.Minute, 2*time.Hour)), DecisionDeadline: release.Duration(w.between(20*time.Minute, 2*time.Hour)),
		Gates: w.gates(), Shadow: w.shadow(),
	}
	waves := []rollout.WaveSpec{{Count: 1 + r.IntN(3)}, {Percent: 20 + 60*r.Float64()}, {Percent: 100}}
	for i, ws := range waves[r.IntN(3):] {
		ws.Soak, ws.Quorum = &soak, 0.3+0.7*r.Float64()
		ws.Lateness = release.Duration(w.between(10*time.Minute, time.Hour))
		ws.Approval = i > 0 && r.IntN(8) == 0
		if r.IntN(8) == 0 {
			ws.Deadline = release.Duration(w.between(30*time.Minute, 4*time.Hour))
		}
		ws.Evidence.Devices = sometimes(r, 0, 0, 1, 2)
		s.Waves = append(s.Waves, ws)
	}
	w.relations(&s)
	return s
}

// relations are to time and to other rollouts.
func (w *world) relations(s *rollout.Spec) {
	if w.rnd.IntN(8) == 0 {
		s.StartAt = rollout.Moment(w.now().Add(w.between(0, time.Hour)))
	}
	if x := w.anyRollout(); x != nil && w.rnd.IntN(3) == 0 {
		s.Supersedes = x.state.ID
	}
	s.OnConflict = sometimes(w.rnd, rollout.Queue, rollout.Refuse)
}

func (w *world) budget() rollout.Budget {
	r := w.rnd
	return rollout.Budget{
		InFlight: sometimes(r, 0, 1, 2, 5), PerMinute: sometimes(r, 0, 0, 1, 3, 40),
		Unavailable: sometimes(r, nil, nil, []rollout.Unavailable{{Label: fleet.SiteLabel, Max: 1 + r.IntN(2)}}, []rollout.Unavailable{{Label: "ring", Percent: 30}}),
	}
}

// windows are nothing as a rule, and otherwise half of every hour.
func (w *world) windows() []rollout.WindowSpec {
	return sometimes(w.rnd, nil, nil, nil, []rollout.WindowSpec{{Cron: "0 * * * *", Duration: release.Duration(openFor)}})
}

// openFor is how long a window is open, from the full hour.
const openFor = 30 * time.Minute

// shadow is a phase before devices switch, or none.
func (w *world) shadow() *rollout.ShadowSpec {
	if w.rnd.IntN(4) > 0 {
		return nil
	}
	return &rollout.ShadowSpec{
		Rows: 50 + w.rnd.Uint64N(600), Share: sometimes(w.rnd, 0, 500), Deadline: release.Duration(w.between(10*time.Minute, time.Hour)),
	}
}

func (w *world) gates() []rollout.GateSpec {
	r := w.rnd
	limit := func(kind rollout.GateKind, values ...float64) rollout.GateSpec {
		g := rollout.GateSpec{Kind: kind, Limit: new(values[r.IntN(len(values))]), Inconclusive: sometimes(r, rollout.Pass, rollout.Hold)}
		g.Off = r.IntN(12) == 0
		return g
	}
	return []rollout.GateSpec{
		limit(rollout.Golden, 0), limit(rollout.Install, 0, 0, 0.1, 0.5), limit(rollout.Crash, 0, 0, 0.05, 0.5), limit(rollout.Errors, 0.01, 0.05),
		limit(rollout.Shadow, 0.01, 0.05),
	}
}

// relabel changes a label of a device.
func (w *world) relabel() {
	d := w.anyDevice()
	if !d.enrolled {
		return
	}
	c := fleet.LabelChange{Set: map[string]string{"ring": []string{"a", "b", "c"}[w.rnd.IntN(3)]}}
	w.server.guarded(func() {
		err := w.server.fleet.SetLabels(w.ctx, d.id, c, "sim", "the simulation wants it")
		w.note("operator", "labels %s %v: %v", d.id, c.Set, err)
		w.count("label changed")
		w.server.lookIn(w.server.gap())
	})
}

// revoke revokes a device, or takes that back.
func (w *world) revoke() {
	d := w.anyDevice()
	if !d.enrolled {
		return
	}
	w.server.guarded(func() {
		entry, _ := w.server.fleet.Device(d.id)
		do := w.server.fleet.Revoke
		if entry.Revoked != nil {
			do = w.server.fleet.Restore
		}
		err := do(w.ctx, d.id, "sim", "the simulation wants it")
		w.note("operator", "revokes %s or takes that back: %v", d.id, err)
		w.count("revocation")
		w.server.lookIn(w.server.gap())
	})
}
