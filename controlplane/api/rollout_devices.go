package api

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// troubleFirst is the order in which a wave shows its devices when it cannot
// show all.
var troubleFirst = []rollout.DeviceState{
	rollout.DeviceFailed, rollout.DeviceReverted, rollout.DeviceRefused, rollout.DeviceTrialing, rollout.DeviceVerifying,
	rollout.DeviceDownloading, rollout.DeviceOffered, rollout.DeviceShadowing, rollout.DeviceActive, rollout.DeviceWaiting,
	rollout.DeviceSuperseded, rollout.DeviceHealthy,
}

// members are the devices of one wave, by state.
type members map[rollout.DeviceState][]string

// membersOf sorts the devices of a rollout by wave; 0 is none yet.
func membersOf(s *rollout.State) []members {
	out := make([]members, len(s.Waves)+1)
	for i := range out {
		out[i] = members{}
	}
	for id, d := range s.Devices {
		if d.Wave < len(out) {
			out[d.Wave][d.State] = append(out[d.Wave][d.State], id)
		}
	}
	return out
}

// first are at most so many of the members, those in trouble before the others.
func (m members) first(most int) []string {
	var out []string
	for _, state := range troubleFirst {
		if len(out) == most {
			break
		}
		ids := m[state]
		slices.Sort(ids)
		out = append(out, ids[:min(len(ids), most-len(out))]...)
	}
	return out
}

func (m members) len() (n int) {
	for _, ids := range m {
		n += len(ids)
	}
	return n
}

// listed are at most operator.MaxListed ids, in order.
func listed(ids []string) []string {
	slices.Sort(ids)
	return ids[:min(len(ids), operator.MaxListed)]
}

// RolloutDevices lists the devices of a rollout.
func (s *Service) RolloutDevices(_ context.Context, id string, q operator.RolloutDeviceQuery) (*operator.Page[operator.WaveDevice], error) {
	v, err := s.looks.view(id)
	if err != nil {
		return nil, rolloutError(err)
	}
	if q.State != "" && !slices.Contains(troubleFirst, rollout.DeviceState(q.State)) {
		return nil, operator.Errorf(operator.Invalid, "no device is ever %.40q", q.State).WithHint("states are %v", troubleFirst)
	}
	ids := chosen(v, &q)
	slices.Sort(ids)
	page, err := paginate(ids, q.Paging, func(id *string) string { return *id })
	if err != nil {
		return nil, err
	}
	out := &operator.Page[operator.WaveDevice]{Items: make([]operator.WaveDevice, len(page.Items)), Next: page.Next, Total: page.Total}
	explain := s.explainer(v)
	for i, id := range page.Items {
		out.Items[i] = explain(id)
	}
	return out, nil
}

// chosen are the devices that a query selects.
func chosen(v runner.View, q *operator.RolloutDeviceQuery) []string {
	ids := yetToCome(v)
	for id := range v.State.Devices {
		ids = append(ids, id)
	}
	if q.Stuck {
		ids = v.State.Stuck()
	}
	return slices.DeleteFunc(ids, func(id string) bool {
		d := deviceOf(v, id)
		return q.Wave != 0 && d.Wave != q.Wave || q.State != "" && string(d.State) != q.State || q.Site != "" && d.Site != q.Site ||
			q.Late && !d.Late || q.Control && !d.Control
	})
}

// deviceOf is a device of a rollout; one that no wave has drawn yet waits.
func deviceOf(v runner.View, id string) *rollout.Device {
	if d := v.State.Devices[id]; d != nil {
		return d
	}
	d := &rollout.Device{State: rollout.DeviceWaiting}
	if v.Facts != nil && v.Facts.Devices[id] != nil {
		d.Site, d.Profile = v.Facts.Devices[id].Site, v.Facts.Devices[id].Profile
	}
	return d
}

// RolloutDevice says where a device is in a rollout, and why.
func (s *Service) RolloutDevice(_ context.Context, id, device string) (*operator.WaveDevice, error) {
	v, err := s.looks.view(id)
	if err != nil {
		return nil, rolloutError(err)
	}
	_, enrolled := s.d.Fleet.Device(device)
	if v.State.Devices[device] == nil && !enrolled {
		return nil, operator.Errorf(operator.NotFound, "there is no device %.80q", device).WithHint("list them with `vedette device list`")
	}
	out := s.explainer(v)(device)
	if v.State.Devices[device] == nil && !slices.Contains(yetToCome(v), device) {
		out.State = "" // it has no part in the rollout: Why says so
	}
	return &out, nil
}

// explainer tells of devices of a rollout with the reason why they are where
// they are.
func (s *Service) explainer(v runner.View) func(id string) operator.WaveDevice {
	facts := v.Facts
	if facts == nil {
		facts = &rollout.Facts{}
	}
	why := rollout.ExplainDevices(v.State, facts, s.d.Now())
	return func(id string) operator.WaveDevice {
		out := s.waveDevice(v.State, id, deviceOf(v, id))
		out.Why = why(id)
		return out
	}
}

// RolloutDecisions lists what was decided about a rollout, newest first.
func (s *Service) RolloutDecisions(_ context.Context, id string, p operator.Paging) (*operator.Page[operator.Decision], error) {
	v, err := s.looks.view(id)
	if err != nil {
		return nil, rolloutError(err)
	}
	entries := slices.Clone(v.Timeline)
	slices.Reverse(entries)
	page, err := paginate(entries, p, func(e *runner.Entry) string { return newestFirstSeq(e.Seq) })
	if err != nil {
		return nil, err
	}
	out := &operator.Page[operator.Decision]{Items: make([]operator.Decision, len(page.Items)), Next: page.Next, Total: page.Total}
	for i := range page.Items {
		out.Items[i] = decision(&page.Items[i])
	}
	return out, nil
}

// timeline is the newest decisions, the newest of them first; of those that only
// follow devices fewer.
func timeline(entries []runner.Entry) []operator.Decision {
	out := []operator.Decision{}
	following := 0
	for i := len(entries) - 1; i >= 0 && len(out) < operator.MaxTimeline; i-- {
		if e := &entries[i]; milestone(e) {
			out = append(out, decision(e))
		} else if following++; following <= operator.MaxFollowing {
			out = append(out, decision(e))
		}
	}
	return out
}

// milestone says that a decision was a person's or moved more than devices.
func milestone(e *runner.Entry) bool {
	return e.Actor != runner.Actor || slices.ContainsFunc(e.Changes, func(c rollout.Change) bool { return c.Subject != rollout.SubjectDevices })
}

func decision(e *runner.Entry) operator.Decision {
	out := operator.Decision{
		Seq: e.Seq, At: e.At, Actor: e.Actor, Kind: e.Kind, Action: string(e.Action), Reason: e.Reason, Hash: e.Hash, Text: decisionText(e),
	}
	for _, c := range e.Changes {
		out.Changes = append(out.Changes, operator.Change{
			Subject: c.Subject, Wave: c.Wave, From: c.From, To: c.To, Why: c.Why,
			Devices: c.Devices[:min(len(c.Devices), operator.MaxNamed)], Count: len(c.Devices),
		})
	}
	return out
}

// decisionText is one line for a timeline.
func decisionText(e *runner.Entry) string {
	if e.Kind == runner.KindCreated {
		return "created"
	}
	var parts []string
	for _, c := range e.Changes {
		parts = append(parts, changeText(&c))
	}
	if len(parts) == 0 {
		return cmp.Or(string(e.Action), "gates judged anew")
	}
	return strings.Join(parts, "; ")
}
