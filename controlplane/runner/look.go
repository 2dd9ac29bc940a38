package runner

import (
	"context"
	"time"
)

// Look looks at every rollout once, for callers that keep the time themselves,
// as a simulation does; Run does it again and again. It returns when the next
// look is due by itself, zero for never, and how long to wait before what went
// wrong is tried again, 0 for nothing.
func (r *Runner) Look(ctx context.Context) (wake time.Time, retry time.Duration) {
	return r.pass(ctx, 0)
}
