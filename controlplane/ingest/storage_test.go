package ingest

import (
	"maps"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

func TestStorageIsThatOfTheStream(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	i := start(t, startNATS(t, t.TempDir()), Config{MaxBytes: 1 << 20, MaxAge: time.Hour, Now: func() time.Time { return now }})
	empty, err := i.Storage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if empty.Messages != 0 || empty.Limit != 1<<20 || empty.MaxAge != time.Hour {
		t.Errorf("empty stream: %+v", empty)
	}
	if _, err := i.js.Publish(t.Context(), streamSubject+"cam-1", encode(t, &protocol.Accepted{Device: "cam-1"})); err != nil {
		t.Fatal(err)
	}
	cached, err := i.Storage(t.Context())
	if err != nil || cached.Messages != 0 {
		t.Errorf("within a second: %+v, %v; want the answer of before", cached, err)
	}
	now = now.Add(storageFresh)
	got, err := i.Storage(t.Context())
	if err != nil || got.Messages != 1 || got.Bytes == 0 || got.Last.IsZero() || len(got.Behind) != 0 {
		t.Errorf("after a message: %+v, %v", got, err)
	}
	i.folds.set("fleet", 0)
	i.folds.set("drift", 5) // has gone on since the stream was looked at
	got, err = i.Storage(t.Context())
	if want := map[string]uint64{"fleet": 1, "drift": 0}; err != nil || !maps.Equal(got.Behind, want) {
		t.Errorf("behind %v, %v; want %v", got.Behind, err, want)
	}
}

func TestHowLongStorageLasts(t *testing.T) {
	const day = 24 * time.Hour
	first := time.Unix(1_800_000_000, 0)
	of := func(age time.Duration, bytes uint64) Storage {
		return Storage{Bytes: bytes, Limit: 1000, MaxAge: 7 * day, First: first, Last: first.Add(age)}
	}
	for _, tt := range []struct {
		name  string
		held  Storage
		free  uint64
		want  time.Duration
		bound bool
	}{
		{"nothing stored", Storage{Limit: 1000, MaxAge: 7 * day}, 1000, 0, false},
		{"too young to tell", of(time.Minute, 900), 1000, 0, false},
		{"the limit comes first", of(2*day, 500), 9000, 2 * day, true},
		{"the disk comes first", of(2*day, 500), 250, day, true},
		{"age comes first", of(6*day, 500), 9000, 0, false},
		{"the disk is full", of(2*day, 500), 0, 0, true},
		{"the limit is reached", of(2*day, 1001), 9000, 0, true},
	} {
		if got, bound := tt.held.Lasts(tt.free); got != tt.want || bound != tt.bound {
			t.Errorf("%s: lasts %s (%v), want %s (%v)", tt.name, got, bound, tt.want, tt.bound)
		}
	}
}
