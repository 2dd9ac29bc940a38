package dashboard

import (
	"context"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func (f *fleet) summary() operator.RolloutSummary {
	return operator.RolloutSummary{
		ID: "digits-2-1", Model: "digits", Version: "2", Release: digest2, State: operator.RolloutRunning, Cause: f.text("wave 2 is open"),
		Wave: 2, Waves: 3, Devices: 8, Counts: map[string]int{"healthy": 1, "active": 1, "downloading": 1, "offered": 1, "failed": 1, "waiting": 3},
		Created: now.Add(-time.Hour), Started: now.Add(-time.Hour), Since: now.Add(-time.Hour), CreatedBy: f.text("ada"),
	}
}

func (f *fleet) Rollouts(_ context.Context, q operator.RolloutQuery) (*operator.Page[operator.RolloutSummary], error) {
	ended := f.summary()
	ended.ID, ended.Version, ended.State, ended.Wave = "digits-1-1", "1", operator.RolloutCompleted, 3
	ended.Counts, ended.Cause = map[string]int{"healthy": 8}, "all waves have passed"
	items := []operator.RolloutSummary{f.summary()}
	if !q.Active {
		items = append(items, ended)
	}
	return &operator.Page[operator.RolloutSummary]{Items: items, Total: len(items)}, nil
}

// gates are one of each kind of answer.
func (f *fleet) gates() []operator.Gate {
	return []operator.Gate{
		{Kind: "golden", Result: "pass", Denominator: 3, From: now.Add(-time.Hour), To: now, Text: f.text("0 of 3 devices compute other outputs")},
		{Kind: "install", Result: "fail", Numerator: 1, Denominator: 3, Value: 1. / 3, Limit: 0.1, Text: "1 of 3 devices failed to install it"},
		{
			Kind: "latency", Result: "inconclusive", Value: 0.12, Limit: 0.5, Worse: 1, Fine: 5, EHarm: 3.2, EFine: 14, EControl: 1.4, Alpha: 0.01,
			From: now.Add(-time.Hour), To: now, Text: "1 of 6 devices is slower by more than 50 %",
		},
		{Kind: "errors", Result: "waived", Value: 0.03, Limit: 0.01, Worse: 6, EHarm: 2.5e6, EFine: 0.02, Alpha: 0.01, From: now.Add(-time.Hour), To: now, Text: "6 of 6 devices fail more rows"},
		{Kind: "accuracy", Result: "unproven", Limit: 0.02, Text: "too few labels until 2026-03-14T10:00:00Z"},
	}
}

func (f *fleet) spec() operator.RolloutSpec {
	soak := release.Duration(15 * time.Minute)
	s, err := defaultSpec("digits", "2")
	if err != nil {
		panic(err)
	}
	s.Selector = f.text("site!=x")
	s.Waves = []operator.WaveSpec{
		{Name: "canary", Count: 1, Soak: &soak, Quorum: 0.5, Lateness: release.Duration(time.Hour)},
		{Name: "half", Percent: 50, Soak: &soak, Quorum: 0.5, Lateness: release.Duration(time.Hour), Evidence: operator.EvidenceSpec{Devices: 2, Inferences: 5000, Hours: 1}},
		{Name: "all", Percent: 100, Soak: &soak, Quorum: 0.9, Lateness: release.Duration(time.Hour), Approval: true},
	}
	s.Budget = operator.Budget{InFlight: 2, Unavailable: []operator.UnavailableLimit{{Label: "site", Max: 1}}}
	s.Windows = []operator.WindowSpec{{Cron: "0 2 * * *", Duration: release.Duration(3 * time.Hour), TimeZone: f.text("device")}}
	return *s
}

func (f *fleet) waves() []operator.Wave {
	spec := f.spec()
	wave := func(n int, state string, devices ...operator.WaveDevice) operator.Wave {
		w := operator.Wave{Number: n, Name: f.text(spec.Waves[n-1].Name), State: state, Counts: map[string]int{}, Devices: devices, Spec: spec.Waves[n-1]}
		for _, d := range devices {
			w.Counts[d.State]++
		}
		return w
	}
	one := wave(1, "passed", operator.WaveDevice{Device: "cam-c2", State: "healthy", Site: "c", Old: "1"})
	one.Opened, one.Closed, one.Gates = now.Add(-time.Hour), now.Add(-30*time.Minute), f.gates()[:2]
	two := wave(
		2, "open", operator.WaveDevice{Device: "cam-a1", State: "downloading", Site: "a", Old: "1"}, operator.WaveDevice{Device: "cam-a3", State: "active", Site: "a", Old: "1"},
		operator.WaveDevice{Device: "cam-b2", State: "failed", Code: "golden_mismatch", Message: f.text("58 of 64 rows disagree"), Site: "b", Old: "1", Late: true},
		operator.WaveDevice{Device: "cam-c1", State: "offered", Site: "c", Late: true},
	)
	two.Opened, two.Deadline = now.Add(-20*time.Minute), now.Add(time.Hour)
	two.Late = map[string]int{"failed": 1, "offered": 1}
	two.Progress = operator.WaveProgress{Healthy: 0, Needed: 2, Counted: 4, Devices: 2, Inferences: 1234, Hours: 1. / 3}
	return []operator.Wave{one, two, wave(3, "pending")}
}

func (f *fleet) Rollout(_ context.Context, id string) (*operator.Rollout, error) {
	if id != "digits-2-1" {
		return nil, operator.Errorf(operator.NotFound, "there is no rollout %s", id)
	}
	spec := f.spec()
	before := spec
	before.Budget.InFlight = 1
	return &operator.Rollout{
		RolloutSummary: f.summary(), Spec: spec, Gates: f.gates(), WaveList: f.waves(),
		Control: []string{"cam-b1"}, ControlCounts: map[string]int{"waiting": 1}, Waiting: []string{"cam-a2"},
		Actions:  []string{operator.ActPause, operator.ActNext, operator.ActRollback, operator.ActAbort, operator.ActRevise},
		Revision: 40, Deadline: now.Add(6 * time.Hour), Overall: now.Add(100 * time.Hour),
		Stuck: []operator.WaveDevice{
			{Device: "cam-a1", State: "downloading", Site: "a", Since: now.Add(-9 * time.Minute), Deadline: now.Add(time.Hour), Heard: now.Add(-4 * time.Second), Wave: 2, Tries: 2, Why: f.text("downloading since 2026-03-14T09:17:53Z, in wave 2")},
			{Device: "cam-a3", State: "active", Site: "a", Since: now.Add(-3 * time.Minute), Heard: now.Add(-2 * time.Hour), Presence: operator.Offline, Wave: 2, Why: "seen to serve it, not yet for the soak time"},
		},
		StuckTotal: 3, WaitingTotal: 1, Decisions: 2, Returns: map[string]int{"1": 3, "": 1},
		Revisions: []operator.SpecRevision{
			{Seq: 38, At: now.Add(-time.Hour), Actor: "ada", Spec: before},
			{Number: 1, Seq: 39, At: now.Add(-time.Minute), Actor: f.text("olga"), Reason: f.text("two at a time is enough"), Spec: spec},
		},
		Timeline: []operator.Decision{
			{Seq: 40, At: now, Actor: "engine", Kind: "rollout.step", Hash: "8ce66c0e6e", Changes: []operator.Change{
				{Subject: "wave", Wave: 2, From: "pending", To: "open", Why: f.text("3 devices can be taken")},
				{Subject: "devices", Wave: 2, From: "waiting", To: "offered", Why: "offered the release", Devices: []string{"cam-a1"}},
				{Subject: "devices", Wave: 2, From: "waiting", To: "offered", Why: "offered the release", Devices: []string{"cam-a3"}},
			}},
			{Seq: 39, At: now, Actor: f.text("ada"), Kind: "rollout.action", Action: "start", Reason: f.text("new lenses at site b"), Text: "started"},
		},
	}, nil
}

func (f *fleet) RolloutDevices(ctx context.Context, id string, q operator.RolloutDeviceQuery) (*operator.Page[operator.WaveDevice], error) {
	x, err := f.Rollout(ctx, id)
	if err != nil {
		return nil, err
	}
	page := &operator.Page[operator.WaveDevice]{Items: x.Stuck, Total: 3}
	if q.Cursor == "" {
		page.Next = "cam-a3"
	}
	return page, nil
}

func (f *fleet) RolloutDevice(ctx context.Context, id, device string) (*operator.WaveDevice, error) {
	x, err := f.Rollout(ctx, id)
	if err != nil {
		return nil, err
	}
	out := x.Stuck[0]
	out.Device = device
	return &out, nil
}

func (f *fleet) RolloutDecisions(ctx context.Context, id string, p operator.Paging) (*operator.Page[operator.Decision], error) {
	x, err := f.Rollout(ctx, id)
	if err != nil {
		return nil, err
	}
	page := &operator.Page[operator.Decision]{Items: x.Timeline, Total: 4}
	if p.Cursor == "" {
		page.Next = "39"
	}
	return page, nil
}

func (f *fleet) ExplainRollout(context.Context, string) (*operator.Explanation, error) {
	return &operator.Explanation{ID: "digits-2-1", State: operator.RolloutRunning, Summary: f.text("wave 2 of 3 is open since 2026-03-14T09:00:00Z"), Waiting: []string{f.text("two devices must be seen healthy")}}, nil
}

func (f *fleet) PlanRollout(_ context.Context, s operator.RolloutSpec) (*operator.Plan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planned = append(f.planned, s)
	if s.Version == "9" {
		return nil, operator.Errorf(operator.NotFound, "there is no version 9")
	}
	return &operator.Plan{
		Spec: s, Release: digest2, Devices: 7, Control: []string{"cam-b1"}, Already: []string{"cam-c2"}, Bytes: 760_123, Expected: release.Duration(47 * time.Minute),
		Refused: map[string]string{"cam-a2": f.text("needs arm64")},
		Slow:    release.Duration(3 * time.Hour), Replays: 28, Unfinished: 2, FullBytes: 1 << 20, Unheard: []string{"cam-b3"},
		Unmet:     map[string]string{"cam-a3": f.text("on a metered link")},
		Conflicts: []operator.PlanConflict{{Rollout: "digits-1-4", Devices: 2, Outcome: "refused"}},
		Warnings:  []string{f.text("the first wave has 1 of 7 devices")},
		Waves: []operator.PlanWave{{
			Number: 1, Name: f.text("canary"), Devices: []string{"cam-c1"}, Profiles: map[string]int{f.text("raspberry-pi-5"): 1}, Sites: map[string]int{f.text("c"): 1},
			Bytes: 108_589, Expected: release.Duration(16 * time.Minute), Slow: release.Duration(20 * time.Minute), Stalls: []string{f.text("2 devices are away")}, Approval: true, Detectable: []operator.Detectable{{Kind: "latency", Limit: 0.5, Least: 0.8, Text: f.text("80 % or more would be seen")}},
		}},
	}, nil
}

func (f *fleet) CreateRollout(ctx context.Context, c operator.RolloutCreate) (*operator.Rollout, error) {
	err := f.did(ctx, "create %s %s on %q in %d waves, start %v, because %s", c.Spec.Model, c.Spec.Version, c.Spec.Selector, len(c.Spec.Waves), c.Start, c.Reason)
	if err != nil {
		return nil, err
	}
	return f.Rollout(ctx, "digits-2-1")
}

func (f *fleet) ActOnRollout(ctx context.Context, id string, a operator.RolloutAction) (*operator.Rollout, error) {
	if a.Spec != nil {
		return nil, f.did(ctx, "%s %s to %d at a time because %s", a.Action, id, a.Spec.Budget.InFlight, a.Reason)
	}
	return nil, f.did(ctx, "%s %s because %s", a.Action, id, a.Reason)
}

// crowd is a rollout of many devices on many sites in the second of its waves,
// as the service tells it: counts of all, and some of them one by one.
func crowd(n int) *operator.Rollout {
	x, _ := newFleet().Rollout(context.Background(), "digits-2-1")
	x.Devices, x.Counts, x.Returns = n, map[string]int{}, map[string]int{"1": n / 2}
	for i := range x.WaveList[:2] {
		gather(x, &x.WaveList[i], n/4*(i+1))
	}
	x.WaitingTotal = n - n/4*3
	x.Counts["waiting"] += x.WaitingTotal
	x.Waiting = make([]string, operator.MaxListed)
	x.ControlCounts = map[string]int{"waiting": n / 10}
	x.Stuck, x.StuckTotal = x.WaveList[1].Devices[:operator.MaxStuck], n/4
	x.Timeline, x.Decisions = nil, 3*n
	for i := range operator.MaxTimeline {
		d := operator.Decision{Seq: uint64(3*n - i), At: now, Actor: "engine", Changes: []operator.Change{{Subject: "wave", Wave: 2, To: "open"}}}
		for j := range 100 {
			ids := make([]string, operator.MaxNamed)
			for k := range ids {
				ids[k] = fmt.Sprintf("cam-%d-%05d", j, k)
			}
			d.Changes = append(d.Changes, operator.Change{Subject: "devices", Wave: 2, To: "offered", Why: fmt.Sprintf("the %d. reason", j%30), Devices: ids, Count: n / 4})
		}
		x.Timeline = append(x.Timeline, d)
	}
	return x
}

// gather puts devices into a wave.
func gather(x *operator.Rollout, w *operator.Wave, n int) {
	states := []string{"healthy", "healthy", "active", "downloading", "waiting", "offered", "trialing", "failed"}
	w.Devices, w.Counts, w.Late, w.Planned = nil, map[string]int{}, map[string]int{"offered": n / 50}, n
	for j := range n {
		state := states[j%len(states)]
		w.Counts[state]++
		x.Counts[state]++
		if len(w.Devices) < operator.MaxListed {
			w.Devices = append(w.Devices, operator.WaveDevice{
				Device: fmt.Sprintf("cam-%d-%05d", w.Number, j), Site: fmt.Sprintf("site-%03d", j%200), State: state, Old: "1",
				Since: now.Add(-time.Duration(j) * time.Second), Deadline: now.Add(time.Hour), Heard: now, Wave: w.Number,
				Why: "downloading since 2026-03-14T09:17:53Z, in wave 2",
			})
		}
	}
	w.More = n - len(w.Devices)
}
