// Package e2e tests what only the parts together can show.
package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/protocol"
)

// node is a world in the search, with how it was reached.
type node struct {
	world *world
	from  *node
	name  string
	depth int
}

func (n *node) path() string {
	var names []string
	for ; n.from != nil; n = n.from {
		names = append([]string{n.name}, names...)
	}
	return strings.Join(names, "\n  ")
}

// result is what a search found.
type result struct {
	states  int
	depth   int // fully explored
	broken  error
	path    string
	settled int // states brought to rest
	exact   int // of those, with totals that are proven
}

// explore visits every state within depth steps, each once, breadth first. It
// stops at the first state that breaks an invariant, or at the limit of states.
func explore(start *world, m mutation, depth, limit int) result {
	var r result
	queue := []*node{{world: start}}
	seen := map[[16]byte]bool{queue[0].world.hash(): true}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		r.depth = n.depth
		r.states++
		exact, err := check(n.world, m)
		if err != nil {
			r.broken, r.path = err, n.path()
			return r
		}
		r.settled++
		if exact {
			r.exact++
		}
		if n.depth == depth || r.states >= limit {
			continue
		}
		for _, s := range n.world.steps(m) {
			if h := s.to.hash(); !seen[h] && len(seen) < limit {
				seen[h] = true
				queue = append(queue, &node{world: s.to, from: n, name: s.name, depth: n.depth + 1})
			}
		}
	}
	return r
}

// check holds a state against the invariants, now and after the link has been
// good for long enough.
func check(w *world, m mutation) (exact bool, err error) {
	if err := neverTooMuch(w); err != nil {
		return false, err
	}
	end, err := settle(w, m)
	if err != nil && !w.copied {
		return false, err // a copy may wait for its next record, which gives it away
	}
	if err := neverTooMuch(end); err != nil {
		return false, fmt.Errorf("at rest: %w", err)
	}
	if lost := end.server.lost; !w.lossy && !w.copied && lost != (outbox.Sum{}) {
		return false, fmt.Errorf("server knows %+v lost though nothing was", lost)
	}
	if end.server.cursor.Cloned() {
		if !w.copied && !w.doubtful {
			return false, errors.New("a device that was never copied is marked as cloned")
		}
		return false, nil
	}
	if w.copied {
		return false, nil // what both copies generated is told apart by nobody
	}
	if end.server.uncertain {
		if !w.doubtful {
			return false, errors.New("totals are uncertain though nothing happened that makes them so")
		}
		return false, nil
	}
	if unheardOf(end) {
		return false, nil
	}
	if got := add(end.server.held, end.server.lost); got != waiting(end) {
		return false, fmt.Errorf("server holds %+v and knows %+v lost, together %+v; generated %+v", end.server.held, end.server.lost, got, waiting(end))
	}
	return true, nil
}

// unheardOf says that an outbox was thrown away before the server, as it is now
// after a restore, has heard of its epoch. Nobody can know what was in it.
func unheardOf(w *world) bool {
	for _, id := range w.gone {
		if !slices.ContainsFunc(w.server.cursor.Proto().GetEpochs(), func(e *protocol.EpochCursor) bool { return [16]byte(e.GetId()) == id }) {
			return true
		}
	}
	return false
}

// waiting is what the server should account for at rest: what was generated,
// but for windows that are still open.
func waiting(w *world) outbox.Sum {
	sum := w.generated
	for _, d := range w.devices {
		open := d.book.Head().Waiting // at rest only open records wait
		sum.Rows -= open.Rows
		sum.Labels -= open.Labels
	}
	return sum
}

func add(a, b outbox.Sum) outbox.Sum {
	return outbox.Sum{Rows: a.Rows + b.Rows, Labels: a.Labels + b.Labels}
}

// neverTooMuch holds in every state, proven or not: nothing is counted twice.
func neverTooMuch(w *world) error {
	s := w.server
	if s.held.Rows > w.generated.Rows || s.held.Labels > w.generated.Labels {
		return fmt.Errorf("server holds %+v, more than the generated %+v", s.held, w.generated)
	}
	return nil
}

// settle lets the devices talk to the server over a good link until nothing
// changes any more.
func settle(w *world, m mutation) (*world, error) {
	w = w.copy()
	w.up, w.down = nil, nil
	for range 12 {
		before := w.server.cursor
		for i := range w.devices {
			w.exchange(i, &protocol.Hello{Epochs: w.devices[i].book.Epochs()}, m)
			if c, ok := w.devices[i].book.Send(protocol.MaxSent); ok {
				w.apply(i, c, outbox.Sum{})
			}
			w.exchange(i, nil, m)
		}
		if w.quiet() && proto.Equal(w.server.cursor.Proto(), before.Proto()) {
			return w, nil
		}
		if w.server.cursor.Cloned() {
			return w, nil
		}
	}
	return w, fmt.Errorf("not at rest after twelve rounds over a good link: %s", describe(w))
}

// exchange sends a hello, or all records, and hears every answer at once.
func (w *world) exchange(i int, hello *protocol.Hello, m mutation) {
	var messages []message
	if hello != nil {
		messages = append(messages, message{device: i, hello: hello})
	} else {
		for _, r := range w.devices[i].book.Records() {
			if m == neverSkip && r.GetSkip() != nil {
				continue
			}
			messages = append(messages, message{device: i, record: r})
		}
	}
	for _, msg := range messages {
		w.arrive(msg, m)
		for _, a := range w.down {
			w.hear(a)
		}
		w.down = nil
	}
}

func (w *world) quiet() bool {
	for _, d := range w.devices {
		if d.book.Pending() > 0 || len(d.book.Records()) > 0 || d.book.Head().Closing {
			return false
		}
	}
	return true
}

func describe(w *world) string {
	var b strings.Builder
	for i, d := range w.devices {
		h := d.book.Head()
		fmt.Fprintf(&b, "device %d: epoch %x closing=%v sent=%d acked=%d pending=%d held=%d; ", i, h.Epoch[:2], h.Closing, h.Sent.Seq, h.Acked.Seq, d.book.Pending(), d.book.Held())
	}
	fmt.Fprintf(&b, "server %v", w.server.cursor.Proto())
	return b.String()
}

// accept is ingest.Accept, or what a planted bug makes of it.
func accept(c ingest.Cursor, r *protocol.Record, m mutation) (ingest.Cursor, ingest.Verdict, error) {
	p := c.Proto()
	for _, e := range p.GetEpochs() {
		if m == sound || !bytes.Equal(e.GetId(), r.GetEpoch()) {
			continue
		}
		switch {
		case m == takeWhenClosed && e.GetClosed():
			e.Closed = false
			return ingest.Accept(ingest.CursorOf(p), r)
		case m == storeGaps && r.GetSkip() == nil && r.GetPrev() > e.GetLast():
			e.Last, e.Chain, e.Total, e.History = r.GetSeq(), r.GetChain(), r.GetTotal(), nil
			ack := &protocol.Ack{Epoch: e.GetId(), Seq: e.GetLast(), Chain: e.GetChain(), Total: e.GetTotal()}
			return ingest.CursorOf(p), ingest.Verdict{
				Accepted: &protocol.Accepted{Body: &protocol.Accepted_Record{Record: r}}, Acks: []*protocol.Ack{ack},
			}, nil
		}
	}
	return ingest.Accept(c, r)
}

// walk goes the named way from the beginning; each name is a part of a step's.
func walk(t *testing.T, names ...string) *world {
	t.Helper()
	w := newWorld()
	for _, name := range names {
		steps := w.steps(sound)
		i := slices.IndexFunc(steps, func(s step) bool { return strings.Contains(s.name, name) })
		if i < 0 {
			t.Fatalf("no step %q", name)
		}
		w = steps[i].to
	}
	return w
}

// deep are states from which the search goes on, because a search from the
// beginning would not come far behind them.
var deep = map[string][]string{
	"a record is late after the end of the file was lost": {"window", "number 1", "record 0100/1 is delayed", "counter lost after 2 of 3"},
	"a sent record is gone and the server fell back": {
		"backed up", "window", "number 1", "record 0100/1", "hears ack 0100/1", "labels", "number 1", "restored",
	},
	"merged records were half sent": {"window", "window", "merge", "labels", "number 1", "record 0100/1"},
	"an epoch was closed and the next one used": {
		"backed up", "window", "number 1", "counter lost after 2 of 3", "hello", "closed=true", "number 1", "record",
	},
}

// near brings the search close to bugs that lie deep.
var near = map[mutation][]string{
	takeWhenClosed: deep["a record is late after the end of the file was lost"],
	storeGaps:      {"window", "window", "number 32"},
}

// A check that nothing can fail shows nothing: every planted bug must be found.
func TestPlantedBugsAreFound(t *testing.T) {
	for _, m := range []mutation{
		ackWithoutStore, skipWithoutTotal, freeOnPublish, resendUnasked, takeWhenClosed, forgetMoved, forgetSent, storeGaps, neverSkip,
	} {
		t.Run(string(m), func(t *testing.T) {
			r := explore(walk(t, near[m]...), m, 8, 40_000)
			if r.broken == nil {
				t.Fatalf("not found in %d states within %d steps", r.states, r.depth)
			}
			t.Logf("found after %d states: %v, after\n  %s", r.states, r.broken, r.path)
		})
	}
}

func TestAccountingIsExactInEveryInterleaving(t *testing.T) {
	depth, limit := 6, 25_000
	if os.Getenv("VEDETTE_FULL") != "" {
		depth, limit = 8, 200_000 // a state with its disk takes some kilobytes
	}
	starts := map[string]*world{"the beginning": newWorld()}
	for name, way := range deep {
		starts[name] = walk(t, way...)
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			limit := limit
			if name != "the beginning" {
				limit /= 8
			}
			began := time.Now()
			r := explore(start, sound, depth, limit)
			t.Logf("%d states, all of those within %d steps, %d at rest with proven totals, %v", r.states, max(0, r.depth-1), r.exact, time.Since(began).Round(time.Millisecond))
			if r.broken != nil {
				t.Fatalf("%v, after\n  %s", r.broken, r.path)
			}
			if r.states < 1000 {
				t.Errorf("only %d states: the check shows nothing", r.states)
			}
		})
	}
}
