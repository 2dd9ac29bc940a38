package desired

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

var v1, v2 = release.DigestOf([]byte("v1")), release.DigestOf([]byte("v2"))

// radio remembers what is published.
type radio struct {
	mu   sync.Mutex
	fail error
	sent []sent
}

type sent struct {
	subject string
	desired *protocol.Desired
}

func (r *radio) Publish(subject string, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	var down protocol.Down
	if err := proto.Unmarshal(data, &down); err != nil {
		return err
	}
	r.sent = append(r.sent, sent{subject, down.GetDesired()})
	return nil
}

// take returns what was published since, by subject and generation.
func (r *radio) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, s := range r.sent {
		out = append(out, fmt.Sprintf("%s %d", s.subject, s.desired.GetGeneration()))
	}
	r.sent = nil
	return out
}

func (r *radio) newest(t *testing.T) *protocol.Desired {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sent) == 0 {
		t.Fatal("nothing was published")
	}
	return r.sent[len(r.sent)-1].desired
}

func open(t *testing.T) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), brokertest.Start(t).Conn(), ledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run follows the ledger until the test ends, and returns when it was read.
func run(t *testing.T, d *Desired) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	<-d.Ready()
}

// decide appends a rollout's decision.
func decide(t *testing.T, l *ledger.Ledger, r release.Digest, devices ...string) ledger.Record {
	t.Helper()
	body := map[string]any{"decision": rollout.Decision{Assign: []rollout.Assigned{{Model: "digits", Release: r, Devices: devices}}}}
	rec, err := l.Append(t.Context(), RolloutChain("digits-v2-1"), ledger.Any, "rollout.step", "engine", body)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func apply(t *testing.T, d *Desired, recs ...ledger.Record) {
	t.Helper()
	for _, r := range recs {
		if err := d.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDecisionsReachDevices(t *testing.T) {
	l, air := open(t), &radio{}
	now := time.UnixMilli(1234)
	d := New(air, l, Config{Now: func() time.Time { return now }})
	run(t, d)
	rec := decide(t, l, v1, "cam-1", "cam-2")
	apply(t, d, rec, rec) // from the runner, and again from the ledger
	want := []string{
		fmt.Sprintf("vedette.v1.cam-1.down.desired %d", rec.Seq),
		fmt.Sprintf("vedette.v1.cam-2.down.desired %d", rec.Seq),
	}
	if got := air.take(); !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
	second := decide(t, l, v2, "cam-2")
	apply(t, d, second)
	got := air.newest(t)
	wanted := &protocol.Desired{
		Generation: second.Seq, ServerMs: 1234, Settings: &protocol.Settings{},
		Assignments: []*protocol.Assignment{{Model: "digits", Release: v2.Bytes(), Role: "primary", Decision: second.Seq}},
	}
	if !proto.Equal(got, wanted) {
		t.Errorf("published %v, want %v", got, wanted)
	}
	if a := d.Assigned("cam-1", "digits"); a.Release != v1 || a.Seq != rec.Seq || a.Rollout != "digits-v2-1" {
		t.Errorf("cam-1 is assigned %+v, want v1 by the first decision", a)
	}
	if a := d.Assigned("cam-9", "digits"); a != (Assignment{}) {
		t.Errorf("cam-9 is assigned %+v, want nothing", a)
	}
}

func TestNothingIsSaidBeforeTheLedgerIsRead(t *testing.T) {
	l, air := open(t), &radio{}
	first := decide(t, l, v1, "cam-1", "cam-2")
	decide(t, l, v2, "cam-1")
	d := New(air, l, Config{})
	d.OnHello("cam-1", first.Seq)
	d.OnHello("cam-2", first.Seq)
	apply(t, d, first)
	if got := air.take(); len(got) != 0 {
		t.Fatalf("published %q before the ledger was read", got)
	}
	run(t, d)
	// cam-2 holds the newest state already; cam-1 gets the newest, never the first.
	want := []string{fmt.Sprintf("vedette.v1.cam-1.down.desired %d", first.Seq+1)}
	if got := air.take(); !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
}

func TestHellos(t *testing.T) {
	l, air := open(t), &radio{}
	d := New(air, l, Config{})
	run(t, d)
	rec := decide(t, l, v1, "cam-1")
	other := decide(t, l, v1, "cam-2")
	apply(t, d, rec)
	apply(t, d, other)
	air.take()
	for _, c := range []struct {
		name       string
		device     string
		generation uint64
		want       int
	}{
		{"the newest", "cam-1", rec.Seq, 0},
		{"none", "cam-1", 0, 1},
		{"a newer one than the ledger has", "cam-1", rec.Seq + 10, 0},
		{"a newer one that the ledger still has not", "cam-1", rec.Seq + 10, 1},
		{"a newer one that is about another device", "cam-1", other.Seq, 1},
		{"a device nothing was decided for", "cam-7", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.OnHello(c.device, c.generation)
			if got := air.take(); len(got) != c.want {
				t.Errorf("published %q, want %d messages", got, c.want)
			}
		})
	}
	air.fail = errors.New("broker is away")
	d.OnHello("cam-1", 0) // lost
	air.fail = nil
	d.OnHello("cam-1", 0) // and made good
	if got := air.take(); len(got) != 1 {
		t.Errorf("published %q after the broker came back, want one message", got)
	}
}

func TestTakenOffTheDevice(t *testing.T) {
	l, air := open(t), &radio{}
	d := New(air, l, Config{})
	run(t, d)
	apply(t, d, decide(t, l, v1, "cam-1"), decide(t, l, release.Digest{}, "cam-1"))
	if got := air.newest(t).GetAssignments(); len(got) != 0 {
		t.Errorf("published assignments %v, want none", got)
	}
}

func TestSettings(t *testing.T) {
	l, air := open(t), &radio{}
	d := New(air, l, Config{})
	run(t, d)
	apply(t, d, decide(t, l, v1, "cam-1", "cam-2"))
	air.take()
	change := func(device string, s Settings) error {
		return d.SetSettings(t.Context(), "ada", SettingsChange{Device: device, Settings: s, Reason: "test"})
	}
	if err := change("", Settings{Window: release.Duration(time.Minute), Report: release.Duration(10 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	if got := air.take(); len(got) != 2 {
		t.Errorf("published %q, want both devices", got)
	}
	if err := change("cam-2", Settings{Window: release.Duration(5 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	got := air.newest(t).GetSettings()
	if got.GetWindowMs() != 5000 || got.GetReportMs() != 10000 || got.GetSnapshotMs() != 0 {
		t.Errorf("cam-2 is told %v, want its own window and the fleet's report", got)
	}
	if got := d.State("cam-1").Settings.Window; got != release.Duration(time.Minute) {
		t.Errorf("cam-1 has window %v, want the fleet's", got)
	}
	if got := d.FleetSettings().Report; got != release.Duration(10*time.Second) {
		t.Errorf("fleet reports every %v, want 10s", got)
	}
	for _, bad := range []time.Duration{time.Millisecond, -time.Second, 25 * time.Hour} {
		if err := change("", Settings{Window: release.Duration(bad)}); !errors.Is(err, ErrSettings) {
			t.Errorf("window %v: got %v, want %v", bad, err, ErrSettings)
		}
	}
	if err := change("a/b", Settings{}); !errors.Is(err, protocol.ErrDeviceID) {
		t.Errorf("got %v, want %v", err, protocol.ErrDeviceID)
	}
}

func TestLabelsGoWithIt(t *testing.T) {
	l, air := open(t), &radio{}
	d := New(air, l, Config{})
	run(t, d)
	want := map[string]string{"site": "a"}
	rec, err := l.Append(t.Context(), fleet.Chain("cam-1"), ledger.Any, fleet.KindEnrolled, "enrolment", fleet.Noted{Device: "cam-1", Labels: want})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, d, rec)
	if got := air.newest(t); !maps.Equal(got.GetSettings().GetLabels(), want) || got.GetGeneration() != rec.Seq {
		t.Errorf("published %v, want labels %v and generation %d", got, want, rec.Seq)
	}
}

// The same ledger gives the same desired state, whatever the order in which
// records come and however often.
func TestFoldIsOfTheLedgerAlone(t *testing.T) {
	l := open(t)
	live := New(&radio{}, l, Config{})
	run(t, live)
	recs := []ledger.Record{
		decide(t, l, v1, "cam-1", "cam-2"), decide(t, l, v2, "cam-1"), decide(t, l, v1, "cam-1"), decide(t, l, v2, "cam-2", "cam-3"),
	}
	if err := live.SetSettings(t.Context(), "ada", SettingsChange{Settings: Settings{Window: release.Duration(time.Minute)}}); err != nil {
		t.Fatal(err)
	}
	apply(t, live, recs...)
	backwards := New(&radio{}, l, Config{})
	slices.Reverse(recs)
	apply(t, backwards, recs...)
	run(t, backwards)
	for _, id := range []string{"cam-1", "cam-2", "cam-3", "cam-4"} {
		if got, want := backwards.State(id), live.State(id); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, want %+v", id, got, want)
		}
	}
}

// slow is a ledger that brings nothing by itself.
type slow struct{ *ledger.Memory }

func (slow) Follow(ctx context.Context, _ uint64, _ func(ledger.Record) error) error {
	<-ctx.Done()
	return nil
}

// A decision that comes before an older change of labels does not give one
// generation two contents.
func TestOlderRecordsComeFirst(t *testing.T) {
	l, air := slow{ledger.NewMemory(time.Now)}, &radio{}
	d := New(air, l, Config{})
	run(t, d)
	labels := map[string]string{"site": "a"}
	labelled, err := l.Append(t.Context(), fleet.Chain("cam-1"), ledger.Any, fleet.KindLabels, "ann", fleet.Noted{Device: "cam-1", Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	decided, err := l.Append(t.Context(), RolloutChain("digits-v2-1"), ledger.Any, "rollout.step", "engine",
		map[string]any{"decision": rollout.Decision{Assign: []rollout.Assigned{{Model: "digits", Release: v1, Devices: []string{"cam-1"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, d, decided)
	if got := air.newest(t); got.GetGeneration() != decided.Seq || !maps.Equal(got.GetSettings().GetLabels(), labels) {
		t.Errorf("told generation %d with labels %v, want %d with %v", got.GetGeneration(), got.GetSettings().GetLabels(), decided.Seq, labels)
	}
	air.take()
	apply(t, d, labelled)
	if got := air.take(); len(got) != 0 {
		t.Errorf("told again: %q", got)
	}
}

// short is a ledger whose reading breaks off after so many records.
type short struct {
	slow

	after int
	err   error
}

func (s *short) Replay(ctx context.Context, from uint64, fn func(ledger.Record) error) (uint64, error) {
	left := s.after
	next, err := s.Memory.Replay(ctx, from, func(r ledger.Record) error {
		if left == 0 {
			return io.EOF
		}
		left--
		return fn(r)
	})
	if errors.Is(err, io.EOF) {
		return next, s.err
	}
	return next, err
}

// What was read before the reading of older records broke off is told, and a
// decision that could not be read again all the same.
func TestOlderRecordsThatCannotBeRead(t *testing.T) {
	for name, err := range map[string]error{"an error": errors.New("the broker is gone"), "a server that has less": nil} {
		t.Run(name, func(t *testing.T) {
			l, air := &short{slow: slow{ledger.NewMemory(time.Now)}, after: 100}, &radio{}
			d := New(air, l, Config{})
			run(t, d)
			var records []ledger.Record
			for i, device := range []string{"cam-1", "cam-2"} {
				r, err := l.Append(t.Context(), RolloutChain(fmt.Sprint("digits-v2-", i)), ledger.Any, "rollout.step", "engine",
					map[string]any{"decision": rollout.Decision{Assign: []rollout.Assigned{{Model: "digits", Release: v1, Devices: []string{device}}}}})
				if err != nil {
					t.Fatal(err)
				}
				records = append(records, r)
			}
			l.after, l.err = 1, err
			if got := d.Apply(records[1]); !errors.Is(got, err) {
				t.Errorf("got %v, want %v", got, err)
			}
			want := []string{"cam-1"}
			if err == nil {
				want = append(want, "cam-2")
			}
			for i, id := range want {
				if got := d.Assigned(id, "digits"); got.Release != v1 || len(air.sent) <= i {
					t.Errorf("%s is assigned %+v, told were %d", id, got, len(air.sent))
				}
			}
		})
	}
}

// Truths that wait are told beside the desired state and are no part of its
// generation; settings of one device narrow sampling, never widen it.
func TestTruthsAndSamplingAreTold(t *testing.T) {
	l, r := open(t), &radio{}
	newest := uint64(7)
	d := New(r, l, Config{Truths: func(device string) uint64 {
		if device == "cam-1" {
			return newest
		}
		return 0
	}})
	run(t, d)
	set := func(device string, s Settings) {
		t.Helper()
		if err := d.SetSettings(t.Context(), "ann", SettingsChange{Device: device, Settings: s, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	set("", Settings{SampleRows: 8})
	before := d.State("cam-1").Generation
	d.Tell("cam-1")
	told := r.newest(t)
	if s := told.GetSettings(); s.GetTruths() != 7 || told.GetGeneration() != before || s.GetSampleRows() != 8 || s.GetSamplingOff() {
		t.Errorf("told %v", told)
	}
	set("cam-1", Settings{SampleRows: 20})
	if s := d.State("cam-1").Settings; s.SampleRows != 8 {
		t.Errorf("a device's %d rows widen the fleet's 8", s.SampleRows)
	}
	set("", Settings{SamplingOff: true})
	if s := d.State("cam-1").Settings; !s.SamplingOff || s.SampleRows != 20 {
		t.Errorf("settings are %+v, want sampling off", s)
	}
	for _, rows := range []int{-1, release.MaxSampleRows + 1} {
		if err := d.SetSettings(t.Context(), "ann", SettingsChange{Settings: Settings{SampleRows: rows}}); !errors.Is(err, ErrSettings) {
			t.Errorf("%d rows: got %v, want %v", rows, err, ErrSettings)
		}
	}
}
