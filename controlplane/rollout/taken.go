package rollout

import (
	"maps"
	"slices"
	"strings"
)

// Condemns says that the rollout has found its release bad, or that a person
// has: it goes or went back, or a gate has stopped it for good.
func (s *State) Condemns() bool {
	w := s.wave()
	return !s.Header.Recalled.IsZero() ||
		w != nil && w.State == WaveFailed && slices.ContainsFunc(w.Gates, func(g GateResult) bool { return g.Result == GateFail })
}

// taker names the rollout that has taken a device over, as far as it is known.
func (f *DeviceFacts) taker() string {
	if f.Holder == "" {
		return "a later rollout"
	}
	return "rollout " + f.Holder
}

// takenBy names the rollouts that have all devices that a rollback would bring
// back, "" while there is one that it can bring back, or none at all.
func (t *turn) takenBy() string {
	if t.Header.Status == StatusReverting || t.Header.Status == StatusReverted {
		return ""
	}
	takers := map[string]bool{}
	for id, d := range t.Devices {
		f := t.facts.device(id)
		switch {
		case d.Order.Kind == "" || d.Already || d.Order.Kind == Back && d.Home:
		case d.State == DeviceSuperseded && d.Code == CodeHeld, f.Holder != "", t.moved(*d, f):
			takers[f.taker()] = true
		case d.ours():
			return ""
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(takers)), " and ")
}
