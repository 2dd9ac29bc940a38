package rollout

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

// pick returns the devices for which is holds, in order of rank, which is the
// order in which things are done to them.
func (s *State) pick(is func(id string, d *Device) bool) []string {
	var ids []string
	for id, d := range s.Devices {
		if is(id, d) {
			ids = append(ids, id)
		}
	}
	sortByRank(s.ID, forWaves, ids)
	return ids
}

// class is what of a device's record is counted.
type class struct {
	state                        DeviceState
	order                        OrderKind
	code                         string
	wave                         int
	control, already, late, home bool
	tried                        bool
	signs                        Signs
}

// census counts the devices of a rollout by class. There are few classes, so
// a step asks how many devices are so and so without going over all of them.
type census map[class]int

func classOf(d *Device) class {
	return class{
		state: d.State, order: d.Order.Kind, code: d.Code, wave: d.Wave,
		control: d.Control, already: d.Already, late: d.Late, home: d.Home, tried: d.Tries > 0, signs: d.Signs,
	}
}

// device is one that stands for all of its class: the fields that are counted
// are set, Tries is 1 when there was any.
func (c class) device() Device {
	d := Device{
		State: c.state, Order: Order{Kind: c.order}, Code: c.code, Wave: c.wave,
		Control: c.control, Already: c.already, Late: c.late, Home: c.home, Signs: c.signs,
	}
	if c.tried {
		d.Tries = 1
	}
	return d
}

func (c census) replace(was, is *Device) {
	if was != nil {
		c.add(was, -1)
	}
	if is != nil {
		c.add(is, 1)
	}
}

func (c census) add(d *Device, n int) {
	k := classOf(d)
	if c[k] += n; c[k] == 0 {
		delete(c, k)
	}
}

// census returns the counts of the state's devices. It does not keep them:
// states are read by several goroutines.
func (s *State) census() census {
	if s.counted != nil {
		return s.counted
	}
	c := census{}
	for _, d := range s.Devices {
		c.add(d, 1)
	}
	return c
}

// count counts devices. What is asked may only look at what a class has: state,
// order's kind, code, wave, marks, signs and whether it was tried.
func (s *State) count(is func(d *Device) bool) int {
	n := 0
	s.each(func(d *Device, many int) {
		if is(d) {
			n += many
		}
	})
	return n
}

// each calls for every class of devices one that stands for it and how many
// there are, in no order.
func (s *State) each(do func(d *Device, many int)) {
	for c, many := range s.census() {
		d := c.device()
		do(&d, many)
	}
}
