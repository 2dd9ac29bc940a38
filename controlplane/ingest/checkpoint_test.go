package ingest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

var errFull = errors.New("disk is full")

// full is a bucket on a disk that may be full.
type full struct {
	kvstore.Bucket
	is bool
}

func (f *full) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if f.is {
		return 0, errFull
	}
	return f.Bucket.Put(ctx, key, value)
}

// What a full disk kept from being written comes with the next checkpoint, even
// when it has not changed since, and a marker never goes before its records.
func TestCheckpointAfterAFullDisk(t *testing.T) {
	bucket := &full{Bucket: kvstore.NewMemory(), is: true}
	dirty := []map[string][]byte{{"a": []byte("1")}, {"b": []byte("2")}}
	r := &folding{fold: Fold{Bucket: bucket, Dirty: func() map[string][]byte {
		next := dirty[0]
		dirty = dirty[1:]
		return next
	}}}
	w := &writing{ctx: t.Context(), bucket: bucket, unwritten: map[string][]byte{}, done: make(chan error, 1)}
	if r.begin(w) {
		t.Fatal("something is written although nothing has come")
	}
	r.mark.Seq, r.raw = 1, []byte("message 1")
	r.begin(w)
	err := <-w.done
	if w.ended(err); !errors.Is(err, errFull) {
		t.Fatalf("first: got %v, want %v", err, errFull)
	}
	if _, found, err := readMarker(t.Context(), bucket); found || err != nil {
		t.Fatalf("marker: got %v, %v, want none", found, err)
	}
	bucket.is = false
	r.mark.Seq, r.raw = 2, []byte("message 2")
	if err := r.finish(w); err != nil {
		t.Fatal(err)
	}
	records, err := r.records(t.Context())
	if err != nil || string(records["a"]) != "1" || string(records["b"]) != "2" {
		t.Errorf("records: got %q, %v", records, err)
	}
	if m, _, err := readMarker(t.Context(), bucket); m.Seq != 2 || err != nil {
		t.Errorf("marker: got %d, %v, want 2", m.Seq, err)
	}
}

// A fold rests the longer the more it has to write.
func TestCheckpointsRest(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0:                10 * time.Second,
		time.Second:      20 * time.Second,
		10 * time.Second: 200 * time.Second,
		time.Minute:      maxCheckpoint,
	} {
		w := &writing{began: time.Now().Add(-took)}
		if got := w.rest(10 * time.Second); got < want || got > want+time.Second {
			t.Errorf("after %v: got %v, want %v", took, got, want)
		}
	}
}
