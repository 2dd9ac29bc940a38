package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// told is the ledger of a rollout that completed and of one that a gate halted,
// as an export.
func told(t *testing.T) (export []byte, completed, halted string) {
	t.Helper()
	h := newHouse(t, "a1", "a2", "b1")
	completed = h.create(spec("v2"))
	h.act(completed, rollout.Start)
	h.until(completed, is(rollout.StatusCompleted))
	h.bad[versions["v3"]] = true
	halted = h.create(spec("v3"))
	h.act(halted, rollout.Start)
	h.until(halted, is(rollout.StatusHalted))
	var out bytes.Buffer
	if err := h.ledger.Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), completed, halted
}

// verifyExport is what "vedette ledger verify" does with an export.
func verifyExport(export []byte) (Replayed, error) {
	x, _, err := AuditExport(bytes.NewReader(export))
	if err != nil {
		return Replayed{}, err
	}
	return x.Replay(bytes.NewReader(export), nil)
}

// recordsOf takes an export apart.
func recordsOf(t *testing.T, export []byte) []ledger.Record {
	t.Helper()
	var out []ledger.Record
	for line := range bytes.Lines(export) {
		rec, err := ledger.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec)
	}
	return out
}

// resealed is an export of those records by somebody who can write the store:
// every hash is right. Anchors are left out: they could be made anew, too.
func resealed(t *testing.T, records []ledger.Record) []byte {
	t.Helper()
	var at time.Time
	m := ledger.NewMemory(func() time.Time { return at })
	for _, rec := range records {
		if at = rec.At; rec.Chain == ledger.ChainAnchor {
			continue
		}
		if _, err := m.Append(t.Context(), rec.Chain, ledger.Any, rec.Kind, rec.Actor, rec.Body); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := m.Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// find is the place of the first record of a rollout whose body holds.
func find(t *testing.T, records []ledger.Record, id string, holds func(*Record) bool) int {
	t.Helper()
	for i, rec := range records {
		if body, err := decode(rec); rec.Chain == "rollout."+id && rec.Kind != KindCreated && err == nil && holds(body) {
			return i
		}
	}
	t.Fatalf("no such record in rollout %s", id)
	return 0
}

// edit changes what a record says.
func edit(t *testing.T, rec *ledger.Record, change func(*Record)) {
	t.Helper()
	body, err := decode(*rec)
	if err != nil {
		t.Fatal(err)
	}
	change(body)
	if rec.Body, err = json.Marshal(body); err != nil {
		t.Fatal(err)
	}
}

func TestExportIsReplayed(t *testing.T) {
	export, _, _ := told(t)
	decisions := 0
	for _, rec := range recordsOf(t, export) {
		if rec.Kind == KindStep || rec.Kind == KindAction {
			decisions++
		}
	}
	if got, err := verifyExport(export); err != nil || got != (Replayed{Rollouts: 2, Decisions: decisions}) {
		t.Errorf("got %+v, %v; want %d decisions of 2 rollouts", got, err, decisions)
	}
	if got, err := verifyExport(resealed(t, recordsOf(t, export))); err != nil || got.Decisions != decisions {
		t.Errorf("resealed as it is: got %+v, %v; want the same", got, err)
	}
	if _, err := verifyExport(export[:len(export)-20]); !errors.Is(err, ledger.ErrTampered) {
		t.Errorf("torn export: got %v, want %v", err, ledger.ErrTampered)
	}
}

// Whoever can write the store can make every hash anew. What was decided must
// still follow from what is recorded; the first record that does not is named.
func TestReplayFindsWhatHashesCannot(t *testing.T) {
	export, completed, halted := told(t)
	records := recordsOf(t, export)
	healthy := find(t, records, completed, func(r *Record) bool {
		for _, d := range r.Decision.Patch.Devices {
			if d.State == rollout.DeviceHealthy {
				return true
			}
		}
		return false
	})
	offered := find(t, records, completed, func(r *Record) bool { return len(r.Decision.Assign) > 0 && len(r.Facts.Devices) > 0 })
	judged := find(t, records, halted, func(r *Record) bool { return len(r.Decision.Patch.Waves[1].Gates) > 0 })
	type list = []ledger.Record
	in := func(i int, change func(*Record)) func(list) list {
		return func(rs list) list { edit(t, &rs[i], change); return rs }
	}
	for name, c := range map[string]struct {
		change func(list) list
		record int    // place of the first that does not follow
		says   string // part of the error
	}{
		"a fact": {in(offered, func(r *Record) {
			for id, f := range r.Facts.Devices {
				other := *f
				other.Active = release.DigestOf([]byte("another"))
				r.Facts.Devices[id] = &other
			}
		}), offered, "old: recorded"},
		"a fact that decides nothing": {in(offered, func(r *Record) {
			for id, f := range r.Facts.Devices {
				other := *f
				other.Agent = "9.9"
				r.Facts.Devices[id] = &other
			}
		}), offered, "facts are not those"},
		"a fact left out": {in(offered, func(r *Record) { r.Facts = rollout.FactsPatch{} }), offered, "follow"},
		"a state of a device": {in(healthy, func(r *Record) {
			for id, d := range r.Decision.Patch.Devices {
				other := *d
				other.State = rollout.DeviceFailed
				r.Decision.Patch.Devices[id] = &other
			}
		}), healthy, `recorded "failed", follows "healthy"`},
		"a reason":     {in(healthy, func(r *Record) { r.Decision.Changes[0].Why = "no reason" }), healthy, `recorded "no reason"`},
		"an order":     {in(offered, func(r *Record) { r.Decision.Assign[0].Release = versions["v3"] }), offered, "assign.1.release"},
		"a lost order": {in(offered, func(r *Record) { r.Decision.Assign = nil }), offered, "assign"},
		"a forged gate": {in(judged, func(r *Record) {
			w := r.Decision.Patch.Waves[1]
			w.Gates = slices.Clone(w.Gates)
			for i := range w.Gates {
				w.Gates[i].Result = rollout.GatePass
			}
			r.Decision.Patch.Waves[1] = w
		}), judged, `result: recorded "pass", follows "fail"`},
		"the time of a decision": {in(healthy, func(r *Record) { r.Decision.At = r.Decision.At.Add(-time.Minute) }), healthy, "recorded"},
		"the time of a record":   {func(rs list) list { rs[healthy].At = rs[healthy].At.Add(time.Hour); return rs }, healthy, "its decision of"},
		"who commanded":          {func(rs list) list { rs[1+slices.IndexFunc(rs, ofKind(KindCreated))].Actor = "eve"; return rs }, 1 + slices.IndexFunc(records, ofKind(KindCreated)), `by "eve"`},
		"who created":            {func(rs list) list { rs[slices.IndexFunc(rs, ofKind(KindCreated))].Actor = "eve"; return rs }, slices.IndexFunc(records, ofKind(KindCreated)), `by "eve"`},
		"a record dropped":       {func(rs list) list { return slices.Delete(rs, offered, offered+1) }, offered, "follow"},
		"two records swapped":    {func(rs list) list { rs[offered], rs[offered+1] = rs[offered+1], rs[offered]; return rs }, offered, "follow"},
		"two chains, the later rollout too": {func(rs list) list {
			edit(t, &rs[judged], func(r *Record) { r.Decision.Changes[0].Why = "later" })
			edit(t, &rs[healthy], func(r *Record) { r.Decision.Changes[0].Why = "earlier" })
			return rs
		}, healthy, "earlier"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := c.change(slices.Clone(records))
			naive := asTheyAre(t, changed)
			if _, err := verifyExport(naive); !errors.Is(err, ledger.ErrTampered) {
				t.Errorf("hashes left as they were: got %v, want %v", err, ledger.ErrTampered)
			}
			_, err := verifyExport(resealed(t, changed))
			broken, ok := errors.AsType[*Broken](err)
			if !ok || broken.Seq != uint64(c.record)+1 || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v; want record %d and %q", err, c.record+1, c.says)
			}
		})
	}
}

func ofKind(kind string) func(ledger.Record) bool {
	return func(rec ledger.Record) bool { return rec.Kind == kind }
}

// asTheyAre is an export of records whose hashes nobody made anew.
func asTheyAre(t *testing.T, records []ledger.Record) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	for _, rec := range records {
		if err := enc.Encode(rec); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// What an older server decided is folded and counted, not taken again; what this
// one decided after it is.
func TestOlderDecisionsAreFolded(t *testing.T) {
	export, completed, _ := told(t)
	records := slices.DeleteFunc(recordsOf(t, export), func(rec ledger.Record) bool { return rec.Chain != "rollout."+completed })
	older := len(records) / 2
	for i := range records[:older] {
		if i == 0 {
			var body Created
			if err := records[0].Decode(&body); err != nil {
				t.Fatal(err)
			}
			body.State.Format = 1
			records[0].Body, _ = json.Marshal(body)
			continue
		}
		edit(t, &records[i], func(r *Record) {
			r.Decision.Format = 1
			if len(r.Decision.Changes) > 0 {
				r.Decision.Changes[0].Why = "an older engine's reason"
			}
		})
	}
	records = records[:older]
	got, err := verifyExport(resealed(t, records))
	if want := (Replayed{Rollouts: 1, Older: older - 1}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	edit(t, &records[older-1], func(r *Record) { r.Decision.Format = rollout.Format + 1 })
	if _, err := verifyExport(resealed(t, records)); err == nil || !strings.Contains(err.Error(), "update") {
		t.Errorf("a newer format: got %v, want to be told to update", err)
	}
}

// An export of before keeps large bodies elsewhere: what cannot be replayed is
// counted.
func TestBodiesElsewhereAreCounted(t *testing.T) {
	export, completed, _ := told(t)
	records := recordsOf(t, export)
	at := find(t, records, completed, func(*Record) bool { return true })
	x, _, err := AuditExport(bytes.NewReader(export))
	if err != nil {
		t.Fatal(err)
	}
	records[at].Blob, records[at].Body = strings.Repeat("0", 64), nil
	without := asTheyAre(t, records)
	if len(without) > len(export) {
		t.Fatalf("without a body the export has %d bytes, with it %d", len(without), len(export))
	}
	x.places = placesOf(without)
	got, err := x.Replay(bytes.NewReader(without), nil)
	if err != nil || got.Elsewhere != 1 || got.Rollouts != 1 {
		t.Errorf("got %+v, %v; want one rollout replayed and one elsewhere", got, err)
	}
}

// placesOf is where the rollouts' records are in an export that need not verify.
func placesOf(export []byte) map[string][]ledger.Place {
	out, offset := map[string][]ledger.Place{}, int64(0)
	for line := range bytes.Lines(export) {
		rec, err := ledger.ParseLine(line)
		if err == nil && strings.HasPrefix(rec.Chain, "rollout.") {
			out[rec.Chain] = append(out[rec.Chain], ledger.Place{Offset: offset, Length: len(line)})
		}
		offset += int64(len(line))
	}
	return out
}

// An export may be far larger than the memory: what it takes is one rollout and
// one line at a time.
func TestLargeExportsNeedLittleMemory(t *testing.T) {
	if os.Getenv("VEDETTE_FULL") == "" {
		t.Skip("writes 512 MiB and reads them twice: VEDETTE_FULL=1 runs it")
	}
	const size, most = 512 << 20, 64 << 20
	export, _, _ := told(t)
	file := filepath.Join(t.TempDir(), "export.jsonl")
	writeLarge(t, file, recordsOf(t, export), size)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	peak, start := uint64(0), time.Now()
	look := func(int) {
		runtime.ReadMemStats(&now)
		peak = max(peak, now.HeapInuse)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	x, sum, err := AuditExport(io.TeeReader(f, looker(look)))
	if err != nil {
		t.Fatal(err)
	}
	hashes := time.Since(start)
	got, err := x.Replay(f, look)
	if err != nil || got.Rollouts != 2 {
		t.Errorf("got %+v, %v, want 2 rollouts", got, err)
	}
	t.Logf("%d records, %d MiB: hashes in %s, in all %s, at most %d MiB of heap", sum.Records, size>>20, hashes, time.Since(start), peak>>20)
	if peak > before.HeapInuse+most {
		t.Errorf("verifying took %d MiB, want at most %d beside the %d of before", peak>>20, most>>20, before.HeapInuse>>20)
	}
}

// looker looks at every megabyte or so.
type looker func(int)

func (l looker) Write(p []byte) (int, error) {
	l(len(p))
	return len(p), nil
}

// writeLarge writes an export with so many bytes of an operator's records behind
// those that are given.
func writeLarge(t *testing.T, file string, records []ledger.Record, size int) {
	t.Helper()
	first := resealed(t, records)
	offset := uint64(bytes.Count(first, []byte("\n")))
	m := ledger.NewMemory(time.Now)
	note := json.RawMessage(`"` + strings.Repeat("x", 200<<10) + `"`)
	for range size / len(note) {
		if _, err := m.Append(t.Context(), ledger.ChainOperator, ledger.Any, "note", "ada", note); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(first); err != nil {
		t.Fatal(err)
	}
	enc := json.NewEncoder(out)
	_, err = m.Replay(t.Context(), 1, func(rec ledger.Record) error {
		rec.Seq += offset
		return enc.Encode(rec)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
