package controlplane

import (
	"context"
	"errors"
	"fmt"

	"github.com/vedette-edge/vedette/controlplane/ingest"
)

// Repaired is one state that had to begin anew.
type Repaired struct {
	Fold   string `json:"fold"`   // which: "fleet-fold", "drift-fold" or "history-fold"
	Reason string `json:"reason"` // why its checkpoint could not be used
}

// Repair mends a stopped server whose checkpoints do not fit its stream, as
// after a backup of which a part is missing. What devices reported and counted
// before the oldest message the stream holds is given up; releases, rollouts,
// devices and their certificates are not touched. It returns nothing when there
// was nothing to mend.
func Repair(ctx context.Context, cfg Config) (_ []Repaired, err error) {
	cfg.MQTT = "127.0.0.1:0" // its doors stay closed
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop(context.WithoutCancel(ctx))) }()
	if err := s.openStorage(ctx); err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	s.ingest, err = ingest.Start(ctx, s.broker.Conn(), ingest.Config{Cursors: s.buckets["cursors"], Logger: s.cfg.Logger})
	if err != nil {
		return nil, err
	}
	s.onStop(s.ingest.Stop)
	var out []Repaired
	for _, name := range []string{fleetFold, driftFold, historyFold} {
		reason, err := s.ingest.Repair(ctx, s.buckets[name])
		if err != nil {
			return out, fmt.Errorf("repair %s: %w", name, err)
		}
		if reason != nil {
			out = append(out, Repaired{Fold: name, Reason: reason.Error()})
		}
	}
	return out, nil
}
