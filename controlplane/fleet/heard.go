package fleet

import "time"

// HeardHours is how many hours are remembered of a device: 14 days, so that
// every day of the week is there twice.
const HeardHours = 14 * 24

// heardWords hold HeardHours bits.
const heardWords = (HeardHours + 63) / 64

// Heard says in which hours a device was heard of, by the server's clock. Bit
// i%64 of word i/64 stands for the hour that began i hours before the newest
// one; bits from HeardHours on mean nothing.
type Heard [heardWords]uint64

// At says whether the device was heard of i hours ago, 0 being the present hour.
func (h *Heard) At(i int) bool {
	return i >= 0 && i < HeardHours && h[i/64]>>(i%64)&1 == 1
}

func (h *Heard) set(i int) { h[i/64] |= 1 << (i % 64) }

// age makes every bit n hours older.
func (h *Heard) age(n int) {
	words, bits := n/64, n%64
	for i := heardWords - 1; i >= 0; i-- {
		var w uint64
		if from := i - words; from >= 0 {
			w = h[from] << bits
			if from > 0 && bits > 0 {
				w |= h[from-1] >> (64 - bits)
			}
		}
		h[i] = w
	}
}

// before is h without its n newest hours.
func (h *Heard) before(n int) (out Heard) {
	for i := range HeardHours - min(n, HeardHours) {
		if h.At(i + n) {
			out.set(i)
		}
	}
	return out
}

// history is when a device was heard of. Hours count from the Unix epoch.
type history struct {
	Newest int64 `json:"newest"` // hour of bit 0, 0 for never heard of
	Since  int64 `json:"since"`  // first hour heard of, or the oldest that is remembered
	Bits   Heard `json:"bits"`
}

// hear takes in a message of that moment. When it is older than everything
// remembered, the server's clock has been set back: what was noted ahead of it
// is forgotten.
func (h *history) hear(at time.Time) {
	hour := hourOf(at)
	back := h.Newest - hour
	switch {
	case h.Newest == 0, back >= HeardHours:
		*h = history{Newest: hour, Since: hour}
		h.Bits.set(0)
	case back >= 0:
		h.Bits.set(int(back))
		h.Since = min(h.Since, hour)
	default:
		h.Bits.age(int(-back))
		h.Bits.set(0)
		h.Newest = hour
		h.Since = max(h.Since, hour-HeardHours+1)
	}
}

// until is the history as it is to be read at a later moment, and how many of
// its hours, the present one included, are known.
func (h *history) until(now time.Time) (heard Heard, known int) {
	if h.Newest == 0 {
		return heard, 0
	}
	hour := hourOf(now)
	if heard = h.Bits; hour >= h.Newest {
		heard.age(int(hour - h.Newest))
	} else { // the server's clock has been set back
		heard = h.Bits.before(int(h.Newest - hour))
	}
	return heard, int(min(max(hour-h.Since+1, 0), HeardHours))
}

func hourOf(t time.Time) int64 { return t.Unix() / 3600 }

// Heard says in which of the last HeardHours hours a device was heard of, and
// how many of them, counted back from the present one, are known: a device of
// yesterday was not away the day before. Zero is known of a device never heard of.
func (f *Fleet) Heard(id string, now time.Time) (heard Heard, known int) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	e, ok := f.devices[id]
	if !ok {
		return Heard{}, 0
	}
	return e.heard.until(now)
}
