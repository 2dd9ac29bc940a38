package api

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// History says what was in production, where, when, by whom and why.
func (s *Service) History(_ context.Context, model string, q operator.HistoryQuery) (*operator.History, error) {
	m, err := s.d.Registry.Model(model)
	if err != nil {
		return nil, registryError(err)
	}
	out := &operator.History{Model: model, Stages: []operator.StageSpan{}, Where: []operator.DeployedSpan{}, At: q.At}
	for i := range m.Versions {
		out.Stages = append(out.Stages, stageSpans(&m.Versions[i])...)
	}
	slices.SortStableFunc(out.Stages, func(a, b operator.StageSpan) int { return b.From.Compare(a.From) })
	out.Where = s.deployed(model)
	if !q.At.IsZero() {
		out.Stages = slices.DeleteFunc(out.Stages, func(x operator.StageSpan) bool { return !during(q.At, x.From, x.To) })
		out.Where = slices.DeleteFunc(out.Where, func(x operator.DeployedSpan) bool { return !during(q.At, x.From, x.To) })
	}
	return out, nil
}

// during says whether a moment lies in a span; a span without an end goes on.
func during(at, from, to time.Time) bool { return !at.Before(from) && (to.IsZero() || at.Before(to)) }

// stageSpans are the times that a version spent in stages, newest first.
func stageSpans(v *registry.Version) []operator.StageSpan {
	var out []operator.StageSpan
	var until time.Time
	for _, c := range v.StageLog {
		if c.To != operator.StageNone {
			out = append(out, operator.StageSpan{
				Version: v.Version, Release: v.Digest, Stage: c.To, From: c.At, To: until, Actor: c.Actor, Reason: c.Reason,
			})
		}
		until = c.At
	}
	return out
}

// deployed are the rollouts of a model that devices took up, newest first.
func (s *Service) deployed(model string) []operator.DeployedSpan {
	var views []runner.View
	for _, v := range s.d.Rollouts.List() { // newest first
		if v.State.Spec.Model == model && !v.State.Header.Started.IsZero() {
			views = append(views, v)
		}
	}
	slices.SortStableFunc(views, func(a, b runner.View) int { return b.State.Header.Started.Compare(a.State.Header.Started) })
	out := []operator.DeployedSpan{}
	taken := map[string]time.Time{} // when a later rollout began that took the device
	for _, v := range views {
		span, devices := s.span(v, taken)
		for _, id := range devices {
			taken[id] = v.State.Header.Started
		}
		if len(devices) > 0 {
			out = append(out, span)
		}
	}
	return out
}

// span is one rollout as history has it, and the devices that took its release.
// It ends when the last of them was taken by a later rollout, or went back.
func (s *Service) span(v runner.View, taken map[string]time.Time) (operator.DeployedSpan, []string) {
	h, spec := &v.State.Header, &v.State.Spec
	entries := s.entries(v.State.ID)
	out := operator.DeployedSpan{
		Version: spec.Version, Release: spec.Release, Rollout: v.State.ID, State: operator.RolloutState(h.Status), Selector: spec.Selector,
		Sites: map[string]int{}, From: h.Started, Actor: cmp.Or(h.Creator, "engine"), Reason: whyMade(entries),
	}
	left := lost(entries)
	var devices []string
	goesOn := false
	for id, d := range v.State.Devices {
		end, over := taken[id]
		switch at, ran := left[id]; {
		case d.State == rollout.DeviceActive || d.State == rollout.DeviceHealthy:
		case d.State == rollout.DeviceReverted:
			end, over = d.Since, true
		case d.State == rollout.DeviceSuperseded && ran:
			end, over = at, true
		default:
			continue
		}
		devices = append(devices, id)
		out.Sites[d.Site]++
		goesOn = goesOn || !over
		if end.After(out.To) {
			out.To = end
		}
	}
	if goesOn {
		out.To = time.Time{}
	}
	out.Devices = len(devices)
	slices.SortFunc(devices, strings.Compare)
	return out, devices
}

// entries is the timeline of a rollout, oldest first.
func (s *Service) entries(id string) []runner.Entry {
	v, err := s.d.Rollouts.Get(id)
	if err != nil {
		return nil
	}
	return v.Timeline
}

// whyMade is the reason given when a rollout was made.
func whyMade(entries []runner.Entry) string {
	if len(entries) == 0 {
		return ""
	}
	return entries[0].Reason
}

// lost tells when devices that ran the release of a rollout were taken over by
// another. Their present state does not say whether they ever ran it.
func lost(entries []runner.Entry) map[string]time.Time {
	out := map[string]time.Time{}
	for i := range entries {
		for _, c := range entries[i].Changes {
			from := rollout.DeviceState(c.From)
			if c.Subject != rollout.SubjectDevices || from != rollout.DeviceActive && from != rollout.DeviceHealthy {
				continue
			}
			for _, id := range c.Devices {
				if c.To == string(rollout.DeviceSuperseded) {
					out[id] = entries[i].At
				}
			}
		}
	}
	return out
}
