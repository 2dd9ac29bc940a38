package controlplane

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// openIncidents opens the board of what is wrong. Whoever finds something raises
// it there; it tells nobody before the service is there.
func (s *Server) openIncidents(ctx context.Context) (err error) {
	s.incidents, err = incident.New(ctx, s.buckets[incidentBucket], incident.Config{
		Link: s.peopleURL(), Logger: s.cfg.Logger,
		Change: func(id string) {
			if s.service != nil {
				s.tell(operator.EventIncident, id)
			}
		},
	})
	return err
}

// followIncidents tells people of incidents, and makes incidents of rollouts
// that stopped.
func (s *Server) followIncidents(context.Context) error {
	s.run("incidents", s.incidents.Run)
	s.run("stopped rollouts", s.followStopped)
	s.run("answers to retraining", s.followAnswers)
	return nil
}

const incidentBucket = "incidents"

// pending is a set of ids that somebody has to look at. Adding never blocks.
type pending struct {
	wake chan struct{} // holds one when there may be ids

	mu  sync.Mutex // guards ids
	ids map[string]bool
}

func newPending() *pending {
	return &pending{wake: make(chan struct{}, 1), ids: map[string]bool{}}
}

func (p *pending) add(id string) {
	p.mu.Lock()
	p.ids[id] = true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pending) take() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := p.ids
	p.ids = map[string]bool{}
	return ids
}

// retryIncident is when something that could not be raised is tried again.
const retryIncident = 10 * time.Second

// followStopped raises rollouts that stopped by themselves.
func (s *Server) followStopped(ctx context.Context) error {
	for _, v := range s.runner.List() {
		s.changedRollouts.add(v.State.ID)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changedRollouts.wake:
		}
		for id := range s.changedRollouts.take() {
			v, err := s.runner.Get(id)
			if err != nil {
				continue // it is gone
			}
			if err := s.judgeRollout(ctx, &v); err != nil && ctx.Err() == nil {
				s.cfg.Logger.Error("a rollout's incident was not stored, it is tried again", "rollout", id, "error", err)
				time.AfterFunc(retryIncident, func() { s.changedRollouts.add(id) })
			}
			if v.State.Header.Status == rollout.StatusCompleted {
				s.validation.Settle(ctx, v.State.Spec.Model) // it may have replaced a version that a gate stops
			}
		}
	}
}

func (s *Server) judgeRollout(ctx context.Context, v *runner.View) error {
	c, stopped := stoppedRollout(v)
	if stopped {
		if held, ok := s.incidents.Newest(c.Key); ok && (held.Live() && held.Cause.Summary == c.Summary || byHandSince(&held, v.State.Header.Since)) {
			return nil // told already, or resolved by somebody since
		}
		return s.incidents.Raise(ctx, time.Now(), c)
	}
	return s.incidents.Clear(ctx, time.Now(), c.Key, "the rollout is "+string(v.State.Header.Status))
}

// byHandSince tells whether a person resolved an incident since its cause came:
// what somebody knows of is not opened again by the same cause.
func byHandSince(i *incident.Incident, since time.Time) bool {
	return !i.Live() && i.ByHand && i.ResolvedMS >= since.UnixMilli()
}

// stoppedRollout is the cause of a rollout that stopped, and whether it did.
func stoppedRollout(v *runner.View) (incident.Cause, bool) {
	st := v.State
	h := &st.Header
	c := incident.Cause{
		Key: "rollout/" + st.ID, Kind: incident.RolloutStopped, Severity: incident.Critical, Model: st.Spec.Model, Version: st.Spec.Version,
		Summary: fmt.Sprintf("rollout %s of %s %s is %s", st.ID, st.Spec.Model, st.Spec.Version, h.Status), Detail: h.Cause,
		Link: "/rollouts/" + url.PathEscape(st.ID),
	}
	switch h.Status { //nolint:exhaustive // the others have not stopped
	case rollout.StatusHalted:
		return c, true
	case rollout.StatusReverting:
		return c, !byPerson(v)
	case rollout.StatusAborted:
		return c, !h.Recalled.IsZero() && !byPerson(v) // devices were not seen back in time
	}
	return c, false
}

// byPerson tells whether a person had the rollout go back.
func byPerson(v *runner.View) bool {
	for _, e := range v.Timeline {
		if e.Action == rollout.Rollback {
			return true
		}
	}
	return false
}

// alarmPrefix begins the keys of all that the monitor finds.
const alarmPrefix = "monitor/"

func alarmKey(a *drift.Alarm) string {
	return alarmPrefix + strings.Join([]string{string(a.Kind), a.Model, a.Cohort, a.Device}, "/")
}

// judgeAlarms makes the board agree with the alarms that stand: it may be told
// the same as often as one likes, and makes up for what a crash lost.
func (s *Server) judgeAlarms(ctx context.Context, all []drift.Alarm) error {
	standing := map[string]drift.Alarm{}
	for _, a := range all {
		if key := alarmKey(&a); a.Raised() && a.RaisedMS > standing[key].RaisedMS {
			standing[key] = a // the same on two releases is one cause
		}
	}
	for key, a := range standing {
		held, ok := s.incidents.Newest(key)
		if ok && (held.Live() || byHandSince(&held, time.UnixMilli(a.RaisedMS))) {
			continue
		}
		if err := s.incidents.Raise(ctx, time.Now(), alarmCause(key, &a)); err != nil {
			return err
		}
	}
	for _, i := range s.incidents.Incidents() {
		if _, stands := standing[i.Cause.Key]; stands || !i.Live() || !strings.HasPrefix(i.Cause.Key, alarmPrefix) {
			continue
		}
		if err := s.incidents.Clear(ctx, time.Now(), i.Cause.Key, "the monitor sees it no more"); err != nil {
			return err
		}
	}
	return nil
}

func alarmCause(key string, a *drift.Alarm) incident.Cause {
	c := incident.Cause{
		Key: key, Kind: string(a.Kind), Severity: incident.Warning, Model: a.Model, Version: a.Version, Cohort: a.Cohort, Device: a.Device,
		Summary: a.Message, Link: "/drift/" + url.PathEscape(a.Model),
	}
	if a.Cohort != "" {
		c.Link += "?cohort=" + url.QueryEscape(a.Cohort)
	}
	if a.Kind == drift.AccuracyAlarm {
		c.Severity, c.Link = incident.Critical, "/quality/"+url.PathEscape(a.Model)
	}
	var names []string
	for _, f := range a.Features {
		names = append(names, fmt.Sprintf("%s (PSI %.2f)", f.Name, f.PSI))
	}
	if len(names) > 0 {
		c.Detail = "furthest apart: " + strings.Join(names, ", ")
	}
	return c
}

const storageKey = "storage"

// judgeStorage makes an incident of room that runs out.
func (s *Server) judgeStorage(ctx context.Context, short bool, left time.Duration) error {
	if !short {
		return s.incidents.Clear(ctx, time.Now(), storageKey, "there is room again")
	}
	if held, ok := s.incidents.Newest(storageKey); ok && held.Live() {
		return nil
	}
	return s.incidents.Raise(ctx, time.Now(), incident.Cause{
		Key: storageKey, Kind: incident.StorageFull, Severity: incident.Critical, Link: "/",
		Summary: fmt.Sprintf("room for what devices send lasts %.1f more days", max(0, left.Hours()/24)),
		Detail:  "A full server takes no more records: devices keep them until there is room.",
	})
}

// note logs that an incident could not be stored: whoever raised it does so again.
func (s *Server) note(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		s.cfg.Logger.Error("an incident was not stored, it is raised again at the next look", "error", err)
	}
}
