package dashboard

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// now is the moment at which all that the fake tells is true.
var now = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)

// fleet is a control plane of eight cameras on three sites that read digits:
// site b has drifted, camera a2 has a dead row of pixels, and version 2 is in
// the second of its waves.
type fleet struct {
	Service // nil: what the pages do not call is not there

	hostile string // put wherever a device or an operator chooses the text

	mu      sync.Mutex // guards all below
	actions []string
	planned []operator.RolloutSpec // specs whose plan was asked for
	refuse  error                  // given by every command

	changed chan operator.Event // told to followers
}

func newFleet() *fleet { return &fleet{changed: make(chan operator.Event)} }

var (
	digest1 = release.DigestOf([]byte("digits 1"))
	digest2 = release.DigestOf([]byte("digits 2"))
	ref1    = operator.ReleaseRef{Model: "digits", Version: "1", Release: digest1}
	ref2    = operator.ReleaseRef{Model: "digits", Version: "2", Release: digest2}
)

func (f *fleet) text(s string) string {
	if f.hostile != "" {
		return f.hostile
	}
	return s
}

func (f *fleet) device(id, site string) operator.Device {
	return operator.Device{
		ID: id, Labels: map[string]string{"site": site, "line": f.text("packing")}, Revision: "7", Site: site, Profile: "raspberry-pi-5",
		Facts:    operator.Facts{OS: "linux", Arch: "arm64", CPUs: 4, MemoryBytes: 8 << 30, Runtime: "onnxruntime", RuntimeVersion: "1.30.0", Kernel: f.text("6.12")},
		Presence: operator.Online, Enrolled: now.Add(-72 * time.Hour), LastSeen: now.Add(-3 * time.Second), Generation: 41, DesiredGeneration: 42,
		AgentVersion: f.text("0.1.0"), BootCount: 5, DiskFreeBytes: 12 << 30, RSSBytes: 48 << 20, ReportedAt: now, ClockOffsetMS: -4200,
		Models: []operator.DeviceModel{{
			Model: "digits", Active: &ref1, Desired: &ref2, Target: &ref2, State: "downloading", StateSince: now.Add(-time.Minute),
			DoneBytes: 700_000, TotalBytes: 1_400_000, Waiting: f.text("not enough room"), Serving: true, Provider: f.text("CPUExecutionProvider"),
			Outcome: &operator.Outcome{Release: ref1, Result: "active", Message: f.text(""), At: now.Add(-time.Hour)},
			Challenger: &operator.Challenger{Share: 200, DeviceModel: operator.DeviceModel{
				Model: "digits", Role: operator.Shadow, Active: &ref2, State: "idle", Serving: true, Waiting: f.text("its primary"),
			}},
			Trial: &operator.Trial{Release: ref1, GoldenRows: 64, GoldenWorst: 9.1e-07, P95US: 412, PeakBytes: 14 << 20, Tried: []operator.Tried{
				{Variant: "fp32", Provider: "CPUExecutionProvider", P95US: 412, PeakBytes: 14 << 20, Chosen: true},
				{Variant: f.text("fp32"), Provider: f.text("WebGpuExecutionProvider"), Code: f.text("no_provider"), Message: f.text("no Vulkan driver")},
			}},
		}},
		Outbox: operator.Outbox{Bytes: 5120, Pending: 3, Sent: 1},
	}
}

func (f *fleet) all() []operator.Device {
	var out []operator.Device
	for site, n := range map[string]int{"a": 3, "b": 3, "c": 2} {
		for i := range n {
			out = append(out, f.device(fmt.Sprintf("cam-%s%d", site, i+1), site))
		}
	}
	slices.SortFunc(out, func(a, b operator.Device) int { return slices.Compare([]byte(a.ID), []byte(b.ID)) })
	out[1].Marks = []operator.Mark{{Kind: operator.MarkSensorFault, Message: f.text("apart from its cohort"), Since: now.Add(-time.Hour)}}
	out[7].Presence = operator.Offline
	return out
}

func (f *fleet) Devices(_ context.Context, q operator.DeviceQuery) (*operator.Page[operator.Device], error) {
	items := slices.DeleteFunc(f.all(), func(d operator.Device) bool { return q.Presence != "" && d.Presence != q.Presence })
	page := &operator.Page[operator.Device]{Items: items, Total: len(items)}
	if q.Cursor == "" {
		page.Next = "cam-c2"
	}
	return page, nil
}

func (f *fleet) Device(_ context.Context, id string) (*operator.DeviceDetail, error) {
	for _, d := range f.all() {
		if d.ID == id {
			return &operator.DeviceDetail{
				Device:   d,
				Totals:   []operator.Total{{Device: id, Model: "digits", Version: "1", Release: digest1, Rows: 71_020, Labels: 70_890, Matched: 70_000, Correct: 51_731}},
				Drift:    []operator.DeviceDrift{f.deviceDrift(id, d.Site)},
				Lost:     &operator.Loss{Device: id, Records: 2, Rows: 120, Unknown: true},
				Epochs:   []operator.Epoch{{ID: "5d41402abc4b2a76b9719d911017c592", Sent: 88, Acknowledged: 87, Current: true}},
				Events:   []operator.DeviceEvent{{Device: id, Kind: "boot_unclean", Message: f.text("the power was cut"), Received: now.Add(-time.Hour)}},
				Rollouts: []operator.DeviceInWave{{Rollout: "digits-2-1", Wave: 2, State: "downloading"}},
			}, nil
		}
	}
	return nil, operator.Errorf(operator.NotFound, "there is no device %s", id).WithHint("list them")
}

// cells are 64 pixels and three outputs. Bad ones are far from training.
func cells(bad func(pixel int) bool, cohort bool) []operator.DriftCell {
	var out []operator.DriftCell
	for i := range 64 {
		c := operator.DriftCell{Feature: fmt.Sprintf("p%d%d", i/8, i%8), Side: "input", PSI: 0.01 * float64(i%6), Noise: 0.06, Rows: 750, Enough: true}
		if bad(i) {
			c.PSI, c.Apart = 2.5+float64(i%5), true
			if cohort {
				c.CohortPSI, c.CohortApart = c.PSI, true
			}
		}
		out = append(out, c)
	}
	for _, name := range []string{"class", "confidence", "entropy"} {
		out = append(out, operator.DriftCell{Feature: name, Side: "output", PSI: 0.11, Noise: 0.05, Rows: 750, Enough: true})
	}
	return out
}

func (f *fleet) deviceDrift(id, site string) operator.DeviceDrift {
	d := operator.DeviceDrift{ReleaseRef: ref1, Device: id, Cohort: site, Verdict: operator.VerdictOK, Text: f.text("as in training"), Rows: 750}
	none, row, every := func(int) bool { return false }, func(i int) bool { return i/8 == 3 }, func(int) bool { return true }
	switch {
	case id == "cam-a2":
		d.Verdict, d.Cells, d.MaxPSI = operator.VerdictSensorFault, cells(row, true), 6.5
	case site == "b":
		d.Verdict, d.Cells, d.MaxPSI = operator.VerdictDrift, cells(every, false), 6.5
	default:
		d.Cells, d.MaxPSI = cells(none, false), 0.05
	}
	return d
}

func (f *fleet) Drift(_ context.Context, model string) (*operator.Drift, error) {
	if model != "digits" {
		return nil, operator.Errorf(operator.NotFound, "there is no model %s", model)
	}
	r := operator.DriftRelease{ReleaseRef: ref1}
	for _, site := range []string{"a", "b", "c"} {
		c := operator.CohortDrift{
			Cohort: site, Verdict: operator.VerdictOK, Text: f.text("as in training"), Rows: 2250, From: now.Add(-time.Hour), To: now,
			Accuracy: operator.Accuracy{Labels: 900, Correct: 880, Accuracy: 0.978, Lower: 0.95, Upper: 0.99, Floor: 0.9, Verdict: operator.VerdictOK},
			Cells:    cells(func(int) bool { return site == "b" }, false),
		}
		if site == "b" {
			c.Verdict, c.Drifted, c.MaxPSI = operator.VerdictDrift, 3, 6.5
			c.Accuracy.Accuracy, c.Accuracy.Verdict = 0.64, operator.VerdictBreach
		}
		for _, d := range f.all() {
			if d.Site == site {
				c.Devices = append(c.Devices, f.deviceDrift(d.ID, site))
			}
		}
		r.Cohorts = append(r.Cohorts, c)
	}
	return &operator.Drift{Model: model, Threshold: 0.2, CohortBy: "site", Releases: []operator.DriftRelease{r}, AsOf: now}, nil
}

func (f *fleet) alarmList() []operator.Alarm {
	return []operator.Alarm{
		{ID: "1", Kind: operator.AlarmDrift, Model: "digits", Version: "1", Release: digest1, Cohort: "b", Text: f.text("site b has left the training data"), Raised: now.Add(-time.Hour)},
		{ID: "2", Kind: operator.AlarmSensorFault, Model: "digits", Version: "1", Release: digest1, Cohort: "a", Device: "cam-a2", Text: f.text("device cam-a2 has left its cohort"), Raised: now.Add(-time.Hour)},
		{ID: "3", Kind: operator.AlarmAccuracy, Model: "digits", Version: "1", Release: digest1, Cohort: "b", Text: "below its floor", Raised: now.Add(-2 * time.Hour), Cleared: now, Reason: "superseded"},
	}
}

func (f *fleet) Alarms(_ context.Context, q operator.AlarmQuery) (*operator.Page[operator.Alarm], error) {
	list := f.alarmList()
	if q.Open {
		list = list[:2]
	}
	return &operator.Page[operator.Alarm]{Items: list, Total: len(list)}, nil
}

func (f *fleet) Quality(context.Context, operator.QualityQuery) (*operator.Quality, error) {
	out := &operator.Quality{Model: "digits", Floor: 0.9, Threshold: 0.2, AsOf: now}
	for _, site := range []string{"a", "b", "c"} {
		s := operator.QualitySeries{ReleaseRef: ref1, Cohort: site, Step: release.Duration(5 * time.Minute)}
		for i := range 48 {
			right := uint64(240)
			if site == "b" && i > 30 {
				right = 160
			}
			accuracy, psi := float64(right)/250, 0.04
			s.Points = append(s.Points, operator.QualityPoint{
				At: now.Add(time.Duration(i-48) * 5 * time.Minute), Rows: 260, Labels: 250, Correct: right, Accuracy: &accuracy, PSI: &psi,
			})
		}
		out.Series = append(out.Series, s)
	}
	return out, nil
}

func (f *fleet) Overview(ctx context.Context) (*operator.Overview, error) {
	models, _ := f.Models(ctx)
	list, _ := f.Rollouts(ctx, operator.RolloutQuery{})
	accuracy := 0.978
	o := &operator.Overview{
		Devices: 8, Online: 7, Offline: 1, Marked: 1, Models: models, Rollouts: list.Items, Alarms: f.alarmList()[:2],
		Rows: 1_234_567, Labels: 1_200_000, LostRows: 120, AsOf: now,
	}
	for _, site := range []string{"a", "b", "c"} {
		o.Sites = append(o.Sites, operator.SiteOverview{
			Site: site, Devices: 3, Online: 3, Versions: map[string]int{"digits 1": 2, "digits 2": 1}, Verdict: operator.VerdictOK, Accuracy: &accuracy,
		})
	}
	o.Sites[1].Verdict = operator.VerdictDrift
	return o, nil
}

func (f *fleet) versions() []operator.Version {
	v := operator.Version{Model: "digits", Version: "2", Release: digest2, Sequence: 2, Stage: operator.StageStaging, Revision: "3", Size: 108_589, Published: now, Author: f.text("grace"), Running: operator.Running{Active: 1, Sites: map[string]int{"c": 1}, Devices: []string{"cam-c2"}}}
	old := v
	old.Version, old.Release, old.Stage, old.BelowFloor = "1", digest1, operator.StageProduction, true
	return []operator.Version{v, old}
}

func (f *fleet) Models(context.Context) ([]operator.Model, error) {
	return []operator.Model{{Name: "digits", Versions: 2, Latest: &f.versions()[0], Production: "1", Devices: 8, Alarms: 2, Updated: now}}, nil
}

func (f *fleet) Model(ctx context.Context, name string) (*operator.ModelDetail, error) {
	list, _ := f.Models(ctx)
	if name != list[0].Name {
		return nil, operator.Errorf(operator.NotFound, "there is no model %s", name)
	}
	return &operator.ModelDetail{Model: list[0], List: f.versions()}, nil
}

func (f *fleet) Challenge(context.Context, string) (*operator.ChallengeDetail, error) {
	evidence := operator.Versus{
		Rows: 48_211, Calls: 48_211, Compared: 48_211, Agreed: 46_572, Skipped: 310, Worst: 0.8123,
		Agreement: &operator.Proportion{Share: 0.966, Lower: 0.9643, Upper: 0.9676}, P50US: 131, P95US: 402, PrimaryP50US: 118, PrimaryP95US: 371,
		Labels: 9_120, Accuracy: &operator.Proportion{Share: 0.943, Lower: 0.938, Upper: 0.9476},
		PrimaryLabels: 9_120, PrimaryAccuracy: &operator.Proportion{Share: 0.931, Lower: 0.9256, Upper: 0.936},
	}
	return &operator.ChallengeDetail{
		Challenge: operator.Challenge{
			Model: "digits", Version: "2", Release: digest2, Role: operator.Shadow, Share: 200, Selector: f.text("site=c"), Reason: f.text("is it better at night"),
			Actor: f.text("ada"), Since: now.Add(-26 * time.Hour), Decision: 41, Devices: 2, Running: 1, Evidence: evidence, Test: f.challengeTest(),
		},
		List: []operator.ChallengeDevice{
			{Device: "cam-c1", Site: "c", Primary: &ref1, State: "idle", Running: true, Evidence: evidence},
			{Device: "cam-c2", Site: "c", Primary: &ref1, State: "idle", Waiting: f.text("the same release is the primary one here"), Outcome: &operator.Outcome{Release: ref2, Result: "refused", Code: f.text("golden_mismatch"), Message: f.text("4 of 64 rows differ")}},
			{Device: "cam-c3", Site: "c", Primary: &ref1, Outcome: &operator.Outcome{Release: ref2, Result: "reverted", Code: "crash_loop", Message: "the agent crashed 3 times"}},
		},
	}, nil
}

func (f *fleet) SetChallenge(ctx context.Context, model string, n operator.ChallengeCreate) (*operator.Challenge, error) {
	return nil, f.did(ctx, "%s %s as %s of %d on %q because %s", model, n.Version, n.Role, n.Share, n.Selector, n.Reason)
}

func (f *fleet) EndChallenge(ctx context.Context, model string, r operator.Reasoned) (*operator.Challenge, error) {
	return nil, f.did(ctx, "end challenge of %s because %s", model, r.Reason)
}

func (f *fleet) Version(_ context.Context, _, version string) (*operator.VersionDetail, error) {
	for _, v := range f.versions() {
		if v.Version == version {
			return &operator.VersionDetail{
				Version:   v,
				Manifest:  &release.Manifest{Lineage: release.Lineage{Author: f.text("grace")}},
				Signature: operator.Signature{Targets: 4, Threshold: 2, KeyIDs: []string{"abcdef0123456789", "0123456789abcdef"}, Expires: now.Add(90 * 24 * time.Hour)},
				Baseline:  operator.BaselineInfo{Rows: 1257, Streams: []string{"p00", "class"}},
				StageLog:  []operator.StageChanged{{From: operator.StageNone, To: operator.StageStaging, Actor: "grace", Reason: f.text("looks good"), At: now}},
			}, nil
		}
	}
	return nil, operator.Errorf(operator.NotFound, "there is no version %s", version)
}

func (f *fleet) RetrainEvents(_ context.Context, q operator.RetrainQuery) (*operator.Page[operator.RetrainEvent], error) {
	all := []operator.RetrainEvent{
		{
			ID: "r1", Model: "digits", Version: "1", At: now, State: "failed", Cause: "drift", Condition: "inputs-moved", Text: f.text("inputs of b are away from training for 1h0m0s"),
			Cohorts: []string{f.text("b")}, Alarm: f.alarmList()[0], Tag: "vedette.retrain=r1",
			Deliveries: []operator.Delivery{
				{Target: f.text("https://ci.example/retrain"), Attempts: 20, Error: f.text("answered 503 Service Unavailable"), Last: now},
				{Target: "nats:ml.retrain", Attempts: 1, Done: true, Last: now},
			},
		},
		{
			ID: "r0", Model: "digits", Version: "1", At: now.Add(-50 * time.Hour), State: "rolled_out", Cause: "schedule", Text: "asked for by schedule: 0 3 * * 1 Europe/Berlin",
			Alarm: f.alarmList()[0], Tag: "vedette.retrain=r0", Answer: &operator.RetrainAnswer{Version: "2", Release: f.text("2"), At: now.Add(-40 * time.Hour), Text: f.text("rollout digits-2-1 is completed")},
		},
	}
	if q.Dead {
		all = all[:1]
	}
	return &operator.Page[operator.RetrainEvent]{Items: all, Total: len(all)}, nil
}

func (f *fleet) RetrainEvent(_ context.Context, id string) (*operator.RetrainEvent, error) {
	page, err := f.RetrainEvents(context.Background(), operator.RetrainQuery{})
	if err != nil || id != page.Items[0].ID {
		return nil, operator.Errorf(operator.NotFound, "there is no request %s", id)
	}
	return &page.Items[0], nil
}

func (f *fleet) RetrainPolicy(context.Context, string) (*operator.RetrainPolicy, error) {
	return &operator.RetrainPolicy{
		Model: "digits", OnDrift: true, AccuracyFloor: 0.9, Cooldown: release.Duration(6 * time.Hour), MaxOpen: 3, Subject: "ml.retrain",
		When: []operator.RetrainWhen{
			{Name: "moved", Drift: &operator.DriftWhen{Above: 0.25, Features: 2, Of: []string{"p00", "p01"}}, For: release.Duration(time.Hour), Groups: 2, Share: 0.5},
			{Name: "wrong", Accuracy: &operator.AccuracyWhen{Below: 0.9}, Level: "fleet"},
		},
		Schedule: &operator.RetrainSchedule{Cron: "0 3 * * 1", TimeZone: "Europe/Berlin"}, Webhooks: []string{f.text("https://ci.example/retrain")},
	}, nil
}

func (f *fleet) Ledger(_ context.Context, q operator.LedgerQuery) (*operator.Page[operator.LedgerRecord], error) {
	return &operator.Page[operator.LedgerRecord]{Items: []operator.LedgerRecord{{
		Seq: 40, Chain: "rollout.digits-2-1", Index: 4, Kind: "rollout.step", Actor: f.text("engine"), At: now,
		Body: fmt.Appendf(nil, `{"note":%q}`, f.text("fine")), Hash: "8ce66c0e6e25352dc522",
	}}, Total: 40, Next: "40"}, nil
}

func (f *fleet) ExportLedger(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, `{"seq":1}`+"\n")
	return err
}

func (f *fleet) EnrolTokens(context.Context) ([]operator.EnrolToken, error) {
	return []operator.EnrolToken{{ID: "t-1", Labels: map[string]string{"site": f.text("a")}, Uses: 3, Used: []string{"cam-a1"}, Created: now, CreatedBy: f.text("ada"), Expires: now.Add(time.Hour)}}, nil
}

func (f *fleet) Server(context.Context) (*operator.ServerInfo, error) {
	return &operator.ServerInfo{Version: f.text("0.1.0"), Started: now, DeviceAPI: "https://192.0.2.1:8443", MQTT: []string{"mqtts://192.0.2.1:8883"}, CASHA256: digest1.String()}, nil
}

// Follow tells what is sent to f.changed.
func (f *fleet) Follow(ctx context.Context, _ []string, _ uint64, fn func(operator.Event) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-f.changed:
			if err := fn(e); err != nil {
				return err
			}
		}
	}
}

// did notes a command by whoever is signed in.
func (f *fleet) did(ctx context.Context, format string, args ...any) error {
	p, _ := operator.PrincipalOf(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return f.refuse
	}
	f.actions = append(f.actions, p.Name+": "+fmt.Sprintf(format, args...))
	return nil
}

func (f *fleet) SetLabels(ctx context.Context, id string, c operator.LabelChange) (*operator.Device, error) {
	return nil, f.did(ctx, "labels of %s at %s: set %v remove %v because %s", id, c.Revision, c.Set, c.Remove, c.Reason)
}

func (f *fleet) RevokeDevice(ctx context.Context, id string, c operator.Reasoned) error {
	return f.did(ctx, "revoke %s because %s", id, c.Reason)
}

func (f *fleet) SetStage(ctx context.Context, model, version string, c operator.StageChange) (*operator.Version, error) {
	return nil, f.did(ctx, "%s %s to %s at %s because %s", model, version, c.Stage, c.Revision, c.Reason)
}

func (f *fleet) RevokeEnrolToken(ctx context.Context, id string) error {
	return f.did(ctx, "revoke token %s", id)
}
