package api

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// coalesce is how long a follower gathers changes before it tells them: a
// thousand devices reporting at once become one look at the fleet.
const coalesce = 200 * time.Millisecond

// hub tells followers what changed. It keeps only the newest event of each
// subject, so a follower that is slow gets fewer events and never old ones, and
// nothing has to be buffered for it.
type hub struct {
	now func() time.Time

	mu      sync.Mutex // guards all below
	start   uint64     // ids at or below it are of an earlier server
	last    uint64
	changed chan struct{} // closed and replaced at every event
	byAge   *list.List    // of operator.Event, oldest first
	bySubj  map[subject]*list.Element
}

type subject struct{ kind, name string }

// newHub starts numbering from the clock, so that ids rise over restarts: a
// millisecond leaves room for a thousand events, and the numbers stay below
// 2^53, where JSON numbers end.
func newHub(now func() time.Time) *hub {
	start := uint64(now().UnixMilli()) * 1000
	return &hub{
		now: now, start: start, last: start,
		changed: make(chan struct{}), byAge: list.New(), bySubj: map[subject]*list.Element{},
	}
}

// tell notes that a subject changed. It never blocks.
func (h *hub) tell(kind, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e := operator.Event{ID: h.last, Kind: kind, Subject: name, At: h.now().UTC()}
	key := subject{kind, name}
	if old := h.bySubj[key]; old != nil {
		h.byAge.Remove(old)
	}
	h.bySubj[key] = h.byAge.PushBack(e)
	close(h.changed)
	h.changed = make(chan struct{})
}

// since returns the events behind an id, oldest first, and a channel that is
// closed at the next one. An id of an earlier server, or one not given out
// yet, is answered with one event per kind that says to read all again.
func (h *hub) since(after uint64, kinds []string) ([]operator.Event, uint64, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if after < h.start || after > h.last {
		return h.all(kinds), h.last, h.changed
	}
	var found []operator.Event
	for e := h.byAge.Back(); e != nil; e = e.Prev() {
		event := e.Value.(operator.Event) //nolint:forcetypeassert // nothing else is put in
		if event.ID <= after {
			break
		}
		if slices.Contains(kinds, event.Kind) {
			found = append(found, event)
		}
	}
	slices.Reverse(found)
	return found, h.last, h.changed
}

func (h *hub) all(kinds []string) []operator.Event {
	events := make([]operator.Event, 0, len(kinds))
	for _, k := range kinds {
		events = append(events, operator.Event{ID: h.last, Kind: k, At: h.now().UTC()})
	}
	return events
}

// newest is the id of the newest event.
func (h *hub) newest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

var eventKinds = []string{
	operator.EventDevice, operator.EventRollout, operator.EventDrift,
	operator.EventModel, operator.EventAlarm, operator.EventRetrain, operator.EventIncident,
}

// follow tells events until ctx ends or fn fails. After 0 begins with the next one.
func (h *hub) follow(ctx context.Context, kinds []string, after uint64, fn func(operator.Event) error) error {
	for _, k := range kinds {
		if !slices.Contains(eventKinds, k) {
			return operator.Errorf(operator.Invalid, "there are no events of kind %.40q", k).WithHint("kinds are %v", eventKinds)
		}
	}
	if len(kinds) == 0 {
		kinds = eventKinds
	}
	if after == 0 {
		after = h.newest()
	}
	for {
		events, last, changed := h.since(after, kinds)
		after = last
		for _, e := range events {
			if err := fn(e); err != nil {
				return err
			}
		}
		if err := gather(ctx, changed); err != nil {
			return err
		}
	}
}

// gather waits for a change, and then a little for others.
func gather(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	}
	timer := time.NewTimer(coalesce)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
