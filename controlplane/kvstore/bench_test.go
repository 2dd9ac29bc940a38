package kvstore_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// Writing the cursors of a fleet down when the control plane stops: one by one,
// by 32 writers at once, and in batches. All is synced.
func BenchmarkPutMany(b *testing.B) {
	const many, writers = 2000, 32
	values := map[string][]byte{}
	for n := range many {
		values["dev-"+strconv.Itoa(n)] = make([]byte, 300)
	}
	put := func(b *testing.B, bucket kvstore.Bucket, part int) {
		b.Helper()
		for n := part; n < many; n += writers {
			key := "dev-" + strconv.Itoa(n)
			if _, err := bucket.Put(b.Context(), key, values[key]); err != nil {
				b.Error(err)
			}
		}
	}
	for _, way := range []struct {
		name  string
		write func(b *testing.B, bucket kvstore.Bucket)
	}{
		{"one_by_one", func(b *testing.B, bucket kvstore.Bucket) {
			b.Helper()
			for part := range writers {
				put(b, bucket, part)
			}
		}},
		{"together", func(b *testing.B, bucket kvstore.Bucket) {
			b.Helper()
			var all sync.WaitGroup
			for part := range writers {
				all.Go(func() { put(b, bucket, part) })
			}
			all.Wait()
		}},
		{"in_batches", func(b *testing.B, bucket kvstore.Bucket) {
			b.Helper()
			if err := kvstore.PutAll(b.Context(), bucket, values); err != nil {
				b.Fatal(err)
			}
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			bucket, err := kvstore.Open(b.Context(), brokertest.Start(b).Conn(), "CURSORS")
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				way.write(b, bucket)
			}
			b.ReportMetric(float64(many)*float64(b.N)/b.Elapsed().Seconds(), "values/s")
		})
	}
}
