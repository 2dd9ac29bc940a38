package outbox

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// errUnlike says that two records of one lane do not have the same shape.
var errUnlike = errors.New("records do not have the same shape")

// join merges the older entry into the newer one of its lane. Counts are exact [P-4.8].
func join(older, newer Entry) (Entry, error) {
	from, err := sketch.DecodeBody([]byte(older.Body))
	if err != nil {
		return Entry{}, fmt.Errorf("read older record: %w", err)
	}
	into, err := sketch.DecodeBody([]byte(newer.Body))
	if err != nil {
		return Entry{}, fmt.Errorf("read newer record: %w", err)
	}
	if err := joinBodies(into, from); err != nil {
		return Entry{}, err
	}
	e, err := NewEntry(into)
	if err != nil {
		return Entry{}, err
	}
	if e.Sum != older.Sum.plus(newer.Sum) {
		return Entry{}, fmt.Errorf("%w: merged record counts %+v, want %+v", errUnlike, e.Sum, older.Sum.plus(newer.Sum))
	}
	return e, nil
}

func joinBodies(into, from *protocol.Body) error {
	switch k := into.GetKind().(type) {
	case *protocol.Body_Window:
		return sketch.MergeWindow(k.Window, from.GetWindow())
	case *protocol.Body_Labels:
		return sketch.MergeLabels(k.Labels, from.GetLabels())
	case *protocol.Body_Event:
		mergeEvents(k.Event, from.GetEvent())
		return nil
	default:
		return errUnlike
	}
}

// mergeEvents keeps the newer text, counts the repetition and adds up losses.
func mergeEvents(into, from *protocol.Event) {
	if into.GetLost() != nil || from.GetLost() != nil {
		into.Lost = into.GetLost().Add(from.GetLost())
	}
	into.LostRecords += from.GetLostRecords()
	into.LostUnknown = into.GetLostUnknown() || from.GetLostUnknown()
	if into.Attributes == nil {
		into.Attributes = map[string]string{}
	}
	into.Attributes["times"] = strconv.Itoa(times(into) + times(from))
}

func times(e *protocol.Event) int {
	n, err := strconv.Atoi(e.GetAttributes()["times"])
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// pair is two neighbours of one lane, by position in the pending region.
type pair struct {
	older, newer int
	distance     int
	weight       uint32
}

// pairs lists the neighbours that may be merged, the cheapest loss of
// resolution first: short distance, few merges so far, old before new [P-4.8].
func pairs(items []*Item, from uint64, of func(*Item) bool) []pair {
	var found []pair
	last := map[string]int{}
	for i, it := range items {
		if it.Index < from || it.lane == "" || !of(it) {
			continue
		}
		if j, ok := last[it.lane]; ok {
			found = append(found, pair{
				older: j, newer: i, distance: distance(items[j].start, it.start),
				weight: items[j].weight + it.weight,
			})
		}
		last[it.lane] = i
	}
	slices.SortStableFunc(found, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.weight, b.weight), cmp.Compare(a.older, b.older))
	})
	return found
}
