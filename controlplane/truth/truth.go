// Package truth takes truths that people found out later, in bulk, and passes
// them on to the devices that made the predictions: only a device knows those
// [P-9]. What waits for a device lies in one value of a bucket, numbered, until
// the device says that it was taken or until no prediction can be held any more.
//
// A truth finds its device by name, or by how the prediction's id begins: every
// start of an agent gives ids of its own, and its hello says which.
//
//	queue.DEVICE    what waits for a device, and what became of what was taken
//	prefix.DEVICE   how the ids of the device's predictions begin
//	upload.ID       what was uploaded, by whom, and which chunks of it
package truth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

// Bounds.
const (
	// Wait is how long a truth waits for its device. A device holds predictions
	// for 24 h, and a truth is uploaded after its prediction was made: what waits
	// longer can match nothing. Two hours are for clocks and slow uploads.
	Wait = 26 * time.Hour
	// MaxWaiting bounds the truths that wait for one device: a fifth of the
	// predictions it holds.
	MaxWaiting = 20_000
	// maxQueue bounds them in bytes, so that a queue is one value of the bucket.
	maxQueue = kvstore.MaxValue * 3 / 4
	// maxPrefixes is how many starts of one device are remembered.
	maxPrefixes = 32
	// maxChunks bounds what a queue remembers against being given a chunk twice.
	maxChunks = 1024
	// maxDone bounds the uploads whose results a queue remembers.
	maxDone = 64
	// keepResults is how long uploads and their results are remembered.
	keepResults = 30 * 24 * time.Hour
	// tendEvery is how often what has expired is looked for.
	tendEvery = 10 * time.Minute
	// tries is how often a value that others change too is written.
	tries = 8
)

// What may be wrong with an upload.
var (
	// ErrUpload says that there is no upload of that id.
	ErrUpload = errors.New("no such upload of truths: it was not begun, or is forgotten after 30 days")
	// ErrChunk says that a chunk cannot be taken as it is.
	ErrChunk = errors.New("chunk of truths is not well formed")
)

// Devices knows which devices there are and which models they have.
type Devices interface {
	// Has says whether there is such a device, and whether it has the model.
	Has(device, model string) (known, has bool)
}

// Config of a Service.
type Config struct {
	// Tell lets a device know that truths wait for it; required.
	Tell   func(device string)
	Now    func() time.Time // nil is time.Now
	Logger *slog.Logger     // nil discards
}

// Service takes truths and gives them to devices. It is safe for concurrent use.
type Service struct {
	bucket  kvstore.Bucket
	devices Devices
	cfg     Config
	wake    chan struct{} // prefixes are to be written down

	mu       sync.Mutex         // guards what follows
	prefixes map[string]string  // device by prefix
	starts   map[string][]start // by device, newest last
	unsaved  map[string]bool    // devices whose starts are to be written down
	queues   map[string]summary // by device
	uploads  map[string]*record // by id
	pushing  sync.Mutex         // held while a chunk is taken: chunks of one upload must not race
}

// start is one start of a device's agent.
type start struct {
	Prefix string    `json:"prefix"`
	Ended  time.Time `json:"ended,omitzero"` // when the next one was heard of
}

// summary is what is held in memory of a queue.
type summary struct {
	newest  uint64            // number of the newest batch that waits, 0 for none
	waiting map[string]uint64 // truths by upload
	done    []*protocol.TruthDone
}

// Open reads what is kept in a bucket that belongs to this service alone.
func Open(ctx context.Context, b kvstore.Bucket, devices Devices, cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		bucket: b, devices: devices, cfg: cfg, wake: make(chan struct{}, 1),
		prefixes: map[string]string{}, starts: map[string][]start{}, unsaved: map[string]bool{},
		queues: map[string]summary{}, uploads: map[string]*record{},
	}
	for prefix, load := range map[string]func(name string, value []byte) error{
		prefixKeys: s.loadStarts, queueKeys: s.loadQueue, uploadKeys: s.loadUpload,
	} {
		entries, err := b.List(ctx, prefix)
		if err != nil {
			return nil, fmt.Errorf("read truths: %w", err)
		}
		for _, e := range entries {
			parts, err := kvstore.Parts(e.Key)
			if err == nil {
				err = load(parts[len(parts)-1], e.Value)
			}
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", e.Key, err)
			}
		}
	}
	return s, nil
}

// How keys begin.
const (
	prefixKeys = "prefix"
	queueKeys  = "queue"
	uploadKeys = "upload"
)

func (s *Service) loadStarts(device string, value []byte) error {
	var list []start
	if err := json.Unmarshal(value, &list); err != nil {
		return err
	}
	s.starts[device] = list
	for _, one := range list {
		s.prefixes[one.Prefix] = device
	}
	return nil
}

func (s *Service) loadQueue(device string, value []byte) error {
	q := &protocol.TruthQueue{}
	if err := proto.Unmarshal(value, q); err != nil {
		return err
	}
	s.queues[device] = summarize(q)
	return nil
}

func summarize(q *protocol.TruthQueue) summary {
	out := summary{waiting: map[string]uint64{}, done: q.GetDone()}
	for _, b := range q.GetWaiting() {
		out.newest = b.GetSeq()
		out.waiting[b.GetUpload()] += uint64(len(b.GetTruths()))
	}
	return out
}

// Newest is the number of the newest batch that waits for a device, 0 for none
// [P-9.3].
func (s *Service) Newest(device string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues[device].newest
}

// OnHello learns how the ids of a device's predictions begin, and says whether
// there is a batch that the device has not taken. It does not block.
func (s *Service) OnHello(device string, h *protocol.Hello) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if prefix := h.GetPredictions(); prefix != "" {
		s.started(device, prefix)
	}
	return s.queues[device].newest > h.GetTruths()
}

// started notes a start of a device's agent. A prefix that another device has is
// not taken from it: 80 random bits do not meet by chance. The caller holds mu.
func (s *Service) started(device, prefix string) {
	if _, known := s.prefixes[prefix]; known {
		return
	}
	list := s.starts[device]
	if n := len(list); n > 0 {
		list[n-1].Ended = s.cfg.Now()
	}
	list = append(list, start{Prefix: prefix})
	for len(list) > maxPrefixes {
		delete(s.prefixes, list[0].Prefix)
		list = list[1:]
	}
	s.starts[device], s.prefixes[prefix], s.unsaved[device] = list, device, true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes down what hellos said and deletes what has expired, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			err = s.saveStarts(ctx)
		case <-tick.C:
			err = errors.Join(s.saveStarts(ctx), s.Expire(ctx, s.cfg.Now()))
		}
		if err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("truths are not tended to, trying again", "error", err)
		}
	}
}

// saveStarts writes down the starts that are not.
func (s *Service) saveStarts(ctx context.Context) error {
	s.mu.Lock()
	todo := map[string][]byte{}
	for device := range s.unsaved {
		value, err := json.Marshal(s.starts[device])
		if err != nil {
			s.mu.Unlock()
			return fmt.Errorf("encode starts of %s: %w", device, err)
		}
		todo[device] = value
	}
	clear(s.unsaved)
	s.mu.Unlock()
	for device, value := range todo {
		if _, err := s.bucket.Put(ctx, kvstore.Key(prefixKeys, device), value); err != nil {
			s.mu.Lock()
			for device := range todo {
				s.unsaved[device] = true
			}
			s.mu.Unlock()
			return fmt.Errorf("write starts of %s: %w", device, err)
		}
	}
	return nil
}

// change reads a device's queue, lets edit change it and writes it back, again
// where somebody else was faster. edit returns false when there is nothing to change.
func (s *Service) change(ctx context.Context, device string, edit func(q *protocol.TruthQueue) bool) error {
	key := kvstore.Key(queueKeys, device)
	for try := 1; ; try++ {
		q, revision, err := s.queue(ctx, key)
		if err != nil {
			return err
		}
		if edit(q) {
			err = s.write(ctx, device, key, q, revision)
		}
		switch {
		case err == nil:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.queues[device] = summarize(q)
			return nil
		case !errors.Is(err, kvstore.ErrConflict) || try == tries:
			return fmt.Errorf("change truths of %s: %w", device, err)
		}
	}
}

func (s *Service) queue(ctx context.Context, key string) (*protocol.TruthQueue, uint64, error) {
	q := &protocol.TruthQueue{}
	e, err := s.bucket.Get(ctx, key)
	if errors.Is(err, kvstore.ErrNotFound) {
		return q, 0, nil
	}
	if err == nil {
		err = proto.Unmarshal(e.Value, q)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", key, err)
	}
	return q, e.Revision, nil
}

func (s *Service) write(ctx context.Context, device, key string, q *protocol.TruthQueue, revision uint64) error {
	raw, err := proto.Marshal(q)
	if err != nil {
		return fmt.Errorf("encode truths of %s: %w", device, err)
	}
	_, err = s.bucket.CompareAndSet(ctx, key, raw, revision)
	return err
}

// Next notes what became of the newest batch that a device has taken, drops that
// batch and those before it, and returns the next one, nil when there is none. To
// repeat it changes nothing.
func (s *Service) Next(ctx context.Context, device string, taken *protocol.TruthTaken) (*protocol.TruthBatch, error) {
	s.mu.Lock()
	newest := s.queues[device].newest
	s.mu.Unlock()
	if newest == 0 {
		return nil, nil
	}
	now := s.cfg.Now()
	var next *protocol.TruthBatch
	err := s.change(ctx, device, func(q *protocol.TruthQueue) bool {
		changed := settle(q, taken, now)
		changed = expire(q, now) || changed
		next = nil
		if len(q.GetWaiting()) > 0 {
			next = q.GetWaiting()[0]
		}
		return changed
	})
	return next, err
}

// settle moves the batches up to the one taken from waiting to done.
func settle(q *protocol.TruthQueue, taken *protocol.TruthTaken, now time.Time) (changed bool) {
	for len(q.GetWaiting()) > 0 && q.GetWaiting()[0].GetSeq() <= taken.GetSeq() {
		b := q.GetWaiting()[0]
		q.Waiting, changed = q.GetWaiting()[1:], true
		d := doneOf(q, b, now)
		if b.GetSeq() == taken.GetSeq() {
			addTaken(d.GetTaken(), taken, uint64(len(b.GetTruths())))
		}
	}
	return changed
}

// addTaken adds what a device says became of a batch, as far as the batch goes:
// one that lies must not make the sums of an upload wrong for all.
func addTaken(sum, taken *protocol.TruthTaken, truths uint64) {
	some := func(n uint64) uint64 {
		n = min(n, truths)
		truths -= n
		return n
	}
	sum.Matched += some(taken.GetMatched())
	sum.Unmatched += some(taken.GetUnmatched())
	sum.Repeated += some(taken.GetRepeated())
	sum.Refused += some(taken.GetRefused())
}

// expire moves what has waited too long from waiting to done.
func expire(q *protocol.TruthQueue, now time.Time) (changed bool) {
	for len(q.GetWaiting()) > 0 && q.GetWaiting()[0].GetExpiresMs() <= now.UnixMilli() {
		b := q.GetWaiting()[0]
		q.Waiting, changed = q.GetWaiting()[1:], true
		doneOf(q, b, now).Expired += uint64(len(b.GetTruths()))
	}
	for len(q.GetDone()) > 0 && now.UnixMilli()-q.GetDone()[0].GetAtMs() > keepResults.Milliseconds() {
		q.Done, changed = q.GetDone()[1:], true
	}
	return changed
}

// doneOf is the sum of a batch's upload, the newest one from now on.
func doneOf(q *protocol.TruthQueue, b *protocol.TruthBatch, now time.Time) *protocol.TruthDone {
	d := &protocol.TruthDone{Upload: b.GetUpload(), Model: b.GetModel(), Taken: &protocol.TruthTaken{}}
	for i, old := range q.GetDone() {
		if old.GetUpload() == b.GetUpload() {
			d = old
			q.Done = append(q.Done[:i:i], q.Done[i+1:]...)
			break
		}
	}
	d.AtMs, d.Taken.Seq = now.UnixMilli(), max(d.GetTaken().GetSeq(), b.GetSeq())
	q.Done = append(q.Done, d)
	q.Done = q.Done[max(0, len(q.Done)-maxDone):]
	return d
}

// Expire gives up what has waited too long by now, and forgets old uploads and
// starts.
func (s *Service) Expire(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	var devices []string
	for device, q := range s.queues {
		if len(q.waiting)+len(q.done) > 0 {
			devices = append(devices, device)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, device := range devices {
		errs = append(errs, s.change(ctx, device, func(q *protocol.TruthQueue) bool { return expire(q, now) }))
	}
	return errors.Join(errors.Join(errs...), s.forgetUploads(ctx, now), s.forgetStarts(ctx, now))
}

// forgetStarts drops the starts whose predictions no device can hold any more.
func (s *Service) forgetStarts(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	for device, list := range s.starts {
		for len(list) > 1 && now.Sub(list[0].Ended) > Wait {
			delete(s.prefixes, list[0].Prefix)
			list = list[1:]
			s.unsaved[device] = true
		}
		s.starts[device] = list
	}
	s.mu.Unlock()
	return s.saveStarts(ctx)
}

// Forget drops what is kept of a device that was removed.
func (s *Service) Forget(ctx context.Context, device string) error {
	s.mu.Lock()
	for _, one := range s.starts[device] {
		delete(s.prefixes, one.Prefix)
	}
	delete(s.starts, device)
	delete(s.unsaved, device)
	delete(s.queues, device)
	s.mu.Unlock()
	err := errors.Join(s.bucket.Delete(ctx, kvstore.Key(queueKeys, device)), s.bucket.Delete(ctx, kvstore.Key(prefixKeys, device)))
	if err != nil {
		return fmt.Errorf("forget truths of %s: %w", device, err)
	}
	return nil
}
