package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Fleet knows the devices.
type Fleet interface {
	Device(id string) (fleet.Device, bool)
	Devices(match func(labels map[string]string) bool) []fleet.Device
	SetLabels(ctx context.Context, device string, c fleet.LabelChange, actor, reason string) error
	Revoke(ctx context.Context, device, actor, reason string) error
}

// Desired knows what every device should be, and what is asked of all.
type Desired interface {
	State(device string) desired.State
	FleetSettings() desired.Settings
	SetSettings(ctx context.Context, actor string, c desired.SettingsChange) error
}

// Revoker refuses a device's certificate and cuts its connection.
type Revoker interface {
	RevokeDevice(ctx context.Context, id, reason string) error
}

// Devices lists the fleet by id.
func (s *Service) Devices(_ context.Context, q operator.DeviceQuery) (*operator.Page[operator.Device], error) {
	selector, err := rollout.ParseSelector(q.Selector)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "selector: %w", err)
	}
	known := s.knowledge()
	list := []operator.Device{}
	for _, d := range s.d.Fleet.Devices(selector.Matches) {
		if out := s.device(&d, known); wanted(&out, &q) {
			list = append(list, out)
		}
	}
	return paginate(list, q.Paging, func(d *operator.Device) string { return d.ID })
}

// wanted applies those parts of a query that are no selector.
func wanted(d *operator.Device, q *operator.DeviceQuery) bool {
	if q.Presence != "" && d.Presence != q.Presence {
		return false
	}
	if q.Text != "" && !strings.Contains(d.ID, q.Text) && !containsValue(d.Labels, q.Text) {
		return false
	}
	if q.Model == "" && q.Release == nil {
		return true
	}
	return slices.ContainsFunc(d.Models, func(m operator.DeviceModel) bool {
		return (q.Model == "" || m.Model == q.Model) && (q.Release == nil || m.Active != nil && m.Active.Release == *q.Release)
	})
}

func containsValue(labels map[string]string, text string) bool {
	for _, v := range labels {
		if strings.Contains(v, text) {
			return true
		}
	}
	return false
}

// knowledge is what is known of devices outside of the fleet, gathered once for
// a whole list.
type knowledge struct {
	totals map[string][]drift.Total
	alarms map[string][]drift.Alarm // open ones about one device
	place  map[string]operator.DeviceInWave
}

func (s *Service) knowledge() *knowledge {
	k := &knowledge{totals: map[string][]drift.Total{}, alarms: map[string][]drift.Alarm{}, place: map[string]operator.DeviceInWave{}}
	for _, t := range s.d.Monitor.Totals() {
		k.totals[t.Device] = append(k.totals[t.Device], t)
	}
	for _, a := range s.d.Monitor.Alarms("") {
		if a.Device != "" && a.Raised() {
			k.alarms[a.Device] = append(k.alarms[a.Device], a)
		}
	}
	for _, v := range s.d.Rollouts.List() {
		if v.State.Header.Status.Final() || v.State.Header.Status == rollout.StatusDraft {
			continue
		}
		for id, d := range v.State.Devices {
			k.place[id] = operator.DeviceInWave{Rollout: v.State.ID, Wave: d.Wave, State: string(d.State)}
		}
	}
	return k
}

func (s *Service) device(d *fleet.Device, k *knowledge) operator.Device {
	want := s.d.Desired.State(d.ID)
	place := k.place[d.ID]
	out := operator.Device{
		ID: d.ID, Labels: d.Labels, Revision: strconv.FormatUint(d.Revision, 10), Site: d.Site(), Profile: d.Facts.Profile,
		Facts: deviceFacts(&d.Facts), Presence: operator.Presence(d.Presence), Enrolled: d.Enrolled, LastSeen: d.LastSeen,
		Models: s.deviceModels(d, want.Assignments), Outbox: operator.Outbox(d.Outbox),
		Generation: d.Generation, DesiredGeneration: want.Generation, AgentVersion: d.AgentVersion,
		BootCount: d.Boot.Count, BootUnclean: d.Boot.Unclean, DiskFreeBytes: d.DiskFreeBytes, RSSBytes: d.RSSBytes,
		Metered: d.Metered, Power: d.Power, Battery: d.Battery,
		Rollout: place.Rollout, RolloutState: place.State, RolloutWave: place.Wave,
		ClockOffsetMS: d.ClockOffset.Milliseconds(), ReportedAt: d.ReportedAt, ReportedProtocol: d.Protocol,
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if !d.Root.IsZero() {
		out.RootDigest = d.Root.String()
	}
	out.Marks = marks(d, k)
	out.Uncertain = slices.ContainsFunc(out.Marks, func(m operator.Mark) bool { return m.Kind == operator.MarkUncertain })
	return out
}

func deviceFacts(f *fleet.Facts) operator.Facts {
	return operator.Facts{
		OS: f.OS, Arch: f.Arch, Kernel: f.Kernel, Hostname: f.Hostname, CPUModel: f.CPUModel, CPUs: f.CPUs,
		MemoryBytes: f.MemoryBytes, DiskBytes: f.DiskBytes, Runtime: f.Runtime, RuntimeVersion: f.RuntimeVersion, Providers: f.Providers,
		TimeZone: f.TimeZone,
	}
}

// deviceModels joins what a device reports with what it is asked to run.
func (s *Service) deviceModels(d *fleet.Device, want []desired.Assignment) []operator.DeviceModel {
	out := []operator.DeviceModel{}
	for _, m := range d.Models {
		out = append(out, s.deviceModel(&m))
	}
	for _, w := range want {
		i := slices.IndexFunc(out, func(m operator.DeviceModel) bool { return m.Model == w.Model })
		if i < 0 {
			i = len(out)
			out = append(out, operator.DeviceModel{Model: w.Model})
		}
		out[i].Desired = s.refOrNil(w.Model, w.Release)
	}
	return out
}

func (s *Service) deviceModel(m *fleet.Model) operator.DeviceModel {
	out := operator.DeviceModel{
		Model: m.Name, Active: s.refOrNil(m.Name, m.Active), Previous: s.refOrNil(m.Name, m.Previous), Target: s.refOrNil(m.Name, m.Target),
		State: m.State, StateSince: m.StateSince, DoneBytes: m.DoneBytes, TotalBytes: m.TotalBytes, Serving: m.Serving,
		Starts: m.Starts, Provider: m.Provider, Waiting: m.Waiting,
	}
	if m.Outcome != nil {
		o := s.outcome(m.Name, m.Outcome)
		out.Outcome = &o
	}
	for i := range m.Refused {
		out.Refused = append(out.Refused, s.outcome(m.Name, &m.Refused[i]))
	}
	if c := m.Challenger; c != nil {
		out.Challenger = &operator.Challenger{DeviceModel: s.deviceModel(&c.Model), Share: c.Share}
		out.Challenger.Role = c.Role
	}
	if t := m.Trial; t != nil {
		out.Trial = &operator.Trial{
			Release: s.ref(m.Name, t.Release), GoldenRows: t.GoldenRows, GoldenWrong: t.GoldenWrong, GoldenWorst: t.GoldenWorst,
			P95US: t.P95US, PeakBytes: t.PeakBytes, Provider: t.Provider, RuntimeVersion: t.RuntimeVersion,
		}
		for _, one := range t.Tried {
			out.Trial.Tried = append(out.Trial.Tried, operator.Tried(one))
		}
	}
	return out
}

func (s *Service) outcome(model string, o *fleet.Outcome) operator.Outcome {
	return operator.Outcome{
		Release: s.ref(model, o.Release), Result: o.Result, Code: o.Code, Message: o.Message, Generation: o.Generation, At: o.At,
	}
}

// scarce is what a device keeps free of downloads, in bytes (agent/pull).
const scarce = 32 << 20

// marks are what a person should see about a device, the worst first.
func marks(d *fleet.Device, k *knowledge) []operator.Mark {
	var out []operator.Mark
	add := func(kind, message string, since time.Time) {
		out = append(out, operator.Mark{Kind: kind, Message: message, Since: since})
	}
	if d.Revoked != nil {
		add(operator.MarkRevoked, "revoked by "+d.Revoked.Actor+": "+d.Revoked.Reason, d.Revoked.At)
	}
	if d.Cloned != nil {
		add(operator.MarkCloned, "two installations use this identity: enrol one of them anew", d.Cloned.At)
	}
	lossMarks(k.totals[d.ID], add)
	for _, a := range k.alarms[d.ID] {
		if a.Kind == drift.SensorAlarm {
			add(operator.MarkSensorFault, a.Message, fromMS(a.RaisedMS))
		}
	}
	for _, m := range d.Models {
		modelMarks(&m, add)
	}
	if free := d.DiskFreeBytes; free < scarce && d.Facts.DiskBytes > 0 && !d.ReportedAt.IsZero() {
		add(operator.MarkDiskFull, fmt.Sprintf("its disk has %d MiB free: it goes on serving, but takes no release and may not keep what it counts; free some and it goes on by itself", free>>20), time.Time{})
	}
	if d.Boot.Unclean {
		add(operator.MarkUnclean, "the agent's last run ended without a clean stop", d.Boot.Seen)
	}
	return out
}

func lossMarks(totals []drift.Total, add func(kind, message string, since time.Time)) {
	var uncertain uint64
	for _, t := range totals {
		uncertain += t.Uncertain
		if t.LostRecords > 0 || t.UnknownLoss {
			add(operator.MarkLost, fmt.Sprintf("%d records with %d predictions are lost", t.LostRecords, t.LostRows), time.Time{})
		}
	}
	if uncertain > 0 {
		add(operator.MarkUncertain, fmt.Sprintf("the time of %d predictions is not known: its clock was wrong", uncertain), time.Time{})
	}
}

func modelMarks(m *fleet.Model, add func(kind, message string, since time.Time)) {
	if o := m.Outcome; o != nil && o.Code == "crash_loop" {
		add(operator.MarkCrashLoop, m.Name+" kept crashing and was taken back: "+o.Message, o.At)
	}
	for _, r := range m.Refused {
		add(operator.MarkRefused, fmt.Sprintf("refuses %s %s: %s", m.Name, r.Release.Short(), firstOf(r.Message, r.Code)), r.At)
	}
}

// fleetError gives an answer of the fleet its code.
func fleetError(err error) error {
	var code operator.Code
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fleet.ErrNotFound):
		code = operator.NotFound
	case errors.Is(err, fleet.ErrStale):
		code = operator.Stale
	case errors.Is(err, protocol.ErrLabel):
		code = operator.Invalid
	default:
		return err
	}
	return operator.Errorf(code, "%w", err)
}

func unknownDevice(id string) error {
	return operator.Errorf(operator.NotFound, "there is no device %s", id).WithHint(`list them with "vedette device list"`)
}

// Device is everything about one device.
func (s *Service) Device(_ context.Context, id string) (*operator.DeviceDetail, error) {
	d, ok := s.d.Fleet.Device(id)
	if !ok {
		return nil, unknownDevice(id)
	}
	k := s.knowledge()
	out := &operator.DeviceDetail{
		Device: s.device(&d, k), Totals: []operator.Total{}, Drift: s.deviceDrift(id),
		Epochs: []operator.Epoch{}, Events: []operator.DeviceEvent{}, Rollouts: s.deviceRollouts(id),
	}
	for _, t := range k.totals[id] {
		if t.Model != "" {
			out.Totals = append(out.Totals, s.total(t))
		}
		if t.LostRecords > 0 || t.UnknownLoss {
			out.Lost = &operator.Loss{Device: id, Records: t.LostRecords, Rows: t.LostRows, Labels: t.LostLabels, Unknown: t.UnknownLoss}
		}
	}
	for _, e := range d.Epochs {
		out.Epochs = append(out.Epochs, operator.Epoch{ID: e.ID, Sent: e.Sent, Acknowledged: e.Acked, Current: e.Current})
	}
	for _, e := range d.Events {
		out.Events = append(out.Events, deviceEvent(id, &e))
	}
	return out, nil
}

func deviceEvent(device string, e *fleet.Event) operator.DeviceEvent {
	out := operator.DeviceEvent{
		Device: device, Kind: e.Kind, Model: e.Model, Message: e.Message, Attributes: e.Attributes, At: e.At, Received: e.Received,
	}
	if !e.Release.IsZero() {
		out.Release = &e.Release
	}
	return out
}

// deviceDrift is one device's row of the heat map of each release it serves.
func (s *Service) deviceDrift(id string) []operator.DeviceDrift {
	out := []operator.DeviceDrift{}
	for _, score := range s.d.Monitor.Scores("") {
		for i := range score.Devices {
			if score.Devices[i].Device == id {
				out = append(out, deviceDrift(s.ref(score.Model, score.Release), &score.Devices[i]))
			}
		}
	}
	return out
}

// deviceRollouts are the rollouts that a device is or was part of, newest first.
func (s *Service) deviceRollouts(id string) []operator.DeviceInWave {
	out := []operator.DeviceInWave{}
	for _, v := range s.d.Rollouts.List() {
		if d, ok := v.State.Devices[id]; ok {
			out = append(out, operator.DeviceInWave{Rollout: v.State.ID, Wave: d.Wave, State: string(d.State)})
		}
	}
	return out
}

// SetLabels sets and removes labels.
func (s *Service) SetLabels(ctx context.Context, id string, c operator.LabelChange) (*operator.Device, error) {
	p, err := commander(ctx, operator.Operator, c.Reason)
	if err != nil {
		return nil, err
	}
	change := fleet.LabelChange{Set: c.Set, Remove: c.Remove}
	if c.Revision != "" {
		if change.Revision, err = strconv.ParseUint(c.Revision, 10, 64); err != nil {
			return nil, operator.Errorf(operator.Invalid, "revision %.40q is not one of a device", c.Revision)
		}
	}
	if err := s.d.Fleet.SetLabels(ctx, id, change, p.Name, c.Reason); err != nil {
		return nil, fleetError(err)
	}
	d, _ := s.d.Fleet.Device(id)
	out := s.device(&d, s.knowledge())
	return &out, nil
}

// RevokeDevice refuses a device's certificate from now on.
func (s *Service) RevokeDevice(ctx context.Context, id string, c operator.Reasoned) error {
	p, err := commander(ctx, operator.Admin, c.Reason)
	if err != nil {
		return err
	}
	if _, ok := s.d.Fleet.Device(id); !ok {
		return unknownDevice(id)
	}
	// The certificate first: a mark without a cut connection would be a lie.
	if err := s.d.Access.RevokeDevice(ctx, id, c.Reason); err != nil {
		return err
	}
	return fleetError(s.d.Fleet.Revoke(ctx, id, p.Name, c.Reason))
}

// running counts the devices of every release.
func (s *Service) running() map[release.Digest]*operator.Running {
	out := map[release.Digest]*operator.Running{}
	at := func(d release.Digest) *operator.Running {
		if out[d] == nil {
			out[d] = &operator.Running{Sites: map[string]int{}}
		}
		return out[d]
	}
	for _, d := range s.d.Fleet.Devices(nil) {
		for _, m := range d.Models {
			if !m.Active.IsZero() {
				r := at(m.Active)
				r.Active++
				r.Sites[d.Site()]++
				r.Devices = append(r.Devices, d.ID)
			}
			for _, f := range failures(&m) {
				at(f).Failed++
			}
		}
		for _, a := range s.d.Desired.State(d.ID).Assignments {
			at(a.Release).Desired++
		}
	}
	return out
}

// failures are the releases that a device refuses or has gone back from, each
// once.
func failures(m *fleet.Model) []release.Digest {
	var out []release.Digest
	for _, r := range m.Refused {
		out = append(out, r.Release)
	}
	if o := m.Outcome; o != nil && o.Result != "active" && o.Result != "superseded" && !slices.Contains(out, o.Release) {
		out = append(out, o.Release)
	}
	return out
}
