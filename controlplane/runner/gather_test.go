package runner

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// field is a fleet of devices that say this and that, with all that a runner
// gathers from.
type field struct {
	t       *testing.T
	rng     *rand.Rand
	fleet   *fleet.Fleet
	monitor *drift.Monitor
	runner  *Runner
	ids     []string
	now     time.Time
	seq     uint64
	asked   atomic.Int64 // devices whose evidence was asked for
}

// asking counts what is asked of the monitor.
type asking struct {
	*drift.Monitor
	asked *atomic.Int64
}

func (a asking) EvidenceOf(device, model string, since, until time.Time) map[release.Digest]drift.Evidence {
	a.asked.Add(1)
	return a.Monitor.EvidenceOf(device, model, since, until)
}

// settled is a Desired that has read its ledger.
type settled struct {
	assigned map[string]desired.Assignment
	ready    chan struct{}
}

func (s *settled) Apply(r ledger.Record) error {
	var body Record
	if err := r.Decode(&body); err != nil {
		return err
	}
	for _, a := range body.Decision.Assign {
		for _, id := range a.Devices {
			s.assigned[id] = desired.Assignment{Model: a.Model, Release: a.Release, Seq: r.Seq, Rollout: body.Decision.At.String()}
		}
	}
	return nil
}

func (s *settled) Assigned(device, _ string) desired.Assignment { return s.assigned[device] }
func (s *settled) Ready() <-chan struct{}                       { return s.ready }

func newField(t *testing.T, seed uint64, devices int) *field {
	t.Helper()
	f := &field{t: t, rng: rand.New(rand.NewPCG(seed, 1)), monitor: drift.New(drift.Config{}), now: time.UnixMilli(1_795_420_800_000)}
	clock := func() time.Time { return f.now }
	var err error
	if f.fleet, err = fleet.Open(t.Context(), kvstore.NewMemory(), fleet.Config{Now: clock}); err != nil {
		t.Fatal(err)
	}
	for i := range devices {
		id := fmt.Sprintf("dev-%d", i)
		if err := f.fleet.Enrolled(t.Context(), id, map[string]string{"site": strconv.Itoa(i % 3)}); err != nil {
			t.Fatal(err)
		}
		f.ids = append(f.ids, id)
		f.report(id, versions["v1"])
	}
	f.runner, err = Open(t.Context(), Config{
		Ledger: ledger.NewMemory(clock), Fleet: f.fleet, Evidence: asking{f.monitor, &f.asked}, Releases: shop{},
		Desired: &settled{map[string]desired.Assignment{}, make(chan struct{})}, Now: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *field) accept(a *protocol.Accepted) {
	f.seq++
	a.ReceivedMs, a.Sent = f.now.UnixMilli(), &protocol.Stamp{Boot: make([]byte, protocol.BootSize), MonotonicMs: f.seq, WallMs: f.now.UnixMilli()}
	f.fleet.Apply(f.seq, a)
	f.monitor.Apply(f.seq, a)
}

func (f *field) report(id string, on release.Digest) {
	f.accept(&protocol.Accepted{Device: id, Body: &protocol.Accepted_Report{Report: &protocol.Report{
		Models: []*protocol.ModelState{{Model: "digits", Active: on.Bytes(), Serving: true, State: "idle"}},
	}}})
}

func (f *field) window(id string, on release.Digest, rows, failed uint64) {
	raw, err := proto.Marshal(&protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{
		Model: "digits", Release: on.Bytes(), Rows: rows, FailedRows: failed,
		StartWallMs: f.now.UnixMilli() - 1000, EndWallMs: f.now.UnixMilli(), StartMonotonicMs: f.seq, EndMonotonicMs: f.seq,
	}}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.accept(&protocol.Accepted{Device: id, Body: &protocol.Accepted_Record{Record: &protocol.Record{Body: raw}}})
}

// happen is something that a fleet does.
func (f *field) happen() {
	id := f.ids[f.rng.IntN(len(f.ids))]
	on := []release.Digest{versions["v1"], versions["v2"]}[f.rng.IntN(2)]
	f.now = f.now.Add(time.Duration(f.rng.IntN(20_000)) * time.Millisecond)
	switch f.rng.IntN(6) {
	case 0, 1:
		f.report(id, on)
	case 2, 3:
		f.window(id, on, 1+f.rng.Uint64N(200), f.rng.Uint64N(3))
	case 4:
		site := map[string]string{"site": strconv.Itoa(f.rng.IntN(3))}
		if err := f.fleet.SetLabels(f.t.Context(), id, fleet.LabelChange{Set: site}, "ada", "moved"); err != nil {
			f.t.Fatal(err)
		}
	case 5:
		f.runner.Look(f.t.Context())
	}
}

// However a fleet's news come in, what was gathered from news alone lacks
// nothing that matters of what looking at everything finds.
func TestGatheredNewsAreWhole(t *testing.T) {
	for seed := range uint64(10) {
		f := newField(t, seed, 12)
		soak := release.Duration(time.Minute)
		view, err := f.runner.Create(t.Context(), "ada", "test", rollout.Spec{
			Model: "digits", Version: "v2", Selector: "site in (0,1)", Waves: []rollout.WaveSpec{{Percent: 50, Soak: &soak}, {Percent: 100, Soak: &soak}},
		})
		if err != nil {
			t.Fatal(err)
		}
		id := view.State.ID
		if _, err := f.runner.Act(t.Context(), id, rollout.Command{Action: rollout.Start, Actor: "ada", Reason: "test"}); err != nil {
			t.Fatal(err)
		}
		for range 150 {
			f.happen()
			s := f.runner.chain(id).state
			got := f.runner.gather(s)
			whole := &Runner{cfg: f.runner.cfg, rollouts: map[string]*chain{}}
			whole.gatherer.news, whole.gatherer.of = f.fleet.Subscribe(), map[string]*gathered{}
			want := whole.gather(s)
			whole.gatherer.news.Close()
			for device := range want.Devices {
				if s.Matters(device, got.Devices[device], want.Devices[device], f.now) {
					t.Fatalf("seed %d: %s: got %+v, want %+v", seed, device, got.Devices[device], want.Devices[device])
				}
			}
			if len(got.Devices) != len(want.Devices) {
				t.Fatalf("seed %d: gathered %d devices, want %d", seed, len(got.Devices), len(want.Devices))
			}
		}
	}
}

// A look costs what has happened since the one before.
func TestGatherLooksAtNewsAlone(t *testing.T) {
	f := newField(t, 1, 200)
	view, err := f.runner.Create(t.Context(), "ada", "test", rollout.Spec{Model: "digits", Version: "v2"})
	if err != nil {
		t.Fatal(err)
	}
	f.runner.Look(context.Background())
	for _, step := range []struct {
		what string
		do   func()
		want int64
	}{
		{"nothing happens", func() {}, 0},
		{"one device reports", func() { f.report("dev-7", versions["v1"]) }, 1},
		{"one device counts", func() { f.window("dev-8", versions["v1"], 10, 0) }, 1},
	} {
		f.now = f.now.Add(time.Second)
		step.do()
		f.asked.Store(0)
		f.runner.gather(f.runner.chain(view.State.ID).state)
		if got := f.asked.Load(); got != step.want {
			t.Errorf("%s: %d devices were looked at, want %d", step.what, got, step.want)
		}
	}
}
