package ledger_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/ledger"
)

type note struct {
	Text string `json:"text"`
}

func open(t *testing.T, b *broker.Broker, opts ledger.Options) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), b.Conn(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func add(t *testing.T, l *ledger.Ledger, chain string, expect uint64, text string) ledger.Record {
	t.Helper()
	rec, err := l.Append(t.Context(), chain, expect, "note", "ada", note{text})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestAppendIsReadBack(t *testing.T) {
	now := time.Date(2026, 11, 23, 4, 0, 0, 123456789, time.UTC)
	l := open(t, brokertest.Start(t), ledger.Options{Now: func() time.Time { return now }})
	first := add(t, l, "rollout.r1", 0, "<one> & \"two\"")
	add(t, l, "rollout.r2", 0, "between")
	second := add(t, l, "rollout.r1", first.Seq, "two")
	got, err := l.Read(t.Context(), "rollout.r1")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Hash != first.Hash || got[1].Hash != second.Hash {
		t.Fatalf("got %+v, want both records", got)
	}
	r := got[1]
	if r.Index != 2 || r.Seq != 3 || r.Prev != first.Hash || r.Actor != "ada" || r.Kind != "note" || !r.At.Equal(now.Truncate(time.Millisecond)) {
		t.Errorf("second record is %+v", r)
	}
	var body note
	if err := got[0].Decode(&body); err != nil || body.Text != "<one> & \"two\"" {
		t.Errorf("body is %q, %v", body.Text, err)
	}
	if head, err := l.Head(t.Context(), "rollout.r1"); err != nil || head.Hash != second.Hash {
		t.Errorf("head is %+v, %v", head, err)
	}
	if chains, err := l.Chains(t.Context(), "rollout"); err != nil || !slices.Equal(chains, []string{"rollout.r1", "rollout.r2"}) {
		t.Errorf("chains are %v, %v", chains, err)
	}
	if last, err := l.Last(t.Context()); err != nil || last != 3 {
		t.Errorf("last is %d, %v; want 3", last, err)
	}
}

func TestAppendRefuses(t *testing.T) {
	b := brokertest.Start(t)
	l, other := open(t, b, ledger.Options{}), open(t, b, ledger.Options{})
	first := add(t, l, "c", 0, "one")
	add(t, other, "c", first.Seq, "two, by another writer")
	for name, expect := range map[string]uint64{"stale": first.Seq, "new chain": 0, "not there yet": 99} {
		if _, err := l.Append(t.Context(), "c", expect, "note", "ada", note{}); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("%s: got %v, want ErrConflict", name, err)
		}
	}
	for _, chain := range []string{"", "a b", "a..b", ".a", "a.*", "a.>", strings.Repeat("a", 201)} {
		if _, err := l.Append(t.Context(), chain, 0, "note", "ada", note{}); !errors.Is(err, ledger.ErrChain) {
			t.Errorf("chain %.10q: got %v, want ErrChain", chain, err)
		}
	}
	large := note{strings.Repeat("x", ledger.MaxBody)}
	if _, err := l.Append(t.Context(), "c", ledger.Any, "note", "ada", large); !errors.Is(err, ledger.ErrTooLarge) {
		t.Errorf("large body without blobs: got %v, want ErrTooLarge", err)
	}
	if records, err := l.Read(t.Context(), "c"); err != nil || len(records) != 2 {
		t.Errorf("chain has %d records, %v; want 2", len(records), err)
	}
	if _, err := l.Read(t.Context(), "none"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("read of no chain: got %v, want ErrNotFound", err)
	}
}

// Of writers that saw the same head, one wins.
func TestOneWriterWins(t *testing.T) {
	b := brokertest.Start(t)
	const writers = 8
	errs := make(chan error, writers)
	for i := range writers {
		l := open(t, b, ledger.Options{})
		go func() {
			_, err := l.Append(t.Context(), "race", 0, "note", "ada", note{strconv.Itoa(i)})
			errs <- err
		}()
	}
	won := 0
	for range writers {
		switch err := <-errs; {
		case err == nil:
			won++
		case !errors.Is(err, ledger.ErrConflict):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d writers won, want 1", won)
	}
}

func TestAnyFollowsWhateverIsThere(t *testing.T) {
	b := brokertest.Start(t)
	const writers, rounds = 4, 5
	var wg sync.WaitGroup
	for range writers {
		l := open(t, b, ledger.Options{})
		wg.Go(func() {
			for range rounds {
				if _, err := l.Append(t.Context(), ledger.ChainOperator, ledger.Any, "note", "ada", note{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l := open(t, b, ledger.Options{})
	records, err := l.Read(t.Context(), ledger.ChainOperator)
	if err != nil || len(records) != writers*rounds {
		t.Errorf("got %d records, %v; want %d", len(records), err, writers*rounds)
	}
	if err := ledger.Verify(bytes.NewReader(export(t, l))); err != nil {
		t.Error(err)
	}
}

type memoryBlobs map[string][]byte

func (m memoryBlobs) PutBytes(_ context.Context, data []byte) error {
	sum := sha256.Sum256(data)
	m[hex.EncodeToString(sum[:])] = data
	return nil
}

func (m memoryBlobs) GetBytes(_ context.Context, digest string) ([]byte, error) {
	if data, ok := m[digest]; ok {
		return data, nil
	}
	return nil, errors.New("no such blob")
}

func TestLargeBodyBecomesABlob(t *testing.T) {
	b, blobs := brokertest.Start(t), memoryBlobs{}
	l := open(t, b, ledger.Options{Blobs: blobs})
	text := strings.Repeat("x", ledger.MaxBody)
	rec := add(t, l, "c", 0, text)
	if rec.Blob == "" || len(blobs) != 1 {
		t.Fatalf("record %+v, %d blobs; want one", rec.Hash, len(blobs))
	}
	add(t, l, "c", rec.Seq, "small")
	got, err := l.Read(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	var body note
	if err := got[0].Decode(&body); err != nil || body.Text != text {
		t.Errorf("body came back with %d bytes, %v", len(body.Text), err)
	}
	lines := export(t, l)
	for name, stored := range blobs {
		if len(stored) > ledger.MaxBody/10 || bytes.Contains(lines, []byte(name)) {
			t.Errorf("%d bytes are stored, want few; the export must not say where", len(stored))
		}
	}
	if len(lines) < ledger.MaxBody {
		t.Errorf("export has %d bytes: the body is not in it", len(lines))
	}
	if s, err := ledger.Audit(bytes.NewReader(lines)); err != nil || s.Blobs != 1 || s.Absent != 0 || s.Records != 3 {
		t.Errorf("audit: %+v, %v", s, err)
	}
	forged := bytes.Replace(lines, []byte("xxx"), []byte("xxy"), 1)
	if err := ledger.Verify(bytes.NewReader(forged)); !errors.Is(err, ledger.ErrTampered) || !strings.Contains(err.Error(), "record 1 ") {
		t.Errorf("a changed body: %v, want record 1", err)
	}
	// Exports of before have the digest alone.
	without := forge(t, lines, func(rs []map[string]json.RawMessage) []map[string]json.RawMessage {
		delete(rs[0], "body")
		return rs
	})
	if s, err := ledger.Audit(bytes.NewReader(without)); err != nil || s.Blobs != 1 || s.Absent != 1 {
		t.Errorf("audit without the body: %+v, %v", s, err)
	}
	for name := range blobs {
		blobs[name] = blobs[name][1:]
	}
	if _, err := l.Read(t.Context(), "c"); err == nil {
		t.Error("a changed blob was taken for the body")
	}
}

// A body that an earlier server stored is the blob itself.
func TestBlobsOfEarlierServersAreRead(t *testing.T) {
	b, blobs := brokertest.Start(t), memoryBlobs{}
	l := open(t, b, ledger.Options{Blobs: blobs})
	body := []byte(`{"text":"as it was"}`)
	digest := sha256.Sum256(body)
	blobs[hex.EncodeToString(digest[:])] = body
	data, err := json.Marshal(ledger.Record{Chain: "c", Index: 1, Kind: "note", Blob: hex.EncodeToString(digest[:])})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Conn().Request("ledger.c", data, time.Minute); err != nil {
		t.Fatal(err)
	}
	got, err := l.Read(t.Context(), "c")
	if err != nil || len(got) != 1 || !bytes.Equal(got[0].Body, body) {
		t.Errorf("got %+v, %v, want the body %s", got, err, body)
	}
}

// A first decision states the facts of every device: a body may be far larger
// than what the blob store takes.
func TestHugeBody(t *testing.T) {
	l := open(t, brokertest.Start(t), ledger.Options{Blobs: memoryBlobs{}})
	body := json.RawMessage(`"` + strings.Repeat("x", 64<<20) + `"`)
	if _, err := l.Append(t.Context(), "c", 0, "note", "ada", body); err != nil {
		t.Fatal(err)
	}
	head, err := l.Head(t.Context(), "c")
	if err != nil || !bytes.Equal(head.Body, body) {
		t.Errorf("got %d bytes, %v, want %d", len(head.Body), err, len(body))
	}
}

func TestReplayAndFollow(t *testing.T) {
	b := brokertest.Start(t)
	l := open(t, b, ledger.Options{})
	if next, err := l.Replay(t.Context(), 0, func(ledger.Record) error { return errors.New("called") }); err != nil || next != 1 {
		t.Errorf("replay of nothing: next %d, %v; want 1", next, err)
	}
	for i := range 5 {
		add(t, l, fmt.Sprintf("c%d", i%2), ledger.Any, strconv.Itoa(i))
	}
	var seen []uint64
	collect := func(r ledger.Record) error { seen = append(seen, r.Seq); return nil }
	next, err := l.Replay(t.Context(), 2, collect)
	if err != nil || next != 6 || !slices.Equal(seen, []uint64{2, 3, 4, 5}) {
		t.Fatalf("replay from 2: saw %v, next %d, %v", seen, next, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	follow := make(chan ledger.Record)
	done := make(chan error, 1)
	go func() {
		done <- l.Follow(ctx, 5, func(r ledger.Record) error { follow <- r; return nil })
	}()
	if r := <-follow; r.Seq != 5 {
		t.Errorf("first followed is %d, want 5", r.Seq)
	}
	add(t, l, "new", 0, "live")
	if r := <-follow; r.Seq != 6 || r.Chain != "new" {
		t.Errorf("next followed is %+v, want 6", r)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("follow ended with %v", err)
	}
	stop := errors.New("enough")
	if err := l.Follow(t.Context(), 1, func(ledger.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("follow: got %v, want the function's error", err)
	}
	for name, err := range map[string]error{
		"follow": l.Follow(t.Context(), 8, collect),
		"replay": func() error { _, err := l.Replay(t.Context(), 99, collect); return err }(),
	} {
		if !errors.Is(err, ledger.ErrGap) {
			t.Errorf("%s beyond the end: got %v, want ErrGap", name, err)
		}
	}
}

func TestLedgerOutlivesTheBroker(t *testing.T) {
	dir, ca := t.TempDir(), brokertest.CA(t)
	b := brokertest.StartAt(t, dir, ca)
	first := add(t, open(t, b, ledger.Options{}), "c", 0, "one")
	b.Close()
	b = brokertest.StartAt(t, dir, ca)
	l := open(t, b, ledger.Options{})
	add(t, l, "c", first.Seq, "two")
	if s, err := ledger.Audit(bytes.NewReader(export(t, l))); err != nil || s.Records != 3 {
		t.Errorf("audit: %+v, %v", s, err)
	}
}

func export(t *testing.T, l *ledger.Ledger) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := l.Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAnchors(t *testing.T) {
	l := open(t, brokertest.Start(t), ledger.Options{})
	anchor := func() {
		t.Helper()
		if err := l.Anchor(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	anchor() // nothing to say
	add(t, l, "a", 0, "1")
	add(t, l, "b", 0, "1")
	add(t, l, "a", ledger.Any, "2")
	anchor()
	anchor() // nothing new
	add(t, l, "b", ledger.Any, "2")
	anchor()
	anchors, err := l.Read(t.Context(), ledger.ChainAnchor)
	if err != nil || len(anchors) != 2 {
		t.Fatalf("%d anchors, %v; want 2", len(anchors), err)
	}
	var first, second ledger.Anchor
	if err := errors.Join(anchors[0].Decode(&first), anchors[1].Decode(&second)); err != nil {
		t.Fatal(err)
	}
	if first.Through != 3 || len(first.Heads) != 2 || first.Heads[0].Seq != 3 || first.Heads[1].Seq != 2 {
		t.Errorf("first anchor is %+v", first)
	}
	if second.Through != 5 || len(second.Heads) != 1 || second.Heads[0].Chain != "b" || second.Heads[0].Index != 2 {
		t.Errorf("second anchor is %+v", second)
	}
	s, err := ledger.Audit(bytes.NewReader(export(t, l)))
	if err != nil || s.Records != 6 || s.Anchors != 2 || s.Anchored != 5 || s.Chains != 3 {
		t.Errorf("audit: %+v, %v", s, err)
	}
}

// A ledger with more chains than fit into one anchor.
func TestAnchorsOfManyChains(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a thousand synced records")
	}
	l := open(t, brokertest.Start(t), ledger.Options{})
	for i := range 1001 {
		add(t, l, fmt.Sprintf("c%d", i), 0, "")
	}
	if err := l.Anchor(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := ledger.Audit(bytes.NewReader(export(t, l)))
	if err != nil || s.Anchors != 3 || s.Anchored != 1001 {
		t.Errorf("audit: %+v, %v; want 3 anchors through 1001", s, err)
	}
}

// forge takes an export apart, lets change alter the records, and writes it again.
func forge(t *testing.T, lines []byte, change func([]map[string]json.RawMessage) []map[string]json.RawMessage) []byte {
	t.Helper()
	var records []map[string]json.RawMessage
	for line := range bytes.Lines(lines) {
		var r map[string]json.RawMessage
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, r := range change(records) {
		if err := enc.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func TestVerifyNamesWhatDoesNotFit(t *testing.T) {
	l := open(t, brokertest.Start(t), ledger.Options{})
	add(t, l, "a", 0, "1")                        // 1
	add(t, l, "b", 0, "1")                        // 2
	add(t, l, "a", ledger.Any, "2")               // 3
	add(t, l, "b", ledger.Any, "2")               // 4
	if err := l.Anchor(t.Context()); err != nil { // 5
		t.Fatal(err)
	}
	add(t, l, "a", ledger.Any, "3") // 6
	lines := export(t, l)
	if err := ledger.Verify(bytes.NewReader(lines)); err != nil {
		t.Fatalf("untouched: %v", err)
	}
	type records = []map[string]json.RawMessage
	renumber := func(rs records) records {
		for i := range rs {
			rs[i] = maps.Clone(rs[i])
			rs[i]["seq"] = fmt.Append(nil, i+1)
		}
		return rs
	}
	set := func(i int, field string, value any) func(records) records {
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return func(rs records) records { rs[i][field] = raw; return rs }
	}
	for name, c := range map[string]struct {
		change func(records) records
		want   string
	}{
		"body changed":               {set(2, "body", note{"other"}), "record 3 (chain a, index 2"},
		"actor changed":              {set(1, "actor", "eve"), "record 2 (chain b"},
		"time changed":               {set(3, "at", "2026-11-23T00:00:00.000Z"), "record 4 (chain b"},
		"kind changed":               {set(0, "kind", "other"), "record 1 (chain a"},
		"hash changed":               {set(0, "hash", strings.Repeat("0", 64)), "record 1 (chain a"},
		"moved to another chain":     {set(2, "chain", "c"), "record 3 (chain c"},
		"record removed":             {func(rs records) records { return append(rs[:2:2], rs[3:]...) }, "expected record 3"},
		"record removed, renumbered": {func(rs records) records { return renumber(append(rs[:2:2], rs[3:]...)) }, "it saw 2 records of chain a"},
		"chain removed, renumbered":  {func(rs records) records { return renumber(records{rs[0], rs[2], rs[4], rs[5]}) }, "it saw another record 2 of chain a"},
		"end cut off before anchor":  {func(rs records) records { return renumber(records{rs[0], rs[1], rs[2], rs[4]}) }, "it saw 2 records of chain b"},
		"two records swapped":        {func(rs records) records { rs[0], rs[1] = rs[1], rs[0]; return rs }, "expected record 1"},
		"swapped and renumbered":     {func(rs records) records { rs[0], rs[1] = rs[1], rs[0]; return renumber(rs) }, "in another order"},
		"record twice":               {func(rs records) records { return renumber(append(rs[:1:1], rs...)) }, "expected index 2"},
		"body and blob":              {set(0, "blob", strings.Repeat("0", 64)), "record 1 (chain a"},
		"field added":                {set(0, "extra", 1), "unknown field"},
		"anchor's head changed":      {func(rs records) records { rs[4]["body"] = []byte(`{"through":9,"heads":[]}`); return rs }, "record 5 (chain anchor"},
	} {
		t.Run(name, func(t *testing.T) {
			err := ledger.Verify(bytes.NewReader(forge(t, lines, c.change)))
			if !errors.Is(err, ledger.ErrTampered) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrTampered and %q", err, c.want)
			}
		})
	}
	for name, text := range map[string]string{
		"no JSON":        "x\n",
		"two on a line":  strings.Replace(string(lines), "}\n", "} {}\n", 1),
		"last line torn": string(lines[:len(lines)-20]),
	} {
		if err := ledger.Verify(strings.NewReader(text)); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

// White space and the order of fields in an export mean nothing: what counts is
// the content.
func TestVerifyTakesAnotherLayout(t *testing.T) {
	l := open(t, brokertest.Start(t), ledger.Options{})
	add(t, l, "a", 0, "1")
	var again bytes.Buffer
	for line := range bytes.Lines(export(t, l)) {
		var indented bytes.Buffer
		if err := json.Indent(&indented, line, "", " "); err != nil {
			t.Fatal(err)
		}
		again.WriteString(strings.ReplaceAll(indented.String(), "\n", " ") + "\n")
	}
	if err := ledger.Verify(&again); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"chain":"a","index":1,"seq":1,"at":"2026-11-23T00:00:00Z","actor":"x","kind":"k","body":{},"prev":"","hash":""}`))
	f.Add([]byte("{}\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ledger.Audit(bytes.NewReader(data))
		if err == nil && s.Records > 0 {
			t.Errorf("something made up verifies: %q", data)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l, err := ledger.Open(b.Context(), brokertest.Start(b).Conn(), ledger.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Append(b.Context(), "bench", ledger.Any, "note", "ada", note{"x"}); err != nil {
			b.Fatal(err)
		}
	}
}
