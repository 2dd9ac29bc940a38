package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/history"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// checkModel refuses what no model can be called.
func checkModel(name string) error {
	if err := protocol.CheckName(name); err != nil {
		return operator.Errorf(operator.Invalid, "%w", err)
	}
	return nil
}

// Lineage walks from a version back to run, data and code.
func (s *Service) Lineage(_ context.Context, model, name string) (*operator.Provenance, error) {
	v, err := s.d.Registry.Version(model, name)
	if err != nil {
		return nil, registryError(err)
	}
	return s.lineage(&v, ""), nil
}

// DeviceLineage walks from what a device predicted at a moment back to run, data
// and code.
func (s *Service) DeviceLineage(ctx context.Context, device string, q operator.LineageQuery) (*operator.Provenance, error) {
	d, err := s.Device(ctx, device)
	if err != nil {
		return nil, err
	}
	if q.Model == "" {
		if len(d.Models) != 1 {
			return nil, operator.Errorf(operator.Invalid, "%s has %d models: name one", device, len(d.Models)).WithHint("give --model NAME")
		}
		q.Model = d.Models[0].Model
	}
	at := q.At
	if at.IsZero() {
		at = s.d.Now()
	}
	w, digest, err := s.windowOf(ctx, device, q.Model, at)
	if err != nil {
		return nil, err
	}
	if w == nil && q.At.IsZero() { // it has predicted nothing lately: what it would predict with
		i := slices.IndexFunc(d.Models, func(m operator.DeviceModel) bool { return m.Model == q.Model && m.Active != nil })
		if i >= 0 {
			digest = d.Models[i].Active.Release
		}
	}
	if digest.IsZero() {
		return nil, operator.Errorf(operator.NotFound, "%s is not known to have predicted anything with %s in the hour of %s", device, q.Model, at.UTC().Format(time.RFC3339)).
			WithHint("hours are kept for 90 days; `vedette model history %s` says what was where", q.Model)
	}
	v, err := s.d.Registry.Release(digest)
	if err != nil {
		return nil, registryError(err)
	}
	l := s.lineage(&v, device)
	l.Window = w
	return l, nil
}

// windowOf is what a device predicted with a model in the hour of a moment, and
// with which release: the one with the most rows, where it switched.
func (s *Service) windowOf(ctx context.Context, device, model string, at time.Time) (*operator.LineageWindow, release.Digest, error) {
	var none release.Digest
	m, err := s.d.Registry.Model(model)
	if err != nil {
		return nil, none, registryError(err)
	}
	releases := make([]release.Digest, len(m.Versions))
	for i, v := range m.Versions {
		releases[i] = v.Digest
	}
	hour := at.UTC().Truncate(time.Hour)
	series, err := s.d.History.Series(ctx, s.d.Now(), history.Query{
		Releases: releases, From: hour, To: hour.Add(time.Hour), Step: time.Hour, Device: device,
	})
	if err != nil {
		return nil, none, err
	}
	shares := s.sharesOf(model, series)
	if len(shares) == 0 {
		return nil, none, nil
	}
	return &operator.LineageWindow{
		Device: device, Start: hour, End: hour.Add(time.Hour), Rows: shares[0].Rows, Others: shares[1:],
	}, shares[0].Release, nil
}

// sharesOf is how much each release of a model predicted, the most first.
func (s *Service) sharesOf(model string, series []history.Series) []operator.LineageShare {
	rows := map[release.Digest]uint64{}
	for _, one := range series {
		for _, p := range one.Points {
			rows[one.Release] += p.Window.GetRows()
		}
	}
	out := []operator.LineageShare{}
	for d, n := range rows {
		if n > 0 {
			out = append(out, operator.LineageShare{ReleaseRef: s.ref(model, d), Rows: n})
		}
	}
	slices.SortFunc(out, func(a, b operator.LineageShare) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), strings.Compare(a.Release.String(), b.Release.String()))
	})
	return out
}

// lineage gathers what is known about a version, for one device or for all.
func (s *Service) lineage(v *registry.Version, device string) *operator.Provenance {
	l := &operator.Provenance{
		Release: operator.ReleaseRef{Model: v.Model, Version: v.Version, Release: v.Digest}, Sequence: v.Sequence, Stage: v.Stage,
		Published: v.Published, By: v.PublishedBy, Rollouts: s.broughtBy(v, device),
	}
	var err error
	if l.Signature, err = s.d.Registry.Signature(v.Digest); err != nil {
		l.Gaps = append(l.Gaps, "signature: "+err.Error())
	}
	if v.Manifest == nil {
		l.Gaps = append(l.Gaps, "the manifest cannot be read: its lineage is not known")
		return l
	}
	from := &v.Manifest.Lineage
	l.Commit, l.Author, l.Data = from.Commit, from.Author, from.DataVersion
	if from.Parent != nil {
		l.Parent = s.refOrNil(v.Model, *from.Parent)
	}
	run := from.Run
	if from.Source != "" {
		l.Candidate, run = s.candidate(l, from.Source, run)
	}
	if run == "" {
		l.Gaps = append(l.Gaps, "the manifest names no training run: it was packed by hand")
		return l
	}
	s.addRun(l, run)
	return l
}

// broughtBy are the rollouts of a version, of a device only those that took it.
func (s *Service) broughtBy(v *registry.Version, device string) []operator.LineageRollout {
	out := []operator.LineageRollout{}
	for _, view := range s.d.Rollouts.List() {
		st := view.State
		if st.Spec.Release != v.Digest {
			continue
		}
		r := operator.LineageRollout{ID: st.ID, Status: string(st.Header.Status), Creator: st.Header.Creator, Created: st.Header.Created}
		if device != "" {
			d := st.Devices[device]
			if d == nil {
				continue
			}
			r.Wave = d.Wave
		}
		out = append(out, r)
	}
	return out
}

// candidate is the registered version that a release was packed from.
func (s *Service) candidate(l *operator.Provenance, source, run string) (*operator.LineageCandidate, string) {
	c := &operator.LineageCandidate{Source: source}
	v, err := s.registered(source)
	if err != nil {
		l.Gaps = append(l.Gaps, source+": "+err.Error())
		return c, run
	}
	c.User, c.Registered, c.Retrain = v.User, time.UnixMilli(v.CreatedMS).UTC(), v.Tags[operator.TagRetrain]
	return c, cmp.Or(run, v.Run)
}

// registered finds a registered version by models:/NAME/VERSION.
func (s *Service) registered(source string) (*tracking.ModelVersion, error) {
	name, number, _ := strings.Cut(strings.TrimPrefix(source, "models:/"), "/")
	n, err := strconv.Atoi(number)
	if err != nil {
		return nil, errors.New("it names no version")
	}
	found, _, err := s.d.Tracking.SearchVersions(tracking.Search{Filter: fmt.Sprintf("name = '%s' AND version_number = %d", strings.ReplaceAll(name, "'", ""), n), Max: 1})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("it was deleted, or registered elsewhere")
	}
	return &found[0], nil
}

// environmentTags are tags of a run that say what it ran in.
var environmentTags = []string{"mlflow.source.name", "mlflow.source.type", "mlflow.source.git.repoURL", "mlflow.source.git.branch"}

func (s *Service) addRun(l *operator.Provenance, id string) {
	r, err := s.d.Tracking.Run(id)
	if err != nil {
		l.Gaps = append(l.Gaps, "run "+id+": it is not tracked on this server")
		return
	}
	out := &operator.LineageRun{
		ID: r.ID, Name: r.Name, User: r.User, Status: string(r.Status), Started: time.UnixMilli(r.StartedMS).UTC(), Params: r.Params,
		Environment: map[string]string{},
	}
	for _, key := range []string{"seed", "random_seed", "random_state"} {
		out.Seed = cmp.Or(out.Seed, r.Params[key], r.Tags[key])
	}
	for key, value := range r.Tags {
		if slices.Contains(environmentTags, key) || strings.HasPrefix(key, "environment.") || strings.HasPrefix(key, "env.") {
			out.Environment[key] = value
		}
	}
	for _, d := range r.Datasets {
		out.Datasets = append(out.Datasets, operator.LineageDataset{Name: d.Name, Digest: d.Digest, Context: d.Tags["mlflow.data.context"], Source: d.Source})
	}
	l.Run = out
	l.Commit = cmp.Or(l.Commit, r.Tags["mlflow.source.git.commit"])
	l.Author = cmp.Or(l.Author, r.Tags["mlflow.user"], r.User)
	if l.Commit == "" {
		l.Gaps = append(l.Gaps, "the run says no git commit: log it with the tag mlflow.source.git.commit")
	}
	if l.Data == "" && len(out.Datasets) == 0 {
		l.Gaps = append(l.Gaps, "the run says no version of its data: log a data_version, or the datasets")
	}
}
