package rollout

import (
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// underway is a rollout in the first of its waves, of which every state has a
// device; the name of a device is its state.
func underway() *State {
	at := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	s := &State{
		ID: "digits-2-1", Header: Header{Status: StatusRunning, Wave: 1},
		Spec:    Spec{Waves: []WaveSpec{{Count: 4, Quorum: 0.25}}},
		Waves:   []Wave{{State: WaveOpen, Opened: at}},
		Devices: map[string]*Device{},
	}
	for i, state := range []DeviceState{
		DeviceHealthy, DeviceActive, DeviceTrialing, DeviceOffered, DeviceWaiting, DeviceFailed, DeviceReverted, DeviceRefused, DeviceSuperseded,
	} {
		d := &Device{State: state, Wave: 1, Since: at.Add(time.Duration(-i) * time.Minute), Order: Order{Kind: Forward, Seq: 1}, Old: release.Digest{1}}
		if state == DeviceWaiting {
			d.Order = Order{}
		}
		s.Devices[string(state)] = d
	}
	s.Devices["late"] = &Device{State: DeviceOffered, Wave: 1, Late: true, Since: at.Add(-time.Hour), Order: Order{Kind: Forward, Seq: 1}}
	s.Devices["already"] = &Device{State: DeviceActive, Wave: 1, Already: true, Order: Order{Kind: Forward, Seq: 1}}
	return s
}

func TestStuck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *State)
		want   []string
	}{
		"quorum not reached": {func(*State) {}, []string{"late", "reverted", "failed", "waiting", "offered", "trialing", "active"}},
		"quorum reached":     {func(s *State) { s.Spec.Waves[0].Quorum = 0.01 }, []string{"waiting", "offered", "trialing", "active"}},
		"wave has passed":    {func(s *State) { s.Waves[0].State = WavePassed }, nil},
		"ended":              {func(s *State) { s.Header.Status = StatusAborted }, nil},
		"not begun":          {func(s *State) { s.Header.Wave = 0 }, nil},
		"going back": {func(s *State) {
			s.Header.Status = StatusReverting
			for _, d := range s.Devices {
				d.Order.Kind, d.Home = Back, d.State != DeviceActive
			}
		}, []string{"active"}},
	} {
		s := underway()
		c.change(s)
		if got := s.Stuck(); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestReturns(t *testing.T) {
	got := underway().Returns()
	if len(got) != 2 || got[release.Digest{1}] != 4 || got[release.Digest{}] != 1 {
		t.Errorf("got %v, want healthy, active, trialing and offered ones to their old release and the late one to none", got)
	}
}

func TestProgress(t *testing.T) {
	s := underway()
	facts := &Facts{Devices: map[string]*DeviceFacts{
		"healthy": {New: &Evidence{Rows: 30}}, "active": {New: &Evidence{Rows: 12}}, "offered": {New: &Evidence{}}, "already": {New: &Evidence{Rows: 1000}},
	}}
	opened := s.Waves[0].Opened
	got := s.Progress(1, facts, opened.Add(90*time.Minute))
	if want := (Progress{Healthy: 1, Needed: 2, Counted: 8, Devices: 2, Inferences: 42, Hours: 1.5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	s.Waves[0].Closed = opened.Add(time.Hour)
	if got := s.Progress(1, facts, opened.Add(9*time.Hour)).Hours; got != 1 {
		t.Errorf("a wave that is over was open for %v hours, want 1", got)
	}
}
