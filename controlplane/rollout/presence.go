package rollout

import "time"

// HeardHours is how many hours of presence a plan rests on: 14 days.
const HeardHours = 14 * 24

const day = 24

// Hours says in which of the last HeardHours hours a device was heard of. Bit
// i%64 of word i/64 stands for i hours ago, 0 being the present hour. Known of
// them, counted from the present one, are known; the others say nothing.
type Hours struct {
	Bits  [(HeardHours + 63) / 64]uint64
	Known int
}

// Presence knows when devices were heard of.
type Presence interface {
	Heard(device string, now time.Time) Hours
}

func (h *Hours) bit(ago int) bool { return h.Bits[ago/64]>>(ago%64)&1 == 1 }

// there says whether the device is taken to have been there. The present hour
// has only begun, so the one before speaks for it, too. Of a device that is new
// the days that are known stand for those that are not; one that is younger than
// a day is taken to be always there.
func (h *Hours) there(ago int) bool {
	if ago >= h.Known {
		days := h.Known / day
		if days == 0 {
			return true
		}
		ago %= days * day
	}
	return h.bit(ago) || ago == 0 && h.Known > 1 && h.bit(1)
}

// heard says whether the device was heard of at all.
func (h *Hours) heard() bool {
	for ago := range min(h.Known, HeardHours) {
		if h.bit(ago) {
			return true
		}
	}
	return false
}

// Moments of a replay that are none.
const (
	never = int64(1) << 60 // does not come
	unset = int64(-1)
)

const hour = int64(3600)

// pattern is when a device is there in a replay of the last 14 days, which comes
// round again when it is over. Position p is the hour HeardHours−p hours ago.
type pattern struct {
	next   [HeardHours]int16 // hours from a position to the next one at which it is there, -1 for never
	byHour [day]int          // on how many of the days it was there, by position in the day
}

func patternOf(h *Hours) *pattern {
	p := &pattern{}
	if !h.heard() {
		for i := range p.next {
			p.next[i] = -1
		}
		return p
	}
	ahead := int16(0)
	for i := 2*HeardHours - 1; i >= 0; i-- { // twice around, so that every position knows what follows
		at := i % HeardHours
		if h.there((HeardHours - at) % HeardHours) {
			ahead = 0
			if i < HeardHours {
				p.byHour[at%day]++
			}
		} else {
			ahead++
		}
		p.next[at] = ahead
	}
	return p
}

// ever says whether the device is ever there.
func (p *pattern) ever() bool { return p.next[0] >= 0 }

// from is the first moment, not before at, at which the device is there. Moments
// are in seconds since the beginning of the hour in which the plan was made;
// shift is by how many hours the replay begins later than the 14 days.
func (p *pattern) from(at int64, shift int) int64 {
	if at >= never {
		return never
	}
	now := at / hour
	switch ahead := int64(p.next[(now+int64(shift))%HeardHours]); ahead {
	case -1:
		return never
	case 0:
		return at
	default:
		return (now + ahead) * hour
	}
}

// worked is when work of so many seconds is done that is begun at a moment and
// goes on while the device is there.
func (p *pattern) worked(at, work int64, shift int) int64 {
	for {
		at = p.from(at, shift)
		left := hour - at%hour
		if at >= never || work <= left {
			return min(at+work, never)
		}
		at, work = at+left, work-left
	}
}
