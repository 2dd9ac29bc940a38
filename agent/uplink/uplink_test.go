package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol"
)

// queue is an outbox that holds what the test puts in.
type queue struct {
	mu      sync.Mutex
	records []*protocol.Record
	last    uint64
	acks    []*protocol.Ack
	closing bool
	epoch   byte
	changed chan struct{}
}

func newQueue(n int) *queue {
	q := &queue{epoch: 1, changed: make(chan struct{}, 1)}
	q.add(n)
	return q
}

func (q *queue) id() []byte { return append([]byte{q.epoch}, make([]byte, protocol.EpochSize-1)...) }

func (q *queue) add(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range n {
		q.last++
		q.records = append(q.records, &protocol.Record{Epoch: q.id(), Seq: q.last, Prev: q.last - 1})
	}
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

func (q *queue) Send(limit int) ([]*protocol.Record, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return nil, nil
	}
	return q.records[:min(limit, len(q.records))], nil
}

func (q *queue) Ack(a *protocol.Ack) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.acks = append(q.acks, a)
	if a.GetClosed() {
		q.closing, q.epoch = false, q.epoch+1
	}
	for len(q.records) > 0 && bytes.Equal(q.records[0].GetEpoch(), a.GetEpoch()) && q.records[0].GetSeq() <= a.GetSeq() {
		q.records = q.records[1:]
	}
	return nil
}

func (q *queue) Epochs() []*protocol.Epoch {
	q.mu.Lock()
	defer q.mu.Unlock()
	return []*protocol.Epoch{{Id: q.id(), Current: true, Closing: q.closing}}
}

func (q *queue) Changed() <-chan struct{} { return q.changed }

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.records)
}

// run starts an uplink and returns what stops it.
func run(t *testing.T, b *broker, q *queue, change func(*Config)) (u *Uplink, stop func()) {
	t.Helper()
	cfg := Config{
		Device: "cam-1", Brokers: []string{b.url()}, Outbox: q, MaxBackoff: 20 * time.Millisecond,
		Hello:  func() *protocol.Hello { return &protocol.Hello{AgentVersion: "1", Generation: 5} },
		Report: func() *protocol.Report { return &protocol.Report{Generation: 5} },
	}
	if change != nil {
		change(&cfg)
	}
	u, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return u, stop
}

func TestSessionOpensWithPresenceHelloAndReport(t *testing.T) {
	b := newBroker(t)
	u, stop := run(t, b, newQueue(0), nil)
	h := next(t, b.up, hello).GetHello()
	if h.GetGeneration() != 5 || len(h.GetConnection()) != 16 || len(h.GetEpochs()) != 1 {
		t.Errorf("hello is %v", h)
	}
	next(t, b.up, report)
	p := next(t, b.presence, func(p *protocol.Presence) bool { return p.GetOnline() })
	if !bytes.Equal(p.GetConnection(), h.GetConnection()) {
		t.Error("presence and hello name different connections")
	}
	if st := u.Status(); !st.Connected || st.LastError != "" {
		t.Errorf("status is %+v", st)
	}
	b.mu.Lock()
	if !bytes.Contains(b.wills[0], h.GetConnection()) {
		t.Error("the will does not name the connection")
	}
	b.mu.Unlock()
	stop()
	next(t, b.presence, func(p *protocol.Presence) bool { return !p.GetOnline() })
}

func TestRecordsGoOutAndLeaveOnAcknowledgement(t *testing.T) {
	b, q := newBroker(t), newQueue(40)
	run(t, b, q, nil)
	next(t, b.up, record(32))
	b.ack(&protocol.Ack{Epoch: q.id(), Seq: 32})
	next(t, b.up, record(40))
	b.ack(&protocol.Ack{Epoch: q.id(), Seq: 40})
	q.add(1)
	next(t, b.up, record(41))
	for deadline := time.Now().Add(20 * time.Second); q.len() > 1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // the acknowledgement is taken by another goroutine
	}
	if got := q.len(); got != 1 {
		t.Errorf("outbox holds %d records, want the one that is not acknowledged", got)
	}
}

func TestLostRecordsGoOutAgain(t *testing.T) {
	b, q := newBroker(t), newQueue(3)
	run(t, b, q, func(c *Config) { c.AckTimeout = 200 * time.Millisecond })
	for range 2 {
		for seq := range uint64(3) {
			next(t, b.up, record(seq+1))
		}
	}
	b.ack(&protocol.Ack{Epoch: q.id(), Seq: 1})
	b.ack(&protocol.Ack{Epoch: q.id(), Seq: 1})
	next(t, b.up, record(2))
}

func TestBrokenConnectionIsReplaced(t *testing.T) {
	b, q := newBroker(t), newQueue(1)
	u, _ := run(t, b, q, nil)
	first := next(t, b.up, hello).GetHello()
	next(t, b.up, record(1))
	b.cut()
	second := next(t, b.up, hello).GetHello()
	if bytes.Equal(first.GetConnection(), second.GetConnection()) {
		t.Error("the second connection has the id of the first")
	}
	next(t, b.up, record(1))
	if st := u.Status(); st.LastError == "" {
		t.Errorf("status does not say why the connection ended: %+v", st)
	}
}

func TestRefusedSubscriptionIsNoSession(t *testing.T) {
	b := newBroker(t)
	b.refuse = true
	u, _ := run(t, b, newQueue(1), nil)
	for range 2000 {
		if strings.Contains(u.Status().LastError, ErrRefused.Error()) {
			break
		}
		time.Sleep(5 * time.Millisecond) // another goroutine writes the status
	}
	if st := u.Status(); st.Connected || !strings.Contains(st.LastError, ErrRefused.Error()) {
		t.Errorf("status is %+v", st)
	}
	select {
	case up := <-b.up:
		t.Errorf("sent without a subscription: %v", up)
	default:
	}
}

func TestDesiredAndServerTimeAreDelivered(t *testing.T) {
	b := newBroker(t)
	desired, times := make(chan *protocol.Desired, 8), make(chan int64, 8)
	run(t, b, newQueue(0), func(c *Config) {
		c.Desired = func(d *protocol.Desired) { desired <- d }
		c.ServerTime = func(ms int64) { times <- ms }
	})
	next(t, b.up, hello)
	b.down(protocol.DesiredTopic("cam-1"), &protocol.Down{Body: &protocol.Down_Desired{Desired: &protocol.Desired{Generation: 6, ServerMs: 77}}})
	if d := next(t, desired, func(*protocol.Desired) bool { return true }); d.GetGeneration() != 6 {
		t.Errorf("desired is %v", d)
	}
	if ms := <-times; ms != 77 {
		t.Errorf("server time is %d, want 77", ms)
	}
}

func TestOnlyTheNewestDesiredStateWaits(t *testing.T) {
	u, err := New(Config{Device: "d", Brokers: []string{"x"}, Outbox: newQueue(0), Hello: func() *protocol.Hello { return nil }, Report: func() *protocol.Report { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []uint64{3, 5, 4} {
		u.offer(&protocol.Desired{Generation: g})
	}
	if got := <-u.desired; got.GetGeneration() != 5 {
		t.Errorf("generation %d waits, want 5", got.GetGeneration())
	}
}

func TestReportsComeOnChangeAndInTime(t *testing.T) {
	b := newBroker(t)
	u, _ := run(t, b, newQueue(0), nil)
	next(t, b.up, report)
	began := time.Now()
	for range 5 {
		u.Nudge()
	}
	next(t, b.up, report)
	if took := time.Since(began); took < MinReportGap/2 {
		t.Errorf("second report after %v, want at most one in %v", took, MinReportGap)
	}
	u.SetReportEvery(50 * time.Millisecond)
	for range 3 {
		next(t, b.up, report)
	}
}

func TestNewEpochIsToldAtOnce(t *testing.T) {
	b, q := newBroker(t), newQueue(1)
	q.closing = true
	run(t, b, q, nil)
	if h := next(t, b.up, hello).GetHello(); !h.GetEpochs()[0].GetClosing() {
		t.Fatalf("hello is %v", h)
	}
	b.ack(&protocol.Ack{Epoch: q.id(), Closed: true})
	if h := next(t, b.up, hello).GetHello(); h.GetEpochs()[0].GetClosing() || h.GetEpochs()[0].GetId()[0] != 2 {
		t.Errorf("second hello is %v", h)
	}
	next(t, b.up, record(1))
}

func TestUnansweredQuestionIsAskedAgain(t *testing.T) {
	b, q := newBroker(t), newQueue(0)
	q.closing = true
	run(t, b, q, func(c *Config) { c.AckTimeout = 100 * time.Millisecond })
	for range 3 {
		next(t, b.up, hello)
	}
}

func TestCloneStopsSending(t *testing.T) {
	b, q := newBroker(t), newQueue(1)
	u, _ := run(t, b, q, nil)
	next(t, b.up, record(1))
	b.ack(&protocol.Ack{Epoch: q.id(), Cloned: true})
	for range 2000 {
		if u.Status().Cloned {
			break
		}
		time.Sleep(5 * time.Millisecond) // another goroutine writes the status
	}
	q.add(1)
	u.Nudge()
	next(t, b.up, func(up *protocol.Up) bool {
		if up.GetRecord().GetSeq() == 2 {
			t.Error("a cloned device goes on sending records")
		}
		return report(up)
	})
}

func TestGarbageFromTheControlPlaneIsPassedOver(t *testing.T) {
	b, q := newBroker(t), newQueue(1)
	run(t, b, q, nil)
	next(t, b.up, record(1))
	b.down(protocol.AckTopic("cam-1"), &protocol.Down{})
	b.ack(&protocol.Ack{Epoch: q.id(), Seq: 1})
	q.add(1)
	next(t, b.up, record(2))
}

func TestDeadLinkIsGivenUp(t *testing.T) {
	b := newBroker(t)
	b.mute = true
	u, _ := run(t, b, newQueue(32), func(c *Config) { c.AckTimeout = 5 * time.Millisecond })
	for range 4000 {
		if strings.Contains(u.Status().LastError, ErrStuck.Error()) {
			return
		}
		select {
		case <-b.up:
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Errorf("status is %+v", u.Status())
}

// The same failure again is not worth a line.
func TestFailuresAreLoggedOnce(t *testing.T) {
	b := newBroker(t)
	b.refuse = true
	var mu sync.Mutex
	var log bytes.Buffer
	h := slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}), nil)
	_, stop := run(t, b, newQueue(0), func(c *Config) { c.Logger = slog.New(h) })
	for range 4000 {
		b.mu.Lock()
		n := len(b.wills)
		b.mu.Unlock()
		if n >= 4 {
			break
		}
		time.Sleep(5 * time.Millisecond) // connections come from another goroutine
	}
	stop()
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(log.String(), "no connection"); n != 1 {
		t.Errorf("logged %d failures, want 1:\n%s", n, log.String())
	}
}

// A device that is sent away loses its link first and learns why at its next
// try: both are logged, once each.
func TestRevocationIsLoggedAfterTheLoss(t *testing.T) {
	b := newBroker(t)
	lines := make(chan string, 64)
	h := slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		lines <- string(p)
		return len(p), nil
	}), nil)
	u, _ := run(t, b, newQueue(0), func(c *Config) { c.Logger = slog.New(h) })
	next(t, b.up, hello)
	b.mu.Lock()
	b.code = 5 // not authorized
	b.mu.Unlock()
	b.cut()
	next(t, lines, func(s string) bool { return strings.Contains(s, "connection lost") })
	next(t, lines, func(s string) bool { return strings.Contains(s, ErrRefused.Error()) })
	if st := u.Status(); !strings.Contains(st.LastError, ErrRefused.Error()) {
		t.Errorf("status is %+v", st)
	}
	tries := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.wills)
	}
	for was := tries(); tries() < was+2; {
		time.Sleep(5 * time.Millisecond) // connections come from another goroutine
	}
	select {
	case s := <-lines:
		t.Errorf("logged again: %s", s)
	default:
	}
}

// A link that is lost for one reason and then for another says so each time, and
// no oftener, with the code that status shows.
func TestEachNewReasonIsLogged(t *testing.T) {
	var log bytes.Buffer
	u, err := New(Config{
		Device: "cam-1", Brokers: []string{"mqtt://127.0.0.1:1"}, Outbox: newQueue(0),
		Hello:  func() *protocol.Hello { return &protocol.Hello{} },
		Report: func() *protocol.Report { return &protocol.Report{} },
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		err  error // nil: connected
		want string
	}{
		{link.ErrName, "code=dns"},
		{link.ErrName, ""},
		{link.ErrUnreachable, "code=unreachable"},
		{link.ErrUnreachable, ""},
		{link.ErrExpired, "code=tls_expired"},
		{nil, "connected again"},
		{link.ErrExpired, "code=tls_expired"},
		{ErrRefused, "code=refused"},
		{ErrRefused, ""},
		{link.ErrName, "code=dns"},
	} {
		log.Reset()
		if s.err == nil {
			u.up()
		} else {
			u.lost(fmt.Errorf("dial broker: %w", s.err))
		}
		if got := log.String(); s.want == "" && got != "" || !strings.Contains(got, s.want) {
			t.Errorf("%v: logged %q, want %q", s.err, got, s.want)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestBackoffIsJitteredAndCapped(t *testing.T) {
	for _, tc := range []struct {
		attempt int
		at      float64
		want    time.Duration
	}{
		{0, 0, 0}, {0, 0.5, FirstBackoff / 2}, {3, 0.5, 4 * FirstBackoff}, {10, 0.5, 30 * time.Second}, {1000, 1, time.Minute},
	} {
		if got := backoff(tc.attempt, FirstBackoff, time.Minute, tc.at); got != tc.want {
			t.Errorf("backoff(%d, %v) = %v, want %v", tc.attempt, tc.at, got, tc.want)
		}
	}
}

func TestFlow(t *testing.T) {
	now := time.Unix(0, 0)
	epoch := make([]byte, protocol.EpochSize)
	var records []*protocol.Record
	for seq := range uint64(4) {
		records = append(records, &protocol.Record{Epoch: epoch, Seq: seq + 1})
	}
	ack := func(seq uint64) *protocol.Ack { return &protocol.Ack{Epoch: epoch, Seq: seq} }
	seqs := func(rs []*protocol.Record) string {
		var out []string
		for _, r := range rs {
			out = append(out, strconv.FormatUint(r.GetSeq(), 10))
		}
		return strings.Join(out, " ")
	}
	f := newFlow(time.Minute, now)
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"first", func() {}, "1 2 3 4"},
		{"again", func() {}, ""},
		{"progress", func() { f.ack(ack(1), now) }, ""},
		{"the same ack", func() { f.ack(ack(1), now.Add(time.Second)) }, "2 3 4"},
		{"the same ack at once", func() { f.ack(ack(1), now.Add(time.Second)) }, ""},
		{"a later one", func() { f.ack(ack(3), now.Add(time.Second)) }, ""},
		{"backwards", func() { f.ack(ack(2), now.Add(time.Second)) }, "3 4"},
		{"too early", func() { f.expire(now.Add(30 * time.Second)) }, ""},
		{"silence", func() { f.expire(now.Add(2 * time.Minute)) }, "3 4"},
	}
	var held []*protocol.Record
	for _, s := range steps {
		s.do()
		held = records[min(int(f.acked[string(epoch)]), len(records)):]
		if s.name == "first" {
			held = records
		}
		if got := seqs(f.due(held, now.Add(time.Second))); got != s.want {
			t.Errorf("%s: due %q, want %q", s.name, got, s.want)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{Device: "cam-1"}); !errors.Is(err, errConfig) {
		t.Errorf("got %v", err)
	}
	full := Config{Device: "CAM", Brokers: []string{"x"}, Outbox: newQueue(0), Hello: func() *protocol.Hello { return nil }, Report: func() *protocol.Report { return nil }}
	if _, err := New(full); !errors.Is(err, protocol.ErrDeviceID) {
		t.Errorf("got %v", err)
	}
}
