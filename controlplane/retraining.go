package controlplane

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/retrain"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/controlplane/validation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func (s *Server) openRetrain(ctx context.Context) (err error) {
	s.retrain, err = retrain.New(ctx, s.buckets["retrain"], retrain.Config{
		Publisher: s.broker.Conn(), Scores: s.monitor, Incidents: s.incidents, Origins: origins{s.registry}, Samples: sampled{s},
		Source: s.peopleURL(), CohortBy: s.monitor.Config().CohortBy, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	for _, p := range s.retrain.Policies() {
		s.monitor.SetFloor(p.Model, retrain.Floor(&p))
	}
	s.run("retraining", s.retrain.Run)
	return nil
}

// origins tells events where a release came from.
type origins struct{ registry *registry.Registry }

// Origin implements retrain.Origins.
func (o origins) Origin(_ string, d release.Digest) (retrain.Origin, bool) {
	v, err := o.registry.Release(d)
	if err != nil || v.Manifest == nil {
		return retrain.Origin{}, false
	}
	l := &v.Manifest.Lineage
	out := retrain.Origin{Run: l.Run, Source: l.Source, DataVersion: l.DataVersion, Commit: l.Commit, Author: l.Author, Metrics: l.Metrics}
	if l.Parent != nil {
		out.Parent = l.Parent.String()
	}
	return out, true
}

// sampled tells events how many rows are held for labelling.
type sampled struct{ s *Server }

// Sampled implements retrain.Samples.
func (x sampled) Sampled(model string, since time.Time) (rows int) {
	for _, one := range x.s.samples.List(model, since) {
		rows += one.Rows()
	}
	return rows
}

// followAnswers looks for registered versions that answer requests, and for what
// becomes of them: releases, or versions that could not be published.
func (s *Server) followAnswers(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.EvaluateEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		if err := errors.Join(s.answers(ctx, now), s.publishFailures(ctx, now)); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("what became of registered versions was not all taken in; it is looked at again", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// answers takes every tagged version in: each names its request.
func (s *Server) answers(ctx context.Context, now time.Time) error {
	tagged, err := newestTagged(s.tracking)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range s.retrain.Requests("") {
		v, answered := tagged[r.ID]
		if !answered || r.State() == operator.RetrainRolledOut {
			continue
		}
		before := r.Answer
		errs = append(errs, s.answer(ctx, now, &r, &v))
		if after, err := s.retrain.Request(r.ID); err == nil && (before == nil || *after.Answer != *before) {
			s.tell(operator.EventRetrain, r.ID)
		}
	}
	return errors.Join(errs...)
}

func (s *Server) answer(ctx context.Context, now time.Time, r *retrain.Request, v *tracking.ModelVersion) error {
	if err := s.retrain.Answered(ctx, now, r.ID, v.Name, strconv.Itoa(v.Version)); err != nil {
		return err
	}
	rel, ok := s.released(v)
	if !ok {
		return nil
	}
	state, text := s.progress(ctx, &rel)
	if state == "" {
		return nil
	}
	return s.retrain.Advance(ctx, now, r.ID, state, rel.Version, text)
}

// versions finds registered versions; tracking.Store is one.
type versions interface {
	SearchVersions(q tracking.Search) (found []tracking.ModelVersion, next string, err error)
}

// maxAnswers bounds the versions that are looked at: those registered last.
const maxAnswers = 1000

// newestTagged are the versions that answer requests, by the request's id: of
// several the one that was registered last.
func newestTagged(store versions) (map[string]tracking.ModelVersion, error) {
	found, _, err := store.SearchVersions(tracking.Search{
		Filter: "tags.`" + operator.TagRetrain + "` LIKE '%'", OrderBy: []string{"creation_timestamp DESC", "version_number DESC"}, Max: maxAnswers,
	})
	if err != nil {
		return nil, fmt.Errorf("look for versions that answer requests: %w", err)
	}
	out := map[string]tracking.ModelVersion{}
	for _, v := range found {
		id := v.Tags[operator.TagRetrain]
		if _, newer := out[id]; !newer {
			out[id] = v
		}
	}
	return out, nil
}

// released is the release that was made of a registered version.
func (s *Server) released(v *tracking.ModelVersion) (registry.Version, bool) {
	source := "models:/" + v.Name + "/" + strconv.Itoa(v.Version)
	for _, one := range s.registry.Versions() {
		if one.Manifest != nil && one.Manifest.Lineage.Source == source || v.Tags[operator.TagRelease] == one.Digest.String() {
			return one, true
		}
	}
	return registry.Version{}, false
}

// progress is how far a release is: gates, then a rollout.
func (s *Server) progress(ctx context.Context, v *registry.Version) (state, text string) {
	if state, text := s.rolledOut(v); state != "" {
		return state, text
	}
	err := s.validation.Cleared(ctx, v.Model, v.Digest)
	refusal, refused := errors.AsType[*validation.Refused](err)
	switch {
	case refused && refusal.Status == operator.GateFailed:
		return operator.RetrainRejected, refusal.Error()
	case refused:
		return operator.RetrainAnswered, refusal.Error()
	case err != nil:
		return "", "" // not known now
	}
	return operator.RetrainValidated, "gates passed; waits for its rollout"
}

// rolledOut says what rollouts of a release came to, nothing without any.
func (s *Server) rolledOut(v *registry.Version) (state, text string) {
	for _, view := range s.runner.List() {
		st := view.State
		if st.Spec.Model != v.Model || st.Spec.Version != v.Version {
			continue
		}
		text := fmt.Sprintf("rollout %s is %s", st.ID, st.Header.Status)
		switch st.Header.Status { //nolint:exhaustive // the others are on their way
		case rollout.StatusCompleted:
			return operator.RetrainRolledOut, text
		case rollout.StatusHalted, rollout.StatusReverting, rollout.StatusReverted, rollout.StatusAborted:
			return operator.RetrainRejected, text + ": " + st.Header.Cause
		case rollout.StatusRunning, rollout.StatusAwaiting, rollout.StatusPaused, rollout.StatusQueued:
			return operator.RetrainValidated, text
		}
	}
	return "", ""
}
