package kvstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxBatch and maxBatchBytes bound what is written at once. The broker takes up
// to 1000 values.
const (
	maxBatch      = 500
	maxBatchBytes = 4 << 20
)

// Headers by which the broker joins messages to one write (NATS ADR-50).
const (
	headerBatch    = "Nats-Batch-Id"
	headerSequence = "Nats-Batch-Sequence"
	headerCommit   = "Nats-Batch-Commit"
)

// batcher is a bucket that can write many values as fast as one.
type batcher interface {
	putAll(ctx context.Context, values map[string][]byte) error
}

// PutAll sets values whatever was there. A bucket in JetStream writes hundreds
// of them in one go, with one sync of the disk. After an error some are set and
// others are not.
func PutAll(ctx context.Context, b Writer, values map[string][]byte) error {
	if many, ok := b.(batcher); ok {
		return many.putAll(ctx, values)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if _, err := b.Put(ctx, key, values[key]); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) putAll(ctx context.Context, values map[string][]byte) error {
	for key, value := range values {
		if err := checkWrite(key, value); err != nil {
			return err
		}
	}
	if len(values) == 0 {
		return nil
	}
	if err := s.allowBatches(ctx); err != nil {
		return err
	}
	for rest := slices.Sorted(maps.Keys(values)); len(rest) > 0; {
		n := batchOf(rest, values)
		if err := s.batch(ctx, rest[:n], values); err != nil {
			return fmt.Errorf("set %d values from %s on: %w", n, rest[0], err)
		}
		rest = rest[n:]
	}
	return nil
}

// batchOf is how many of the keys, at least one, go into the next batch.
func batchOf(keys []string, values map[string][]byte) int {
	size := 0
	for n, key := range keys[:min(maxBatch, len(keys))] {
		if size += len(values[key]); size > maxBatchBytes && n > 0 {
			return n
		}
	}
	return min(maxBatch, len(keys))
}

// allowBatches lets the stream of the bucket take batches, which a bucket's
// configuration has no word for.
func (s *stream) allowBatches(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	if s.batches.Load() {
		return nil
	}
	js, err := jetstream.New(s.nc)
	if err != nil {
		return err
	}
	values, err := js.Stream(ctx, "KV_"+s.kv.Bucket())
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", s.kv.Bucket(), err)
	}
	cfg := values.CachedInfo().Config
	cfg.AllowAtomicPublish = true
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("let bucket %s take batches: %w", s.kv.Bucket(), err)
	}
	s.batches.Store(true)
	return nil
}

// batch writes the values of some keys. All of them are set or, after an error
// of the broker, none.
func (s *stream) batch(ctx context.Context, keys []string, values map[string][]byte) error {
	ctx, cancel := within(ctx)
	defer cancel()
	id := rand.Text()
	for i, key := range keys {
		m := nats.NewMsg("$KV." + s.kv.Bucket() + "." + key)
		m.Data = values[key]
		m.Header.Set(headerBatch, id)
		m.Header.Set(headerSequence, strconv.Itoa(i+1))
		if i+1 < len(keys) {
			if err := s.nc.PublishMsg(m); err != nil {
				return err
			}
			continue
		}
		m.Header.Set(headerCommit, "1")
		return s.commit(ctx, m, len(keys))
	}
	return nil
}

// commit sends the last message of a batch and reads the broker's answer.
func (s *stream) commit(ctx context.Context, last *nats.Msg, count int) error {
	m, err := s.nc.RequestMsgWithContext(ctx, last)
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		Count int                 `json:"count"`
	}
	switch err := json.Unmarshal(m.Data, &answer); {
	case err != nil:
		return fmt.Errorf("read the broker's answer: %w", err)
	case answer.Error != nil:
		return answer.Error
	case answer.Count != count:
		return fmt.Errorf("the broker set %d values of %d", answer.Count, count)
	}
	return nil
}
