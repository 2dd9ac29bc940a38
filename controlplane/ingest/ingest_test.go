package ingest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

// startNATS runs a server with JetStream in the process.
func startNATS(t *testing.T, dir string) *nats.Conn {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true,
		JetStreamMaxStore: 1 << 50, // as the broker has it: the test must not ask how full the disk is
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("NATS does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func start(t *testing.T, nc *nats.Conn, cfg Config) *Ingest {
	t.Helper()
	if cfg.Cursors == nil {
		cfg.Cursors = kvstore.NewMemory()
	}
	i, err := Start(t.Context(), nc, cfg)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() { i.Stop(context.Background()) })
	return i
}

// wire is a device at the other end of the broker.
type wire struct {
	t    *testing.T
	nc   *nats.Conn
	name string
	acks chan *protocol.Ack
}

func connect(t *testing.T, nc *nats.Conn, name string) *wire {
	t.Helper()
	w := &wire{t: t, nc: nc, name: name, acks: make(chan *protocol.Ack, 1024)}
	sub, err := nc.Subscribe(protocol.Subject(protocol.DownFilter(name)), func(m *nats.Msg) {
		d := &protocol.Down{}
		if proto.Unmarshal(m.Data, d) == nil && d.GetAck() != nil {
			w.acks <- d.GetAck()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	return w
}

func (w *wire) send(up *protocol.Up) {
	w.t.Helper()
	if err := w.nc.Publish(protocol.Subject(protocol.UpTopic(w.name)), encode(w.t, up)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) record(r *protocol.Record) {
	w.t.Helper()
	w.send(&protocol.Up{Body: &protocol.Up_Record{Record: r}})
}

func (w *wire) ack() *protocol.Ack {
	w.t.Helper()
	select {
	case a := <-w.acks:
		return a
	case <-time.After(20 * time.Second):
		w.t.Fatal("no acknowledgement")
		return nil
	}
}

// collect follows the stream up to a number of messages.
func collect(t *testing.T, i *Ingest, n int) []*protocol.Accepted {
	t.Helper()
	var got []*protocol.Accepted
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := i.Follow(ctx, 1, func(seq uint64, a *protocol.Accepted) error {
		if got = append(got, a); len(got) == n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("Follow: %v after %d messages", err, len(got))
	}
	return got
}

func TestAcknowledgedRecordIsInTheStream(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	i := start(t, nc, Config{})
	w, s := connect(t, nc, "cam-1"), newSender(1)
	for n := range uint64(5) {
		w.record(s.next(t, window(n)))
		if a := w.ack(); a.GetSeq() != n+1 || a.GetServerMs() == 0 {
			t.Fatalf("ack %v, want sequence %d", a, n+1)
		}
	}
	got := collect(t, i, 5)
	if got[4].GetDevice() != "cam-1" || got[4].GetRecord().GetSeq() != 5 || got[4].GetCursor().GetEpochs()[0].GetLast() != 5 {
		t.Errorf("last message is %v", got[4])
	}
}

func TestCursorComesBackFromTheStream(t *testing.T) {
	dir := t.TempDir()
	nc := startNATS(t, dir)
	s := newSender(1)
	first, second := s.next(t, window(1)), s.next(t, window(2))
	i := start(t, nc, Config{})
	w := connect(t, nc, "cam-1")
	w.record(first)
	w.ack()
	i.Stop(t.Context())
	start(t, nc, Config{})
	w.record(first)
	if a := w.ack(); a.GetSeq() != 1 {
		t.Errorf("repeated record after a restart: %v", a)
	}
	w.record(second)
	if a := w.ack(); a.GetSeq() != 2 {
		t.Errorf("next record after a restart: %v", a)
	}
}

func TestCursorOutlivesItsMessages(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	cursors := kvstore.NewMemory()
	i := start(t, nc, Config{Cursors: cursors})
	w, s := connect(t, nc, "cam-1"), newSender(1)
	w.record(s.next(t, window(1)))
	w.ack()
	if err := i.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	start(t, nc, Config{Cursors: cursors})
	w.record(s.next(t, window(2)))
	if a := w.ack(); a.GetSeq() != 2 {
		t.Errorf("after the messages aged out: %v", a)
	}
}

// A second ingest on the same stream is the stale writer that expected-last-
// sequence has to refuse.
func TestStaleWriterLooksAgain(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	i := start(t, nc, Config{})
	s := newSender(1)
	stale, other := newWorker(i), newWorker(i)
	take := func(w *worker, r *protocol.Record) {
		t.Helper()
		raw := encode(t, &protocol.Up{Body: &protocol.Up_Record{Record: r}})
		if err := w.up(t.Context(), w.device("cam-1"), raw); err != nil {
			t.Fatalf("record %d: %v", r.GetSeq(), err)
		}
	}
	first, second, third := s.next(t, window(1)), s.next(t, window(2)), s.next(t, window(3))
	take(stale, first)
	take(other, second)
	take(stale, second)
	take(stale, third)
	for n, a := range collect(t, i, 3) {
		if a.GetRecord().GetSeq() != uint64(n+1) {
			t.Errorf("message %d holds record %d", n+1, a.GetRecord().GetSeq())
		}
	}
}

func TestHelloPresenceAndReport(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	type presence struct {
		device string
		online bool
	}
	hellos, seen := make(chan string, 8), make(chan presence, 8)
	i := start(t, nc, Config{
		OnHello:    func(d string, h *protocol.Hello) { hellos <- fmt.Sprint(d, " ", h.GetGeneration()) },
		OnPresence: func(d string, online bool, _ time.Time) { seen <- presence{d, online} },
	})
	w := connect(t, nc, "cam-1")
	mine, other := make([]byte, 16), make([]byte, 16)
	mine[0], other[0] = 1, 2
	w.send(&protocol.Up{Body: &protocol.Up_Hello{Hello: &protocol.Hello{Connection: mine, Generation: 7}}})
	if got := <-hellos; got != "cam-1 7" {
		t.Errorf("OnHello got %q", got)
	}
	if got := <-seen; got != (presence{"cam-1", true}) {
		t.Errorf("OnPresence got %v", got)
	}
	status := protocol.Subject(protocol.StatusTopic("cam-1"))
	nc.Publish(status, encode(t, &protocol.Presence{Connection: other}))
	nc.Publish(status, encode(t, &protocol.Presence{Connection: mine}))
	if got := <-seen; got != (presence{"cam-1", false}) {
		t.Errorf("after the will of this connection OnPresence got %v", got)
	}
	select {
	case got := <-seen:
		t.Errorf("the will of another connection was heard: %v", got)
	default:
	}
	w.send(&protocol.Up{Body: &protocol.Up_Report{Report: &protocol.Report{Generation: 7}}})
	if got := collect(t, i, 2); got[1].GetReport().GetGeneration() != 7 {
		t.Errorf("second message is %v", got[1])
	}
}

func TestCloneIsMarkedDurablyAndCleared(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	i := start(t, nc, Config{})
	w := connect(t, nc, "cam-1")
	a, b := newSender(1), newSender(1)
	w.record(a.next(t, window(1)))
	w.ack()
	w.record(b.next(t, window(2)))
	if got := w.ack(); !got.GetCloned() {
		t.Fatalf("second identity: %v", got)
	}
	i.Stop(t.Context())
	i = start(t, nc, Config{})
	w.record(a.next(t, window(1)))
	if got := w.ack(); !got.GetCloned() {
		t.Errorf("after a restart: %v", got)
	}
	if err := i.Clear(t.Context(), "cam-1"); err != nil {
		t.Fatal(err)
	}
	w.record(newSender(3).next(t, window(1)))
	if got := w.ack(); got.GetCloned() || got.GetSeq() != 1 {
		t.Errorf("after the mark was lifted: %v", got)
	}
}

func TestGarbageIsCountedAndNotStored(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	i := start(t, nc, Config{})
	w := connect(t, nc, "cam-1")
	for _, raw := range [][]byte{{0xff}, nil, make([]byte, protocol.MaxPayload+1)} {
		nc.Publish("vedette.v1.cam-1.up", raw)
	}
	nc.Publish("vedette.v1.CAM.up", []byte("x"))
	nc.Publish("vedette.v1.cam-1.status", []byte("x"))
	s := newSender(1)
	w.record(s.next(t, window(1)))
	w.ack()
	if got := i.Stats(); got.Malformed != 5 || got.Stored != 1 {
		t.Errorf("counted %+v, want 5 malformed and 1 stored", got)
	}
}

func TestRateIsLimitedPerDevice(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	now := time.Unix(1_000_000, 0)
	i := start(t, nc, Config{Rate: 1, Burst: 3, Now: func() time.Time { return now }})
	loud, calm := connect(t, nc, "loud"), connect(t, nc, "calm")
	s := newSender(1)
	for range 10 {
		loud.record(s.next(t, window(1)))
	}
	calm.record(newSender(2).next(t, window(1)))
	calm.ack()
	for range 3 {
		loud.ack()
	}
	for i.Stats().RateLimited < 7 {
		time.Sleep(time.Millisecond) // the seven come from another goroutine; the test's deadline bounds this
	}
	if got := i.Stats(); got.Stored != 4 || got.RateLimited != 7 {
		t.Errorf("counted %+v, want 4 stored and 7 limited", got)
	}
}

func TestFollowRefusesWhatIsNotThere(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	i := start(t, nc, Config{})
	w, s := connect(t, nc, "cam-1"), newSender(1)
	for range 3 {
		w.record(s.next(t, window(1)))
		w.ack()
	}
	none := func(uint64, *protocol.Accepted) error { return errors.New("called") }
	if err := i.Follow(t.Context(), 5, none); !errors.Is(err, ErrIncarnation) {
		t.Errorf("beyond the end: %v", err)
	}
	if err := i.stream.DeleteMsg(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := i.Follow(t.Context(), 1, none); !errors.Is(err, ErrGap) {
		t.Errorf("before the beginning: %v", err)
	}
}

// adder is a fold that adds rows up by device.
type adder struct {
	mu     sync.Mutex
	totals map[string]*row
	dirty  map[string]bool
	ready  chan struct{}
}

type row struct{ Rows, Seq uint64 }

func newAdder() *adder {
	return &adder{totals: map[string]*row{}, dirty: map[string]bool{}, ready: make(chan struct{})}
}

func (a *adder) fold(bucket kvstore.Bucket) Fold {
	return Fold{
		Name: "adder", Bucket: bucket, Every: 5 * time.Millisecond,
		Load: func(records map[string][]byte) error {
			for k, v := range records {
				r := &row{}
				if _, err := fmt.Sscan(string(v), &r.Rows, &r.Seq); err != nil {
					return err
				}
				a.totals[k] = r
			}
			return nil
		},
		Apply: a.apply,
		Dirty: func() map[string][]byte {
			out := map[string][]byte{}
			for k := range a.dirty {
				out[k] = fmt.Append(nil, a.totals[k].Rows, " ", a.totals[k].Seq)
			}
			clear(a.dirty)
			return out
		},
		Ready: func() { close(a.ready) },
	}
}

func (a *adder) apply(seq uint64, m *protocol.Accepted) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.totals[m.GetDevice()]
	if r == nil {
		r = &row{}
		a.totals[m.GetDevice()] = r
	}
	if seq <= r.Seq {
		return
	}
	b := &protocol.Body{}
	if proto.Unmarshal(m.GetRecord().GetBody(), b) == nil {
		r.Rows += b.GetWindow().GetRows()
	}
	r.Seq = seq
	a.dirty[m.GetDevice()] = true
}

func (a *adder) rows(device string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.totals[device]; r != nil {
		return r.Rows
	}
	return 0
}

// runFold runs a fold until what it returns is called.
func runFold(t *testing.T, i *Ingest, f Fold) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Fold(ctx, f) }()
	return func() error { cancel(); return <-done }
}

func TestFoldGoesOnFromItsCheckpoint(t *testing.T) {
	nc := startNATS(t, t.TempDir())
	i := start(t, nc, Config{})
	bucket := kvstore.NewMemory()
	w, s := connect(t, nc, "cam-1"), newSender(1)
	want := uint64(0)
	for round := range uint64(4) {
		for n := range uint64(3) {
			w.record(s.next(t, window(n+round)))
			w.ack()
			want += n + round
		}
		a := newAdder()
		stop := runFold(t, i, a.fold(bucket))
		select {
		case <-a.ready:
		case <-time.After(20 * time.Second):
			t.Fatal("the fold never caught up")
		}
		if err := stop(); err != nil {
			t.Fatalf("Fold: %v", err)
		}
		if got := a.rows("cam-1"); got != want {
			t.Errorf("round %d: fold counts %d rows, want %d", round, got, want)
		}
	}
}

func TestFoldRefusesAForeignCheckpoint(t *testing.T) {
	nc := startNATS(t, filepath.Join(t.TempDir(), "a"))
	i := start(t, nc, Config{})
	w, s := connect(t, nc, "cam-1"), newSender(1)
	bucket := kvstore.NewMemory()
	for range 3 {
		w.record(s.next(t, window(1)))
		w.ack()
	}
	a := newAdder()
	stop := runFold(t, i, a.fold(bucket))
	<-a.ready
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	t.Run("another stream", func(t *testing.T) {
		nc := startNATS(t, filepath.Join(t.TempDir(), "b"))
		other := start(t, nc, Config{})
		w := connect(t, nc, "cam-1")
		s := newSender(1)
		for range 3 {
			w.record(s.next(t, window(1)))
			w.ack()
		}
		if err := other.Fold(t.Context(), newAdder().fold(bucket)); !errors.Is(err, ErrIncarnation) {
			t.Errorf("got %v, want ErrIncarnation", err)
		}
		repairs(t, other, copied(t, bucket), ErrIncarnation, 3)
	})
	t.Run("messages after it aged out", func(t *testing.T) {
		for range 3 {
			w.record(s.next(t, window(1)))
			w.ack()
		}
		if err := i.stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.record(s.next(t, window(1)))
		w.ack()
		if err := i.Fold(t.Context(), newAdder().fold(bucket)); !errors.Is(err, ErrGap) {
			t.Errorf("got %v, want ErrGap", err)
		}
		repairs(t, i, bucket, ErrGap, 1)
	})
}

// A message that the store lost ends a fold, wherever it is, and Repair goes on
// after it.
func TestFoldNamesWhatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		lost, rows uint64 // rows that are left after the lost message
		want       string
	}{
		"at the checkpoint": {3, 3, "message 3 at the checkpoint"},
		"after it":          {5, 1, "expected 5, got 6"},
		"the last":          {6, 0, "message 6 of 6 cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, bucket := start(t, startNATS(t, t.TempDir()), Config{}), kvstore.NewMemory()
			w, s := connect(t, i.nc, "cam-1"), newSender(1)
			send := func() {
				for range 3 {
					w.record(s.next(t, window(1)))
					w.ack()
				}
			}
			send()
			a := newAdder()
			stop := runFold(t, i, a.fold(bucket))
			<-a.ready
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			send()
			if err := i.stream.DeleteMsg(t.Context(), c.lost); err != nil {
				t.Fatal(err)
			}
			err := i.Fold(t.Context(), newAdder().fold(bucket))
			if !errors.Is(err, ErrGap) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrGap and %q", err, c.want)
			}
			repairs(t, i, bucket, ErrGap, c.rows)
		})
	}
}

// repairs mends a checkpoint and folds what the stream still holds, twice: the
// second time there is nothing to mend.
func repairs(t *testing.T, i *Ingest, bucket kvstore.Bucket, want error, rows uint64) {
	t.Helper()
	for _, want := range []error{want, nil} {
		reason, err := i.Repair(t.Context(), bucket)
		if err != nil || !errors.Is(reason, want) {
			t.Errorf("Repair: %v, %v; want %v", reason, err, want)
		}
		a := newAdder()
		stop := runFold(t, i, a.fold(bucket))
		select {
		case <-a.ready:
		case <-time.After(20 * time.Second):
			t.Fatalf("the fold never caught up: %v", stop())
		}
		if err := stop(); err != nil {
			t.Fatalf("Fold after Repair: %v", err)
		}
		if got := a.rows("cam-1"); got != rows {
			t.Errorf("fold counts %d rows, want the %d the stream holds", got, rows)
		}
	}
}

// copied is another bucket with the same content.
func copied(t *testing.T, from kvstore.Bucket) kvstore.Bucket {
	t.Helper()
	to := kvstore.NewMemory()
	all, err := from.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if _, err := to.Put(t.Context(), e.Key, e.Value); err != nil {
			t.Fatal(err)
		}
	}
	return to
}
