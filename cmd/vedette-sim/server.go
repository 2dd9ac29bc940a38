package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol"
)

// gap is the least time between two looks of the runner at the fleet, longer for
// a large one so that a look takes up many reports.
func (s *server) gap() time.Duration {
	if s.w.plan.devices >= manyDevices {
		return 2 * time.Second
	}
	return runner.DefaultGap
}

// mostRetry bounds the wait after a ledger that cannot be written, as the
// runner's own loop does.
const mostRetry = 30 * time.Second

// server is the control plane: the real fleet, desired state, runner, engine and
// accounting, around a ledger, a bucket and a stream in memory. What is durable
// outlives a crash; everything else is made anew from it.
type server struct {
	w *world
	durable

	// What a crash takes away.
	up       bool
	life     int // starts so far
	fleet    *fleet.Fleet
	desired  *desired.Desired
	runner   *runner.Runner
	evidence *evidence
	cursors  map[string]ingest.Cursor
	look     time.Duration // when the next look is planned, negative for not
	looks    int           // to know a look that was planned before another
	retry    time.Duration // until what went wrong is tried again
	wake     time.Time     // when the runner wants to look by itself, zero for never
	stirred  bool          // something has happened since it looked
	news     *fleet.Subscription

	clock   time.Duration // what its clock shows beyond the true time
	fuse    int           // calls to the outside until it crashes, 0 for not
	broken  bool          // the ledger takes nothing now
	downFor time.Duration // of the next crash
	backups []durable
	upSince time.Duration
	mended  time.Duration // when the ledger took writes again
}

// durable is what the server has on disk.
type durable struct {
	ledger     *ledger.Memory
	bucket     *kvstore.Memory
	stream     []stored
	checkpoint map[string][]byte // of the fleet's fold
}

// stored is one message of the uplink stream with the cursor after it. Its
// sequence is its index, from 1.
type stored struct {
	*protocol.Accepted

	cursor ingest.Cursor
}

// crashed unwinds whatever the server was doing when it died.
type crashed struct{}

var (
	_ runner.Ledger     = (*journal)(nil)
	_ runner.Evidence   = (*evidence)(nil)
	_ desired.Ledger    = (*journal)(nil)
	_ desired.Publisher = (*server)(nil)
)

func newServer(w *world) *server {
	s := &server{w: w, look: -1}
	s.ledger = ledger.NewMemory(s.now)
	s.bucket, s.checkpoint = kvstore.NewMemory(), map[string][]byte{}
	s.start()
	return s
}

// now is what the server's clock shows.
func (s *server) now() time.Time { return s.w.now().Add(s.clock) }

// start makes everything anew from what is on disk.
func (s *server) start() {
	if err := s.open(); err != nil {
		s.w.fail("the server does not start: %w", err)
		return
	}
	s.up, s.upSince = true, s.w.t
	s.life++
	s.look = -1
	s.lookIn(0)
}

func (s *server) open() (err error) {
	s.fleet, err = fleet.Open(s.w.ctx, s.bucket, fleet.Config{Journal: &journal{s}, Now: s.now})
	if err != nil {
		return err
	}
	if err := s.fleet.Load(s.checkpoint); err != nil {
		return err
	}
	s.evidence, s.cursors = newEvidence(), map[string]ingest.Cursor{}
	for i, m := range s.stream {
		s.fold(uint64(i)+1, m)
	}
	s.fleet.Live()
	s.news = s.fleet.Subscribe()
	s.desired = desired.New(s, &journal{s}, desired.Config{Now: s.now})
	if err := s.desired.Run(s.w.ctx); err != nil {
		return err
	}
	s.runner, err = runner.Open(s.w.ctx, runner.Config{
		Ledger: &journal{s}, Fleet: s.fleet, Evidence: s.evidence, Releases: (*catalog)(s.w), Desired: s.desired, Now: s.now,
	})
	return err
}

func (s *server) fold(seq uint64, m stored) {
	s.cursors[m.GetDevice()] = m.cursor
	s.fleet.Apply(seq, m.Accepted)
	s.evidence.apply(m.Accepted)
}

// guarded does something unless the server is down, and lets it die of it.
func (s *server) guarded(do func()) {
	if !s.up {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crashed); !ok {
				panic(r)
			}
			s.crash()
		}
	}()
	do()
}

// outside is a moment at which the server may die: just before or after it has
// changed something outside itself.
func (s *server) outside() {
	if s.fuse == 0 {
		return
	}
	if s.fuse--; s.fuse == 0 {
		panic(crashed{})
	}
}

// crash loses what is in memory. The server starts again after a while.
func (s *server) crash() {
	s.w.note("server", "crashes, is down for %v", s.downFor)
	s.w.count("server crashed")
	s.up, s.fuse = false, 0
	s.w.server.disconnectAll()
	s.w.after(s.downFor, func() {
		s.w.note("server", "starts again")
		s.start()
		s.w.check.restarted()
	})
}

// disconnectAll is what the devices notice of a broker that goes away.
func (s *server) disconnectAll() {
	for _, d := range s.w.devices {
		d.link.drop(s.w.between(time.Second, 40*time.Second))
	}
}

// keep writes the fleet's fold down.
func (s *server) keep() {
	s.guarded(func() {
		next := maps.Clone(s.checkpoint)
		for id, value := range s.fleet.Dirty() {
			if value == nil {
				delete(next, id)
				continue
			}
			next[id] = value
		}
		s.checkpoint = next
	})
}

// copyDurable is a backup.
func (s *server) copyDurable() durable {
	b := durable{ledger: s.ledger.Backup(), stream: slices.Clone(s.stream), checkpoint: maps.Clone(s.checkpoint), bucket: kvstore.NewMemory()}
	entries, err := s.bucket.List(s.w.ctx, "")
	for _, e := range entries {
		if _, perr := b.bucket.Put(s.w.ctx, e.Key, e.Value); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	if err != nil {
		s.w.fail("backup: %w", err)
	}
	return b
}

// lookIn plans a look of the runner. One that comes earlier stands.
func (s *server) lookIn(d time.Duration) {
	s.stirred = true
	at := s.w.t + max(d, 0)
	if s.look >= 0 && s.look <= at {
		return
	}
	s.look = at
	s.looks++
	planned, life := s.looks, s.life
	s.w.after(d, func() {
		if s.look >= 0 && s.looks == planned && s.life == life {
			s.guarded(s.lookNow)
		}
	})
}

func (s *server) lookNow() {
	s.look = -1
	wake, retry := s.runner.Look(s.w.ctx)
	s.wake = wake
	s.w.count("look")
	if !wake.IsZero() {
		s.lookIn(max(wake.Sub(s.now())+time.Millisecond, s.gap()))
	}
	s.stirred = retry != 0
	s.retry = min(max(2*s.retry, retry), mostRetry)
	if retry == 0 {
		s.retry = 0
	} else {
		s.lookIn(s.retry)
	}
}

// probe looks although nothing has happened and the runner wants to sleep:
// then there must be nothing to do. The gates of a wave that has just opened are
// written down a look later, which waits for nothing.
func (s *server) probe() {
	if !s.up || s.broken || s.fuse > 0 || s.stirred || !s.wake.IsZero() && !s.now().Before(s.wake) {
		return
	}
	was, wake := s.w.check.acts, s.wake
	s.guarded(s.lookNow)
	s.w.count("look for nothing")
	if s.w.check.acts != was {
		s.w.fail("the server decides at %v what it would have slept over until %v", s.now(), wake)
	}
}

// patient says whether the runner sleeps until the fleet has news or its time
// has come, as in its own loop; in other seeds it looks at every message.
func (s *server) patient() bool { return s.w.seed%3 == 1 }

// receive takes a message as ingest does: judge, store, then answer.
func (s *server) receive(d *device, up *protocol.Up) {
	s.guarded(func() {
		after, v, err := s.judge(d, up)
		if err != nil {
			s.w.fail("%s sent what the server refuses: %w", d.id, err)
			return
		}
		if v.Accepted != nil {
			s.outside()
			s.store(d, up, after, v.Accepted)
			s.outside()
		}
		for _, a := range v.Acks {
			a.ServerMs = s.now().UnixMilli()
			d.link.down(&protocol.Down{Body: &protocol.Down_Ack{Ack: a}})
		}
		if h := up.GetHello(); h != nil && v.Accepted != nil {
			s.desired.OnHello(d.id, h.GetGeneration())
		}
	})
}

func (s *server) judge(d *device, up *protocol.Up) (after ingest.Cursor, v ingest.Verdict, err error) {
	c := s.cursors[d.id]
	if entry, ok := s.fleet.Device(d.id); ok && entry.Revoked != nil {
		return c, v, nil // its certificate is not taken any more
	}
	switch body := up.GetBody().(type) {
	case *protocol.Up_Record:
		return ingest.Accept(c, body.Record)
	case *protocol.Up_Hello:
		return ingest.AcceptHello(c, body.Hello)
	case *protocol.Up_Report:
		v.Accepted = &protocol.Accepted{Body: &protocol.Accepted_Report{Report: body.Report}}
	}
	return c, v, nil
}

func (s *server) store(d *device, up *protocol.Up, after ingest.Cursor, a *protocol.Accepted) {
	a.Device, a.Sent, a.ReceivedMs = d.id, up.GetSent(), s.now().UnixMilli()
	if after.Cloned() {
		a.Cursor = after.Proto()
	}
	m := stored{a, after}
	s.stream = append(s.stream, m)
	s.fold(uint64(len(s.stream)), m)
	s.w.check.stored(d, m)
	s.stirred = true
	if news := len(s.news.Take()) > 0; news || !s.patient() {
		s.lookIn(s.gap())
	}
}

// Publish implements desired.Publisher.
func (s *server) Publish(subject string, data []byte) error {
	s.outside()
	id, _, err := protocol.DeviceOfSubject(subject)
	if err != nil {
		return err
	}
	m := &protocol.Down{}
	if err := proto.Unmarshal(data, m); err != nil {
		return fmt.Errorf("read what was published: %w", err)
	}
	d := s.w.byID[id]
	s.w.check.published(d, m.GetDesired())
	d.link.down(m)
	s.outside()
	return nil
}
