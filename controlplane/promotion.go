package controlplane

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/promotion"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

const promotionBucket = "promotion"

// openPromotion opens what brings published versions to the fleet by itself. It
// acts through the service, so it moves nothing before that is there.
func (s *Server) openPromotion(ctx context.Context) (err error) {
	p := promoting{s}
	s.promotion, err = promotion.Open(ctx, promotion.Config{
		Bucket: s.buckets[promotionBucket], Versions: s.registry, Gates: s.validation, Fleet: p, Stages: p, Candidates: p,
		Ledger: s.ledger, Requests: s.retrain, Notifier: p, Lab: p,
		Changed: func(model string) {
			if s.service != nil {
				s.tell(operator.EventModel, model)
			}
		},
		Log: s.cfg.Logger,
	})
	return err
}

// promoting is what package promotion needs of the rest.
type promoting struct{ *Server }

var (
	_ promotion.Fleet      = promoting{}
	_ promotion.Stages     = promoting{}
	_ promotion.Candidates = promoting{}
	_ promotion.Notifier   = promoting{}
	_ promotion.Lab        = promoting{}
)

// Find implements promotion.Fleet.
func (s promoting) Find(creator string) (id string, status rollout.Status, cause string, ok bool) {
	for _, v := range s.runner.List() {
		if h := &v.State.Header; h.Creator == creator {
			return v.State.ID, h.Status, h.Cause, true
		}
	}
	return "", "", "", false
}

// Start implements promotion.Fleet. A draft that an attempt before left behind
// is started, not made again.
func (s promoting) Start(ctx context.Context, creator, reason string, spec rollout.Spec) error {
	id, status, _, ok := s.Find(creator)
	if !ok {
		v, err := s.runner.Create(ctx, creator, reason, spec)
		if err != nil {
			return err
		}
		id, status = v.State.ID, v.State.Header.Status
	}
	if status != rollout.StatusDraft {
		return nil
	}
	_, err := s.runner.Act(ctx, id, rollout.Command{Action: rollout.Start, Actor: creator, Reason: reason})
	return err
}

// SetStage implements promotion.Stages: as any other command, with gates and ledger.
func (s promoting) SetStage(ctx context.Context, model, version string, to operator.Stage, reason string) error {
	ctx = operator.WithPrincipal(ctx, operator.Principal{Name: promotion.Actor, Role: operator.Publisher})
	_, err := s.service.SetStage(ctx, model, version, operator.StageChange{Stage: to, Reason: reason})
	return err
}

// Tags implements promotion.Candidates.
func (s promoting) Tags(source string) map[string]string {
	name, number, _ := strings.Cut(strings.TrimPrefix(source, "models:/"), "/")
	n, err := strconv.Atoi(number)
	if err != nil {
		return nil
	}
	v, err := s.tracking.Version(name, n)
	if err != nil {
		return nil // deleted meanwhile: nothing is known of it
	}
	return v.Tags
}

// Notify implements promotion.Notifier.
func (s promoting) Notify(ctx context.Context, now time.Time, p operator.Promotion, text string) error {
	key := "promotion/" + p.Model + "/" + p.Release.String()
	if text == "" {
		return s.incidents.Clear(ctx, now, key, "it is on the fleet")
	}
	return s.incidents.Raise(ctx, now, incident.Cause{
		Key: key, Kind: incident.RolloutStopped, Severity: incident.Warning, Model: p.Model, Version: p.Version,
		Summary: "promotion of " + p.Model + " " + p.Version + " is " + string(p.State), Detail: text,
		Link: "/models/" + url.PathEscape(p.Model) + "/versions/" + url.PathEscape(p.Version),
	})
}

// followPromotion moves promotions on.
func (s *Server) followPromotion(context.Context) error {
	s.run("promotions", s.promotion.Run)
	return nil
}
