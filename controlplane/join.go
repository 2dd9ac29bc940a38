package controlplane

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/registry"
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
// scored from the first one on.
func (s *Server) watchReleases(ctx context.Context) error {
	for _, v := range s.registry.Versions() {
		if err := s.watchRelease(ctx, v); err != nil {
			return err
		}
	}
	return nil
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

// followReleases gives the monitor the baselines of what is published.
func (s *Server) followReleases(ctx context.Context) error {
	for {
		select {
		case <-s.published:
			if err := s.watchReleases(ctx); err != nil {
				s.cfg.Logger.Error("a release cannot be watched for drift", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// followFleet keeps the monitor's labels those of the fleet, because cohorts
// follow from them, and passes on that devices changed.
func (s *Server) followFleet(ctx context.Context) error {
	changes := s.fleet.Subscribe()
	defer changes.Close()
	for _, d := range s.fleet.Devices(nil) {
		s.monitor.SetLabels(d.ID, d.Labels)
	}
	for {
		select {
		case <-changes.Changed():
			for _, id := range changes.Take() {
				s.monitor.SetLabels(id, s.fleet.Labels(id))
				s.tell(operator.EventDevice, id)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// evaluate scores drift on a timer, and hands what it found on.
func (s *Server) evaluate(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.EvaluateEvery)
	defer tick.Stop()
	s.consider(ctx, s.monitor.Alarms("")) // raised before a restart, perhaps not yet asked for
	for {
		select {
		case now := <-tick.C:
			s.consider(ctx, s.monitor.Evaluate(now))
			s.runner.Nudge()
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) consider(ctx context.Context, alarms []drift.Alarm) {
	asked, err := s.retrain.Consider(ctx, time.Now(), alarms)
	if err != nil {
		s.cfg.Logger.Error("retraining could not be asked for; it will be at the next evaluation", "error", err)
	}
	for _, a := range alarms {
		s.tell(operator.EventAlarm, a.ID)
	}
	for _, r := range asked {
		s.tell(operator.EventRetrain, r.ID)
	}
	s.tell(operator.EventDrift, "")
}

func (s *Server) onRollout(id string) { s.tell(operator.EventRollout, id) }

// tell lets pages and watchers know that a subject changed.
func (s *Server) tell(kind, subject string) { s.service.Changed(kind, subject) }
