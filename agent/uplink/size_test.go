package uplink

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// fiveMinutes is the message of a window as a device sends it: 30 features on
// the quantiles of their training data, class, confidence and entropy, latencies
// as they are spread around a millisecond.
func fiveMinutes(t *testing.T, rows int, drift float64) (payload []byte, body []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, uint64(rows)))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	const start = 1_795_420_800_000
	boot := random(protocol.BootSize)
	w := &protocol.Window{
		Model: "bearing-wear", Release: random(protocol.DigestSize), Role: "primary", Provider: "CPUExecutionProvider",
		StartMonotonicMs: 1_234_567_890, EndMonotonicMs: 1_234_867_890, StartWallMs: start, EndWallMs: start + 300_000,
		Rows: uint64(rows), Calls: uint64(rows),
	}
	latency, distinct := sketch.NewLatency(), sketch.NewDistinct()
	for range rows {
		latency.Add(time.Duration(math.Exp(0.3*r.NormFloat64()) * float64(time.Millisecond)))
		distinct.Add(r.Uint64())
	}
	for _, bins := range append(repeat(32, 32), 4) {
		h := &protocol.Histogram{Bins: make([]uint64, bins)}
		for range rows {
			h.Bins[int(float64(bins)*math.Pow(r.Float64(), 1+drift))]++
		}
		w.Streams = append(w.Streams, h)
	}
	var err error
	if w.Latency, err = latency.Encode(); err != nil {
		t.Fatal(err)
	}
	if w.Distinct, err = distinct.Encode(); err != nil {
		t.Fatal(err)
	}
	at := &protocol.Stamp{Boot: boot, MonotonicMs: 1_234_867_891, WallMs: start + 300_001}
	if body, err = sketch.EncodeBody(&protocol.Body{At: at, Kind: &protocol.Body_Window{Window: w}}); err != nil {
		t.Fatal(err)
	}
	up := &protocol.Up{Protocol: protocol.Version, Sent: at, Body: &protocol.Up_Record{Record: &protocol.Record{
		Epoch: random(protocol.EpochSize), Seq: 8641, Prev: 8640, Chain: random(protocol.ChainSize), Body: body,
		Total: &protocol.Tally{Rows: uint64(8640 * rows), Labels: 5000},
	}}}
	if payload, err = proto.Marshal(up); err != nil {
		t.Fatal(err)
	}
	return payload, body
}

func repeat(v, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// One window of 30 features, at a call a second and up to three, in at most 1 KiB,
// envelope and all. What is beyond grows with the logarithm of the rows: a count of n
// rows in 32 bins carries log2(√(2πe·n/32)) bits, at 3,000 rows 680 bytes for
// all of them that no exact code can save, and 330 are digests, ids and times.
func TestWindowFitsOneKilobyte(t *testing.T) {
	for _, tt := range []struct {
		rows  int
		drift float64
		most  int
	}{
		{1, 0, 1024},
		{30, 0, 1024},
		{300, 0, 1024},
		{300, 1, 1024},
		{1000, 0, 1024},
		{1000, 1, 1280},
		{3000, 0, 1152},
		{3000, 1, 1472},
		{30_000, 0, 1408},
		{1_000_000, 0, 1792},
	} {
		payload, body := fiveMinutes(t, tt.rows, tt.drift)
		t.Logf("%d rows, drift %v: %d bytes, of which the body has %d", tt.rows, tt.drift, len(payload), len(body))
		if len(payload) > tt.most {
			t.Errorf("%d rows, drift %v: %d bytes, want at most %d", tt.rows, tt.drift, len(payload), tt.most)
		}
	}
}
