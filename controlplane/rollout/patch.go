package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Empty says that nothing was decided.
func (d *Decision) Empty() bool {
	return d.Command == nil && d.Patch.Header == nil && len(d.Patch.Waves) == 0 && len(d.Patch.Devices) == 0
}

// decision is what turns old into the present state.
func (t *turn) decision(old *State, cmd *Command) *Decision {
	d := &Decision{Format: Format, At: t.now, Command: cmd, Changes: t.changes, Patch: t.diff(old)}
	d.Assign = t.assigned()
	return d
}

// assigned is what the turn asks of devices, those that are asked the same together.
func (t *turn) assigned() (out []Assigned) {
	type order struct {
		release release.Digest
		role    string
	}
	devices := map[order][]string{}
	for of, r := range t.assign {
		devices[order{r, of.role}] = append(devices[order{r, of.role}], of.device)
	}
	for o, ids := range devices {
		slices.Sort(ids)
		a := Assigned{Model: t.Spec.Model, Release: o.release, Devices: ids, Role: o.role}
		if o.role == shadowRole && t.Spec.Shadow != nil {
			a.Share = t.Spec.Shadow.Share
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Assigned) int {
		return cmp.Or(cmp.Compare(a.Devices[0], b.Devices[0]), cmp.Compare(a.Role, b.Role))
	})
	return out
}

// diff is what turns old, with which the turn began, into its present state.
func (t *turn) diff(old *State) Patch {
	var p Patch
	now := t.State
	revised := old.Header.Revision != now.Header.Revision
	if revised {
		p.Spec = &now.Spec
	}
	if !reflect.DeepEqual(old.Header, now.Header) {
		p.Header = &now.Header
	}
	for i := range now.Waves {
		if revised || !reflect.DeepEqual(old.Waves[i], now.Waves[i]) {
			if p.Waves == nil {
				p.Waves = map[int]Wave{}
			}
			p.Waves[i+1] = now.Waves[i]
		}
	}
	for id, was := range t.replaced {
		if d := now.Devices[id]; was == nil || *was != *d {
			if p.Devices == nil {
				p.Devices = map[string]*Device{}
			}
			p.Devices[id] = d
		}
	}
	return p
}

// Apply returns the state after a decision that was committed as ledger record
// seq. Orders of the decision get that sequence: a device's outcome counts for
// an order when it answers a desired state that is not older.
func (s *State) Apply(p Patch, seq uint64) (*State, error) {
	next := s.clone()
	if p.Header != nil {
		next.Header = *p.Header
	}
	if p.Spec != nil {
		next.Spec, next.Waves = *p.Spec, make([]Wave, len(p.Spec.Waves))
	}
	for n, w := range p.Waves {
		if n < 1 || n > len(next.Waves) {
			return nil, fmt.Errorf("apply decision to rollout %s: it has no wave %d", s.ID, n)
		}
		next.Waves[n-1] = w
	}
	return next, next.replace(p.Devices, seq)
}

// replace puts devices of a decision in the place of the records before.
func (s *State) replace(devices map[string]*Device, seq uint64) error {
	var err error
	if s.summed, err = s.deviceSum(); err != nil || len(devices) == 0 {
		return err
	}
	s.replaced = make(map[string]*Device, len(devices))
	s.Devices, s.counted = maps.Clone(s.Devices), maps.Clone(s.counted)
	for id, p := range devices {
		d := *p
		if d.Order.Kind != "" && d.Order.Seq == 0 {
			d.Order.Seq = seq
		}
		s.replaced[id] = s.Devices[id]
		s.counted.replace(s.Devices[id], &d)
		s.Devices[id] = &d
	}
	s.summed, err = s.deviceSum()
	s.replaced = nil
	return err
}

// Diff is what turns facts f into now.
func (f *Facts) Diff(now *Facts) FactsPatch {
	var p FactsPatch
	for id, d := range now.Devices {
		if was := f.Devices[id]; was != d && !reflect.DeepEqual(was, d) {
			if p.Devices == nil {
				p.Devices = map[string]*DeviceFacts{}
			}
			p.Devices[id] = d
		}
	}
	for _, id := range slices.Sorted(maps.Keys(f.Devices)) {
		if _, ok := now.Devices[id]; !ok {
			p.Gone = append(p.Gone, id)
		}
	}
	return p
}

// Apply returns the facts after a patch.
func (f *Facts) Apply(p FactsPatch) *Facts {
	next := &Facts{Devices: maps.Clone(f.Devices)}
	if next.Devices == nil {
		next.Devices = map[string]*DeviceFacts{}
	}
	replaced := make(map[string]*DeviceFacts, len(p.Devices)+len(p.Gone))
	for _, id := range p.Gone {
		replaced[id] = next.Devices[id]
		delete(next.Devices, id)
	}
	for id, d := range p.Devices {
		replaced[id] = next.Devices[id]
		next.Devices[id] = d
	}
	if s, err := f.deviceSum(); err == nil { // else Digest says what is wrong
		s := *s
		if exchange(&s, replaced, next.Devices) == nil {
			next.summed = &s
		}
	}
	return next
}

// Replay checks one committed decision: with these facts, at that time and
// with that command, Step must come to it again, and the state must have the
// digest recorded. It returns the state after it; when the decision does not
// follow, the error is a *Divergence.
func Replay(s *State, f *Facts, d *Decision, digest string, seq uint64) (*State, error) {
	next, again, err := Step(s, f, d.At, d.Command)
	if err != nil {
		return nil, &Divergence{Rollout: s.ID, Seq: seq, At: d.At, Refused: err}
	}
	is, err := Digest(next, f)
	if err != nil {
		return nil, err
	}
	diverged, err := diverges(s, d, again, seq)
	if err != nil {
		return nil, err
	}
	if is != digest || len(diverged.Differences) > 0 {
		return nil, diverged
	}
	return s.Apply(d.Patch, seq)
}
