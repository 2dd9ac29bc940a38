package sketch

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// EncodeBody encodes a record's body with the histograms of its window packed:
// most of a window, and a quarter of their size [P-4.13]. b is used while it
// runs and afterwards is what it was.
func EncodeBody(b *protocol.Body) ([]byte, error) {
	if w := b.GetWindow(); len(w.GetStreams()) > 0 && packable(w.GetStreams()) {
		streams := w.GetStreams()
		w.Streams, w.Packed = nil, packStreams(streams, w.GetRows())
		defer func() { w.Streams, w.Packed = streams, nil }()
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode body: %w", err)
	}
	return raw, nil
}

// packable says that every count is one that can have been counted.
func packable(streams []*protocol.Histogram) bool {
	for _, h := range streams {
		if max(h.GetMissing(), h.GetOther()) > maxPacked {
			return false
		}
		total := uint64(0)
		for _, n := range h.GetBins() {
			if total += n; max(n, total) > maxPacked {
				return false
			}
		}
	}
	return true
}

// DecodeBody reads a record's body, packed or not. The window has its
// histograms either way.
func DecodeBody(raw []byte) (*protocol.Body, error) {
	b := &protocol.Body{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("decode body: %w", err)
	}
	w := b.GetWindow()
	if len(w.GetPacked()) == 0 {
		return b, nil
	}
	streams, err := unpackStreams(w.GetPacked(), w.GetRows())
	if err != nil || len(w.GetStreams()) > 0 {
		return nil, fmt.Errorf("decode body: window of %s: %w", w.GetModel(), errPacked)
	}
	w.Streams, w.Packed = streams, nil
	return b, nil
}

// A packed list of histograms is: their number, and for each one a bit that says
// that it has as many bins as the one before, or 0 and their number; what is
// missing and other; a bit that says that the rest of the rows are in the bins,
// or 0 and how many are; the bins' counts. Numbers are in gamma code.
func packStreams(streams []*protocol.Histogram, rows uint64) []byte {
	var w bitWriter
	w.gamma(uint64(len(streams)))
	before := -1
	for _, h := range streams {
		bins := h.GetBins()
		if len(bins) == before {
			w.bits(1, 1)
		} else {
			w.bits(0, 1)
			w.gamma(uint64(len(bins)))
		}
		before = len(bins)
		w.gamma(h.GetMissing())
		w.gamma(h.GetOther())
		total := sumOf(bins)
		if total+h.GetMissing()+h.GetOther() == rows {
			w.bits(1, 1)
		} else {
			w.bits(0, 1)
			w.gamma(total)
		}
		w.counts(bins, total)
	}
	return w.out
}

func unpackStreams(packed []byte, rows uint64) ([]*protocol.Histogram, error) {
	r := bitReader{in: packed}
	n := r.gamma()
	if r.failed || n > packedBins {
		return nil, errPacked
	}
	var streams []*protocol.Histogram
	bins, left := uint64(0), uint64(packedBins)
	for range n {
		if r.bit() == 0 {
			bins = r.gamma()
		}
		if bins > left || r.failed {
			return nil, errPacked
		}
		left -= bins
		h := &protocol.Histogram{Bins: make([]uint64, bins), Missing: r.gamma(), Other: r.gamma()}
		total := rows - h.GetMissing() - h.GetOther()
		if r.bit() == 0 {
			total = r.gamma()
		} else if h.GetMissing()+h.GetOther() > rows {
			return nil, errPacked
		}
		r.counts(h.GetBins(), total)
		streams = append(streams, h)
	}
	if !r.end() {
		return nil, errPacked
	}
	return streams, nil
}
