package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// behaviour is how a release does on every device.
type behaviour struct {
	golden  bool        // its golden vectors disagree
	turned  atomic.Bool // a share of its rows fails from now on
	samples []sample
}

// sample is what one window could have counted over rowsAWindow rows: drawn
// from the training data, so that nothing drifts.
type sample struct {
	streams           []*protocol.Histogram
	latency, distinct []byte
}

// samplesOf is how many different windows a release has. Drawing one for each
// device and minute would cost the machine more than the server does.
const samplesOf = 64

func newBehaviour(baselineFile string) (*behaviour, error) {
	raw, err := os.ReadFile(baselineFile)
	if err != nil {
		return nil, fmt.Errorf("read baseline: %w", err)
	}
	base, err := sketch.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", baselineFile, err)
	}
	b := &behaviour{}
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a sample, not a secret
	for range samplesOf {
		s, err := draw(base, rnd)
		if err != nil {
			return nil, err
		}
		b.samples = append(b.samples, s)
	}
	return b, nil
}

// draw makes one window of rows that are as in training.
func draw(base *sketch.Baseline, rnd *rand.Rand) (s sample, err error) {
	latency, distinct := sketch.NewLatency(), sketch.NewDistinct()
	for range rowsAWindow {
		latency.Add(time.Duration(math.Exp(0.3*rnd.NormFloat64()) * float64(time.Millisecond)))
		distinct.Add(rnd.Uint64())
	}
	if s.latency, err = latency.Encode(); err != nil {
		return s, fmt.Errorf("encode latency: %w", err)
	}
	if s.distinct, err = distinct.Encode(); err != nil {
		return s, fmt.Errorf("encode distinct rows: %w", err)
	}
	for i := range base.Streams {
		s.streams = append(s.streams, scatter(base.Streams[i].Counts, rnd))
	}
	return s, nil
}

// scatter throws the rows of a window over bins in proportion to counts.
func scatter(counts []uint64, rnd *rand.Rand) *protocol.Histogram {
	h := &protocol.Histogram{Bins: make([]uint64, len(counts))}
	var all uint64
	for _, n := range counts {
		all += n
	}
	for range rowsAWindow {
		at := rnd.Uint64N(max(all, 1))
		for i, n := range counts {
			if at < n {
				h.Bins[i]++
				break
			}
			at -= n
		}
	}
	return h
}

// window is what a device counts in one interval.
func (b *behaviour) window() *protocol.Window {
	s := &b.samples[rand.N(len(b.samples))] //nolint:gosec // spreads load, keeps no secret
	w := &protocol.Window{
		Model: model, Role: protocol.RolePrimary, Rows: rowsAWindow, Calls: rowsAWindow,
		Latency: s.latency, Distinct: s.distinct, Streams: s.streams, Provider: "CPUExecutionProvider",
	}
	if b.turned.Load() {
		w.FailedRows = rowsAWindow * failedPercent / 100
		w.FailedCalls = w.FailedRows
		w.Rows -= w.FailedRows
		w.Calls -= w.FailedCalls
	}
	return w
}
