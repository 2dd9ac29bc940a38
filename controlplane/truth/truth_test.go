package truth

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// world is a service on a clock that the test moves, with three devices of which
// two have the model.
type world struct {
	*Service

	t      *testing.T
	bucket *kvstore.Memory
	now    time.Time

	mu   sync.Mutex
	told []string // guarded by mu
}

// Has implements Devices.
func (w *world) Has(device, model string) (known, has bool) {
	return slices.Contains([]string{"cam-1", "cam-2", "cam-3"}, device), model == "digits" && device != "cam-3"
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, bucket: kvstore.NewMemory(), now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	w.restart()
	w.OnHello("cam-1", &protocol.Hello{Predictions: "aaaaaaaaaaaaaaaa-"})
	w.OnHello("cam-2", &protocol.Hello{Predictions: "bbbbbbbbbbbbbbbb-"})
	if _, fresh, err := w.Begin(t.Context(), "ann", "digits", operator.TruthBegin{ID: "0123456789abcdef", Name: "f.csv", Reason: "why"}); err != nil || !fresh {
		t.Fatalf("begun anew: %v, %v", fresh, err)
	}
	return w
}

// restart opens the service on what is in the bucket.
func (w *world) restart() {
	w.t.Helper()
	s, err := Open(w.t.Context(), w.bucket, w, Config{Now: func() time.Time { return w.now }, Tell: func(device string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, device)
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service = s
}

func (w *world) push(chunk string, rows ...operator.TruthRow) operator.TruthChunkResult {
	w.t.Helper()
	out, err := w.Push(w.t.Context(), "digits", "0123456789abcdef", strings.Repeat(chunk, 16), rows)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) next(device string, taken *protocol.TruthTaken) *protocol.TruthBatch {
	w.t.Helper()
	b, err := w.Next(w.t.Context(), device, taken)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) upload() operator.TruthUpload {
	w.t.Helper()
	u, err := w.Upload("digits", "0123456789abcdef")
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// waits is how many truths wait for cam-1.
func (w *world) waits() uint64 { return w.upload().Waiting }

func row(line int64, id, label, device string) operator.TruthRow {
	return operator.TruthRow{Line: line, ID: id, Label: label, Device: device}
}

func TestTruthsFindTheirDevice(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", protocol.MaxTruthText+1)
	got := w.push("1",
		row(2, "aaaaaaaaaaaaaaaa-1", "7", ""), row(3, "bbbbbbbbbbbbbbbb-z/4", "1", ""), row(4, "mine", "3", "cam-1"),
		row(5, "cccccccccccccccc-1", "7", ""), row(6, "mine", "7", ""), row(7, "x", "7", "cam-9"), row(8, "x", "7", "cam-3"),
		row(9, "", "7", "cam-1"), row(10, "x", "", "cam-1"), row(11, long, "1", "cam-1"), row(12, "x", long, "cam-1"), row(13, "x", "\xff", "cam-1"),
	)
	if got.Queued != 3 || got.Rejected != 9 {
		t.Errorf("%d queued and %d rejected, want 3 and 9", got.Queued, got.Rejected)
	}
	want := map[int64]string{5: "no device is known", 6: "no device is known", 7: "there is no device", 8: "does not have model", 9: "id must be", 10: "label must be", 11: "id must be", 12: "label must be", 13: "label must be"}
	for _, r := range got.Rejects {
		if want[r.Line] == "" || !strings.Contains(r.Reason, want[r.Line]) {
			t.Errorf("line %d is rejected because %q, want %q", r.Line, r.Reason, want[r.Line])
		}
		delete(want, r.Line)
	}
	if len(want) > 0 {
		t.Errorf("not rejected: %v", want)
	}
	if !slices.Equal(w.told, []string{"cam-1", "cam-2"}) {
		t.Errorf("told %v", w.told)
	}
	one, two := w.next("cam-1", &protocol.TruthTaken{}), w.next("cam-2", &protocol.TruthTaken{})
	if len(one.GetTruths()) != 2 || len(two.GetTruths()) != 1 || two.GetTruths()[0].GetId() != "bbbbbbbbbbbbbbbb-z/4" || one.GetModel() != "digits" {
		t.Errorf("cam-1 got %v, cam-2 %v", one, two)
	}
	if b := w.next("cam-3", &protocol.TruthTaken{}); b != nil {
		t.Errorf("cam-3 got %v", b)
	}
}

// What a device says twice, and what is uploaded twice, is booked once, also
// over a restart of the server.
func TestRepetitionsChangeNothing(t *testing.T) {
	w := newWorld(t)
	rows := []operator.TruthRow{row(2, "aaaaaaaaaaaaaaaa-1", "7", ""), row(3, "aaaaaaaaaaaaaaaa-2", "7", "")}
	first := w.push("1", rows...)
	if again := w.push("1", rows...); again.Queued != first.Queued || w.upload().Queued != 2 || w.upload().Waiting != 2 {
		t.Errorf("again %+v, upload %+v", again, w.upload())
	}
	if _, fresh, err := w.Begin(t.Context(), "bob", "digits", operator.TruthBegin{ID: "0123456789abcdef"}); err != nil || fresh {
		t.Errorf("begun anew: %v, %v", fresh, err)
	}
	b := w.next("cam-1", &protocol.TruthTaken{})
	if again := w.next("cam-1", &protocol.TruthTaken{}); again.GetSeq() != b.GetSeq() {
		t.Errorf("batch %d after batch %d that was not taken", again.GetSeq(), b.GetSeq())
	}
	taken := &protocol.TruthTaken{Seq: b.GetSeq(), Matched: 1, Unmatched: 1}
	for range 3 {
		if b := w.next("cam-1", taken); b != nil {
			t.Errorf("got %v, nothing waits", b)
		}
		w.restart()
	}
	want := operator.TruthCounts{Queued: 2, Matched: 1, Unmatched: 1}
	if got := w.upload(); got.TruthCounts != want || got.Devices != 1 || len(got.Chunks) != 1 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if w.Newest("cam-1") != 0 {
		t.Error("a batch waits for cam-1")
	}
	// A crash between queueing and noting the chunk: the queue alone knows it.
	w.uploads["0123456789abcdef"].Chunks = nil
	w.push("1", rows...)
	if b := w.next("cam-1", taken); b != nil {
		t.Errorf("queued twice: %v", b)
	}
}

// What a device says counts as far as the truths go that it was given.
func TestLyingDeviceCountsNoMoreThanItGot(t *testing.T) {
	w := newWorld(t)
	w.push("1", row(2, "aaaaaaaaaaaaaaaa-1", "7", ""), row(3, "aaaaaaaaaaaaaaaa-2", "7", ""))
	b := w.next("cam-1", &protocol.TruthTaken{})
	w.next("cam-1", &protocol.TruthTaken{Seq: b.GetSeq(), Matched: 1, Unmatched: math.MaxUint64, Refused: 5})
	want := operator.TruthCounts{Queued: 2, Matched: 1, Unmatched: 1}
	if got := w.upload(); got.TruthCounts != want {
		t.Errorf("got %+v, want %+v", got.TruthCounts, want)
	}
}

// The number of a batch is above all before it, also when a restored server has
// forgotten some.
func TestNumbersRise(t *testing.T) {
	w := newWorld(t)
	w.push("1", row(2, "aaaaaaaaaaaaaaaa-1", "7", ""))
	first := w.next("cam-1", &protocol.TruthTaken{})
	w.push("2", row(3, "aaaaaaaaaaaaaaaa-2", "7", ""))
	second := w.next("cam-1", &protocol.TruthTaken{Seq: first.GetSeq(), Matched: 1})
	if second.GetSeq() <= first.GetSeq() || w.Newest("cam-1") != second.GetSeq() {
		t.Errorf("batch %d after %d, newest %d", second.GetSeq(), first.GetSeq(), w.Newest("cam-1"))
	}
	if news := w.OnHello("cam-1", &protocol.Hello{Truths: first.GetSeq()}); !news {
		t.Error("a hello with the older number is no news")
	}
	if news := w.OnHello("cam-1", &protocol.Hello{Truths: second.GetSeq()}); news {
		t.Error("a hello with the newest number is news")
	}
	restored := newWorld(t)
	restored.now = w.now.Add(time.Minute)
	restored.push("1", row(2, "aaaaaaaaaaaaaaaa-1", "7", ""))
	if b := restored.next("cam-1", &protocol.TruthTaken{Seq: second.GetSeq()}); b == nil {
		t.Error("a restored server's batch counts as taken")
	}
}

// What waits is bounded, and expires when no prediction can be held any more.
func TestBoundsAndExpiry(t *testing.T) {
	w := newWorld(t)
	queued, rejected := 0, 0
	for chunk := range 6 {
		rows := make([]operator.TruthRow, operator.MaxTruthRows)
		for i := range rows {
			rows[i] = row(int64(chunk*operator.MaxTruthRows+i), fmt.Sprintf("aaaaaaaaaaaaaaaa-%d", chunk*operator.MaxTruthRows+i), "7", "")
		}
		out := w.push(fmt.Sprintf("%x", chunk), rows...)
		queued, rejected = queued+out.Queued, rejected+out.Rejected
	}
	if queued != MaxWaiting || rejected != 6*operator.MaxTruthRows-MaxWaiting {
		t.Errorf("%d queued and %d rejected, want %d in all of which %d wait", queued, rejected, 6*operator.MaxTruthRows, MaxWaiting)
	}
	full := make([]operator.TruthRow, operator.MaxTruthRows)
	for i := range full {
		full[i] = row(int64(5*operator.MaxTruthRows+i), fmt.Sprintf("aaaaaaaaaaaaaaaa-%d", 5*operator.MaxTruthRows+i), "7", "")
	}
	if out := w.push("5", full...); out.Rejected != operator.MaxTruthRows || len(w.upload().Chunks) != 4 {
		t.Errorf("again %d are rejected, chunks %v are taken", out.Rejected, w.upload().Chunks)
	}
	if r := w.upload().Rejects; len(r) != maxRejects || !strings.Contains(r[0].Reason, "too many truths wait") {
		t.Errorf("rejects are %v", r)
	}
	if b := w.next("cam-1", &protocol.TruthTaken{}); len(b.GetTruths()) > protocol.MaxTruths {
		t.Errorf("a batch has %d truths, at most %d", len(b.GetTruths()), protocol.MaxTruths)
	}
	for taken := (&protocol.TruthTaken{}); w.waits() > MaxWaiting-operator.MaxTruthRows; { // there is room for the chunk again
		b := w.next("cam-1", taken)
		taken = &protocol.TruthTaken{Seq: b.GetSeq(), Matched: uint64(len(b.GetTruths()))}
		w.next("cam-1", taken)
	}
	if out := w.push("5", full...); out.Queued != operator.MaxTruthRows || out.Rejected != 0 || w.upload().Rejected != operator.MaxTruthRows {
		t.Errorf("when there is room again %d are queued, %d rejected, of the upload %d", out.Queued, out.Rejected, w.upload().Rejected)
	}
	waiting := w.waits()
	w.now = w.now.Add(Wait)
	if err := w.Expire(t.Context(), w.now); err != nil {
		t.Fatal(err)
	}
	if got := w.upload(); got.Expired != waiting || got.Waiting != 0 || w.Newest("cam-1") != 0 {
		t.Errorf("after %v: %+v", Wait, got.TruthCounts)
	}
	if b := w.next("cam-1", &protocol.TruthTaken{}); b != nil {
		t.Errorf("got %d truths that have expired", len(b.GetTruths()))
	}
	w.now = w.now.Add(keepResults + time.Hour)
	if err := w.Expire(t.Context(), w.now); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Upload("digits", "0123456789abcdef"); !errors.Is(err, ErrUpload) {
		t.Errorf("an old upload: got %v, want %v", err, ErrUpload)
	}
	entries, err := w.bucket.List(t.Context(), uploadKeys)
	if err != nil || len(entries) != 0 {
		t.Errorf("%d uploads are kept, %v", len(entries), err)
	}
}

// Ids of an agent's former starts find their device for as long as it may hold
// their predictions.
func TestFormerStarts(t *testing.T) {
	w := newWorld(t)
	w.OnHello("cam-1", &protocol.Hello{Predictions: "dddddddddddddddd-"})
	w.OnHello("cam-2", &protocol.Hello{Predictions: "dddddddddddddddd-"}) // cannot be: the first one keeps it
	if err := w.saveStarts(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.restart()
	for id, want := range map[string]string{"aaaaaaaaaaaaaaaa-1": "cam-1", "dddddddddddddddd-1": "cam-1", "bbbbbbbbbbbbbbbb-1": "cam-2", "dddddddddddddddd": "", "": ""} {
		if got := w.maker(id); got != want {
			t.Errorf("%q was made by %q, want %q", id, got, want)
		}
	}
	w.now = w.now.Add(Wait + time.Second)
	if err := w.Expire(t.Context(), w.now); err != nil {
		t.Fatal(err)
	}
	if a, d := w.maker("aaaaaaaaaaaaaaaa-1"), w.maker("dddddddddddddddd-1"); a != "" || d != "cam-1" {
		t.Errorf("after %v the former start is %q's and the present one %q's", Wait, a, d)
	}
	for i := range 2 * maxPrefixes {
		w.OnHello("cam-2", &protocol.Hello{Predictions: fmt.Sprintf("e%d-", i)})
	}
	if n := len(w.starts["cam-2"]); n != maxPrefixes || len(w.prefixes) != maxPrefixes+1 {
		t.Errorf("%d starts of cam-2 are remembered, %d in all", n, len(w.prefixes))
	}
	if err := w.Forget(t.Context(), "cam-1"); err != nil || w.maker("dddddddddddddddd-1") != "" {
		t.Errorf("a removed device is remembered: %v", err)
	}
}

func TestMalformedUploads(t *testing.T) {
	w := newWorld(t)
	good := []operator.TruthRow{row(1, "aaaaaaaaaaaaaaaa-1", "7", "")}
	for name, push := range map[string]func() error{
		"no chunk name": func() error { _, err := w.Push(t.Context(), "digits", "0123456789abcdef", "", good); return err },
		"name with a path": func() error {
			_, err := w.Push(t.Context(), "digits", "0123456789abcdef", "../../../../../../..", good)
			return err
		},
		"no rows": func() error {
			_, err := w.Push(t.Context(), "digits", "0123456789abcdef", strings.Repeat("1", 16), nil)
			return err
		},
		"too many rows": func() error {
			_, err := w.Push(t.Context(), "digits", "0123456789abcdef", strings.Repeat("1", 16), make([]operator.TruthRow, operator.MaxTruthRows+1))
			return err
		},
		"upload without an id": func() error { _, _, err := w.Begin(t.Context(), "ann", "digits", operator.TruthBegin{}); return err },
	} {
		if err := push(); !errors.Is(err, ErrChunk) {
			t.Errorf("%s: got %v, want %v", name, err, ErrChunk)
		}
	}
	for name, at := range map[string][2]string{"of another model": {"other", "0123456789abcdef"}, "not begun": {"digits", "ffffffffffffffff"}} {
		if _, err := w.Push(t.Context(), at[0], at[1], strings.Repeat("1", 16), good); !errors.Is(err, ErrUpload) {
			t.Errorf("upload %s: got %v, want %v", name, err, ErrUpload)
		}
	}
}
