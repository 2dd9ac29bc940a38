package rollout

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Who takes the places of silent devices is who choose would take, were it asked
// again for each of them.
func TestSparesAreThoseThatWouldBeChosen(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		s := &State{ID: "r", Devices: map[string]*Device{}}
		var from []candidate
		candidateOf := func(i int) candidate {
			c := candidate{id: fmt.Sprint("device-", i), profile: fmt.Sprint("profile-", rnd.IntN(3))}
			if rnd.IntN(3) == 0 {
				s.Devices[c.id] = &Device{Code: CodeReplaced}
			}
			return c
		}
		for i := range rnd.IntN(40) {
			from = append(from, candidateOf(i))
		}
		turn := newTurn(s, &Facts{}, time.Time{})
		spare := turn.spares(from)
		for i := range 60 {
			want := ""
			if next := choose(s.ID, forWaves, 1, untried(s, from)); len(next) > 0 {
				want = next[0]
			}
			got, ok := spare.next()
			if got != want || ok != (want != "") {
				t.Fatalf("seed %d, place %d: got %q, want %q", seed, i, got, want)
			}
			for j, c := range from {
				if c.id == want {
					from = append(from[:j:j], from[j+1:]...)
					break
				}
			}
			if rnd.IntN(2) == 0 {
				c := candidateOf(100 + i)
				from = append(from, c)
				spare.add(c, s.Devices[c.id])
			}
		}
	}
}

// untried are the candidates that were not found silent before, all of them
// when there is no other.
func untried(s *State, from []candidate) []candidate {
	var out []candidate
	for _, c := range from {
		if d := s.Devices[c.id]; d == nil || d.Code != CodeReplaced {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return from
	}
	return out
}

// When most of a large fleet goes away in one night, filling the places takes
// one look at the fleet and not one for each of them.
func TestManyAreReplacedInOneStep(t *testing.T) {
	const devices = 20_000
	spec := Spec{Model: "m", Version: "1", Waves: []WaveSpec{{Percent: 50}, {Percent: 100}}, Control: new(0.0)}.WithDefaults()
	spec.Release[0] = 1
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	s, f := New("r", "somebody", spec, Requirements{}, now), &Facts{Devices: map[string]*DeviceFacts{}}
	for i := range devices {
		f.Devices[fmt.Sprintf("device-%05d", i)] = &DeviceFacts{Selected: true, Reported: now}
	}
	_, d, err := Step(s, f, now, &Command{Action: Start, Actor: "somebody", Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Apply(d.Patch, 1); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * DefaultLateness)
	began := time.Now()
	s, _, err = Step(s, f, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the step took %v", took)
	}
	members := s.count(func(d *Device) bool { return d.Wave == 1 })
	fresh := s.count(func(d *Device) bool { return d.Wave == 1 && !d.Late })
	if members != devices/2 || fresh != devices/4 {
		t.Errorf("the wave has %d devices and %d of them others, want %d and %d", members, fresh, devices/2, devices/4)
	}
}
