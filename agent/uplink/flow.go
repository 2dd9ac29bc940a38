package uplink

import (
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// flow knows which records are on their way on one connection. It is pure: time
// is an argument.
type flow struct {
	timeout  time.Duration
	sent     map[string]map[uint64]bool // by epoch, by sequence
	acked    map[string]uint64
	repeated time.Time // when an unchanged ack last made records go out again
	progress time.Time // when something was last published or acknowledged
}

func newFlow(timeout time.Duration, now time.Time) *flow {
	return &flow{timeout: timeout, sent: map[string]map[uint64]bool{}, acked: map[string]uint64{}, progress: now}
}

// due returns the records that are not on their way yet, and takes them for sent.
func (f *flow) due(records []*protocol.Record, now time.Time) []*protocol.Record {
	var out []*protocol.Record
	for _, r := range records {
		epoch := string(r.GetEpoch())
		if f.sent[epoch] == nil {
			f.sent[epoch] = map[uint64]bool{}
		}
		if f.sent[epoch][r.GetSeq()] {
			continue
		}
		f.sent[epoch][r.GetSeq()] = true
		out = append(out, r)
		f.progress = now
	}
	return out
}

// ack notes what the server holds. Where it holds less than before, or twice the
// same while more is on its way, what follows goes out again [P-4.5]; the latter
// once a second at most, because every record behind a gap causes such an ack.
func (f *flow) ack(a *protocol.Ack, now time.Time) {
	epoch := string(a.GetEpoch())
	before, known := f.acked[epoch]
	f.acked[epoch] = a.GetSeq()
	switch {
	case !known || a.GetSeq() > before:
		f.progress = now
	case a.GetSeq() < before:
		f.forget(epoch, a.GetSeq())
	case now.Sub(f.repeated) >= time.Second:
		f.repeated = now
		f.forget(epoch, a.GetSeq())
	}
	for seq := range f.sent[epoch] {
		if seq <= a.GetSeq() {
			delete(f.sent[epoch], seq)
		}
	}
}

// forget makes everything after seq due again.
func (f *flow) forget(epoch string, seq uint64) {
	for s := range f.sent[epoch] {
		if s > seq {
			delete(f.sent[epoch], s)
		}
	}
}

// expire makes everything due again when nothing was heard for too long.
func (f *flow) expire(now time.Time) bool {
	if now.Sub(f.progress) < f.timeout {
		return false
	}
	f.progress = now
	clear(f.sent)
	return true
}
