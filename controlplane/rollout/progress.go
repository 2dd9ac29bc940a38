package rollout

import (
	"cmp"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Progress is how much of what a wave needs is there.
type Progress struct {
	Healthy    int     // devices seen healthy
	Needed     int     // of them, by the quorum
	Counted    int     // devices the quorum is a share of
	Devices    int     // that served predictions
	Inferences uint64  // rows they predicted, together
	Hours      float64 // from the wave's opening to its end, or to now
}

// Progress says how much of what it needs wave n has.
func (s *State) Progress(n int, f *Facts, now time.Time) Progress {
	var p Progress
	p.Healthy, p.Needed, p.Counted = s.quorum(n)
	for id, d := range s.Devices {
		if d.Wave != n || d.Already {
			continue
		}
		if e := f.device(id).New; e != nil && e.Rows > 0 {
			p.Devices++
			p.Inferences = plusCapped(p.Inferences, e.Rows) // devices may count absurdly
		}
	}
	w := &s.Waves[n-1]
	if !w.Opened.IsZero() {
		end := now
		if !w.Closed.IsZero() {
			end = w.Closed
		}
		p.Hours = end.Sub(w.Opened).Hours()
	}
	return p
}

// Stuck returns the devices that hold the rollout up, those that are longest in
// their state first: members of the open wave that are not through, those that
// are lost to it while its quorum is not reached, and while it goes back those
// not yet seen off the release.
func (s *State) Stuck() []string {
	holds := s.holdsUp()
	if holds == nil {
		return nil
	}
	var ids []string
	for id, d := range s.Devices {
		if holds(d) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(s.Devices[a].Since.Compare(s.Devices[b].Since), cmp.Compare(a, b))
	})
	return ids
}

// holdsUp says which devices hold the rollout up; nil for none.
func (s *State) holdsUp() func(d *Device) bool {
	n := s.Header.Wave
	if s.Header.Status == StatusReverting {
		return func(d *Device) bool { return d.ours() && (d.Order.Kind != Back || !d.Home) }
	}
	if w := s.wave(); w == nil || s.Header.Status.Final() || w.State != WaveOpen && w.State != WaveSoaking {
		return nil
	}
	healthy, need, _ := s.quorum(n)
	return func(d *Device) bool {
		if d.Wave != n || d.Already || d.State == DeviceHealthy || d.State == DeviceRefused || d.State == DeviceSuperseded {
			return false
		}
		return healthy < need || !d.Late && !d.State.out()
	}
}

// Returns counts the devices that a rollback would send back, by the release
// they had; the zero one stands for none.
func (s *State) Returns() map[release.Digest]int {
	out := map[release.Digest]int{}
	for _, d := range s.Devices {
		if d.ours() && d.Order.Kind == Forward && !d.State.out() && d.State != DeviceWaiting {
			out[d.Old]++
		}
	}
	return out
}
