package fleet

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

// heardAt is an accepted message that came at a moment.
func heardAt(device string, at time.Time) *protocol.Accepted {
	return &protocol.Accepted{Device: device, ReceivedMs: at.UnixMilli(), Body: &protocol.Accepted_Record{Record: &protocol.Record{}}}
}

// hours lists how many hours ago a device was heard of.
func hours(h Heard) []int {
	list := []int{}
	for i := range HeardHours {
		if h.At(i) {
			list = append(list, i)
		}
	}
	return list
}

func TestHoursHeardOf(t *testing.T) {
	const day = 24 * time.Hour
	at := func(offsets ...time.Duration) []time.Duration { return offsets }
	for _, c := range []struct {
		name  string
		heard []time.Duration // after start, in the order they came
		now   time.Duration
		want  []int
		known int
	}{
		{"never", nil, 0, []int{}, 0},
		{"now", at(0), 0, []int{0}, 1},
		{"often in one hour", at(0, time.Minute, 59*time.Minute), 59 * time.Minute, []int{0}, 1},
		{"the hour before", at(0), time.Hour, []int{1}, 2},
		{"across words", at(0, 70*time.Hour, 140*time.Hour), 140 * time.Hour, []int{0, 70, 140}, 141},
		{"the oldest hour", at(0, 335*time.Hour), 335 * time.Hour, []int{0, 335}, 336},
		{"forgotten", at(0, 336*time.Hour), 336 * time.Hour, []int{0}, 336},
		{"away for ever", at(0, day), 40 * day, []int{}, 336},
		{"back after a month", at(0, 30*day), 30 * day, []int{0}, 336},
		{"out of order", at(5*time.Hour, 2*time.Hour), 5 * time.Hour, []int{0, 3}, 4},
		{"the server's clock was set back", at(0, 10*time.Hour, time.Hour), time.Hour, []int{0, 1}, 2},
		{"the server's clock ran ahead for a year", at(0, 365*day, time.Hour), time.Hour, []int{0}, 1},
		{"asked of a time before", at(2 * time.Hour), 0, []int{}, 0},
	} {
		f := open(t, kvstore.NewMemory(), Config{})
		for i, offset := range c.heard {
			f.Apply(uint64(i)+1, heardAt("cam-1", start.Add(offset)))
		}
		heard, known := f.Heard("cam-1", start.Add(c.now))
		if got := hours(heard); !slices.Equal(got, c.want) || known != c.known {
			t.Errorf("%s: heard of %v hours ago, %d known; want %v, %d", c.name, got, known, c.want, c.known)
		}
	}
}

// Whatever was heard, and wherever the server was restarted with messages coming
// again, the hours are those that a set of all of them gives.
func TestHoursAreExactAfterRestarts(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		f, saved := open(t, kvstore.NewMemory(), Config{}), map[string][]byte{}
		var stream []*protocol.Accepted
		all, first, now := map[int64]bool{}, int64(0), start
		for range 200 {
			now = now.Add(time.Duration(random.ExpFloat64() * float64(6*time.Hour)))
			stream = append(stream, heardAt("cam-1", now))
			f.Apply(uint64(len(stream)), stream[len(stream)-1])
			all[hourOf(now)] = true
			if first == 0 {
				first = hourOf(now)
			}
			switch random.IntN(20) {
			case 0:
				maps.Copy(saved, f.Dirty())
			case 1: // killed: the stream comes again from some place before the end
				f = open(t, kvstore.NewMemory(), Config{})
				if err := f.Load(saved); err != nil {
					t.Fatal(err)
				}
				for i, m := range stream {
					f.Apply(uint64(i)+1, m)
				}
			}
		}
		heard, known := f.Heard("cam-1", now)
		for i := range HeardHours {
			if got, want := heard.At(i), all[hourOf(now)-int64(i)]; got != want {
				t.Fatalf("seed %d: heard of %d hours ago: %v, want %v", seed, i, got, want)
			}
		}
		if want := int(min(hourOf(now)-first+1, HeardHours)); known != want {
			t.Errorf("seed %d: %d hours known, want %d", seed, known, want)
		}
	}
}

func TestHoursOfAnUnknownDevice(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	if heard, known := f.Heard("nobody", start); known != 0 || heard != (Heard{}) {
		t.Errorf("got %v, %d known", heard, known)
	}
}
