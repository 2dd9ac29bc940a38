package rollout

import (
	"fmt"
	"time"
)

// leastStall is what of a wait is worth telling.
const leastStall = 2 * hour

// wait is a time in which a wave did not come nearer to its end.
type wait struct{ from, to int64 }

// longestWait is the longest time in which no device became healthy that the
// wave needed. The soak time is not waited for in this sense.
func (s *stage) longestWait() wait {
	at := s.opened
	var longest wait
	for i := range s.need {
		until := s.r.deadline
		if i < len(s.grew) {
			until = s.grew[i]
		}
		if i == 0 || i >= len(s.grew) {
			until = max(at, until-s.soak())
		}
		if until-at > longest.to-longest.from {
			longest = wait{at, until}
		}
		if i >= len(s.grew) {
			break
		}
		at = s.grew[i]
	}
	return longest
}

// stalls says what the wave waited for longest.
func (s *stage) stalls(number int) []string {
	w := s.longestWait()
	if len(s.members) == 0 || w.to-w.from < leastStall {
		return nil
	}
	var held, absent, unfit, all []int
	for i := range s.members {
		m := &s.members[i]
		if m.state == isReplaced {
			continue
		}
		all = append(all, m.device)
		switch {
		case m.began <= w.from:
		case s.r.devices[m.device].unmet:
			unfit = append(unfit, m.device)
		case m.offered > w.from:
			held = append(held, m.device)
		default:
			absent = append(absent, m.device)
		}
	}
	text := fmt.Sprintf("wave %d waits %s", number, inWords(w.to-w.from))
	if len(s.grew) < s.need {
		text = fmt.Sprintf("wave %d does not come to its quorum of %d in time", number, s.need)
	}
	switch {
	case len(unfit) > 0 && len(unfit) >= max(len(absent), len(held)):
		text += fmt.Sprintf(" for what the rollout requires: %d of %d devices do not fulfil it now", len(unfit), len(all))
	case len(absent) >= len(held) && len(absent) > 0:
		text += fmt.Sprintf(" for its quorum: %d of %d devices %s", len(absent), len(all), s.r.habit(absent))
	case len(held) > 0 && s.r.closed(held, w.from):
		text += " for a window"
	case len(held) > 0:
		text += " for the budget"
	default:
		text += " for devices that are at it and away again"
	}
	return []string{text}
}

// closed says whether the windows of all of the devices are closed.
func (r *rehearsal) closed(devices []int, at int64) bool {
	for _, i := range devices {
		if s, ok := r.zones[r.devices[i].zone].at(at); ok && s.from <= at {
			return false
		}
	}
	return true
}

// habit says when devices are there, in words, from the hours of the day at which
// they were heard of on more days than not.
func (r *rehearsal) habit(devices []int) string {
	var times [day]int
	for _, i := range devices {
		for h, n := range r.devices[i].there.byHour {
			times[(h+r.base.Hour())%day] += n
		}
	}
	usual := func(h int) bool { return 2*times[(h+day)%day] > Replays*len(devices) }
	from, to, begins := 0, 0, 0
	for h := range day {
		if usual(h) && !usual(h-1) {
			from, begins = h, begins+1
		}
		if !usual(h) && usual(h-1) {
			to = h
		}
	}
	if begins != 1 {
		return "are away"
	}
	return fmt.Sprintf("are only heard of from %02d:00 to %02d:00 UTC", from, to)
}

// inWords is a time in the unit that fits.
func inWords(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	switch {
	case d >= 72*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return d.Round(time.Minute).String()
}
