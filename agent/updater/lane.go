package updater

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// lane is one of the two places of a model: that of the release whose answers
// count, or that of the challenger beside it. Each has a machine, slots and a
// journal of its own; memory, trials and the blame for a crash are shared.
type lane struct {
	name       string // of the model
	challenger bool
}

// before orders lanes: all primary ones first, so that a start serves them
// before it looks at a challenger.
func before(a, b lane) int {
	if a.challenger != b.challenger {
		if b.challenger {
			return -1
		}
		return 1
	}
	return strings.Compare(a.name, b.name)
}

func (l lane) String() string {
	if l.challenger {
		return l.name + " (challenger)"
	}
	return l.name
}

// beside is the other lane of the model.
func (l lane) beside() lane { return lane{l.name, !l.challenger} }

func (l lane) machine() update.Machine {
	if l.challenger {
		return update.NewChallenger(l.name)
	}
	return update.New(l.name)
}

func (u *Updater) slotsOf(l lane) *slots.Slots {
	if l.challenger {
		return u.cfg.Slots.Challengers()
	}
	return u.cfg.Slots
}

// lanes lists the lanes in use, primary ones first.
func (u *Updater) lanes() []lane {
	list := make([]lane, 0, len(u.models))
	for l := range u.models {
		list = append(list, l)
	}
	slices.SortFunc(list, before)
	return list
}

// part is what a challenger takes part in.
type part struct {
	role  string // infer.RoleShadow or infer.RoleShare
	share int    // parts per thousand of the calls
}

// challenge is an assigned challenger.
type challenge struct {
	update.Want
	part
}

// wish is what the control plane wants of one model.
type wish struct {
	primary    update.Want // zero for none
	challenger *challenge  // nil for none
}

// Why an assigned challenger does not run, for people.
const (
	waitsAlone = "no primary release of this model is assigned: there is nothing to compare the challenger with"
	waitsSame  = "the same release is the primary one here: there is nothing to compare the challenger with"
)

// challengerWant is what the challenger's machine is to be told, and why it is
// to be idle although one is assigned. A release that is to become the primary
// one stays until its files have been linked.
func (w wish) challengerWant(generation uint64, primary, own update.Machine) (want update.Want, waits string) {
	c, none := w.challenger, update.Want{Generation: generation}
	switch {
	case c != nil && w.primary.Release.IsZero():
		return none, waitsAlone
	case c != nil && c.Release != w.primary.Release && c.Release != primary.Active:
		return c.Want, ""
	case !own.Active.IsZero() && own.Active == w.primary.Release && primary.Lacks(w.primary):
		return update.Want{Release: own.Active, Decision: own.Want.Decision, Generation: generation}, ""
	case c != nil:
		return none, waitsSame
	}
	return none, ""
}

// challenge tells a challenger what to be, with regard to where its primary is.
func (u *Updater) challenge(ctx context.Context, m *model) {
	var primary update.Machine
	if p := u.models[m.lane.beside()]; p != nil {
		primary = p.machine
	}
	w := u.wishes[m.name]
	want, waits := w.challengerWant(u.held.GetGeneration(), primary, m.machine)
	if waits != m.idle {
		u.set(func() { m.idle = waits })
		u.nudge()
	}
	u.step(ctx, m, update.Desired{Want: want})
	if c := w.challenger; c != nil && m.serving == c.Release && m.part != c.part {
		u.deal(ctx, m)
	}
}

// deal gives a challenger that serves another part of the calls.
func (u *Updater) deal(ctx context.Context, m *model) {
	slot := m.slots.Get(m.name).Active
	if slot.Release != m.serving {
		return // a switch is under way, and will take the new part
	}
	if err := u.serve(ctx, m, slot); err != nil {
		u.cfg.Log.Error("challenger keeps its old share", "model", m.name, "release", slot.Release.Short(), "error", err)
	}
}

// reconsider looks at the challenger again when its primary has moved on.
func (u *Updater) reconsider(ctx context.Context, m *model, old, next update.Machine) {
	if m.challenger || (old.State == next.State && old.Active == next.Active) {
		return
	}
	if c := u.models[m.lane.beside()]; c != nil && u.entered {
		u.challenge(ctx, c)
	}
}

// partOf is what a challenger takes part in now. One that is not assigned any
// more is about to go and harms nobody as a shadow.
func (u *Updater) partOf(l lane) part {
	if !l.challenger {
		return part{role: infer.RolePrimary}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.wishes[l.name].challenger; c != nil {
		return c.part
	}
	return part{role: infer.RoleShadow}
}

// blamed finds the machine whose release does not return. A challenger is never
// the release that its primary is.
func (u *Updater) blamed(name string, d release.Digest) *model {
	for _, l := range []lane{{name, true}, {name, false}} {
		if m := u.models[l]; m != nil && m.machine.Active == d {
			return m
		}
	}
	return u.models[lane{name: name}]
}

// reportChallenger adds the model's challenger to what is reported of it.
func (u *Updater) reportChallenger(s *protocol.ModelState, m *model, own *protocol.ModelState) {
	p := m.part
	if c := u.wishes[m.name].challenger; c != nil {
		p = c.part
	}
	own.Waiting = cmp.Or(m.idle, own.GetWaiting())
	s.Challenger = &protocol.Challenger{State: own, Role: cmp.Or(p.role, infer.RoleShadow), Share: uint32(p.share)} //nolint:gosec // at most 1000
}
