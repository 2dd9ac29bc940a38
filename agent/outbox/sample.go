package outbox

import (
	"slices"
	"strconv"

	"github.com/vedette-edge/vedette/protocol"
)

// Kinds of the events that stand for samples given up [P-10.5].
const (
	eventSampleDropped = "sample_dropped" // the outbox was full
	eventSampleExpired = "sample_expired"
)

// dropSample gives the oldest sample up among the records that of accepts;
// false when there is none. Evidence is worth more than rows for labelling.
func (o *Outbox) dropSample(w *work, of func(*Item) bool) bool {
	return o.giveSampleUp(w, eventSampleDropped, of)
}

// expireSamples gives up the samples that waited too long.
func (o *Outbox) expireSamples(w *work) {
	if o.opt.Stamp == nil {
		return
	}
	now := o.opt.Stamp()
	for o.giveSampleUp(w, eventSampleExpired, func(it *Item) bool { return it.expires.passed(now) }) {
		continue
	}
}

func (o *Outbox) giveSampleUp(w *work, kind string, of func(*Item) bool) bool {
	from := w.book.mergeable()
	i := slices.IndexFunc(w.book.pending, func(it *Item) bool { return it.sample && it.Index >= from && of(it) })
	if i < 0 {
		return false
	}
	it := w.book.pending[i]
	w.do(w.book.GiveUp(i, o.dated(sampleEvent(kind, it.Model))))
	o.log.Info("sample given up", "reason", kind, "model", it.Model)
	return true
}

// sampleEvent stands for a sample given up. It counts nothing, as the sample did.
func sampleEvent(kind, model string) Entry {
	e, err := NewEntry(&protocol.Body{Kind: &protocol.Body_Event{Event: &protocol.Event{
		Kind: kind, Model: model, Attributes: map[string]string{"times": strconv.Itoa(1)},
	}}})
	if err != nil {
		panic(err) // a message of three small fields always encodes
	}
	return e
}
