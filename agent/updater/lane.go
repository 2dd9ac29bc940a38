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

// challengerWant is what the challenger's machine is to be told [P-8.1], and why it is
// to be idle although one is assigned. A challenger leaves before another one
// comes, so that none runs that nobody asked for; but one that is to become the
// primary release stays until its files have been linked.
func (w wish) challengerWant(generation uint64, primary, own update.Machine) (want update.Want, waits string) {
	c, none := w.challenger, update.Want{Generation: generation}
	switch {
	case c != nil && w.primary.Release.IsZero():
		return none, waitsAlone
	case !own.Active.IsZero() && own.Active == w.primary.Release && primary.Lacks(w.primary):
		return update.Want{Release: own.Active, Decision: own.Want.Decision, Generation: generation}, ""
	case c == nil:
		return none, ""
	case c.Release == w.primary.Release || c.Release == primary.Active:
		return none, waitsSame
	case !own.Active.IsZero() && own.Active != c.Release:
		return none, ""
	}
	return c.Want, ""
}

// challenge tells a challenger what to be, with regard to where its primary is.
func (u *Updater) challenge(ctx context.Context, m *model) {
	var primary update.Machine
	if p := u.models[m.beside()]; p != nil {
		primary = p.machine
	}
	w := u.wishes[m.name]
	want, waits := w.challengerWant(u.held.GetGeneration(), primary, m.machine)
	if waits != m.idle {
		u.set(func() { m.idle = waits })
		u.nudge()
	}
	u.step(ctx, m, update.Desired{Want: want})
	if c := w.challenger; c != nil && waits == "" && m.machine.Active == c.Release && u.settledDown(m) {
		u.deal(ctx, m, c.part)
	}
}

// settledDown says that nothing is being served or switched in the lane.
func (u *Updater) settledDown(m *model) bool {
	if m.machine.State != update.Idle && m.machine.State != update.Watching {
		return false
	}
	select {
	case <-m.restored:
		return true
	default:
		return false
	}
}

// deal gives a challenger another part of the calls, or its first one when it
// was the primary release itself until now.
func (u *Updater) deal(ctx context.Context, m *model, p part) {
	if m.serving != m.machine.Active || m.part != p {
		m.restored = make(chan struct{})
		u.restore(ctx, m)
	}
}

// reconsider looks at the challenger again when its primary has moved on, or
// when it has left itself.
func (u *Updater) reconsider(ctx context.Context, m *model, old, next update.Machine) {
	c := m
	if !m.challenger {
		c = u.models[m.beside()]
	}
	moved := old.Active != next.Active || (!m.challenger && old.State != next.State)
	if c != nil && moved && u.entered {
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

// assigned says whether a challenger is assigned to the lane, also one that has
// nothing to challenge: then there is a reason to report.
func (u *Updater) assigned(l lane) bool {
	return l.challenger && u.wishes[l.name].challenger != nil
}

// challenges says whether what is active in a challenger's slots is to run: it
// is assigned, and not the primary release by now.
func (u *Updater) challenges(m *model) bool {
	c, active := u.wishes[m.name].challenger, m.slots.Get(m.name).Active.Release
	return c != nil && c.Release == active && u.cfg.Slots.Get(m.name).Active.Release != active
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
