package tracking

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// DefaultKeepDeleted is for how long a deleted run can be restored, as long as
	// MLflow's own `mlflow gc` is usually told to keep it.
	DefaultKeepDeleted = 30 * 24 * time.Hour
	// purgeEvery is how often runs are looked for that were deleted that long ago.
	purgeEvery = time.Hour
	// purgeAtOnce bounds one record of purged runs.
	purgeAtOnce = 1000
)

// Purge forgets the runs that were deleted before a moment and tells how many they
// were. What was logged of them stays in the journal, where nothing leads to it. Those that a registered version or a logged model
// names stay: they are its lineage.
func (s *Store) Purge(ctx context.Context, before time.Time) (purged int, err error) {
	for ids := range slices.Chunk(s.purgeable(before.UnixMilli()), purgeAtOnce) {
		gone, err := s.purgeSome(ctx, ids, before.UnixMilli())
		if err != nil {
			return purged, fmt.Errorf("purge deleted runs: %w", err)
		}
		purged += len(gone)
	}
	return purged, nil
}

func (s *Store) purgeable(beforeMS int64) (ids []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	named := map[string]bool{}
	for c := range s.x.versions.all() {
		named[c.get().Run] = true
	}
	for c := range s.x.logged.all() {
		if m := c.get(); !m.Deleted {
			named[m.SourceRun] = true
		}
	}
	for c := range s.x.runs.all() {
		if r := c.get(); r.deleted != 0 && r.deleted < beforeMS && !named[r.id] {
			ids = append(ids, r.id)
		}
	}
	return ids
}

// purgeSome lets those of some runs go that are still deleted when nobody else can
// restore them.
func (s *Store) purgeSome(ctx context.Context, ids []string, beforeMS int64) (gone []string, err error) {
	for _, i := range s.shares(ids) {
		s.busy[i].Lock()
		defer s.busy[i].Unlock()
	}
	for _, id := range ids {
		if r, err := s.run(id); err == nil && r.deleted != 0 && r.deleted < beforeMS {
			gone = append(gone, id)
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	return gone, s.store(ctx, &record{AtMS: s.nowMS(), Purged: gone})
}

// shares are the locks of runs in ascending order, so that no two wait for each
// other.
func (s *Store) shares(ids []string) (out []int) {
	for _, id := range ids {
		out = append(out, s.share(holdRun, id))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// keepPurged purges again and again, until the store is closed.
func (s *Store) keepPurged(keep time.Duration) {
	ctx, cancel := s.untilClosed()
	defer cancel()
	timer := time.NewTicker(purgeEvery)
	defer timer.Stop()
	for {
		n, err := s.Purge(ctx, s.now().Add(-keep))
		if err != nil && ctx.Err() == nil {
			s.log.Warn("deleted runs could not be purged, trying again", "error", err)
		}
		if n > 0 {
			s.log.Info("deleted runs purged", "runs", n, "deleted_before", s.now().Add(-keep))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}
