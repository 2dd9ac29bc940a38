package tracking_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// A start with many runs: reading the checkpoint.
func BenchmarkOpen(b *testing.B) {
	const runs, writers = 100_000, 64
	nc := brokertest.Start(b).Conn()
	s := open(b, nc)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := w; n < runs; n += writers {
				r, err := s.CreateRun(b.Context(), tracking.Run{StartedMS: int64(n + 1), User: "ada", Tags: map[string]string{"mlflow.source.name": "train.py"}})
				if err == nil {
					batch := ten(int64(n % 1000))
					batch.Params = map[string]string{"lr": strconv.Itoa(n % 10), "seed": strconv.Itoa(n)}
					err = s.Log(b.Context(), r.ID, batch)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := open(b, nc)
		b.StopTimer()
		if got := len(dump(b, s).Runs); got != 50_000 {
			b.Fatalf("got %d runs", got)
		}
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
