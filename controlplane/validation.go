package controlplane

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/validation"
	"github.com/vedette-edge/vedette/protocol/operator"
)

const validationBucket = "validation"

// openValidation opens the gates that versions pass before they are rolled out.
func (s *Server) openValidation(ctx context.Context) (err error) {
	s.validation, err = validation.Open(ctx, validation.Config{
		Bucket: s.buckets[validationBucket], Registry: s.registry, Fleet: s.fleet, Blobs: s.blobs, Ledger: s.ledger, Notifier: stopped{s},
		Changed: func(model string) {
			if s.service != nil {
				s.tell(operator.EventModel, model)
				s.promotion.Nudge()
			}
		},
		Deployed: s.deployed,
		Log:      s.cfg.Logger,
	})
	return err
}

// stopped makes incidents of versions that a gate stops.
type stopped struct{ *Server }

// Notify implements validation.Notifier.
func (s stopped) Notify(ctx context.Context, now time.Time, stop validation.Stop) error {
	key := "gate/" + stop.Model + "/" + stop.Release.String()
	if stop.Gate == "" {
		return s.incidents.Clear(ctx, now, key, stop.Text)
	}
	return s.incidents.Raise(ctx, now, incident.Cause{
		Key: key, Kind: incident.GateFailed, Severity: incident.Warning, Model: stop.Model, Version: stop.Version,
		Summary: fmt.Sprintf("gate %s stops %s %s", stop.Gate, stop.Model, stop.Version), Detail: stop.Text,
		Link: "/models/" + url.PathEscape(stop.Model) + "/versions/" + url.PathEscape(stop.Version),
	})
}

// followLab keeps what lab devices report of candidates, and judges these again.
func (s *Server) followLab(ctx context.Context) error {
	changes := s.fleet.Subscribe()
	defer changes.Close()
	for _, d := range s.fleet.Devices(fleet.InLab) {
		s.observeLab(ctx, d.ID)
	}
	for {
		select {
		case <-changes.Changed():
			for _, id := range changes.Take() {
				if d, ok := s.fleet.Device(id); ok && fleet.InLab(d.Labels) {
					s.observeLab(ctx, id)
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) observeLab(ctx context.Context, device string) {
	if err := s.validation.Observe(ctx, device); err != nil && ctx.Err() == nil {
		s.cfg.Logger.Error("what a lab device measured was not kept; it is with its next report", "device", device, "error", err)
	}
}
