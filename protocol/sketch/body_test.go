package sketch

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

func body(rows uint64, streams ...*protocol.Histogram) *protocol.Body {
	return &protocol.Body{Kind: &protocol.Body_Window{Window: &protocol.Window{Model: "m", Rows: rows, Streams: streams}}}
}

// Whatever is counted comes back, and encoding leaves the body as it was.
func TestBodyComesBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	random := func() *protocol.Body {
		b := body(uint64(r.IntN(1000)))
		for range r.IntN(20) {
			h := &protocol.Histogram{Bins: make([]uint64, r.IntN(40)), Missing: r.Uint64N(3), Other: uint64(r.IntN(2) * r.IntN(1000))}
			for i := range h.Bins {
				h.Bins[i] = r.Uint64N(1 << r.IntN(40))
			}
			b.GetWindow().Streams = append(b.GetWindow().Streams, h)
		}
		return b
	}
	cases := map[string]*protocol.Body{
		"empty":         {},
		"no streams":    body(3),
		"no bins":       body(3, &protocol.Histogram{Missing: 3}),
		"one bin":       body(7, &protocol.Histogram{Bins: []uint64{7}}),
		"other total":   body(7, &protocol.Histogram{Bins: []uint64{9, 0, 1}}),
		"one of many":   body(7, &protocol.Histogram{Bins: append(make([]uint64, 31), 7)}),
		"largest count": body(maxPacked, &protocol.Histogram{Bins: []uint64{0, maxPacked, 0}}),
		"beyond it":     body(1, &protocol.Histogram{Bins: []uint64{1 << 63, 1 << 63}, Missing: 1 << 60}),
	}
	for range 200 {
		cases["random"] = random()
		for name, want := range cases {
			before := proto.CloneOf(want)
			raw, err := EncodeBody(want)
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(want, before) {
				t.Errorf("%s: encoding changed the body", name)
			}
			got, err := DecodeBody(raw)
			if err != nil || !proto.Equal(got, want) {
				t.Fatalf("%s: got %v, %v, want %v", name, got, err, want)
			}
		}
	}
	plain, err := proto.Marshal(cases["other total"])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeBody(plain); err != nil || !proto.Equal(got, cases["other total"]) {
		t.Errorf("a plain body: %v, %v", got, err)
	}
}

// Decoding allocates for what is there only, and what decodes encodes to what
// decodes to the same.
func FuzzDecodeBody(f *testing.F) {
	for _, b := range []*protocol.Body{body(7, &protocol.Histogram{Bins: []uint64{1, 2, 4}}), body(100, &protocol.Histogram{Bins: make([]uint64, 40), Missing: 100})} {
		raw, err := EncodeBody(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add(append([]byte{0x52, 67, 0x92, 0x01, 64}, bytes.Repeat([]byte{0xff}, 64)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := DecodeBody(raw)
		if err != nil {
			return
		}
		bins := 0
		for _, h := range b.GetWindow().GetStreams() {
			bins += len(h.GetBins())
		}
		if bins > max(packedBins, len(raw)) {
			t.Errorf("%d bytes made %d bins", len(raw), bins)
		}
		again, err := EncodeBody(b)
		if err != nil {
			t.Skip("text that is not UTF-8")
		}
		if c, err := DecodeBody(again); err != nil || !proto.Equal(b, c) {
			t.Errorf("not the same after another trip: %v", err)
		}
	})
}
