package tracking

import (
	"context"
	"log/slog"
	"time"
)

// Config of a store. The zero value serves.
type Config struct {
	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: none
}

type checkpoints struct{}

func (s *Store) load(ctx context.Context, _ Config) error { return s.catchUp(ctx) }
func (*checkpoints) write(context.Context, *Store) error  { return nil }
func (s *Store) keepCheckpoints()                         {}
