package runner

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// gatherer keeps the facts of the rollouts that go on. What is known of a device
// is put together again only when the fleet, what it counted or a decision says
// that it has changed, so a look at the fleet costs as much as has happened
// since the one before, not as much as there are devices.
type gatherer struct {
	mu   sync.Mutex // guards all below, and is held while facts are gathered
	news *fleet.Subscription
	of   map[string]*gathered // by rollout
}

// gathered are the facts of one rollout.
type gathered struct {
	basis basis
	facts *rollout.Facts
	stale map[string]bool                 // devices to look at again
	held  map[string]*rollout.DeviceFacts // what is known of devices and matters to no decision yet
}

// basis is what the facts of every device depend on. When it changes, all are
// put together anew.
type basis struct {
	revision int
	release  release.Digest
	started  time.Time
	claims   string
	sizes    map[release.Digest]map[string]int64
	// condemned are the releases that devices must not go back to.
	condemned map[release.Digest]bool
}

// look is one look at the fleet for one rollout.
type look struct {
	r      *Runner
	s      *rollout.State
	claims claims
	past   history
	labels []string
	sizes  map[release.Digest]map[string]int64 // what devices download less, by the release they have
}

// gather is what is known about the devices that a rollout selects or has
// selected. What it returns is not to be changed.
func (r *Runner) gather(s *rollout.State) *rollout.Facts {
	g := &r.gatherer
	g.mu.Lock()
	defer g.mu.Unlock()
	g.takeNews(r.cfg.Evidence.Touched())
	if c := r.chain(s.ID); c != nil {
		s = c.state // a caller that only looks may hold an older one; news are taken in once
	}
	of := g.of[s.ID]
	if of == nil {
		of = r.begin(s)
	}
	l := r.lookFor(s, of)
	if is := l.basis(); !reflect.DeepEqual(of.basis, is) {
		of.basis = is
		of.staleAll(r.cfg.Fleet.Devices(nil))
	}
	of.refresh(l, r.cfg.Now())
	return of.facts
}

// begin starts from the facts of the rollout's newest decision. Those of a
// rollout are kept while it may decide something by itself; those for a plan are
// not. The caller holds the gatherer's mu.
func (r *Runner) begin(s *rollout.State) *gathered {
	of := &gathered{
		facts: &rollout.Facts{Devices: map[string]*rollout.DeviceFacts{}},
		stale: map[string]bool{}, held: map[string]*rollout.DeviceFacts{},
	}
	driven := r.driven()
	maps.DeleteFunc(r.gatherer.of, func(id string, _ *gathered) bool { return !slices.Contains(driven, id) })
	if c := r.chain(s.ID); c != nil {
		of.facts = c.facts
		if slices.Contains(driven, s.ID) {
			r.gatherer.of[s.ID] = of
		}
	}
	return of
}

func (g *gathered) staleAll(devices []fleet.Device) {
	for i := range devices {
		g.stale[devices[i].ID] = true
	}
	for id := range g.facts.Devices {
		g.stale[id] = true
	}
}

// takeNews notes the devices that have changed for every rollout. The caller
// holds mu.
func (g *gatherer) takeNews(counted []string) {
	for _, ids := range [][]string{g.news.Take(), counted} {
		for _, of := range g.of {
			for _, id := range ids {
				of.stale[id] = true
			}
		}
	}
}

// decided notes what a committed decision has changed: the rollout's own record
// of devices, and for all rollouts what devices are assigned, and which of them
// a completed one still keeps.
func (g *gatherer) decided(s *rollout.State, d *rollout.Decision) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, of := range g.of {
		if id == s.ID || s.Header.Status == rollout.StatusCompleted {
			for device := range d.Patch.Devices {
				of.stale[device] = true
			}
		}
		for _, a := range d.Assign {
			for _, device := range a.Devices {
				of.stale[device] = true
			}
		}
	}
	if !s.GoesOn() {
		delete(g.of, s.ID)
	}
}

// forget makes everything be looked at again, because another server decided.
func (g *gatherer) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.of)
}

func (r *Runner) lookFor(s *rollout.State, of *gathered) *look {
	l := &look{r: r, s: s, claims: r.claims(s), past: r.historyOf(s), labels: s.Spec.Labels(), sizes: map[release.Digest]map[string]int64{}}
	for from := range of.basis.sizes {
		l.less(from)
	}
	return l
}

func (l *look) basis() basis {
	return basis{
		revision: l.s.Header.Revision, release: l.s.Spec.Release, started: l.s.Header.Started,
		claims: l.claims.text(l.r), sizes: maps.Clone(l.sizes),
		condemned: l.past.condemned,
	}
}

// text is all of the claims that devices' facts follow from.
func (c *claims) text(r *Runner) string {
	var b strings.Builder
	for _, list := range [][]claim{{c.own}, c.first, slices.SortedFunc(maps.Values(c.others), func(a, b claim) int { return strings.Compare(a.id, b.id) })} {
		for i := range list {
			revision := 0
			if of := r.chain(list[i].id); of != nil {
				revision = of.state.Header.Revision // its selector may have changed with it
			}
			fmt.Fprintf(&b, "%s %d %d %d;", list[i].id, list[i].rank, list[i].since.UnixMilli(), revision)
		}
		b.WriteByte('|')
	}
	for _, s := range c.keepers {
		b.WriteString(s.ID + ";")
	}
	return b.String()
}

// less is what a device that has a release downloads less. Few releases are on
// many devices, so each is asked for once.
func (l *look) less(from release.Digest) map[string]int64 {
	sizes, ok := l.sizes[from]
	if !ok && l.r.cfg.Sizes != nil {
		sizes = l.r.cfg.Sizes.Less(from, l.s.Spec.Release)
		l.sizes[from] = sizes
	}
	return sizes
}

// device is what is known of one device, nil when the rollout has nothing to do
// with it.
func (l *look) device(d *fleet.Device) *rollout.DeviceFacts {
	_, member := l.s.Device(d.ID)
	selected := l.claims.own.selector.Matches(d.Labels)
	if !selected && !member {
		return nil
	}
	facts := deviceFacts(d, l.s)
	facts.Selected, facts.Groups = selected, groups(d.Labels, l.labels)
	facts.Bytes = l.s.Requires.Download(facts, l.less(facts.Active))
	assigned := l.r.cfg.Desired.Assigned(d.ID, l.s.Spec.Model)
	facts.Assigned = assigned.Release
	facts.Holder = l.claims.holder(d, assigned.Rollout)
	facts.Back = l.past.back(l.s, d.ID)
	l.r.addEvidence(l.s, d.ID, facts)
	return facts
}

// refresh looks at the devices that have changed, and takes up what matters.
func (g *gathered) refresh(l *look, now time.Time) {
	patch := rollout.FactsPatch{Devices: map[string]*rollout.DeviceFacts{}}
	for id := range g.stale {
		delete(g.held, id)
		was := g.facts.Devices[id]
		var is *rollout.DeviceFacts
		if d, known := l.r.cfg.Fleet.Device(id); known {
			is = l.device(&d)
		}
		switch {
		case is == nil && was == nil:
		case is == nil:
			patch.Gone = append(patch.Gone, id)
		default:
			if l.s.Matters(id, was, is, now) {
				patch.Devices[id] = is
			} else {
				g.held[id] = is
			}
		}
	}
	clear(g.stale)
	for id, is := range g.held {
		if l.s.Due(id, g.facts.Devices[id], is, now) {
			patch.Devices[id] = is
			delete(g.held, id)
		}
	}
	if len(patch.Devices)+len(patch.Gone) > 0 {
		slices.Sort(patch.Gone)
		g.facts = g.facts.Apply(patch)
	}
	g.basis.sizes = maps.Clone(l.sizes)
}
