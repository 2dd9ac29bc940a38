package rollout

import "maps"

// pair is a device with what is known of it; each may be missing.
type pair struct {
	id string
	d  *Device
	f  *DeviceFacts
}

// roll calls every device once: those of the state and those that facts are
// known of. A step goes over its devices several times and looks them up once.
func roll(s *State, f *Facts) []pair {
	out := make([]pair, 0, max(len(s.Devices), len(f.Devices)))
	met := 0
	for id, facts := range f.Devices {
		d := s.Devices[id]
		if d != nil {
			met++
		}
		out = append(out, pair{id, d, facts})
	}
	if met == len(s.Devices) {
		return out
	}
	for id, d := range s.Devices {
		if f.Devices[id] == nil {
			out = append(out, pair{id, d, nil})
		}
	}
	return out
}

// roll is that of the turn as it stands.
func (t *turn) roll() []pair {
	switch {
	case t.called == nil:
		t.called = roll(t.State, t.facts)
	case len(t.changed) > 0:
		for i := range t.called {
			if e := &t.called[i]; t.changed[e.id] {
				e.d = t.Devices[e.id]
			}
		}
	}
	clear(t.changed)
	return t.called
}

// find returns the devices with a record for which is holds, in order of rank.
// Of what is not known of a device, f is nil.
func (t *turn) find(is func(id string, d *Device, f *DeviceFacts) bool) []string {
	var ids []string
	for _, e := range t.roll() {
		if e.d != nil && is(e.id, e.d, e.f) {
			ids = append(ids, e.id)
		}
	}
	sortByRank(t.ID, forWaves, ids)
	return ids
}

// pick is find for what a record alone tells.
func (t *turn) pick(is func(id string, d *Device) bool) []string {
	return t.find(func(id string, d *Device, _ *DeviceFacts) bool { return is(id, d) })
}

// put replaces the record of a device. States share records that did not change,
// and the map too until the first change: most steps change nothing.
func (t *turn) put(id string, d Device) {
	if t.replaced == nil {
		t.Devices, t.counted, t.replaced = maps.Clone(t.Devices), maps.Clone(t.counted), map[string]*Device{}
	}
	if _, again := t.replaced[id]; !again {
		t.replaced[id] = t.Devices[id]
	}
	t.counted.replace(t.Devices[id], &d)
	t.Devices[id] = &d
	t.changed[id] = true
}
