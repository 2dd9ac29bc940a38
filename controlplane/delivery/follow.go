package delivery

import (
	"context"
	"time"
)

// Together is how many deliveries of one sender are under way at once.
const Together = 8

// Follow calls work now, when wake holds something, and at the time that work
// returned last; zero is for when something new comes. It ends with ctx.
func Follow(ctx context.Context, wake <-chan struct{}, work func(context.Context) time.Time) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
		if next := work(ctx); !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
	}
}
