package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// given is an order of a simulated rollout.
type given struct {
	at    time.Time
	bytes int64
}

// simZones are where simulated devices are; one of them does not know.
var simZones = []string{"Europe/Berlin", "Asia/Tokyo", "America/New_York", ""}

// around sets what surrounds a simulated device.
func (s *sim) around(f *DeviceFacts) {
	f.Groups = map[string]string{"site": fmt.Sprintf("s%d", s.rnd.IntN(3))}
	f.TimeZone = simZones[s.rnd.IntN(len(simZones))]
	f.Bytes = int64(1 + s.rnd.IntN(2000))
	f.Metered, f.Power = "no", "mains"
}

// drift changes what surrounds a device now and then.
func (s *sim) drift(f *DeviceFacts) {
	switch s.rnd.IntN(300) {
	case 0:
		f.Metered = []string{"yes", "no", ""}[s.rnd.IntN(3)]
	case 1:
		f.Power, f.Battery = []string{"mains", "battery"}[s.rnd.IntN(2)], s.rnd.IntN(101)
	case 2:
		f.Selected = !f.Selected || s.rnd.IntN(2) == 0
	}
}

// bind gives a spec some bounds. Each is there in a part of the simulations.
func (s *sim) bind(spec *Spec) {
	if s.rnd.IntN(3) == 0 {
		return
	}
	some := func() bool { return s.rnd.IntN(4) == 0 }
	if some() {
		spec.Budget.PerMinute = 1 + s.rnd.IntN(4)
	}
	if some() {
		spec.Budget.BytesPerSecond = int64(1 + s.rnd.IntN(100))
	}
	if some() {
		spec.Budget.Unavailable = []Unavailable{{Label: "site", Max: 1 + s.rnd.IntN(2)}}
	}
	if some() {
		spec.Budget.Unavailable = []Unavailable{{Label: "site", Percent: 10 + 50*s.rnd.Float64()}}
	}
	if some() {
		spec.Deadline += release.Duration(24 * time.Hour)
		zone := []string{DeviceZone, "Europe/Berlin", ""}[s.rnd.IntN(3)]
		spec.Windows = []WindowSpec{{Cron: fmt.Sprintf("0 %d * * *", s.rnd.IntN(24)), Duration: release.Duration(time.Duration(1+s.rnd.IntN(12)) * time.Hour), TimeZone: zone}}
	}
	if some() {
		spec.Require = Require{Unmetered: s.rnd.IntN(2) == 0, Battery: s.rnd.IntN(60)}
	}
	if some() {
		spec.Revert = Budget{InFlight: s.rnd.IntN(4), PerMinute: s.rnd.IntN(10)}
	}
	for i := range spec.Waves {
		if some() {
			spec.Waves[i].Evidence = EvidenceSpec{Hours: s.rnd.Float64()}
			spec.Waves[i].Deadline = release.Duration(time.Duration(12+s.rnd.IntN(24)) * time.Hour)
		}
	}
}

// arrive lets devices join that nobody knew before.
func (s *sim) arrive(n int) {
	for range n {
		d := &simDevice{id: fmt.Sprintf("late%d", len(s.devices)), kind: "good", online: true, running: v1, pace: 1}
		s.devices = append(s.devices, d)
		s.set(d.id, func(f *DeviceFacts) {
			f.Selected, f.Profile, f.Assigned = true, "p0", v1
			s.around(f)
		})
	}
}

// checkBounds is what must hold of the orders of the newest decision.
func (s *sim) checkBounds(before *State) {
	s.t.Helper()
	for _, id := range s.state.pick(func(id string, d *Device) bool { return d.Order != before.device(id).Order }) {
		d, was, f := s.state.device(id), before.device(id), s.facts.device(id)
		switch {
		case d.Already:
		case d.Order.Kind == Forward:
			s.forward = append(s.forward, given{s.now, f.Bytes})
			s.checkOffer(id, &f)
		case d.Order.Kind == Back && was.State.arrived() && s.state.Header.Status == StatusReverting:
			s.back = append(s.back, given{s.now, 0})
		}
	}
	s.checkRates(s.forward, s.state.Spec.Budget)
	s.checkRates(s.back, s.state.Spec.Revert)
	if most := s.state.Spec.Revert.InFlight; most > 0 && s.state.Header.Status == StatusReverting {
		if n := (&turn{State: s.state}).returning(); n > most {
			s.t.Errorf("%d devices are on their way back, the budget is %d", n, most)
		}
	}
	s.checkOffered()
}

// checkOffered looks for offers that nobody has begun outside of a window.
func (s *sim) checkOffered() {
	s.t.Helper()
	for id, d := range s.state.Devices {
		f := s.facts.device(id)
		if st := s.state.Header.Status; d.State == DeviceOffered && s.state.GoesOn() && st != StatusReverting && !s.open(&f) {
			s.t.Errorf("%s is offered the release outside of a window at %v", id, s.now)
		}
	}
}

// open reads the hour off a clock on the wall.
func (s *sim) open(f *DeviceFacts) bool {
	for _, w := range s.state.Spec.Windows {
		name := w.TimeZone
		if name == DeviceZone {
			name = f.TimeZone
		}
		z, err := time.LoadLocation(name)
		if err != nil {
			s.t.Fatal(err)
		}
		begin := 0
		if _, err := fmt.Sscanf(w.Cron, "0 %d", &begin); err != nil {
			s.t.Fatal(err)
		}
		hours := (s.now.In(z).Hour() - begin + 24) % 24
		if time.Duration(hours)*time.Hour >= time.Duration(w.Duration) {
			return false
		}
	}
	return true
}

func (s *sim) checkOffer(id string, f *DeviceFacts) {
	s.t.Helper()
	spec := &s.state.Spec
	if !s.open(f) {
		s.t.Errorf("%s is told to go forward outside of a window at %v", id, s.now)
	}
	if spec.Require.Unmetered && f.Metered != "no" {
		s.t.Errorf("%s is told to go forward on a link of which it says %q", id, f.Metered)
	}
	if need := spec.Require.Battery; need > 0 && f.Power != "mains" && f.Battery < need {
		s.t.Errorf("%s is told to go forward with %d %% of battery, it needs %d", id, f.Battery, need)
	}
	for _, u := range spec.Budget.Unavailable {
		down, size := s.site(f.Groups["site"])
		most := max(1, u.Max, int(u.Percent/100*float64(size)+1e-9))
		if !f.Active.IsZero() && !f.Serving {
			continue // it was no loss to its site
		}
		if down > most {
			s.t.Errorf("%d of %d devices of %s are under way or do not serve, at most %d may", down, size, f.Groups["site"], most)
		}
	}
}

// site counts the devices of a site that are unavailable and all that are selected.
func (s *sim) site(name string) (down, size int) {
	for id, f := range s.facts.Devices {
		if f.Groups["site"] != name {
			continue
		}
		d := s.state.device(id)
		busy := !d.Late && (d.Order.Kind == Forward && (d.State == DeviceOffered || d.State.working()) ||
			d.Order.Kind == Back && d.State.arrived() && !d.Home)
		if f.Selected {
			size++
		}
		if busy || f.Selected && !f.Active.IsZero() && !f.Serving {
			down++
		}
	}
	return down, size
}

// checkRates looks at the newest orders: no sixty seconds see more than are
// allowed, and all bytes but the last were through but for a second's worth.
func (s *sim) checkRates(orders []given, b Budget) {
	s.t.Helper()
	inMinute, bytes := 0, int64(0)
	for i, o := range slices.Backward(orders) {
		past := s.now.Sub(o.at)
		if past < time.Minute {
			inMinute++
		}
		if i < len(orders)-1 {
			bytes += o.bytes
		}
		if most := float64(b.BytesPerSecond) * (past + byteSlack).Seconds(); b.BytesPerSecond > 0 && float64(bytes) > most && orders[len(orders)-1].at.Equal(s.now) {
			s.t.Errorf("%d bytes were ordered in %v, at most %v", bytes, past, most)
		}
	}
	if b.PerMinute > 0 && inMinute > b.PerMinute {
		s.t.Errorf("%d orders in the minute to %v, at most %d", inMinute, s.now, b.PerMinute)
	}
}
