package main

import (
	"context"
	"fmt"
	"time"
)

// Load during a swap.
const (
	swapRate        = 1000 // requests a second
	swapConnections = 16
)

// swapping changes the version under load, there and back.
func (b *bench) swapping(ctx context.Context) error {
	p, err := b.standing(ctx)
	if err != nil {
		return err
	}
	failed, before, during := 0, []float64{}, []float64{}
	for i := range b.rounds(6) {
		r, err := p.swapOnce(ctx, []string{"2", "1"}[i%2])
		if err != nil {
			return err
		}
		failed += r.failed
		before, during = append(before, r.before), append(during, r.during)
	}
	detail := fmt.Sprintf("%d swaps at %d requests/s", len(before), swapRate)
	b.atMost(Figure{Part: "swap", What: "failed requests", Value: float64(failed), Unit: "", Detail: detail}, 0)
	b.atMost(Figure{
		Part: "swap", What: "p99 in the second around the swap over p99 before the update", Value: median(ratios(during, before)), Unit: "×",
		Detail: fmt.Sprintf("%.2f ms against %.2f ms", 1e3*median(during), 1e3*median(before)),
	}, 2)
	return nil
}

type swapped struct {
	failed         int
	before, during float64 // p99 in seconds
}

// swapOnce loads the agent for a while, rolls the version out, and goes on
// until the rollout has ended, a second or more after it serves.
func (p *plant) swapOnce(ctx context.Context, version string) (swapped, error) {
	stop, done := make(chan struct{}), make(chan error, 1)
	var hits []hit
	go func() {
		var err error
		hits, err = openLoop(ctx, p.listen, "/v2/models/"+model+"/infer", inferRequest([][]float32{image()}), swapConnections, swapRate, stop)
		done <- err
	}()
	time.Sleep(3 * time.Second)
	update := time.Now()
	swap, err := p.assign(ctx, version)
	close(stop)
	if loadErr := <-done; err == nil {
		err = loadErr
	}
	if err != nil {
		return swapped{}, err
	}
	return judgeSwap(hits, update, swap), nil
}

func judgeSwap(hits []hit, update, swap time.Time) swapped {
	var r swapped
	var before, during []float64
	for _, h := range hits {
		switch {
		case h.err != nil:
			r.failed++
		case h.sent.Before(update.Add(-2 * time.Second)): // warms up
		case h.sent.Before(update):
			before = append(before, h.took.Seconds())
		case h.sent.After(swap.Add(-500*time.Millisecond)) && h.sent.Before(swap.Add(500*time.Millisecond)):
			during = append(during, h.took.Seconds())
		}
	}
	r.before, r.during = quantile(before, 0.99), quantile(during, 0.99)
	return r
}
