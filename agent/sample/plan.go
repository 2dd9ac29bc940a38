package sample

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/observe"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sampling"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Bounds of what is held and sent.
const (
	// envelope is what a sample has beside its rows: names, strata, age's header
	// and tags.
	envelope = 6 << 10
	// maxPlain bounds the rows of one sample in bytes.
	maxPlain = protocol.MaxSample - envelope
	// maxHeld bounds the rows that one release's reservoirs hold, in bytes.
	maxHeld = 1 << 20
	// maxStrata bounds the strata of one release; what is beyond is one of its own.
	maxStrata = 32
)

// Names of strata that no class has given.
const (
	stratumAll   = "all"
	stratumOther = "other"
)

// errWide says that a row does not fit a sample.
var errWide = errors.New("row is too large for a sample")

// errHeld says that the reservoirs are full of bytes.
var errHeld = errors.New("rows that wait for the window's end take all the memory there is for them")

// gap draws the number of failures before the first success of probability rate.
func gap(r *rand.Rand, rate float64) int64 {
	if rate >= 1 {
		return 0
	}
	return int64(math.Log1p(-r.Float64()) / math.Log1p(-rate))
}

// plan is one release's sampling: what the manifest allows and what is held.
type plan struct {
	model     string
	release   release.Digest
	schema    *release.Schema
	recipient string
	rate      float64
	rows      int // of a window at most
	strata    string
	expires   release.Duration
	left      atomic.Int64 // rows to pass over; below zero a row is due

	// Guarded by the sampler's mu.
	held   map[string]*reservoir
	bytes  int
	opened *protocol.Stamp // when the window began
	warned bool
}

// reservoir is a uniform sample of the rows of one stratum.
type reservoir struct {
	seen uint64
	rows []*protocol.SampleRow
}

func newPlan(d release.Digest, m *release.Manifest, now *protocol.Stamp) *plan {
	s := m.Sampling
	p := &plan{
		model: m.Model, release: d, schema: &m.Schema, recipient: s.Recipient, rate: s.Rate,
		rows: s.Rows, strata: s.Strata, expires: s.Expires,
	}
	p.reset(now)
	return p
}

func (p *plan) empty() bool { return len(p.held) == 0 }

func (p *plan) reset(now *protocol.Stamp) {
	p.held, p.bytes, p.opened, p.warned = map[string]*reservoir{}, 0, now, false
}

// offer gives a row of a call to the reservoir of its stratum.
func (p *plan) offer(r *rand.Rand, c *infer.Call, b *sketch.Batch, row int) error {
	name := p.stratum(b, row)
	res := p.held[name]
	if res == nil && len(p.held) >= maxStrata {
		name = stratumOther
		res = p.held[name]
	}
	if res == nil {
		res = &reservoir{}
		p.held[name] = res
	}
	res.seen++
	place := len(res.rows)
	if place == p.rows {
		if place = int(r.Uint64N(res.seen)); place >= p.rows { //nolint:gosec // below seen
			return nil
		}
	}
	taken, err := p.copyRow(c, name, row)
	if err != nil {
		return err
	}
	if place == len(res.rows) {
		res.rows = append(res.rows, nil)
	}
	p.bytes += proto.Size(taken) - proto.Size(res.rows[place])
	res.rows[place] = taken
	return nil
}

// copyRow copies a row out of a call, whose tensors are the caller's.
func (p *plan) copyRow(c *infer.Call, stratum string, row int) (*protocol.SampleRow, error) {
	out := &protocol.SampleRow{Id: infer.RowID(c.ID, row, c.Rows), WallMs: c.At.UnixMilli(), Stratum: stratum}
	var err error
	if out.Inputs, err = arrays(c.Inputs, row, c.Rows); err != nil {
		return nil, err
	}
	if out.Outputs, err = arrays(c.Outputs, row, c.Rows); err != nil {
		return nil, err
	}
	switch n := proto.Size(out); {
	case n > release.MaxSampleRow:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errWide, n, release.MaxSampleRow)
	case p.bytes+n > maxHeld:
		return nil, errHeld
	}
	return out, nil
}

func arrays(tensors []infer.Tensor, row, rows int) ([]*protocol.Array, error) {
	out := make([]*protocol.Array, len(tensors))
	for i := range tensors {
		t := &tensors[i]
		all := reflect.ValueOf(t.Data)
		if rows < 1 || all.Kind() != reflect.Slice || all.Len()%rows != 0 {
			return nil, fmt.Errorf("tensor %q does not divide into %d rows", t.Name, rows)
		}
		width := all.Len() / rows
		part := all.Slice(row*width, (row+1)*width).Interface()
		a := &protocol.Array{Name: t.Name, Datatype: t.Datatype, Shape: slices.Clone(t.Shape[min(1, len(t.Shape)):])}
		if texts, ok := part.([]string); ok {
			for _, s := range texts {
				a.Strings = append(a.Strings, []byte(s))
			}
		} else {
			var err error
			if a.Raw, err = binary.Append(nil, binary.LittleEndian, part); err != nil {
				return nil, fmt.Errorf("copy tensor %q: %w", t.Name, err)
			}
		}
		out[i] = a
	}
	return out, nil
}

// stratum tells which rows a row is like.
func (p *plan) stratum(b *sketch.Batch, row int) string {
	switch p.strata {
	case release.StrataClass:
		class, _ := observe.Predicted(b, row)
		switch {
		case class >= 0 && int(class) < len(p.schema.Classes):
			return p.schema.Classes[class]
		case class >= 0 && len(p.schema.Classes) == 0:
			return strconv.Itoa(int(class))
		}
		return stratumOther
	case release.StrataConfidence:
		_, confidence := observe.Predicted(b, row)
		return band(confidence)
	case release.StrataCondition:
		return p.condition(b, row)
	default:
		return stratumAll
	}
}

// band is a range of confidence: few rows are in the lower ones, and those
// teach the most.
func band(confidence float32) string {
	switch {
	case !(confidence >= 0):
		return stratumOther
	case confidence < 0.5:
		return "below 0.5"
	case confidence < 0.8:
		return "0.5 to 0.8"
	case confidence < 0.95:
		return "0.8 to 0.95"
	default:
		return "0.95 and above"
	}
}

// condition tells rows with missing values and with values outside of the range
// that the schema gives a feature from ordinary ones.
func (p *plan) condition(b *sketch.Batch, row int) string {
	outside := false
	for i := range min(len(b.Inputs), len(p.schema.Inputs)) {
		in, features := &b.Inputs[i], p.schema.Inputs[i].Features
		if (row+1)*in.Width > len(in.Data) {
			continue
		}
		for j, v := range in.Data[row*in.Width : (row+1)*in.Width] {
			if v != v { //nolint:gocritic // NaN alone differs from itself
				return "missing"
			}
			if j < len(features) {
				f := &features[j]
				outside = outside || f.Min != nil && float64(v) < *f.Min || f.Max != nil && float64(v) > *f.Max
			}
		}
	}
	if outside {
		return "outside"
	}
	return "ordinary"
}

// window is what one release's reservoirs held when it closed.
type window struct {
	plan   *plan
	from   *protocol.Stamp
	to     *protocol.Stamp
	strata []*protocol.Stratum
	rows   []*protocol.SampleRow
}

// close deals the rows allowed out to the strata in turn, by name, as far as
// they fit a sample.
func (p *plan) close(r *rand.Rand, rows int, now *protocol.Stamp) *window {
	w := &window{plan: p, from: p.opened, to: now}
	names := slices.Sorted(maps.Keys(p.held))
	for _, name := range names {
		held := p.held[name].rows
		r.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		w.strata = append(w.strata, &protocol.Stratum{Name: name, Seen: p.held[name].seen})
	}
	size := 0
	for turn := range rows {
		for i, name := range names {
			held := p.held[name].rows
			if turn >= len(held) || len(w.rows) >= rows || size+proto.Size(held[turn])+8 > maxPlain {
				continue
			}
			size += proto.Size(held[turn]) + 8 // tag and length
			w.rows = append(w.rows, held[turn])
			w.strata[i].Rows++
		}
	}
	return w
}

// seal makes the record that leaves the device.
func (w *window) seal() (*protocol.Body, error) {
	sealed, err := sampling.Seal(&protocol.SampleRows{Rows: w.rows}, w.plan.recipient)
	if err != nil {
		return nil, err
	}
	return &protocol.Body{At: w.to, Kind: &protocol.Body_Sample{Sample: &protocol.Sample{
		Model: w.plan.model, Release: w.plan.release.Bytes(), Strata: w.strata, Sealed: sealed,
		StartWallMs: w.from.GetWallMs(), EndWallMs: w.to.GetWallMs(),
		StartMonotonicMs: w.from.GetMonotonicMs(), EndMonotonicMs: w.to.GetMonotonicMs(),
		ExpiresMs: millis(w.plan.expires),
	}}}, nil
}

func millis(d release.Duration) uint64 {
	return uint64(max(0, int64(d)/1_000_000))
}
