package tracking

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

const (
	// DefaultCheckpoint is how often what has changed is written down. After a
	// crash what came since is read from the journal again.
	DefaultCheckpoint = time.Minute
	// checkpointShare is how many times as long as it takes to write down the store
	// rests before it does so again, up to maxRest.
	checkpointShare = 20
	maxRest         = 5 * time.Minute

	// pageSlots things lie on one page of a checkpoint, but for those over
	// maxSmall bytes, which have a page each: so a page stays below
	// kvstore.MaxValue.
	pageSlots = 64
	maxSmall  = 8 << 10
)

const markerKey = "marker"

// marker says up to where the pages are complete, and of which journal.
type marker struct {
	Format         int    `cbor:"format"`
	Incarnation    string `cbor:"incarnation"`
	Seq            uint64 `cbor:"seq"`
	Sum            []byte `cbor:"sum"` // SHA-256 of that message
	NextExperiment int64  `cbor:"next_experiment"`
	NextModel      int64  `cbor:"next_model"`
}

// stored is one thing in a page.
type stored[P any] struct {
	_    struct{} `cbor:",toarray"`
	Slot int
	At   moment
	V    P
}

// checkpoints writes the index into a bucket and reads it back. After load it
// belongs to one goroutine.
type checkpoints struct {
	bucket kvstore.Bucket
	zip    *zstd.Encoder
	unzip  *zstd.Decoder
	every  time.Duration

	incarnation string
	written     uint64           // sequence of the last marker
	large       map[string]bool  // keys of things that have a page each
	failed      map[string][]int // slots by kind that a failed write left unwritten
}

func newCheckpoints(b kvstore.Bucket, every time.Duration) (*checkpoints, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	unzip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, err
	}
	return &checkpoints{
		bucket: b, zip: zip, unzip: unzip, every: cmp.Or(every, DefaultCheckpoint),
		large: map[string]bool{}, failed: map[string][]int{},
	}, nil
}

// page is the content of one key of the bucket as it was at one moment.
type page struct {
	key    string
	turn   int
	things int                    // 0 deletes the key
	encode func() ([]byte, error) // nil where it deletes
}

// Turns in which pages are written. A large thing gets its page before it leaves
// the small ones, and keeps it until it is back among them.
const (
	turnLarge = iota
	turnSmall
	turnGone
	turns
)

// rack is a shelf of any kind, as checkpoints see it.
type rack interface {
	name() string
	// changed are the slots that were touched since the last call.
	changed() []int
	// gather takes what lies on the pages of some slots, and returns how to make
	// the pages of it without the lock.
	gather(slots []int) []func(c *checkpoints) []page
	// restore puts the things of a page back.
	restore(raw []byte) error
}

// shelved is a shelf with how its things are stored.
type shelved[T, P any] struct {
	kind   string
	shelf  *shelf[T]
	pack   func(*T) P
	unpack func(P) T
}

func same[T any](v T) T   { return v }
func value[T any](v *T) T { return *v }

// racks are all shelves of an index.
func (x *index) racks() []rack {
	return []rack{
		shelved[Experiment, Experiment]{"experiment", &x.experiments, value[Experiment], same[Experiment]},
		shelved[run, packed]{"run", &x.runs, pack, unpack},
		shelved[LoggedModel, LoggedModel]{"logged", &x.logged, value[LoggedModel], same[LoggedModel]},
		shelved[model, model]{"model", &x.models, value[model], same[model]},
		shelved[version, version]{"version", &x.versions, value[version], same[version]},
	}
}

func (s shelved[T, P]) name() string { return s.kind }

func (s shelved[T, P]) changed() []int {
	slots := slices.Collect(maps.Keys(s.shelf.dirty))
	clear(s.shelf.dirty)
	return slots
}

func (s shelved[T, P]) gather(slots []int) (out []func(*checkpoints) []page) {
	numbers := map[int]struct{}{}
	for _, slot := range slots {
		numbers[slot/pageSlots] = struct{}{}
	}
	for n := range numbers {
		end := min((n+1)*pageSlots, len(s.shelf.cells))
		things := make([]*kept[T], 0, pageSlots)
		for _, cell := range s.shelf.cells[min(n*pageSlots, end):end] {
			if cell != nil {
				things = append(things, cell.now.Load())
			}
		}
		out = append(out, func(c *checkpoints) []page { return s.pages(c, n, things) })
	}
	return out
}

// pages are the page of small things with that number, and those of large ones.
func (s shelved[T, P]) pages(c *checkpoints, n int, things []*kept[T]) (out []page) {
	small := make([]*kept[T], 0, len(things))
	large := map[string]bool{}
	for _, k := range things {
		if sizeOf(&k.v) <= maxSmall {
			small = append(small, k)
			continue
		}
		large[s.largeKey(k.slot)] = true
		out = append(out, page{s.largeKey(k.slot), turnLarge, 1, s.encoder(c, []*kept[T]{k})})
	}
	for slot := n * pageSlots; slot < (n+1)*pageSlots; slot++ {
		if key := s.largeKey(slot); c.large[key] && !large[key] {
			out = append(out, page{key: key, turn: turnGone})
		}
	}
	return append(out, page{s.kind + ".small." + strconv.Itoa(n), turnSmall, len(small), s.encoder(c, small)})
}

func (s shelved[T, P]) largeKey(slot int) string { return s.kind + ".large." + strconv.Itoa(slot) }

// sizeOf is about what a thing takes in a checkpoint, in bytes.
func sizeOf(v any) int {
	switch v := v.(type) {
	case *run:
		return v.size()
	case *Experiment:
		return 300 + textSize(v.Tags)
	case *LoggedModel:
		return v.size()
	case *model:
		return 300 + len(v.Description) + textSize(v.Tags) + textSize(v.Aliases)
	case *version:
		return 500 + len(v.Source) + len(v.ArtifactURI) + len(v.RunLink) + len(v.Description) + textSize(v.Tags) + 100*len(v.History)
	}
	return 0
}

func (s shelved[T, P]) encoder(c *checkpoints, things []*kept[T]) func() ([]byte, error) {
	return func() ([]byte, error) {
		out := make([]stored[P], len(things))
		for i, k := range things {
			out[i] = stored[P]{Slot: k.slot, At: k.at, V: s.pack(&k.v)}
		}
		raw, err := cbor.Marshal(out)
		if err != nil {
			return nil, fmt.Errorf("encode checkpoint: %w", err)
		}
		return c.zip.EncodeAll(raw, nil), nil
	}
}

func (s shelved[T, P]) restore(raw []byte) error {
	var in []stored[P]
	if err := cbor.Unmarshal(raw, &in); err != nil {
		return fmt.Errorf("decode checkpoint: %w", err)
	}
	for _, e := range in {
		// After a crash a thing may lie on two pages: the newer one counts.
		if e.Slot < len(s.shelf.cells) && s.shelf.cells[e.Slot] != nil && s.shelf.cells[e.Slot].includes(e.At) {
			continue
		}
		s.shelf.restore(&kept[T]{slot: e.Slot, at: e.At, v: s.unpack(e.V)})
	}
	return nil
}

// snapshot is what is to be written, as it was at one moment.
type snapshot struct {
	mark   marker
	slots  map[string][]int // by kind
	gather []func(*checkpoints) []page
}

// take gathers what has changed since the last snapshot. What it gathers never
// changes, so it is encoded and written without the lock.
func (c *checkpoints) take(s *Store) snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := snapshot{slots: map[string][]int{}, mark: marker{
		Format: formatVersion, Incarnation: c.incarnation, Seq: s.x.seq,
		NextExperiment: s.x.nextExperiment, NextModel: s.x.nextModel,
	}}
	for _, r := range s.x.racks() {
		slots := append(c.failed[r.name()], r.changed()...)
		out.slots[r.name()] = slots
		out.gather = append(out.gather, r.gather(slots)...)
	}
	return out
}

// write writes down what has changed, then the marker: after a crash between
// them records come again, and things skip what they include.
func (c *checkpoints) write(ctx context.Context, s *Store) error {
	shot := c.take(s)
	if shot.mark.Seq == c.written {
		return nil
	}
	err := c.put(ctx, shot)
	if err == nil {
		err = c.putMarker(ctx, s.journal, shot.mark)
	}
	if err != nil {
		c.failed = shot.slots
		return fmt.Errorf("write checkpoint of runs: %w", err)
	}
	clear(c.failed)
	c.written = shot.mark.Seq
	return nil
}

func (c *checkpoints) put(ctx context.Context, shot snapshot) error {
	var byTurn [turns][]page
	for _, pages := range shot.gather {
		for _, p := range pages(c) {
			byTurn[p.turn] = append(byTurn[p.turn], p)
		}
	}
	for turn, pages := range byTurn {
		for some := range slices.Chunk(pages, pagesAtOnce) {
			if err := c.putSome(ctx, turn, some); err != nil {
				return err
			}
		}
	}
	return nil
}

// pagesAtOnce bounds what of a checkpoint lies in memory, to 4 MB as a rule.
const pagesAtOnce = 64

func (c *checkpoints) putSome(ctx context.Context, turn int, pages []page) error {
	values := map[string][]byte{}
	for _, p := range pages {
		if p.things == 0 {
			if err := c.bucket.Delete(ctx, p.key); err != nil {
				return err
			}
			delete(c.large, p.key)
			continue
		}
		raw, err := p.encode()
		if err != nil {
			return err
		}
		values[p.key] = raw
		if turn == turnLarge {
			c.large[p.key] = true
		}
	}
	return kvstore.PutAll(ctx, c.bucket, values)
}

func (c *checkpoints) putMarker(ctx context.Context, j journal, m marker) (err error) {
	if m.Sum, err = sumAt(ctx, j, m.Seq); err != nil {
		return err
	}
	raw, err := cbor.Marshal(m)
	if err != nil {
		return err
	}
	_, err = c.bucket.Put(ctx, markerKey, raw)
	return err
}

// sumAt is the SHA-256 of a message, nil for none.
func sumAt(ctx context.Context, j journal, seq uint64) (sum []byte, err error) {
	err = j.read(ctx, max(seq, 1), seq, func(_ uint64, message []byte) error {
		h := sha256.Sum256(message)
		sum = h[:]
		return nil
	})
	return sum, err
}

// load restores the index of the last checkpoint, and makes sure that it belongs
// to the journal. Without one the index stays empty.
func (c *checkpoints) load(ctx context.Context, j journal, x *index) (err error) {
	if c.incarnation, err = j.incarnation(ctx); err != nil {
		return err
	}
	e, err := c.bucket.Get(ctx, markerKey)
	if errors.Is(err, kvstore.ErrNotFound) {
		return c.empty(ctx) // of what a first checkpoint began and did not end
	}
	var m marker
	if err == nil {
		err = cbor.Unmarshal(e.Value, &m)
	}
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	if err := c.fits(ctx, j, m); err != nil {
		return err
	}
	if err := c.restore(ctx, x); err != nil {
		return err
	}
	x.seq, c.written = m.Seq, m.Seq
	x.nextExperiment, x.nextModel = m.NextExperiment, m.NextModel
	x.reindex()
	return nil
}

// fits makes sure that a marker was made of this journal.
func (c *checkpoints) fits(ctx context.Context, j journal, m marker) error {
	last, err := j.last(ctx)
	if err != nil {
		return err
	}
	if m.Format != formatVersion {
		return errFormat
	}
	if m.Incarnation != c.incarnation || last < m.Seq {
		return fmt.Errorf("the checkpoint includes message %d of the journal made %s, which ends at %d and was made %s: %w",
			m.Seq, m.Incarnation, last, c.incarnation, ErrDamaged)
	}
	sum, err := sumAt(ctx, j, m.Seq)
	if err == nil && !bytes.Equal(sum, m.Sum) {
		err = fmt.Errorf("message %d is not the one the checkpoint includes: %w", m.Seq, ErrDamaged)
	}
	return err
}

// restore reads the pages one after the other: together they would take as much
// memory as the index.
func (c *checkpoints) restore(ctx context.Context, x *index) error {
	racks := map[string]rack{}
	for _, r := range x.racks() {
		racks[r.name()] = r
	}
	return c.eachPage(ctx, func(p kvstore.Entry) error { return c.restorePage(racks, p) })
}

// empty deletes the marker and all pages, so that the journal is read from its
// beginning.
func (c *checkpoints) empty(ctx context.Context) error {
	if err := c.bucket.Delete(ctx, markerKey); err != nil {
		return err
	}
	clear(c.large)
	var keys []string
	err := c.eachPage(ctx, func(p kvstore.Entry) error {
		keys = append(keys, p.Key)
		return nil
	})
	for _, key := range keys {
		if err == nil {
			err = c.bucket.Delete(ctx, key)
		}
	}
	return err
}

func (c *checkpoints) eachPage(ctx context.Context, fn func(kvstore.Entry) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	pages, err := c.bucket.Watch(ctx, "")
	if err != nil {
		return err
	}
	defer func() {
		stop()
		for range pages { // the watch ends by itself
		}
	}()
	for p := range pages {
		if p.Synced {
			return nil
		}
		if p.Deleted || p.Key == markerKey {
			continue
		}
		if err := fn(p.Entry); err != nil {
			return fmt.Errorf("read checkpoint page %s: %w", p.Key, err)
		}
	}
	return cmp.Or(ctx.Err(), errBrokenOff)
}

var (
	errBrokenOff = errors.New("the broker ended the reading")
	// errTorn says that a page is not what was written. The journal has it all.
	errTorn = errors.New("the checkpoint cannot be read")
)

func (c *checkpoints) restorePage(racks map[string]rack, e kvstore.Entry) error {
	kind, rest, _ := strings.Cut(e.Key, ".")
	r := racks[kind]
	if r == nil {
		return errFormat
	}
	if strings.HasPrefix(rest, "large.") {
		c.large[e.Key] = true
	}
	raw, err := c.unzip.DecodeAll(e.Value, nil)
	if err == nil {
		err = r.restore(raw)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errTorn, err)
	}
	return nil
}

// keepCheckpoints writes down what has changed again and again, until the store
// is closed.
func (s *Store) keepCheckpoints() {
	ctx, cancel := s.untilClosed()
	defer cancel()
	timer := time.NewTimer(s.point.every)
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-timer.C:
		}
		began := time.Now()
		if err := s.point.write(ctx, s); err != nil && ctx.Err() == nil {
			s.log.Warn("runs could not be written down, trying again", "error", err)
		}
		timer.Reset(max(s.point.every, min(checkpointShare*time.Since(began), maxRest)))
	}
}
