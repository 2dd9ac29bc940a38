package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// seen collects what a follower is told until it is stopped.
func seen(ctx context.Context, h *hub, kinds []string, after uint64) <-chan []operator.Event {
	out := make(chan []operator.Event, 1)
	go func() {
		var all []operator.Event
		err := h.follow(ctx, kinds, after, func(e operator.Event) error {
			all = append(all, e)
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			all = nil
		}
		out <- all
	}()
	return out
}

func TestHubCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		events := seen(ctx, h, nil, 0)
		synctest.Wait()
		for range 1000 {
			h.tell(operator.EventDevice, "cam-a1")
		}
		h.tell(operator.EventDevice, "cam-a2")
		h.tell(operator.EventDevice, "cam-a1")
		time.Sleep(2 * coalesce) // simulated time
		h.tell(operator.EventModel, "digits")
		time.Sleep(2 * coalesce)
		cancel()
		got := <-events
		want := []subject{{"device", "cam-a2"}, {"device", "cam-a1"}, {"model", "digits"}}
		if len(got) != len(want) {
			t.Fatalf("got %d events %+v, want %d", len(got), got, len(want))
		}
		for i, w := range want {
			if got[i].Kind != w.kind || got[i].Subject != w.name {
				t.Errorf("event %d: got %s %s, want %+v", i, got[i].Kind, got[i].Subject, w)
			}
			if i > 0 && got[i].ID <= got[i-1].ID {
				t.Errorf("ids do not rise: %d after %d", got[i].ID, got[i-1].ID)
			}
		}
	})
}

func TestHubSelectsKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		events := seen(ctx, h, []string{operator.EventModel}, 0)
		synctest.Wait()
		h.tell(operator.EventDevice, "cam")
		h.tell(operator.EventModel, "digits")
		time.Sleep(2 * coalesce)
		cancel()
		if got := <-events; len(got) != 1 || got[0].Subject != "digits" {
			t.Errorf("got %+v", got)
		}
	})
}

// Who continues behind an event gets what came after; who comes from an
// earlier server, or from nowhere, is told to read all again.
func TestHubContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(time.Now)
		h.tell(operator.EventDevice, "one")
		first := h.newest()
		h.tell(operator.EventDevice, "two")
		for name, c := range map[string]struct {
			after uint64
			want  []string
		}{
			"behind the first": {first, []string{"two"}},
			"up to date":       {h.newest(), nil},
			"earlier server":   {h.start - 5, []string{""}},
			"never given out":  {h.newest() + 1, []string{""}},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			events := seen(ctx, h, []string{operator.EventDevice}, c.after)
			synctest.Wait()
			cancel()
			got := <-events
			if len(got) != len(c.want) || len(got) == 1 && got[0].Subject != c.want[0] {
				t.Errorf("%s: got %+v, want subjects %q", name, got, c.want)
			}
		}
	})
}

func TestHubRefusesUnknownKinds(t *testing.T) {
	h := newHub(time.Now)
	if err := h.follow(t.Context(), []string{"dev"}, 0, nil); operator.CodeOf(err) != operator.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestHubEndsWithItsFollower(t *testing.T) {
	h := newHub(time.Now)
	h.tell(operator.EventDevice, "one")
	gone := errors.New("client is gone")
	if err := h.follow(t.Context(), nil, h.start, func(operator.Event) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}
