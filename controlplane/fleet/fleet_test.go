package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, bucket kvstore.Bucket, cfg Config) *Fleet {
	t.Helper()
	f, err := Open(t.Context(), bucket, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// message is one accepted message of boot n, ms after its start.
func message(boot byte, ms uint64, body any) *protocol.Accepted {
	a := &protocol.Accepted{
		Device: "cam-1", ReceivedMs: start.UnixMilli() + int64(ms),
		Sent: &protocol.Stamp{Boot: []byte{boot}, MonotonicMs: ms, WallMs: start.UnixMilli() + int64(ms) + 1500},
	}
	switch b := body.(type) {
	case *protocol.Hello:
		a.Body = &protocol.Accepted_Hello{Hello: b}
	case *protocol.Report:
		a.Body = &protocol.Accepted_Report{Report: b}
	case *protocol.Record:
		a.Body = &protocol.Accepted_Record{Record: b}
	}
	return a
}

func device(t *testing.T, f *Fleet) Device {
	t.Helper()
	d, ok := f.Device("cam-1")
	if !ok {
		t.Fatal("cam-1 is not known")
	}
	return d
}

func TestFoldTakesHelloAndReport(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	v1, v2 := release.DigestOf([]byte("v1")), release.DigestOf([]byte("v2"))
	f.Apply(1, message(1, 10, &protocol.Hello{
		AgentVersion: "1.2.3", BootCount: 7, Unclean: true, RootDigest: v1.Bytes(),
		Facts:  &protocol.Facts{Profile: "pi", Arch: "arm64", MemoryBytes: 1 << 30, ExecutionProviders: []string{"CPU"}},
		Epochs: []*protocol.Epoch{{Id: []byte{0xab}, Sent: 5, Acked: 3, Current: true}},
	}))
	f.Apply(2, message(1, 2000, &protocol.Report{
		Generation: 42, OutboxPending: 3, DiskFreeBytes: 5,
		Models: []*protocol.ModelState{
			{Model: "z"},
			{
				Model: "digits", Active: v1.Bytes(), State: "trialing", StateForMs: 500, Serving: true, Waiting: "not enough room",
				Outcome: &protocol.Outcome{Release: v2.Bytes(), Result: "refused", Code: "golden_mismatch", Generation: 41},
			},
		},
	}))
	d := device(t, f)
	if d.AgentVersion != "1.2.3" || d.Facts.Profile != "pi" || d.Root != v1 || d.Boot.Count != 7 || !d.Boot.Unclean || d.Boot.UncleanTotal != 1 {
		t.Errorf("got %+v, want what the hello says", d)
	}
	if got, want := d.ReportedAt, start.Add(2*time.Second); got != want || d.LastSeen != want {
		t.Errorf("reported at %v, last seen %v, want %v", got, d.LastSeen, want)
	}
	if d.ClockOffset != 1500*time.Millisecond {
		t.Errorf("clock offset is %v, want 1.5s", d.ClockOffset)
	}
	m, ok := d.Model("digits")
	if !ok || m.Active != v1 || !m.Serving || m.Outcome == nil || m.Outcome.Code != "golden_mismatch" || m.Outcome.Release != v2 || m.Waiting != "not enough room" {
		t.Errorf("got model %+v, want digits serving v1 with v2 refused", m)
	}
	if got, want := m.StateSince, start.Add(1500*time.Millisecond); got != want {
		t.Errorf("state since %v, want %v", got, want)
	}
	if got := d.Models[0].Name; got != "digits" {
		t.Errorf("first model is %q, want them by name", got)
	}
	if d.Generation != 42 || d.Outbox.Pending != 3 || len(d.Epochs) != 1 || d.Epochs[0].ID != "ab" {
		t.Errorf("got %+v, want generation, outbox and epochs as reported", d)
	}
}

func TestFoldTakesWhatAnUpdateMayWaitFor(t *testing.T) {
	for _, c := range []struct {
		name                          string
		zone, metered, power          string
		percent                       uint32
		wantZone, wantLink, wantPower string
		wantPercent                   int
	}{
		{"all known", "Europe/Berlin", "yes", "battery", 71, "Europe/Berlin", "yes", "battery", 71},
		{"nothing known", "", "", "", 0, "", "", "", 0},
		{"words of a later version", "Europe/Berlin", "roaming", "solar", 250, "Europe/Berlin", "", "", 100},
		{"a zone that would be a path", "../../etc/passwd", "no", "mains", 0, "", "no", "mains", 0},
	} {
		f := open(t, kvstore.NewMemory(), Config{})
		f.Apply(1, message(1, 10, &protocol.Hello{Facts: &protocol.Facts{TimeZone: c.zone}}))
		f.Apply(2, message(1, 20, &protocol.Report{Metered: c.metered, Power: c.power, BatteryPercent: c.percent}))
		d := device(t, f)
		if d.Facts.TimeZone != c.wantZone || d.Metered != c.wantLink || d.Power != c.wantPower || d.Battery != c.wantPercent {
			t.Errorf("%s: got %q, %q, %q, %d", c.name, d.Facts.TimeZone, d.Metered, d.Power, d.Battery)
		}
	}
}

func TestOldReportsAreDropped(t *testing.T) {
	report := func(generation uint64) *protocol.Report { return &protocol.Report{Generation: generation} }
	cases := []struct {
		name     string
		messages []*protocol.Accepted
		want     uint64
	}{
		{"newer of the same boot", []*protocol.Accepted{message(1, 10, report(1)), message(1, 20, report(2))}, 2},
		{"older of the same boot", []*protocol.Accepted{message(1, 20, report(2)), message(1, 10, report(1))}, 2},
		{"a new boot starts at zero", []*protocol.Accepted{message(1, 5000, report(2)), message(2, 1, report(3))}, 3},
		{"of a former boot", []*protocol.Accepted{message(1, 10, report(1)), message(2, 1, report(2)), message(1, 9000, report(1))}, 2},
		{"hello and report each have their own order", []*protocol.Accepted{message(1, 50, &protocol.Hello{}), message(1, 40, report(7))}, 7},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := open(t, kvstore.NewMemory(), Config{})
			for i, m := range c.messages {
				f.Apply(uint64(i)+1, m)
			}
			if got := device(t, f).Generation; got != c.want {
				t.Errorf("generation is %d, want %d", got, c.want)
			}
		})
	}
}

func TestUncleanBootsAreCountedOnce(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	for i, m := range []*protocol.Accepted{
		message(1, 1, &protocol.Hello{BootCount: 1}),
		message(2, 1, &protocol.Hello{BootCount: 2, Unclean: true}),
		message(2, 60000, &protocol.Hello{BootCount: 2, Unclean: true}), // repeated on its timer
		message(3, 1, &protocol.Hello{BootCount: 3, Unclean: true}),
	} {
		f.Apply(uint64(i)+1, m)
	}
	if got := device(t, f).Boot.UncleanTotal; got != 2 {
		t.Errorf("counted %d unclean boots, want 2", got)
	}
}

// A crash repeats messages after the checkpoint, and the checkpoint must give
// back everything but presence.
func TestCheckpointAndReplay(t *testing.T) {
	bucket := kvstore.NewMemory()
	f := open(t, bucket, Config{})
	if err := f.Enrolled(t.Context(), "cam-1", map[string]string{"site": "a"}); err != nil {
		t.Fatal(err)
	}
	stream := []*protocol.Accepted{
		message(1, 1, &protocol.Hello{BootCount: 1, AgentVersion: "1"}),
		message(1, 20, &protocol.Report{Generation: 5, Models: []*protocol.ModelState{{Model: "digits", Active: make([]byte, 32)}}}),
		message(1, 30, record(t, &protocol.Event{Kind: "salvage", Message: "a torn file"})),
		message(2, 10, &protocol.Report{Generation: 6}),
	}
	for i, m := range stream[:3] {
		f.Apply(uint64(i)+1, m)
	}
	saved := f.Dirty()
	if more := f.Dirty(); len(more) != 0 {
		t.Errorf("%d records are dirty twice", len(more))
	}
	f.Apply(4, stream[3])

	again := open(t, bucket, Config{})
	if err := again.Load(saved); err != nil {
		t.Fatal(err)
	}
	for i, m := range stream {
		again.Apply(uint64(i)+1, m)
	}
	got, want := asJSON(t, device(t, again)), asJSON(t, device(t, f))
	if got != want {
		t.Errorf("after the restart\n%s\nwant\n%s", got, want)
	}
	if d := device(t, again); len(d.Events) != 1 || d.Labels["site"] != "a" {
		t.Errorf("got %d events and labels %v, want one event and site a", len(d.Events), d.Labels)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func record(t *testing.T, e *protocol.Event) *protocol.Record {
	t.Helper()
	body, err := proto.Marshal(&protocol.Body{At: &protocol.Stamp{WallMs: 7}, Kind: &protocol.Body_Event{Event: e}})
	if err != nil {
		t.Fatal(err)
	}
	return &protocol.Record{Body: body}
}

// Only what comes in is told: after a restart the fold reads old events again.
func TestEventsAreTold(t *testing.T) {
	var told []string
	f := open(t, kvstore.NewMemory(), Config{OnEvent: func(e Event) { told = append(told, e.Kind) }})
	f.Apply(1, message(1, 1, record(t, &protocol.Event{Kind: "old"})))
	f.Live()
	f.Apply(2, message(1, 2, record(t, &protocol.Event{Kind: "delta_applied"})))
	f.Apply(2, message(1, 2, record(t, &protocol.Event{Kind: "delta_applied"}))) // the same again
	if want := []string{"delta_applied"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestEventsAreBounded(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	for i := range MaxEvents + 5 {
		f.Apply(uint64(i)+1, message(1, uint64(i), record(t, &protocol.Event{Kind: fmt.Sprintf("event-%d", i)})))
	}
	broken := message(1, 100, &protocol.Record{Body: []byte{0xff}})
	f.Apply(1000, broken)
	refused := message(1, 101, record(t, &protocol.Event{Kind: "refused"}))
	refused.Refused = "its content broke a rule"
	f.Apply(1001, refused)
	events := device(t, f).Events
	if len(events) != MaxEvents || events[0].Kind != fmt.Sprintf("event-%d", MaxEvents+4) {
		t.Errorf("got %d events, the newest %q, want the newest %d", len(events), events[0].Kind, MaxEvents)
	}
}

func TestClonedIsMarkedAndCleared(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	f.Apply(1, &protocol.Accepted{Device: "cam-1", ReceivedMs: start.UnixMilli(), Cloned: true})
	if d := device(t, f); d.Cloned == nil {
		t.Fatal("not marked as cloned")
	}
	f.Apply(2, message(1, 1, &protocol.Hello{}))
	if d := device(t, f); d.Cloned == nil {
		t.Error("a message without a cursor has cleared the mark")
	}
	ok := message(1, 2, &protocol.Hello{})
	ok.Cursor = &protocol.Cursor{}
	f.Apply(3, ok)
	if d := device(t, f); d.Cloned != nil {
		t.Error("still marked after the server cleared it")
	}
}

func TestPresence(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	want := func(p Presence, when string) {
		t.Helper()
		if got := device(t, f).Presence; got != p {
			t.Errorf("%s it is %s, want %s", when, got, p)
		}
	}
	f.Apply(1, message(1, 1, &protocol.Hello{}))
	want(PresenceUnknown, "after history was read")
	f.Live()
	f.Apply(2, message(1, 2, &protocol.Report{}))
	want(Online, "after a message came in")
	f.SetPresence("cam-1", false, start)
	want(Offline, "after it left")
	f.SetPresence("cam-1", true, start.Add(time.Hour))
	want(Online, "after it came")
	if got := device(t, f).LastSeen; got != start.Add(time.Hour) {
		t.Errorf("last seen %v, want when it came", got)
	}
	f.SetPresence("cam-2", false, start)
	if got, want := f.Presences(), map[Presence]int{Online: 1, Offline: 1}; !maps.Equal(got, want) {
		t.Errorf("presences %v, want %v", got, want)
	}
}

// notes is a Journal in memory.
type notes struct {
	mu    sync.Mutex
	fail  error
	kinds []string
	last  Noted
}

func (n *notes) Append(_ context.Context, chain string, _ uint64, kind, actor string, body any) (ledger.Record, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return ledger.Record{}, n.fail
	}
	n.kinds = append(n.kinds, chain+" "+kind+" by "+actor)
	n.last, _ = body.(Noted)
	return ledger.Record{}, nil
}

func TestOperatorsChangeDevices(t *testing.T) {
	journal := &notes{}
	f := open(t, kvstore.NewMemory(), Config{Journal: journal, Now: func() time.Time { return start }})
	steps := []error{
		f.Enrolled(t.Context(), "cam-1", map[string]string{"site": "a", "ring": "canary"}),
		f.SetLabels(t.Context(), "cam-1", LabelChange{Set: map[string]string{"site": "b"}, Remove: []string{"ring"}}, "ada", "moved"),
		f.Revoke(t.Context(), "cam-1", "ada", "stolen"),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	d := device(t, f)
	if want := map[string]string{"site": "b"}; !maps.Equal(d.Labels, want) || d.Site() != "b" {
		t.Errorf("labels are %v, want %v", d.Labels, want)
	}
	if d.Revoked == nil || d.Revoked.Actor != "ada" || d.Enrolled != start {
		t.Errorf("revoked %+v, enrolled %v, want by ada, now", d.Revoked, d.Enrolled)
	}
	if err := f.Restore(t.Context(), "cam-1", "ada", "found"); err != nil || device(t, f).Revoked != nil {
		t.Errorf("restore: %v, revoked %v", err, device(t, f).Revoked)
	}
	if err := f.Remove(t.Context(), "cam-1", "ada", "scrapped"); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Device("cam-1"); ok {
		t.Error("removed, but still known")
	}
	want := []string{
		"device.cam-1 device.enrolled by enrolment", "device.cam-1 device.labels by ada", "device.cam-1 device.revoked by ada",
		"device.cam-1 device.restored by ada", "device.cam-1 device.removed by ada",
	}
	if !slices.Equal(journal.kinds, want) {
		t.Errorf("noted %q, want %q", journal.kinds, want)
	}
}

func TestEnrolAgainKeepsLabels(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	err := errors.Join(
		f.Enrolled(t.Context(), "cam-1", map[string]string{"site": "a"}),
		f.SetLabels(t.Context(), "cam-1", LabelChange{Set: map[string]string{"ring": "slow"}}, "ada", "x"),
		f.Revoke(t.Context(), "cam-1", "ada", "lost"),
		f.Enrolled(t.Context(), "cam-1", map[string]string{"site": "c"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	d := device(t, f)
	if want := map[string]string{"site": "c", "ring": "slow"}; !maps.Equal(d.Labels, want) || d.Revoked != nil {
		t.Errorf("labels %v, revoked %v, want %v and not revoked", d.Labels, d.Revoked, want)
	}
}

func TestRefusedChanges(t *testing.T) {
	journal := &notes{}
	f := open(t, kvstore.NewMemory(), Config{Journal: journal})
	if err := f.Enrolled(t.Context(), "cam-1", nil); err != nil {
		t.Fatal(err)
	}
	many := map[string]string{}
	for i := range protocol.MaxLabels + 1 {
		many[fmt.Sprintf("l%d", i)] = "x"
	}
	stale := device(t, f).Revision
	if err := f.SetLabels(t.Context(), "cam-1", LabelChange{Set: map[string]string{"a": "b"}, Revision: stale}, "ada", "x"); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		device string
		change LabelChange
		want   error
	}{
		{"unknown device", "cam-9", LabelChange{}, ErrNotFound},
		{"changed since it was read", "cam-1", LabelChange{Revision: stale}, ErrStale},
		{"label with a space", "cam-1", LabelChange{Set: map[string]string{"a b": "c"}}, protocol.ErrLabel},
		{"value with a slash", "cam-1", LabelChange{Set: map[string]string{"a": "b/c"}}, protocol.ErrLabel},
		{"value too long", "cam-1", LabelChange{Set: map[string]string{"a": string(make([]byte, protocol.MaxLabelValue+1))}}, protocol.ErrLabel},
		{"too many", "cam-1", LabelChange{Set: many}, protocol.ErrLabel},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := f.SetLabels(t.Context(), c.device, c.change, "ada", "x"); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if err := f.Enrolled(t.Context(), "../etc", nil); !errors.Is(err, protocol.ErrDeviceID) {
		t.Errorf("enrolled ../etc: %v, want %v", err, protocol.ErrDeviceID)
	}
	journal.fail = errors.New("ledger is away")
	if err := f.SetLabels(t.Context(), "cam-1", LabelChange{Set: map[string]string{"a": "z"}}, "ada", "x"); !errors.Is(err, journal.fail) {
		t.Errorf("got %v, want to be told that the ledger has no note", err)
	}
}

// Two servers change one device at the same moment: nothing is lost, and each
// sees what the other did.
func TestTwoServers(t *testing.T) {
	bucket := kvstore.NewMemory()
	a, b := open(t, bucket, Config{}), open(t, bucket, Config{})
	if err := a.Enrolled(t.Context(), "cam-1", nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	news := b.Subscribe()
	defer news.Close()
	running.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	waitFor(t, news, func() bool { _, ok := b.Device("cam-1"); return ok })

	var writers sync.WaitGroup
	for i := range 20 {
		writers.Go(func() {
			f := []*Fleet{a, b}[i%2]
			change := LabelChange{Set: map[string]string{fmt.Sprintf("l%d", i): "x"}}
			if err := f.SetLabels(t.Context(), "cam-1", change, "ada", "x"); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	waitFor(t, news, func() bool { return len(device(t, b).Labels) == 20 })
	if err := a.Remove(t.Context(), "cam-1", "ada", "x"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, news, func() bool { _, ok := b.Device("cam-1"); return !ok })
}

// waitFor waits for changes until something holds.
func waitFor(t *testing.T, news *Subscription, holds func() bool) {
	t.Helper()
	for !holds() {
		select {
		case <-news.Changed():
			news.Take()
		case <-t.Context().Done():
			t.Fatal("it never came")
		}
	}
}

func TestSubscriptionsCoalesce(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	s := f.Subscribe()
	for i := range 100 {
		f.Apply(uint64(i)+1, message(1, uint64(i), &protocol.Report{}))
	}
	f.SetPresence("cam-2", true, start)
	<-s.Changed()
	if got, want := s.Take(), []string{"cam-1", "cam-2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	s.Close()
	f.SetPresence("cam-2", false, start)
	if got := s.Take(); len(got) != 0 {
		t.Errorf("got %v after Close", got)
	}
}

func TestDevicesBySelector(t *testing.T) {
	f := open(t, kvstore.NewMemory(), Config{})
	for _, id := range []string{"b-1", "a-1", "a-2"} {
		if err := f.Enrolled(t.Context(), id, map[string]string{"site": id[:1]}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, d := range f.Devices(func(l map[string]string) bool { return l["site"] == "a" }) {
		got = append(got, d.ID)
		d.Labels["site"] = "z" // a copy: whoever holds it may do with it what it likes
	}
	if want := []string{"a-1", "a-2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := f.Labels("a-1")["site"]; got != "a" {
		t.Errorf("site is %q, want a", got)
	}
}
