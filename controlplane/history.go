package controlplane

import (
	"context"
	"fmt"

	"github.com/vedette-edge/vedette/controlplane/history"
	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// openHistory opens what is kept for longer than the uplink stream.
func (s *Server) openHistory(ctx context.Context) error {
	hours, err := kvstore.OpenAged(ctx, s.broker.Conn(), "history-hours", history.KeepHours)
	if err != nil {
		return err
	}
	days, err := kvstore.OpenAged(ctx, s.broker.Conn(), "history-days", history.KeepDays)
	if err != nil {
		return err
	}
	s.history = history.New(history.Config{Hours: hours, Days: days, Cohort: s.cohortOf, Logger: s.cfg.Logger})
	return nil
}

// cohortOf is the cohort that a device belongs to now.
func (s *Server) cohortOf(device string) string {
	d, _ := s.fleet.Device(device)
	return d.Labels[s.monitor.Config().CohortBy]
}

// foldHistory runs the fold, and closes ready when it has what was stored before.
// On a server that had no history it begins with what the stream still holds.
func (s *Server) foldHistory(ready chan<- struct{}) {
	s.run("history fold", func(ctx context.Context) error {
		return s.ingest.Fold(ctx, ingest.Fold{
			Name: "history", Bucket: s.buckets[historyFold], Every: history.Checkpoint, Late: true,
			Load: s.history.Load, Apply: s.history.Apply, Dirty: s.history.Dirty, Written: s.history.Written,
			Ready: func() { close(ready) },
		})
	})
}

// historySizes adds what the history takes to what is told of storage.
func (s *Server) historySizes(ctx context.Context, to *operator.Storage) error {
	sizes, err := s.history.Sizes(ctx)
	if err != nil {
		return fmt.Errorf("measure the history: %w", err)
	}
	to.HourBytes, to.DayBytes = sizes.Hours, sizes.Days
	return nil
}
