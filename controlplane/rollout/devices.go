package rollout

import "maps"

// Device returns the record of a device; ok is false when it has none.
func (s *State) Device(id string) (d Device, ok bool) {
	if p := s.Devices[id]; p != nil {
		return *p, true
	}
	return Device{}, false
}

func (s *State) device(id string) Device {
	d, _ := s.Device(id)
	return d
}

// Device returns what is known of a device; ok is false when nothing is.
func (f *Facts) Device(id string) (d DeviceFacts, ok bool) {
	if p := f.Devices[id]; p != nil {
		return *p, true
	}
	return DeviceFacts{}, false
}

func (f *Facts) device(id string) DeviceFacts {
	d, _ := f.Device(id)
	return d
}

// put replaces the record of a device. States share records that did not change,
// and the map too until the first change: most steps change nothing.
func (t *turn) put(id string, d Device) {
	if !t.owned {
		t.Devices, t.owned = maps.Clone(t.Devices), true
	}
	t.Devices[id] = &d
}
