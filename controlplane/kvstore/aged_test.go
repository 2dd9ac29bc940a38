package kvstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

func TestAgedBucketForgets(t *testing.T) {
	b, err := kvstore.OpenAged(t.Context(), brokertest.Start(t).Conn(), "aged", 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", "value")
	if size, err := kvstore.Size(t.Context(), b); err != nil || size == 0 || size > 200 {
		t.Errorf("size of a value: got %d, %v", size, err)
	}
	for began := time.Now(); ; {
		_, err := b.Get(t.Context(), "a")
		if errors.Is(err, kvstore.ErrNotFound) {
			return
		}
		if err != nil || time.Since(began) > 20*time.Second {
			t.Fatalf("after its time: got %v, want %v", err, kvstore.ErrNotFound)
		}
	}
}

func TestSizeOfMemory(t *testing.T) {
	b := kvstore.NewMemory()
	put(t, b, "a", "value")
	if size, err := kvstore.Size(t.Context(), b); err != nil || size != 6 {
		t.Errorf("got %d, %v, want 6", size, err)
	}
}
