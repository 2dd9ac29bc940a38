package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// large is a running rollout over many devices in two waves: of the first, one
// in a hundred failed and one in a hundred is downloading.
func large(devices int) runner.View {
	v := view("digits-2-1", rollout.StatusRunning)
	v.State.Devices = map[string]*rollout.Device{}
	v.Facts.Devices = map[string]*rollout.DeviceFacts{}
	var all []string
	for i := range devices {
		id := fmt.Sprintf("cam-%06d", i)
		d := &rollout.Device{State: rollout.DeviceHealthy, Wave: 1, Site: fmt.Sprint("site-", i%10), Since: now.Add(-time.Duration(i) * time.Second)}
		switch i % 100 {
		case 1:
			d.State, d.Code, d.Message = rollout.DeviceFailed, "install", "no room"
		case 2:
			d.State = rollout.DeviceDownloading
		case 3:
			d.State, d.Late = rollout.DeviceOffered, true
		case 4:
			d.State, d.Wave, d.Control = rollout.DeviceWaiting, 0, true
		}
		v.State.Devices[id], v.Facts.Devices[id] = d, &rollout.DeviceFacts{Selected: true, Site: d.Site}
		all = append(all, id)
	}
	v.Timeline = nil
	for seq := range uint64(1000) {
		v.Timeline = append(v.Timeline, runner.Entry{
			Seq: seq + 1, Kind: runner.KindStep,
			Changes: []rollout.Change{{Subject: rollout.SubjectDevices, To: "offered", Why: "wave 1", Devices: all}},
		})
	}
	return v
}

// What one asks of a rollout does not grow with its devices; all of them can be
// had in pages.
func TestRolloutOfManyDevices(t *testing.T) {
	const devices = 10_000
	w := newWorld()
	w.rollouts = []runner.View{large(devices)}
	s := w.service()
	r, err := s.Rollout(t.Context(), "digits-2-1")
	if err != nil {
		t.Fatal(err)
	}
	wave := &r.WaveList[0]
	if len(wave.Devices) != operator.MaxListed || wave.More != devices-100-operator.MaxListed || wave.Devices[0].State != "failed" || wave.Devices[100].State != "downloading" {
		t.Errorf("the wave lists %d devices and %d more, the first %+v; want %d, failed and busy ones first", len(wave.Devices), wave.More, wave.Devices[0], operator.MaxListed)
	}
	if wave.Counts["healthy"] != 9600 || wave.Counts["failed"] != 100 || wave.Late["offered"] != 100 {
		t.Errorf("counts are %v, late %v", wave.Counts, wave.Late)
	}
	if r.StuckTotal != 100 || len(r.Stuck) != operator.MaxStuck || r.Stuck[0].Why == "" || !r.Stuck[0].Since.Before(r.Stuck[1].Since) {
		t.Errorf("%d of %d stuck devices, first %+v; want %d of 100 with a reason, the longest first", len(r.Stuck), r.StuckTotal, r.Stuck[0], operator.MaxStuck)
	}
	if len(r.Waiting) != 100 || r.WaitingTotal != 100 || len(r.Control) != 100 || r.ControlCounts["waiting"] != 100 {
		t.Errorf("%d of %d waiting, %d held out", len(r.Waiting), r.WaitingTotal, len(r.Control))
	}
	if len(r.Timeline) != operator.MaxTimeline || r.Decisions != 1000 || r.Timeline[0].Seq != 1000 {
		t.Errorf("%d decisions of %d, the first %d; want the newest %d", len(r.Timeline), r.Decisions, r.Timeline[0].Seq, operator.MaxTimeline)
	}
	if c := r.Timeline[0].Changes[0]; c.Count != devices || len(c.Devices) != operator.MaxNamed {
		t.Errorf("a change names %d of %d devices, want %d of %d", len(c.Devices), c.Count, operator.MaxNamed, devices)
	}
	raw, err := json.Marshal(r)
	if err != nil || len(raw) > 512<<10 {
		t.Errorf("the answer has %d bytes, %v; want at most 512 KiB", len(raw), err)
	}
}

func TestRolloutDevices(t *testing.T) {
	const devices = 10_000
	w := newWorld()
	w.rollouts = []runner.View{large(devices)}
	s := w.service()
	seen, q := map[string]bool{}, operator.RolloutDeviceQuery{Paging: operator.Paging{Limit: operator.MaxPage}}
	for pages := 1; ; pages++ {
		page, err := s.RolloutDevices(t.Context(), "digits-2-1", q)
		if err != nil || page.Total != devices || pages > devices/operator.MaxPage {
			t.Fatalf("page %d: %d devices in all, %v", pages, page.Total, err)
		}
		for _, d := range page.Items {
			if seen[d.Device] || d.Why == "" {
				t.Fatalf("%+v comes twice or without a reason", d)
			}
			seen[d.Device] = true
		}
		if q.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	if len(seen) != devices {
		t.Errorf("pages have %d devices, want %d", len(seen), devices)
	}
	for name, c := range map[string]struct {
		q    operator.RolloutDeviceQuery
		want int
	}{
		"a state":     {operator.RolloutDeviceQuery{State: "failed"}, 100},
		"a wave":      {operator.RolloutDeviceQuery{Wave: 1}, devices - 100},
		"a site":      {operator.RolloutDeviceQuery{Site: "site-3", State: "offered"}, 100},
		"stuck":       {operator.RolloutDeviceQuery{Stuck: true}, 100},
		"late":        {operator.RolloutDeviceQuery{Late: true}, 100},
		"control":     {operator.RolloutDeviceQuery{Control: true}, 100},
		"none of all": {operator.RolloutDeviceQuery{Wave: 2}, 0},
	} {
		if page, err := s.RolloutDevices(t.Context(), "digits-2-1", c.q); err != nil || page.Total != c.want {
			t.Errorf("%s: got %d, %v, want %d", name, page.Total, err, c.want)
		}
	}
	if _, err := s.RolloutDevices(t.Context(), "digits-2-1", operator.RolloutDeviceQuery{State: "broken"}); operator.CodeOf(err) != operator.Invalid {
		t.Errorf("a state that there is not: got %v, want %s", err, operator.Invalid)
	}
}

func TestRolloutDevice(t *testing.T) {
	w := newWorld()
	w.rollouts = []runner.View{view("digits-2-1", rollout.StatusRunning)}
	w.rollouts[0].Facts.Devices["new"] = &rollout.DeviceFacts{Selected: true, Site: "b"}
	s := w.service()
	for id, want := range map[string]struct{ state, why string }{
		"cam-b2": {"refused", "wave 1"},
		"cam-a1": {"waiting", "control group"},
		"new":    {"waiting", "in no wave yet"},
	} {
		if got, err := s.RolloutDevice(t.Context(), "digits-2-1", id); err != nil || got.State != want.state || !strings.Contains(got.Why, want.why) {
			t.Errorf("%s: got %+v, %v; want %s because of %q", id, got, err, want.state, want.why)
		}
	}
	w.rollouts[0].Facts.Devices["cam-b1"] = nil
	delete(w.rollouts[0].State.Devices, "cam-b1")
	delete(w.rollouts[0].Facts.Devices, "cam-b1")
	if got, err := s.RolloutDevice(t.Context(), "digits-2-1", "cam-b1"); err != nil || got.State != "" || !strings.Contains(got.Why, "do not match") {
		t.Errorf("a device without a part in it: got %+v, %v", got, err)
	}
	if _, err := s.RolloutDevice(t.Context(), "digits-2-1", "none"); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("no such device: got %v, want %s", err, operator.NotFound)
	}
}

func TestRolloutDecisions(t *testing.T) {
	w := newWorld()
	w.rollouts = []runner.View{large(10)}
	s := w.service()
	var got []uint64
	for p := (operator.Paging{Limit: 300}); ; {
		page, err := s.RolloutDecisions(t.Context(), "digits-2-1", p)
		if err != nil || page.Total != 1000 {
			t.Fatalf("got %+v, %v", page, err)
		}
		for _, d := range page.Items {
			got = append(got, d.Seq)
		}
		if p.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	if len(got) != 1000 || got[0] != 1000 || got[999] != 1 || !slices.IsSortedFunc(got, func(a, b uint64) int { return int(b) - int(a) }) {
		t.Errorf("got %d decisions from %d to %d, want 1000 to 1", len(got), got[0], got[len(got)-1])
	}
}

// counting counts how often a rollout is looked at.
type counting struct {
	Rollouts
	looks *int
}

func (c counting) Get(id string) (runner.View, error) {
	*c.looks++
	return c.Rollouts.Get(id)
}

// Many watchers cost one look a second, and see at once what the ledger has.
func TestLooksAreShared(t *testing.T) {
	w := newWorld()
	w.rollouts = []runner.View{view("digits-2-1", rollout.StatusRunning)}
	clock, n := now, 0
	l := newLooks(counting{worldRollouts{w}, &n}, func() time.Time { return clock })
	look := func(want int, when string) {
		t.Helper()
		for range 20 {
			if _, err := l.view("digits-2-1"); err != nil {
				t.Fatal(err)
			}
		}
		if n != want {
			t.Errorf("%s: looked %d times, want %d", when, n, want)
		}
	}
	look(1, "at first")
	clock = clock.Add(lookAge - time.Millisecond)
	look(1, "within the second")
	w.rollouts[0].Revision++
	look(2, "after a decision")
	clock = clock.Add(lookAge)
	look(3, "a second later")
	told := 0
	for range 20 {
		if _, err := l.rollout("digits-2-1", func(runner.View) *operator.Rollout { told++; return &operator.Rollout{} }); err != nil {
			t.Fatal(err)
		}
	}
	if told != 1 || n != 3 {
		t.Errorf("20 times the same answer: made %d times from %d looks, want once", told, n-2)
	}
	w.rollouts = nil
	if _, err := l.view("digits-2-1"); !errors.Is(err, runner.ErrNotFound) {
		t.Errorf("a rollout that is gone: got %v, want %v", err, runner.ErrNotFound)
	}
}

// A revision is made from what its author has seen.
func TestReviseFromAnOldRevision(t *testing.T) {
	w := newWorld()
	w.rollouts = []runner.View{view("digits-2-1", rollout.StatusRunning)}
	w.rollouts[0].State.Header.Revision = 2
	s, spec := w.service(), operator.RolloutSpec{Model: "digits", Version: "2"}
	for name, c := range map[string]struct {
		action operator.RolloutAction
		want   operator.Code
	}{
		"the newest":        {operator.RolloutAction{Action: operator.ActRevise, Spec: &spec, Number: new(2)}, ""},
		"any":               {operator.RolloutAction{Action: operator.ActRevise, Spec: &spec}, ""},
		"an old one":        {operator.RolloutAction{Action: operator.ActRevise, Spec: &spec, Number: new(1)}, operator.Stale},
		"another action":    {operator.RolloutAction{Action: operator.ActPause, Spec: &spec}, operator.Invalid},
		"names that obeyed": {operator.RolloutAction{Action: operator.ActRevise, Spec: &operator.RolloutSpec{Waves: []operator.WaveSpec{{Name: "a\x1b[2J"}}}}, operator.Invalid},
	} {
		c.action.Reason = "why"
		if _, err := s.ActOnRollout(as(t, operator.Operator), "digits-2-1", c.action); operator.CodeOf(err) != c.want {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// A look holds what is known of every device: one that nobody asks for goes.
func TestOldLooksAreForgotten(t *testing.T) {
	w := newWorld()
	w.rollouts = []runner.View{view("digits-2-1", rollout.StatusReverted), view("digits-3-1", rollout.StatusRunning)}
	clock := now
	l := newLooks(worldRollouts{w}, func() time.Time { return clock })
	for _, c := range []struct {
		id    string
		after time.Duration
		want  int
	}{{"digits-2-1", 0, 1}, {"digits-3-1", time.Second, 2}, {"digits-3-1", lookKept - time.Second, 2}, {"digits-3-1", time.Second, 1}} {
		clock = clock.Add(c.after)
		if _, err := l.view(c.id); err != nil {
			t.Fatal(err)
		}
		if len(l.last) != c.want {
			t.Errorf("%s after the first look: %d are kept, want %d", clock.Sub(now), len(l.last), c.want)
		}
	}
}
