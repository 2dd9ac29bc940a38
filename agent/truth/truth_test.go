package truth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/observe"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// disk is what a kill leaves: the outbox, and the files in a folder. A kill
// happens when the budget of steps is used up; what is tried after it does nothing.
type disk struct {
	dir    string
	open   map[string]*protocol.Body
	closed []*protocol.Body
	steps  int // left before the kill, −1 for none
	server *control
}

var errKilled = errors.New("killed")

func (d *disk) step() error {
	if d.steps == 0 {
		return errKilled
	}
	d.steps--
	return nil
}

func (d *disk) PutOpen(key string, b *protocol.Body) error {
	if err := d.step(); err != nil {
		return err
	}
	d.open[key] = proto.CloneOf(b)
	return nil
}

func (d *disk) CloseOpen(key string, b *protocol.Body) error {
	if err := d.step(); err != nil {
		return err
	}
	delete(d.open, key)
	d.closed = append(d.closed, proto.CloneOf(b))
	return nil
}

// control is the server's queue.
type control struct {
	disk    *disk
	waiting []*protocol.TruthBatch
	taken   []*protocol.TruthTaken
}

func (c *control) Next(_ context.Context, taken *protocol.TruthTaken) (*protocol.TruthBatch, error) {
	if err := c.disk.step(); err != nil {
		return nil, err
	}
	for len(c.waiting) > 0 && c.waiting[0].GetSeq() <= taken.GetSeq() {
		c.waiting = c.waiting[1:]
		c.taken = append(c.taken, taken)
	}
	if len(c.waiting) == 0 {
		return nil, nil
	}
	return c.waiting[0], nil
}

// steps lets a kill come between any two truths, too.
type steps struct {
	Joiner
	disk *disk
}

func (s steps) Truth(ctx context.Context, model, id, label string) (observe.Joined, error) {
	if err := s.disk.step(); err != nil {
		return 0, err
	}
	joined, err := s.Joiner.Truth(ctx, model, id, label)
	return joined, errors.Join(err, s.disk.step())
}

func (s steps) CountUnmatched(model string, n uint64) error {
	if err := s.disk.step(); err != nil {
		return err
	}
	return errors.Join(s.Joiner.CountUnmatched(model, n), s.disk.step())
}

type clock struct {
	id    byte
	start time.Time
}

func (c *clock) Stamp() *protocol.Stamp {
	b := make([]byte, protocol.BootSize)
	b[0] = c.id
	return &protocol.Stamp{Boot: b, MonotonicMs: uint64(time.Since(c.start).Milliseconds()), WallMs: time.Now().UnixMilli()}
}

var digest = release.DigestOf([]byte("v1"))

// life is one start of the agent, until it is killed or has nothing to do.
func (d *disk) life(t *testing.T, number byte) error {
	t.Helper()
	for key, b := range d.open { // what a kill left open is sent as it is
		d.closed = append(d.closed, b)
		delete(d.open, key)
	}
	o := observe.New(filepath.Join(d.dir, "ring"), d, &clock{number, time.Now()}, observe.Config{Predictions: 64})
	defer func() { _ = o.Close() }()
	m := &release.Manifest{Model: "m", Schema: release.Schema{
		Outputs: []release.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{-1}}}, Classes: []string{"cat", "dog"}, Label: "label",
	}}
	if err := o.SetRelease("m", digest, infer.RolePrimary, m, nil); err != nil {
		t.Fatal(err)
	}
	if number == 1 {
		for i := range 6 {
			o.Served(&infer.Call{
				Model: "m", Release: digest, Role: infer.RolePrimary, ID: fmt.Sprint("id-", i), Rows: 1, At: time.Now(),
				Outputs: []infer.Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{1}, Data: []int64{0}}},
			})
		}
		steps := d.steps
		d.steps = -1
		if err := o.Snapshot(); err != nil { // the predictions are in the ring's file
			t.Fatal(err)
		}
		d.steps = steps
	}
	taker := New(d.dir, d.server, steps{o, d}, nil)
	taker.save = func(path string, data []byte) error {
		if err := d.step(); err != nil {
			return err
		}
		return errors.Join(atomicfile.Write(path, data), d.step())
	}
	if err := taker.drain(t.Context()); err != nil {
		return err
	}
	return o.CloseWindows()
}

// counts are the labels that all lives handed over.
func (d *disk) counts() (matched, unmatched uint64) {
	all := d.closed
	for _, b := range d.open {
		all = append(all, b)
	}
	for _, b := range all {
		matched += b.GetLabels().GetMatched()
		unmatched += b.GetLabels().GetUnmatched()
	}
	return matched, unmatched
}

func newDisk(t *testing.T, steps int) *disk {
	t.Helper()
	d := &disk{dir: t.TempDir(), open: map[string]*protocol.Body{}, steps: steps}
	d.server = &control{disk: d, waiting: []*protocol.TruthBatch{
		{Seq: 7, Upload: "u1", Model: "m", Truths: []*protocol.Truth{{Id: "id-0", Label: "cat"}, {Id: "gone", Label: "cat"}, {Id: "id-1", Label: "dog"}, {Id: "id-1", Label: "dog"}}},
		{Seq: 9, Upload: "u2", Model: "m", Truths: []*protocol.Truth{{Id: "id-2", Label: "0"}, {Id: "gone-2", Label: "1"}, {Id: "id-3", Label: "cow"}}},
		{Seq: 10, Upload: "u2", Model: "other", Truths: []*protocol.Truth{{Id: "id-4", Label: "cat"}}},
	}}
	return d
}

func TestBatchesAreCounted(t *testing.T) {
	d := newDisk(t, -1)
	if err := d.life(t, 1); err != nil {
		t.Fatal(err)
	}
	if matched, unmatched := d.counts(); matched != 3 || unmatched != 2 {
		t.Errorf("%d matched and %d unmatched are counted, want 3 and 2", matched, unmatched)
	}
	want := []string{
		"seq:7  matched:2  unmatched:1  repeated:1", "seq:9  matched:1  unmatched:1  refused:1", "seq:10  refused:1",
	}
	for i, taken := range d.server.taken {
		w := &protocol.TruthTaken{}
		switch i {
		case 0:
			w = &protocol.TruthTaken{Seq: 7, Matched: 2, Unmatched: 1, Repeated: 1}
		case 1:
			w = &protocol.TruthTaken{Seq: 9, Matched: 1, Unmatched: 1, Refused: 1}
		case 2:
			w = &protocol.TruthTaken{Seq: 10, Refused: 1}
		}
		if !proto.Equal(taken, w) {
			t.Errorf("batch %d came to %v, want %s", i, taken, want[i])
		}
	}
	if len(d.server.taken) != 3 || len(d.server.waiting) != 0 {
		t.Errorf("%d batches are acknowledged, %d wait", len(d.server.taken), len(d.server.waiting))
	}
}

// A kill at every step, and another one a few steps into the next life, counts
// nothing twice; without a power cut no batch is left behind.
func TestKillCountsNothingTwice(t *testing.T) {
	full := 0
	for first := 0; ; first++ {
		done := false
		for _, second := range []int{-1, 3, 9} {
			d := newDisk(t, first)
			killed := d.life(t, 1)
			done = done || killed == nil
			for number, budget := byte(2), second; killed != nil; number++ {
				d.steps = budget
				killed, budget = d.life(t, number), -1
			}
			matched, unmatched := d.counts()
			if matched > 3 || unmatched > 2 {
				t.Fatalf("killed after %d steps, then %d: %d matched and %d unmatched are counted, want at most 3 and 2", first, second, matched, unmatched)
			}
			if len(d.server.waiting) != 0 {
				t.Fatalf("killed after %d steps, then %d: %d batches are left", first, second, len(d.server.waiting))
			}
			if matched == 3 && unmatched == 2 {
				full++
			}
		}
		if done {
			break
		}
		if first > 200 {
			t.Fatal("it never ends by itself")
		}
	}
	if full < 10 {
		t.Errorf("all was counted after %d kills only", full)
	}
}

// The state that cannot be written is not acknowledged, and what matched is not
// reported as repeated when it can.
func TestFullDiskIsTriedAgain(t *testing.T) {
	d := newDisk(t, -1)
	d.server.waiting = d.server.waiting[:1]
	o := &oneJoiner{joined: observe.Matched}
	taker := New(filepath.Join(d.dir, "later"), d.server, o, nil)
	if err := taker.drain(t.Context()); err == nil {
		t.Fatal("a folder that is not there takes the state")
	}
	if len(d.server.taken) != 0 || o.asked != 4 {
		t.Errorf("%d acknowledged, %d truths joined, want 0 and 4", len(d.server.taken), o.asked)
	}
	if err := os.Mkdir(filepath.Join(d.dir, "later"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := taker.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o.asked != 4 || len(d.server.taken) != 1 || d.server.taken[0].GetMatched() != 4 || taker.Taken() != 7 {
		t.Errorf("%d truths joined, %v taken, number %d", o.asked, d.server.taken, taker.Taken())
	}
}

// oneJoiner has one answer.
type oneJoiner struct {
	joined observe.Joined
	asked  int
}

func (j *oneJoiner) Truth(context.Context, string, string, string) (observe.Joined, error) {
	j.asked++
	return j.joined, nil
}
func (j *oneJoiner) CountUnmatched(string, uint64) error { return nil }
func (j *oneJoiner) Snapshot() error                     { return nil }

// failing is a Source that answers after some failures.
type failing struct {
	left  int
	asked chan time.Time
}

func (f *failing) Next(context.Context, *protocol.TruthTaken) (*protocol.TruthBatch, error) {
	f.asked <- time.Now()
	if f.left--; f.left >= 0 {
		return nil, errors.New("no route")
	}
	return nil, nil
}

// Run asks when it is told of a new number, and goes on until it got an answer.
func TestRunAsksWhenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &failing{left: 3, asked: make(chan time.Time, 16)}
		taker := New(t.TempDir(), source, &oneJoiner{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- taker.Run(ctx) }()
		time.Sleep(time.Hour)
		if len(source.asked) != 0 {
			t.Error("asked though there is nothing")
		}
		taker.Tell(5)
		taker.Tell(5)
		time.Sleep(10 * time.Minute) // of the bubble: past every retry
		if len(source.asked) != 4 {
			t.Errorf("asked %d times, want once and after each of 3 failures", len(source.asked))
		}
		taker.Tell(4)
		time.Sleep(10 * time.Minute) // of the bubble: time enough to ask, if it would
		if len(source.asked) != 4 {
			t.Error("asked for an old number")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestHTTP(t *testing.T) {
	batch := &protocol.TruthBatch{Seq: 3, Model: "m", Truths: []*protocol.Truth{{Id: "a", Label: "b"}}}
	raw, err := proto.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		status int
		kind   string
		body   []byte
		want   *protocol.TruthBatch
		err    error
	}{
		"a batch":             {http.StatusOK, protocol.MediaProtobuf, raw, batch, nil},
		"none":                {http.StatusNoContent, "", nil, nil, nil},
		"an older server":     {http.StatusNotFound, "application/json", []byte("{}"), nil, nil},
		"a login page":        {http.StatusOK, "text/html", []byte("<html>"), nil, ErrServer},
		"a fault":             {http.StatusInternalServerError, "application/json", nil, nil, ErrServer},
		"a redirect":          {http.StatusFound, "", nil, nil, ErrServer},
		"what is no protobuf": {http.StatusOK, protocol.MediaProtobuf, []byte{0xff}, nil, ErrServer},
		"too much":            {http.StatusOK, protocol.MediaProtobuf, make([]byte, protocol.MaxTruthBatch+1), nil, ErrServer},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != protocol.TruthPath {
					t.Errorf("got %s %s", r.Method, r.URL)
				}
				w.Header().Set("Content-Type", tt.kind)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = w.Write(tt.body)
			}))
			defer server.Close()
			h := &HTTP{Client: server.Client(), Base: server.URL + "/"}
			got, err := h.Next(t.Context(), &protocol.TruthTaken{Seq: 2})
			if !errors.Is(err, tt.err) || !proto.Equal(got, tt.want) {
				t.Errorf("got %v, %v, want %v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}
