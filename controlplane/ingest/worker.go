package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

const (
	queueDepth    = 1024 // messages waiting for one worker
	appendTimeout = 10 * time.Second
)

// Stats counts what happened since Start.
type Stats struct {
	Stored      uint64 // messages appended
	Repeated    uint64 // records that were held already or came too early
	Quiet       uint64 // reports that said nothing new
	Refused     uint64 // records stored as lost because of their content
	Cloned      uint64 // devices marked as cloned
	Malformed   uint64 // messages without the shape of the protocol
	RateLimited uint64
	Dropped     uint64 // because a worker had too much to do
	Failed      uint64 // appends the stream did not take
}

type counters struct {
	stored, repeated, quiet, refused, cloned, malformed, limited, dropped, failed atomic.Uint64
}

// Stats returns what happened since Start.
func (i *Ingest) Stats() Stats {
	s := &i.stats
	return Stats{
		Stored: s.stored.Load(), Repeated: s.repeated.Load(), Quiet: s.quiet.Load(), Refused: s.refused.Load(), Cloned: s.cloned.Load(),
		Malformed: s.malformed.Load(), RateLimited: s.limited.Load(), Dropped: s.dropped.Load(), Failed: s.failed.Load(),
	}
}

// incoming is one message of a device, or an operator's order to clear its mark.
type incoming struct {
	device, leaf string
	data         []byte
	clear        chan<- error
}

// worker has the devices whose names hash to it. Its state belongs to run.
type worker struct {
	ingest  *Ingest
	in      chan incoming
	quit    chan struct{}
	devices map[string]*device
}

// device is what ingest knows of one device.
type device struct {
	name       string
	cursor     Cursor
	seq        uint64 // of its newest message in the stream, 0 for none
	loaded     bool
	written    time.Time // when the cursor was last copied to the bucket
	dirty      bool
	limit      *rate.Limiter
	connection string // that presence speaks of
	babbles    bool   // its last message was malformed
	told       told
}

func newWorker(i *Ingest) *worker {
	return &worker{ingest: i, in: make(chan incoming, queueDepth), quit: make(chan struct{}), devices: map[string]*device{}}
}

func (w *worker) run() {
	ticker := time.NewTicker(cursorEvery / 4)
	defer ticker.Stop()
	for {
		select {
		case <-w.quit:
			return
		case m := <-w.in:
			w.handle(m)
		case now := <-ticker.C:
			ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
			if err := w.flush(ctx, now.Add(-cursorEvery)); err != nil {
				w.ingest.log.Warn("cursors could not be written down, trying again", "error", err)
			}
			cancel()
		}
	}
}

func (w *worker) device(name string) *device {
	d := w.devices[name]
	if d == nil {
		d = &device{name: name, limit: rate.NewLimiter(rate.Limit(w.ingest.cfg.Rate), w.ingest.cfg.Burst)}
		w.devices[name] = d
	}
	return d
}

func (w *worker) handle(m incoming) {
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	d := w.device(m.device)
	if m.clear != nil {
		m.clear <- w.clear(ctx, d)
		return
	}
	if !d.limit.AllowN(w.ingest.cfg.Now(), 1) {
		w.ingest.stats.limited.Add(1)
		return
	}
	var err error
	if m.leaf == "status" {
		err = w.presence(d, m.data)
	} else {
		err = w.up(ctx, d, m.data)
	}
	w.note(d, err)
}

// note counts what went wrong and logs the first of a row and the recovery only.
func (w *worker) note(d *device, err error) {
	malformed := errors.Is(err, ErrMalformed)
	switch {
	case malformed:
		w.ingest.stats.malformed.Add(1)
		if !d.babbles {
			w.ingest.log.Warn("message refused", "device", d.name, "error", err)
		}
	case err != nil:
		w.ingest.stats.failed.Add(1)
		if !w.ingest.failing.Swap(true) {
			w.ingest.log.Error("messages cannot be stored, devices will send them again: look at the disk of the control plane", "device", d.name, "error", err)
		}
	}
	d.babbles = malformed
}

// presence is for display only [P-3.4].
func (w *worker) presence(d *device, raw []byte) error {
	p := &protocol.Presence{}
	if len(raw) > maxShort || proto.Unmarshal(raw, p) != nil || len(p.GetConnection()) != 16 {
		return fmt.Errorf("%w: presence", ErrMalformed)
	}
	connection := string(p.GetConnection())
	switch {
	case p.GetOnline():
		d.connection = connection
	case d.connection != connection:
		return nil // the will of a connection that was replaced
	default:
		d.connection = ""
	}
	w.ingest.cfg.OnPresence(d.name, p.GetOnline(), w.ingest.cfg.Now())
	return nil
}

// up takes one envelope.
func (w *worker) up(ctx context.Context, d *device, raw []byte) error {
	up := &protocol.Up{}
	if len(raw) > protocol.MaxPayload {
		return fmt.Errorf("%w: %d bytes", ErrMalformed, len(raw))
	}
	if err := proto.Unmarshal(raw, up); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkStamp(up.GetSent()); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := w.load(ctx, d); err != nil {
		return err
	}
	if err := w.judge(ctx, d, up); !errors.Is(err, errStale) {
		return err
	}
	// Somebody else has appended for this device: look again, once.
	if err := w.reload(ctx, d); err != nil {
		return err
	}
	return w.judge(ctx, d, up)
}

// judge decides, stores and answers, in this order.
func (w *worker) judge(ctx context.Context, d *device, up *protocol.Up) error {
	after, v, err := decide(d.cursor, up)
	if err != nil {
		return err
	}
	if r := v.Accepted.GetReport(); r != nil && w.quiet(d, r) {
		return nil
	}
	if v.Accepted != nil {
		v.Accepted.Sent = up.GetSent()
		if err := w.keepSample(ctx, d, v.Accepted); err != nil {
			return err
		}
		if err := w.store(ctx, d, after, v.Accepted); err != nil {
			return err
		}
		d.told.hear(v.Accepted)
	} else {
		w.ingest.stats.repeated.Add(1)
	}
	for _, a := range v.Acks {
		w.answer(d, a)
	}
	if h := up.GetHello(); h != nil && v.Accepted != nil {
		w.greet(d, h)
	}
	return nil
}

func decide(c Cursor, up *protocol.Up) (Cursor, Verdict, error) {
	switch body := up.GetBody().(type) {
	case *protocol.Up_Record:
		return Accept(c, body.Record)
	case *protocol.Up_Hello:
		return AcceptHello(c, body.Hello)
	case *protocol.Up_Report:
		return acceptReport(c, body.Report)
	default:
		return c, Verdict{}, fmt.Errorf("%w: envelope is empty", ErrMalformed)
	}
}

// acceptReport stores a report as it is: it replaces those before it.
func acceptReport(c Cursor, r *protocol.Report) (Cursor, Verdict, error) {
	if err := checkReport(r); err != nil {
		return c, Verdict{}, err
	}
	if c.cloned {
		return c, Verdict{}, nil
	}
	return c, Verdict{Accepted: &protocol.Accepted{Body: &protocol.Accepted_Report{Report: r}}}, nil
}

// quiet says that a report need not be stored: that the device is there is told
// anyway.
func (w *worker) quiet(d *device, r *protocol.Report) bool {
	now := w.ingest.cfg.Now()
	if !d.told.repeats(r, now) {
		return false
	}
	w.ingest.stats.quiet.Add(1)
	w.ingest.cfg.OnPresence(d.name, true, now)
	return true
}

// greet follows a stored hello.
func (w *worker) greet(d *device, h *protocol.Hello) {
	if len(h.GetConnection()) == 16 {
		d.connection = string(h.GetConnection())
		w.ingest.cfg.OnPresence(d.name, true, w.ingest.cfg.Now())
	}
	w.ingest.cfg.OnHello(d.name, h)
}

// errStale says that the stream is further than the cursor.
var errStale = errors.New("another writer was faster")

// store appends a message with the cursor after it. Only then the cursor moves.
func (w *worker) store(ctx context.Context, d *device, after Cursor, a *protocol.Accepted) error {
	a.Device, a.ReceivedMs, a.Cursor = d.name, w.ingest.cfg.Now().UnixMilli(), after.Proto()
	raw, err := proto.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode accepted message: %w", err)
	}
	ack, err := w.ingest.js.Publish(ctx, streamSubject+d.name, raw, jetstream.WithExpectLastSequencePerSubject(d.seq))
	if wrongSequence(err) {
		return errStale
	}
	if err != nil {
		d.loaded = false // it may be stored all the same: look before the next one
		return fmt.Errorf("append to stream %s: %w", streamName, err)
	}
	d.cursor, d.seq, d.dirty = after, ack.Sequence, true
	w.count(d, a)
	return nil
}

func (w *worker) count(d *device, a *protocol.Accepted) {
	w.ingest.stats.stored.Add(1)
	if w.ingest.failing.Swap(false) {
		w.ingest.log.Info("messages are stored again")
	}
	if a.GetRefused() != "" {
		w.ingest.stats.refused.Add(1)
		w.ingest.log.Warn("record counted as lost", "device", d.name, "reason", a.GetRefused(), "rows", a.GetLost().GetRows(), "labels", a.GetLost().GetLabels())
	}
	if a.GetCloned() {
		w.ingest.stats.cloned.Add(1)
		w.ingest.log.Error("device identity is used twice: nothing more is taken from it until an operator clears it", "device", d.name)
	}
}

func wrongSequence(err error) bool {
	var e *jetstream.APIError
	return errors.As(err, &e) &&
		(e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// load finds a device's cursor: in its newest message, or in the bucket when
// that has aged out.
func (w *worker) load(ctx context.Context, d *device) error {
	if d.loaded {
		return nil
	}
	if err := w.reload(ctx, d); err != nil {
		return err
	}
	if d.seq > 0 || d.dirty || w.ingest.cfg.Cursors == nil {
		return nil
	}
	e, err := w.ingest.cfg.Cursors.Get(ctx, d.name)
	if errors.Is(err, kvstore.ErrNotFound) {
		return nil
	}
	p := &protocol.Cursor{}
	if err == nil {
		err = proto.Unmarshal(e.Value, p)
	}
	if err != nil {
		d.loaded = false
		return fmt.Errorf("read cursor: %w", err)
	}
	d.cursor = CursorOf(p)
	return nil
}

// reload takes the cursor of the newest message. Where there is none any more,
// the one in memory is still right.
func (w *worker) reload(ctx context.Context, d *device) error {
	msg, err := w.ingest.stream.GetLastMsgForSubject(ctx, streamSubject+d.name)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		d.seq, d.loaded = 0, true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read newest message: %w", err)
	}
	a := &protocol.Accepted{}
	if err := proto.Unmarshal(msg.Data, a); err != nil {
		return fmt.Errorf("decode newest message: %w", err)
	}
	d.cursor, d.seq, d.loaded = CursorOf(a.GetCursor()), msg.Sequence, true
	return nil
}

func (w *worker) answer(d *device, a *protocol.Ack) {
	a.ServerMs = w.ingest.cfg.Now().UnixMilli()
	raw, err := proto.Marshal(&protocol.Down{Body: &protocol.Down_Ack{Ack: a}})
	if err == nil {
		err = w.ingest.nc.Publish(protocol.Subject(protocol.AckTopic(d.name)), raw)
	}
	if err != nil {
		w.ingest.log.Warn("acknowledgement could not be sent, the device will ask again", "device", d.name, "error", err)
	}
}

// clear lifts the mark "cloned", durably.
func (w *worker) clear(ctx context.Context, d *device) error {
	if err := w.load(ctx, d); err != nil {
		return err
	}
	if !d.cursor.cloned {
		return nil
	}
	return w.store(ctx, d, d.cursor.cleared(), &protocol.Accepted{})
}

// flush copies the cursors that changed and were last copied before a time.
func (w *worker) flush(ctx context.Context, before time.Time) error {
	if w.ingest.cfg.Cursors == nil {
		return nil
	}
	now, values := time.Now(), map[string][]byte{}
	for _, d := range w.devices {
		if !d.dirty || !before.IsZero() && d.written.After(before) {
			continue
		}
		raw, err := proto.Marshal(d.cursor.Proto())
		if err != nil {
			return fmt.Errorf("encode cursor: %w", err)
		}
		values[d.name] = raw
	}
	if err := kvstore.PutAll(ctx, w.ingest.cfg.Cursors, values); err != nil {
		return fmt.Errorf("write cursors: %w", err)
	}
	for name := range values {
		d := w.devices[name]
		d.dirty, d.written = false, now
	}
	return nil
}
