package tracking_test

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/tracking"
)

func openBench(b *testing.B) *tracking.Store {
	b.Helper()
	s := open(b, brokertest.Start(b).Conn())
	b.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// Batches of ten metrics by clients that each wait for the answer. All is synced.
func BenchmarkLog(b *testing.B) {
	for _, clients := range []int{1, 8, 32, 128} {
		b.Run(strconv.Itoa(clients)+"_clients", func(b *testing.B) {
			s := openBench(b)
			ids := make([]string, clients)
			for i := range ids {
				r, err := s.CreateRun(b.Context(), tracking.Run{})
				if err != nil {
					b.Fatal(err)
				}
				ids[i] = r.ID
			}
			const each = 50
			step := int64(0)
			for b.Loop() {
				var all sync.WaitGroup
				for _, id := range ids {
					all.Go(func() {
						for n := range int64(each) {
							if err := s.Log(b.Context(), id, ten(step+n)); err != nil {
								b.Error(err)
							}
						}
					})
				}
				all.Wait()
				step += each
			}
			b.ReportMetric(float64(b.N*each*clients)/b.Elapsed().Seconds(), "batches/s")
		})
	}
}

func ten(step int64) tracking.Batch {
	var out tracking.Batch
	for n := range 10 {
		out.Metrics = append(out.Metrics, tracking.Metric{Key: "metric_" + strconv.Itoa(n), Value: float64(n) + 1/float64(step+1), Step: step, TimestampMS: step})
	}
	return out
}

// Searches among 100,000 runs of one experiment.
func BenchmarkSearch(b *testing.B) {
	s := tracking.NewMemory()
	const runs = 100_000
	for n := range runs {
		r, err := s.CreateRun(b.Context(), tracking.Run{StartedMS: int64(n + 1), User: "ada", Tags: map[string]string{"mlflow.source.name": "train.py", "team": strconv.Itoa(n % 7)}})
		if err != nil {
			b.Fatal(err)
		}
		batch := ten(int64(n * 7919 % 1000))
		batch.Params = map[string]string{"lr": strconv.Itoa(n % 10), "depth": strconv.Itoa(n % 13), "seed": strconv.Itoa(n)}
		if err := s.Log(b.Context(), r.ID, batch); err != nil {
			b.Fatal(err)
		}
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b.Logf("heap %d MB", m.HeapAlloc>>20)
	for name, q := range map[string]tracking.Search{
		"newest":        {Max: 100},
		"metric_order":  {Max: 100, OrderBy: []string{"metrics.metric_5 DESC"}},
		"metric_filter": {Max: 100, Filter: "metrics.metric_3 > 3.5", OrderBy: []string{"metrics.metric_9 ASC"}},
		"param_order":   {Max: 100, Filter: "params.depth = '7' and tags.team LIKE '%3%'", OrderBy: []string{"params.lr"}},
		"rare":          {Max: 100, Filter: "params.seed = '99'"},
		"thousand":      {Max: 1000, OrderBy: []string{"metrics.metric_5 DESC"}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.SearchRuns([]string{"0"}, q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
