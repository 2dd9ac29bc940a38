package rollout

import "time"

// Wake is the next moment at which Step may decide something although no fact
// has changed, or zero for none.
func (s *State) Wake(now time.Time) time.Time {
	a := alarm{now: now}
	a.at(s.Header.Deadline)
	if s.Header.Status == StatusQueued {
		a.at(s.Spec.StartAt)
	}
	if w := s.wave(); w != nil {
		a.at(w.SoakEnds)
		a.at(w.Deadline)
		if w.State == WaveSoaking {
			a.at(w.Opened.Add(s.waveSpec(s.Header.Wave).Evidence.time()))
		}
	}
	if s.GoesOn() {
		s.wakeDevices(&a)
	}
	return a.next
}

// alarm is the earliest of the times after now that it was told.
type alarm struct{ now, next time.Time }

func (a *alarm) at(t time.Time) {
	if t.After(a.now) {
		a.next = sooner(a.next, t)
	}
}

// wakeDevices considers the deadlines of devices, the windows of those that
// wait or were offered the release, and the rates of the budget.
func (s *State) wakeDevices(a *alarm) {
	zones := map[string]bool{}
	asks, recalls := false, false
	for _, d := range s.Devices {
		a.at(d.Deadline)
		if d.waits() || d.State == DeviceOffered || d.State == DeviceShadowing {
			zones[d.Zone], asks = true, true
		}
		recalls = recalls || d.Order.Kind == Forward && d.ours()
	}
	calendar := s.Spec.calendar(a.now)
	for z := range zones {
		a.at(calendar.in(z).until)
	}
	budget := s.Spec.Budget
	if s.Header.Status == StatusReverting {
		budget, asks = s.Spec.Revert, recalls
	}
	if orders, bytes := s.Header.ratesWake(budget); asks {
		a.at(orders)
		a.at(bytes)
	}
}
