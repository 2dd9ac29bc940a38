package kvstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// errBroken says that the broker ended a watch, for example by stopping.
var errBroken = errors.New("the broker ended the watch")

// checkReaders is how many values Open reads at the same time.
const checkReaders = 16

// stream is a Bucket in JetStream.
type stream struct {
	kv      jetstream.KeyValue
	nc      *nats.Conn
	batches atomic.Bool // the stream takes batches
}

var (
	_ Bucket  = (*stream)(nil)
	_ batcher = (*stream)(nil)
)

// Open returns the bucket of that name (letters, digits, '-' and '_'), which is
// made if it is not there. How durable a write is when it returns is the
// broker's setting; the control plane's broker syncs every write. It reads every
// value once: ErrDamaged when one is lost.
func Open(ctx context.Context, nc *nats.Conn, name string) (Bucket, error) {
	s, values, err := open(ctx, nc, name, 0)
	if err == nil {
		err = check(ctx, values, "$KV."+name+".")
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return s, nil
}

// OpenAged is Open for a bucket that forgets values keep after they were
// written. It reads none of them beforehand: there may be gigabytes, and one
// that is lost is missed when it is asked for.
func OpenAged(ctx context.Context, nc *nats.Conn, name string, keep time.Duration) (Bucket, error) {
	s, _, err := open(ctx, nc, name, keep)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return s, nil
}

// Size is how many bytes a bucket takes on disk, or in memory.
func Size(ctx context.Context, b Bucket) (uint64, error) {
	switch b := b.(type) {
	case *stream:
		ctx, cancel := within(ctx)
		defer cancel()
		status, err := b.kv.Status(ctx)
		if err != nil {
			return 0, fmt.Errorf("measure bucket %s: %w", b.kv.Bucket(), err)
		}
		return status.Bytes(), nil
	case *Memory:
		return b.size(), nil
	}
	return 0, fmt.Errorf("measure bucket: a %T cannot be", b)
}

// open returns the bucket, and the stream that it is.
func open(ctx context.Context, nc *nats.Conn, name string, keep time.Duration) (*stream, jetstream.Stream, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, err
	}
	kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket:  name,
		History: 1,
		Storage: jetstream.FileStorage,
		TTL:     keep,
	})
	if err != nil {
		return nil, nil, err
	}
	values, err := js.Stream(ctx, "KV_"+name)
	return &stream{kv: kv, nc: nc}, values, err
}

// check looks for each key whether its value can be read: a watch would wait
// for one that cannot for ever, and not name it.
func check(ctx context.Context, values jetstream.Stream, prefix string) error {
	listing, cancel := within(ctx)
	defer cancel()
	info, err := values.Info(listing, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return fmt.Errorf("list keys: %w", err)
	}
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(checkReaders)
	for subject := range info.State.Subjects {
		g.Go(func() error {
			return readable(reading, "value of "+strings.TrimPrefix(subject, prefix), func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
				return values.GetLastMsgForSubject(ctx, subject)
			})
		})
	}
	if err := g.Wait(); err != nil || info.State.LastSeq == 0 {
		return err
	}
	// The newest write is the newest of its key: it is missing only when the
	// broker has found the end of its file broken and cut it off.
	return readable(ctx, fmt.Sprintf("write %d, the newest,", info.State.LastSeq), func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return values.GetMsg(ctx, info.State.LastSeq)
	})
}

// readable says what cannot be read, when that is so.
func readable(ctx context.Context, what string, get func(context.Context) (*jetstream.RawStreamMsg, error)) error {
	ctx, cancel := within(ctx)
	defer cancel()
	_, err := get(ctx)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("%s cannot be read: %w", what, ErrDamaged)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", what, err)
	}
	return nil
}

// Get implements Reader.
func (s *stream) Get(ctx context.Context, key string) (Entry, error) {
	if err := checkKey(key); err != nil {
		return Entry{}, err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	e, err := s.kv.Get(ctx, key)
	if err != nil {
		return Entry{}, fmt.Errorf("get %s: %w", key, translate(err))
	}
	return entryOf(e), nil
}

// List implements Reader.
func (s *stream) List(ctx context.Context, prefix string) ([]Entry, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	changes, err := s.Watch(ctx, prefix)
	if err != nil {
		return nil, err
	}
	found := map[string]Entry{}
	for c := range changes {
		switch {
		case c.Synced:
			stop()
			drain(changes)
			return sorted(found), nil
		case c.Deleted:
			delete(found, c.Key)
		default:
			found[c.Key] = c.Entry
		}
	}
	return nil, fmt.Errorf("list %q: broken off: %w", prefix, cmp.Or(ctx.Err(), errBroken))
}

func sorted(found map[string]Entry) []Entry {
	out := make([]Entry, 0, len(found))
	for _, key := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[key])
	}
	return out
}

// drain waits until the watch has ended, which it does by itself: its goroutine
// must not be left behind.
func drain(changes <-chan Change) {
	for range changes {
	}
}

// Watch implements Reader.
func (s *stream) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	filter := ">"
	if prefix != "" {
		filter = prefix + ".>"
	}
	w, err := s.kv.Watch(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("watch %q: %w", prefix, translate(err))
	}
	out := make(chan Change)
	go pump(ctx, w, out)
	return out, nil
}

// pump moves changes until ctx ends or the watcher breaks off. The library
// blocks while nobody takes an update, so what is left is taken at the end.
func pump(ctx context.Context, w jetstream.KeyWatcher, out chan<- Change) {
	defer stopWatcher(w) // last: the receiver does not wait for it
	defer close(out)
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.Updates():
			if !ok || !send(ctx, out, changeOf(e)) {
				return
			}
		}
	}
}

func stopWatcher(w jetstream.KeyWatcher) {
	_ = w.Stop()            // it may have ended already, by its context or with the connection
	for range w.Updates() { // the library closes it when its last update is taken
	}
}

func changeOf(e jetstream.KeyValueEntry) Change {
	if e == nil {
		return Change{Synced: true}
	}
	deleted := e.Operation() != jetstream.KeyValuePut
	c := Change{Entry: entryOf(e), Deleted: deleted}
	if deleted {
		c.Value = nil
	}
	return c
}

func entryOf(e jetstream.KeyValueEntry) Entry {
	return Entry{Key: e.Key(), Value: e.Value(), Revision: e.Revision(), At: e.Created().UTC()}
}

// Put implements Writer.
func (s *stream) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return s.write(ctx, key, value, s.kv.Put)
}

// Create implements Writer.
func (s *stream) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return s.write(ctx, key, value, func(ctx context.Context, key string, value []byte) (uint64, error) {
		return s.kv.Create(ctx, key, value)
	})
}

// CompareAndSet implements Writer.
func (s *stream) CompareAndSet(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if revision == 0 {
		return s.Create(ctx, key, value)
	}
	return s.write(ctx, key, value, func(ctx context.Context, key string, value []byte) (uint64, error) {
		return s.kv.Update(ctx, key, value, revision)
	})
}

type writeFunc func(ctx context.Context, key string, value []byte) (uint64, error)

func (s *stream) write(ctx context.Context, key string, value []byte, do writeFunc) (uint64, error) {
	if err := checkWrite(key, value); err != nil {
		return 0, err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	revision, err := do(ctx, key, value)
	if err != nil {
		return 0, fmt.Errorf("set %s: %w", key, translate(err))
	}
	return revision, nil
}

// Delete implements Writer.
func (s *stream) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	if err := s.kv.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, translate(err))
	}
	return nil
}

// translate names what a caller can act on. A conflict has two codes: one of
// single and one of replicated streams.
func translate(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return ErrNotFound
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return ErrConflict
	case errors.Is(err, jetstream.ErrKeyExists):
		return ErrConflict
	default:
		return err
	}
}
