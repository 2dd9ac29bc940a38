package tracking

import (
	"context"
	"sync/atomic"
)

// DefaultMaxBytes of the journal: a million runs of 20 KB. What is read from it
// when the server starts is the part since the last checkpoint alone.
const DefaultMaxBytes = 20 << 30

// messageBytes is about what the broker stores beside a message: its subject,
// header and checksum.
const messageBytes = 128

// quota bounds what the journal takes. It is safe for concurrent use.
type quota struct {
	most uint64
	used atomic.Uint64 // about: counted anew when the store is opened
}

// count finds out what the journal has.
func (q *quota) count(ctx context.Context, j journal) error {
	n, err := j.bytes(ctx)
	q.used.Store(n)
	return err
}

// add takes a message into account that was stored.
func (q *quota) add(n int) { q.used.Add(uint64(n) + messageBytes) } //nolint:gosec // a length

// admit refuses what the journal has no room for. What others are storing at this
// moment is not counted yet: it is a few messages.
func (q *quota) admit(n int) error {
	if q.used.Load()+uint64(n)+messageBytes <= q.most { //nolint:gosec // a length
		return nil
	}
	return refuse(Exhausted, "the server keeps at most %d bytes of runs and models, deleted ones included, and has them; what was logged can be read. "+
		"Ask whoever runs it for more room (vedette-control run --tracking-max-gib), and do not log again before", q.most)
}
