package rollout

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

// A digest kept up to date is the digest of what is there, and everything that
// is there counts for it.
func TestDigestIsKeptUpToDate(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	s := New("r", "ada", Spec{Model: "m", Version: "v"}.WithDefaults(), Requirements{}, begin)
	f := &Facts{}
	seen := map[string]bool{}
	for i := range 200 {
		p := Patch{Devices: map[string]*Device{}}
		news := FactsPatch{Devices: map[string]*DeviceFacts{}}
		for range rnd.IntN(4) {
			id := fmt.Sprintf("d%d", rnd.IntN(20))
			p.Devices[id] = &Device{State: DeviceOffered, Tries: i + 1, Order: Order{Kind: Forward}}
			news.Devices[id] = &DeviceFacts{Selected: true, Generation: uint64(i) + 1}
		}
		if len(f.Devices) > 10 {
			for id := range f.Devices {
				if news.Devices[id] == nil {
					news.Gone = append(news.Gone, id)
					break
				}
			}
		}
		next, err := s.Apply(p, uint64(i)+1)
		if err != nil {
			t.Fatal(err)
		}
		s, f = next, f.Apply(news)
		got := digestOf(t, s, f)
		whole := *s
		whole.summed, whole.counted = nil, nil
		if want := digestOf(t, &whole, &Facts{Devices: f.Devices}); got != want {
			t.Fatalf("after %d changes the digest is %s, of the same in one go %s", i, got, want)
		}
		if !maps.Equal(s.counted, whole.census()) {
			t.Fatalf("after %d changes the census is %v, want %v", i, s.counted, whole.census())
		}
		if len(p.Devices) > 0 && seen[got] {
			t.Fatalf("after %d changes the digest is one of those before", i)
		}
		seen[got] = true
	}
}

// A state on its way has the digest that the runner commits.
func TestDigestOfAStep(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.set(fmt.Sprintf("d%d", i), func(f *DeviceFacts) { f.Selected, f.Assigned, f.Active = true, v1, v1 })
	}
	w.create(Spec{}, Requirements{})
	cmd := &Command{Action: Start, Actor: "ada", Reason: "test"}
	next, d, err := Step(w.state, w.facts, w.now, cmd)
	if err != nil || d.Empty() {
		t.Fatalf("got %+v, %v, want a decision", d, err)
	}
	whole := *next
	whole.summed, whole.replaced = nil, nil
	if got, want := digestOf(t, next, w.facts), digestOf(t, &whole, w.facts); got != want {
		t.Errorf("got %s, in one go %s", got, want)
	}
}

func digestOf(t *testing.T, s *State, f *Facts) string {
	t.Helper()
	d, err := Digest(s, f)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
