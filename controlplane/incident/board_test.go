package incident

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func board(t *testing.T, store kvstore.Bucket, cfg Config) *Board {
	t.Helper()
	b, err := New(t.Context(), store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func cause(key string) Cause {
	return Cause{Key: key, Kind: Drift, Model: "digits", Cohort: "hall-b", Summary: "site hall-b has left the training data", Link: "/models/digits/drift"}
}

func raise(t *testing.T, b *Board, at time.Duration, c Cause) {
	t.Helper()
	if err := b.Raise(t.Context(), start.Add(at), c); err != nil {
		t.Fatal(err)
	}
}

func clearKey(t *testing.T, b *Board, at time.Duration, key string) {
	t.Helper()
	if err := b.Clear(t.Context(), start.Add(at), key, "recovered"); err != nil {
		t.Fatal(err)
	}
}

func whats(i *Incident) string {
	var out []string
	for _, e := range i.Timeline {
		out = append(out, e.What)
	}
	return strings.Join(out, ", ")
}

func TestOneCauseIsOneIncident(t *testing.T) {
	store := kvstore.NewMemory()
	b := board(t, store, Config{})
	raise(t, b, 0, cause("a"))
	for i := range 50 {
		raise(t, b, time.Duration(i)*time.Second, cause("a"))
	}
	raise(t, b, time.Hour, cause("b"))
	all := b.Incidents()
	if len(all) != 2 || all[0].Cause.Key != "b" || all[1].Count != 51 || whats(&all[1]) != EntryOpened {
		t.Fatalf("got %+v, want two incidents, the first raised 51 times and told of once", all)
	}
	clearKey(t, b, 2*time.Hour, "a")
	clearKey(t, b, 2*time.Hour, "never raised")
	again := board(t, store, Config{}).Incidents()
	if len(again) != 2 || again[1].State != Resolved || again[1].Cause.Key != "a" || again[0].State != Open {
		t.Errorf("after a restart: got %+v, want b open and a resolved", again)
	}
}

func TestFlappingStaysOneIncident(t *testing.T) {
	b := board(t, kvstore.NewMemory(), Config{})
	at := time.Duration(0)
	for range 20 { // 5 minutes bad, 8 good
		raise(t, b, at, cause("a"))
		clearKey(t, b, at+5*time.Minute, "a")
		at += 13 * time.Minute
	}
	if all := b.Incidents(); len(all) != 1 || all[0].Flaps != 19 {
		t.Errorf("within the grace time: got %d incidents, want 1 opened again 19 times", len(all))
	}
	// Slower than the first grace time: the grace grows until it holds them.
	b = board(t, kvstore.NewMemory(), Config{})
	for i := range 20 {
		raise(t, b, time.Duration(i)*time.Hour, cause("a"))
		clearKey(t, b, time.Duration(i)*time.Hour+time.Minute, "a")
	}
	if n := len(b.Incidents()); n != 4 {
		t.Errorf("every hour: got %d incidents, want 4 until the grace has grown to 80 minutes", n)
	}
	raise(t, b, 48*time.Hour, cause("a"))
	if all := b.Incidents(); len(all) != 5 || all[0].Flaps != 0 {
		t.Errorf("after a quiet day: got %+v, want a new one without a history", all[0])
	}
}

func TestPeople(t *testing.T) {
	b := board(t, kvstore.NewMemory(), Config{})
	raise(t, b, 0, cause("a"))
	id := b.Incidents()[0].ID
	got, err := b.Acknowledge(t.Context(), start.Add(time.Minute), id, "ada", "on my way")
	if err != nil || got.State != Acknowledged || got.Owner != "ada" {
		t.Fatalf("acknowledge: got %+v, %v", got, err)
	}
	raise(t, b, 2*time.Minute, cause("a"))
	if got, _ = b.Incident(id); got.State != Acknowledged {
		t.Errorf("raised again: got %s, want it acknowledged still", got.State)
	}
	worse := cause("a")
	worse.Severity = Critical
	raise(t, b, 3*time.Minute, worse)
	if got, err = b.Resolve(t.Context(), start.Add(time.Hour), id, "ada", "cleaned the lens"); err != nil || got.State != Resolved {
		t.Fatalf("resolve: got %+v, %v", got, err)
	}
	if want := "opened, acknowledged, worse, resolved"; whats(&got) != want {
		t.Errorf("timeline: got %s, want %s", whats(&got), want)
	}
	if _, err := b.Resolve(t.Context(), start, id, "ada", ""); !errors.Is(err, ErrState) {
		t.Errorf("resolve twice: got %v, want ErrState", err)
	}
	if _, err := b.Acknowledge(t.Context(), start, "inc-0", "ada", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: got %v, want ErrNotFound", err)
	}
}

// broken fails writes.
type broken struct{ kvstore.Bucket }

var errStore = errors.New("no quorum")

func (broken) Put(context.Context, string, []byte) (uint64, error) { return 0, errStore }

func TestWhatCannotBeStoredDidNotHappen(t *testing.T) {
	store := kvstore.NewMemory()
	raise(t, board(t, store, Config{}), 0, cause("a"))
	b := board(t, broken{store}, Config{})
	if err := b.Raise(t.Context(), start, cause("b")); !errors.Is(err, errStore) {
		t.Errorf("raise: got %v, want the store's error", err)
	}
	if err := b.Clear(t.Context(), start, "a", "recovered"); !errors.Is(err, errStore) {
		t.Errorf("clear: got %v, want the store's error", err)
	}
	if all := b.Incidents(); len(all) != 1 || all[0].State != Open {
		t.Errorf("got %+v, want a open alone", all)
	}
}

func TestBounds(t *testing.T) {
	b := board(t, kvstore.NewMemory(), Config{})
	for name, c := range map[string]Cause{
		"no key": {Kind: Drift}, "no kind": {Key: "k"}, "long key": {Key: strings.Repeat("k", maxKey+1), Kind: Drift},
	} {
		if err := b.Raise(t.Context(), start, c); !errors.Is(err, ErrCause) {
			t.Errorf("%s: got %v, want ErrCause", name, err)
		}
	}
	c := cause("a")
	c.Summary, c.Detail, c.Link = "one\r\nBcc: x@y\x00"+strings.Repeat("ü", maxSummary), strings.Repeat("x\n", maxDetail), "//evil.example/"
	raise(t, b, 0, c)
	got := b.Incidents()[0].Cause
	if len(got.Summary) > maxSummary || strings.ContainsAny(got.Summary, "\r\n\x00") || len(got.Detail) > maxDetail || got.Link != "" {
		t.Errorf("got %q of %d bytes, detail of %d, link %q", got.Summary, len(got.Summary), len(got.Detail), got.Link)
	}
	for i := range maxLive - 1 {
		raise(t, b, 0, cause(fmt.Sprint("k", i)))
	}
	if err := b.Raise(t.Context(), start, cause("one more")); !errors.Is(err, ErrFull) {
		t.Errorf("too many: got %v, want ErrFull", err)
	}
	for i := range maxLive - 1 {
		clearKey(t, b, time.Duration(i)*time.Second, fmt.Sprint("k", i))
	}
	raise(t, b, time.Hour, cause("one more"))
	if n := len(b.Incidents()); n != keepResolved+2 {
		t.Errorf("kept %d, want two that are open and %d resolved", n, keepResolved)
	}
	i := b.incidents[b.byKey["a"]]
	for n := range 3 * maxTimeline {
		i.enter(Entry{AtMS: int64(n), What: EntryTold})
	}
	if len(i.Timeline) != maxTimeline || i.Timeline[0].What != EntryOpened {
		t.Errorf("timeline: got %d entries from %q, want %d and the first kept", len(i.Timeline), i.Timeline[0].What, maxTimeline)
	}
}
