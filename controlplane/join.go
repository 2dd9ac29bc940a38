package controlplane

import (
	"context"
	"errors"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// published lets the runner find what the registry holds.
type published struct{ registry *registry.Registry }

// Release implements runner.Releases.
func (p published) Release(_ context.Context, model, version string) (release.Digest, *release.Manifest, error) {
	v, err := p.registry.Version(model, version)
	if err != nil {
		return release.Digest{}, nil, err
	}
	return v.Digest, v.Manifest, nil
}

// watchReleases tells the monitor of every release, so that its windows can be
// scored from the first one on. It reports whether all are watched: one that
// cannot be, for example because its baseline is damaged, keeps neither the
// others nor the server from working.
func (s *Server) watchReleases(ctx context.Context) (all bool) {
	all = true
	for _, v := range s.registry.Versions() {
		if err := s.watchRelease(ctx, v); err != nil && ctx.Err() == nil {
			all = false
			s.cfg.Logger.Error("release is not watched for drift: look at its baseline in the blob store",
				"model", v.Model, "version", v.Version, "error", err)
		}
	}
	return all
}

func (s *Server) watchRelease(ctx context.Context, v registry.Version) error {
	b, err := s.registry.Baseline(ctx, v.Digest)
	if err != nil {
		return err
	}
	t := v.Target
	return s.monitor.SetRelease(drift.Release{Digest: t.Digest, Model: t.Model, Version: t.Version, Sequence: t.Sequence}, b)
}

// onModels takes in that versions were published or changed their stage. The
// registry must not be called back from here, so a stage of its own does.
func (s *Server) onModels(models ...string) {
	select {
	case s.published <- struct{}{}:
	default:
	}
	for _, m := range models {
		s.tell(operator.EventModel, m)
	}
}

// watchRetry is how often a release that could not be watched is tried again:
// each time is logged.
const watchRetry = 10 * time.Minute

// prepareDeltas has deltas made to the newest version of each model.
func (s *Server) prepareDeltas() {
	for _, m := range s.registry.Models() {
		versions := make([]*release.Manifest, len(m.Versions))
		for i, v := range m.Versions {
			versions[i] = v.Manifest
		}
		s.deltas.Prepare(versions)
	}
}

// onEvent counts what deltas saved. The devices know: what was written to a
// connection may never have arrived.
func (s *Server) onEvent(e fleet.Event) {
	if e.Kind == protocol.EventDeltaApplied {
		s.deltas.Applied(e.Attributes[protocol.AttrDelta])
	}
}

// followReleases gives the monitor the baselines of what is published, and has
// deltas to it made.
func (s *Server) followReleases(ctx context.Context) error {
	retry := time.NewTicker(watchRetry)
	defer retry.Stop()
	s.prepareDeltas()
	all := s.watchReleases(ctx) // what Start could not, or was published meanwhile
	for {
		select {
		case <-s.published:
			s.prepareDeltas()
			all = s.watchReleases(ctx)
			s.promotion.Nudge()
		case <-retry.C:
			if !all {
				all = s.watchReleases(ctx)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// followFleet keeps what the monitor knows of devices that of the fleet, and
// passes on that devices changed.
func (s *Server) followFleet(ctx context.Context) error {
	changes := s.fleet.Subscribe()
	defer changes.Close()
	for _, d := range s.fleet.Devices(nil) {
		s.monitor.SetLabels(d.ID, d.Labels)
	}
	for _, t := range s.monitor.Totals() {
		s.acquaint(t.Device) // one may have been removed just before a crash
	}
	for {
		select {
		case <-changes.Changed():
			for _, id := range changes.Take() {
				s.acquaint(id)
				s.tell(operator.EventDevice, id)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// acquaint gives the monitor a device's labels, because cohorts follow from
// them, or lets it forget a device that was removed.
func (s *Server) acquaint(id string) {
	if d, ok := s.fleet.Device(id); ok {
		s.monitor.SetLabels(id, d.Labels)
		return
	}
	s.monitor.Forget(id)
	s.forgetTruths(id)
	s.history.Forget(id)
}

// evaluate scores drift on a timer, and hands what it found on.
func (s *Server) evaluate(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.EvaluateEvery)
	defer tick.Stop()
	s.consider(ctx, s.monitor.Alarms("")) // raised before a restart, perhaps not yet asked for
	warned := false
	for {
		select {
		case now := <-tick.C:
			s.objectives()
			s.consider(ctx, s.monitor.Evaluate(now))
			s.runner.Nudge()
			warned = s.warnOfFullDisk(ctx, warned)
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) consider(ctx context.Context, alarms []drift.Alarm) {
	asked, err := s.retrain.Consider(ctx, time.Now(), alarms)
	more, wrong := s.retrain.Look(ctx, time.Now())
	asked = append(asked, more...)
	if err := errors.Join(err, wrong); err != nil && ctx.Err() == nil {
		s.cfg.Logger.Error("retraining could not be asked for; it will be at the next evaluation", "error", err)
	}
	s.note(ctx, s.judgeAlarms(ctx, s.monitor.Alarms("")))
	for _, a := range alarms {
		s.tell(operator.EventAlarm, a.ID)
	}
	for _, r := range asked {
		s.tell(operator.EventRetrain, r.ID)
	}
	s.tell(operator.EventDrift, "")
}

// storageWarning is the time left at which the log says that room runs out: a
// week lets somebody come who can give it more.
const storageWarning = 7 * 24 * time.Hour

// warnOfFullDisk logs once that room runs out, and once that it no longer does.
// A full server loses nothing, but devices have to keep what they cannot send.
func (s *Server) warnOfFullDisk(ctx context.Context, warned bool) bool {
	held, err := s.ingest.Storage(ctx)
	if err != nil {
		return warned
	}
	free, err := s.diskFree()
	if err != nil {
		return warned
	}
	left, bounded := held.Lasts(free)
	short := bounded && left < storageWarning
	s.note(ctx, s.judgeStorage(ctx, short, left))
	switch {
	case short && !warned:
		s.cfg.Logger.Warn("room for what devices send runs out: make the disk larger",
			"days_left", left.Hours()/24, "stream_bytes", held.Bytes, "limit_bytes", held.Limit, "disk_free_bytes", free)
	case warned && !short:
		s.cfg.Logger.Info("there is room again for what devices send")
	}
	return short
}

func (s *Server) onRollout(id string) {
	s.changedRollouts.add(id)
	s.promotion.Nudge()
	s.tell(operator.EventRollout, id)
}

// tell lets pages and watchers know that a subject changed.
func (s *Server) tell(kind, subject string) { s.service.Changed(kind, subject) }
