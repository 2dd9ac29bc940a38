package sample

import (
	"errors"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

var (
	noon     = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	allowed  = release.DigestOf([]byte("allowed"))
	withheld = release.DigestOf([]byte("withheld"))
)

// releases has one whose manifest allows four rows for an hour, and one that
// allows none.
type releases struct{}

func (releases) Release(d release.Digest) (registry.Version, error) {
	v := registry.Version{Target: trust.Target{Model: "digits", Digest: d}, Manifest: &release.Manifest{Model: "digits"}}
	switch d {
	case allowed:
		v.Manifest.Sampling = &release.Sampling{Rows: 4, Expires: release.Duration(time.Hour)}
	case withheld:
	default:
		return v, errors.New("no such release")
	}
	return v, nil
}

// world is a store on a clock that the test moves.
type world struct {
	*Store

	t      *testing.T
	bucket *kvstore.Memory
	now    time.Time
	quota  uint64
}

func newWorld(t *testing.T, quota uint64) *world {
	t.Helper()
	w := &world{t: t, bucket: kvstore.NewMemory(), now: noon, quota: quota}
	w.restart()
	return w
}

func (w *world) restart() {
	w.t.Helper()
	s, err := Open(w.t.Context(), w.bucket, releases{}, Config{Quota: w.quota, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Store = s
}

// body is a sample of a window that ended at a moment of its boot.
func body(d release.Digest, end time.Duration, rows uint32, sealed string) *protocol.Sample {
	ms := uint64(end.Milliseconds())
	return &protocol.Sample{
		Model: "digits", Release: d.Bytes(), EndMonotonicMs: ms, EndWallMs: int64(ms), ExpiresMs: 1 << 40, Sealed: []byte(sealed),
		Strata: []*protocol.Stratum{{Name: "7", Seen: 100, Rows: rows}},
	}
}

func (w *world) keep(name string, s *protocol.Sample, sent time.Duration) {
	w.t.Helper()
	w.keepOf("cam-1", name, s, sent)
}

func (w *world) keepOf(device, name string, s *protocol.Sample, sent time.Duration) {
	w.t.Helper()
	boot := make([]byte, protocol.BootSize)
	from := ingest.Sampled{
		Device: device, Name: name, Received: w.now, At: &protocol.Stamp{Boot: boot},
		Sent: &protocol.Stamp{Boot: boot, MonotonicMs: uint64(sent.Milliseconds()), WallMs: 5}, // its clock says 1970
	}
	if err := w.Keep(w.t.Context(), from, s); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) held() (n int) {
	w.t.Helper()
	entries, err := w.bucket.List(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	if list := w.List("digits", time.Time{}); len(list) > len(entries) {
		w.t.Errorf("%d samples are listed, %d are kept", len(list), len(entries))
	}
	return len(entries)
}

func TestOnlyWhatManifestsAllowIsKept(t *testing.T) {
	w := newWorld(t, 0)
	w.keep("a", body(withheld, 0, 1, "x"), 0)
	w.keep("b", body(release.DigestOf([]byte("unknown")), 0, 1, "x"), 0)
	w.keep("c", body(allowed, 0, 5, "x"), 0)
	other := body(allowed, 0, 1, "x")
	other.Model = "other"
	w.keep("d", other, 0)
	if n := w.held(); n != 0 {
		t.Errorf("%d samples are kept that no manifest allows", n)
	}
	w.keep("e", body(allowed, 10*time.Minute, 4, "sealed rows"), 25*time.Minute)
	w.keep("e", body(allowed, 10*time.Minute, 4, "sealed rows"), 25*time.Minute)
	for range 2 {
		list := w.List("digits", time.Time{})
		if len(list) != 1 {
			t.Fatalf("%d samples, want one", len(list))
		}
		s := list[0]
		if s.Rows() != 4 || s.Device != "cam-1" || s.Release != allowed || !s.To.Equal(noon.Add(-15*time.Minute)) || !s.Expires.Equal(noon.Add(45*time.Minute)) {
			t.Errorf("got %+v, want a window that ended 15 minutes ago and is kept for an hour", s)
		}
		if sealed, err := w.Sealed(t.Context(), s.Key); err != nil || string(sealed) != "sealed rows" {
			t.Errorf("got %q, %v", sealed, err)
		}
		w.restart()
	}
	if list := w.List("digits", noon); len(list) != 0 {
		t.Errorf("%d windows ended since noon", len(list))
	}
}

// What has expired is gone: from lists at once, from the bucket when it is tended.
func TestExpiredSamplesAreDeleted(t *testing.T) {
	w := newWorld(t, 0)
	w.keep("a", body(allowed, 0, 1, "x"), 0)
	key := w.List("digits", time.Time{})[0].Key
	w.now = noon.Add(30 * time.Minute)
	w.keep("b", body(allowed, 30*time.Minute, 1, "y"), 30*time.Minute)
	w.now = noon.Add(time.Hour)
	if list := w.List("digits", time.Time{}); len(list) != 1 || list[0].Key == key {
		t.Errorf("listed are %+v", list)
	}
	if _, err := w.Sealed(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("expired: got %v, want %v", err, ErrNotFound)
	}
	if n, err := w.Expire(t.Context(), w.now); n != 1 || err != nil {
		t.Errorf("%d deleted, %v", n, err)
	}
	if _, err := w.bucket.Get(t.Context(), key); !errors.Is(err, kvstore.ErrNotFound) {
		t.Errorf("it is in the bucket: %v", err)
	}
	if n := w.held(); n != 1 {
		t.Errorf("%d are kept, want 1", n)
	}
	w.now = noon.Add(3 * time.Hour) // a device was offline with it for too long
	w.keep("c", body(allowed, time.Hour, 1, "z"), 3*time.Hour)
	if n := w.held(); n != 1 {
		t.Errorf("a sample that had expired on the way is kept")
	}
}

func TestQuotaDeletesTheOldest(t *testing.T) {
	const quota = 5 * leastCharge
	w := newWorld(t, quota)
	for i := range 20 {
		w.now = noon.Add(time.Duration(i) * time.Minute)
		at := time.Duration(i) * time.Minute
		w.keep(strconv.Itoa(i), body(allowed, at, 1, ""), at) // small ones fill the lists too
		if used := w.used["digits"]["cam-1"]; used > quota {
			t.Fatalf("%d bytes are used, at most %d", used, quota)
		}
	}
	list := w.List("digits", time.Time{})
	if len(list) != 5 || w.held() != 5 || !list[4].To.Equal(noon.Add(19*time.Minute)) {
		t.Errorf("%d samples, %d in the bucket, want the newest 5", len(list), w.held())
	}
}

// A device that sends too much crowds out itself alone.
func TestQuotaIsShared(t *testing.T) {
	w := newWorld(t, 8*leastCharge)
	w.keepOf("cam-2", "a", body(allowed, 0, 1, ""), 0)
	w.keepOf("cam-3", "a", body(allowed, 0, 1, ""), 0)
	for i := range 20 {
		w.now = noon.Add(time.Duration(i) * time.Minute)
		w.keep(strconv.Itoa(i), body(allowed, w.now.Sub(noon), 1, ""), w.now.Sub(noon))
	}
	got := map[string]int{}
	for _, s := range w.List("digits", time.Time{}) {
		got[s.Device]++
	}
	if want := map[string]int{"cam-1": 6, "cam-2": 1, "cam-3": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
