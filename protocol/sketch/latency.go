package sketch

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/pb/sketchpb"
	"google.golang.org/protobuf/proto"
)

// Limits of a latency sketch. Latencies are clamped to 1 µs and a day, so a
// sketch never has more than latencyBins bins and a hostile one cannot ask for more.
const (
	latencyAccuracy = 0.02 // relative, of a quantile
	latencyBins     = 640  // log(day / µs) / log(gamma), rounded up
	maxLatencyBytes = 16 << 10
	maxLatency      = 24 * time.Hour
	maxCount        = 1 << 53 // counts are exact in a float64 up to here
)

// ErrLatency says that the bytes are no latency sketch of this protocol.
var ErrLatency = errors.New("latency sketch is not well formed")

// Latency is a DDSketch (Masson, Rim, Lee 2019) of call latencies in
// microseconds, accurate to 2% of a quantile's value. Adding allocates nothing
// once the range of values was seen.
type Latency struct{ sk *ddsketch.DDSketch }

// NewLatency makes an empty sketch.
func NewLatency() *Latency {
	sk, err := ddsketch.LogCollapsingLowestDenseDDSketch(latencyAccuracy, latencyBins)
	if err != nil {
		panic(err) // the constants above are out of range: no input can do this
	}
	return &Latency{sk}
}

// Add counts one call.
func (l *Latency) Add(d time.Duration) {
	us := float64(min(max(d, time.Microsecond), maxLatency)) / float64(time.Microsecond)
	_ = l.sk.Add(us) // refuses only values outside what was just clamped
}

// Count is how many calls were added.
func (l *Latency) Count() uint64 { return uint64(l.sk.GetCount()) }

// Reset empties the sketch and keeps its memory.
func (l *Latency) Reset() { l.sk.Clear() }

// Merge adds another sketch.
func (l *Latency) Merge(o *Latency) error {
	if err := l.sk.MergeWith(o.sk); err != nil {
		return fmt.Errorf("merge latency: %w", err)
	}
	return nil
}

// Quantile returns the latency that a share q of the calls kept, 0 when empty.
func (l *Latency) Quantile(q float64) time.Duration {
	us, err := l.sk.GetValueAtQuantile(q)
	if err != nil {
		return 0
	}
	return time.Duration(us * float64(time.Microsecond))
}

// Encode returns the sketch as DDSketch's protobuf, nil when empty.
func (l *Latency) Encode() ([]byte, error) {
	if l.sk.IsEmpty() {
		return nil, nil
	}
	b, err := proto.Marshal(l.sk.ToProto())
	if err != nil {
		return nil, fmt.Errorf("encode latency: %w", err)
	}
	return b, nil
}

// DecodeLatency reads what Encode wrote, and nothing else: another accuracy,
// bins outside the range, fractions and negative counts are refused. No bytes
// are an empty sketch.
func DecodeLatency(b []byte) (*Latency, error) {
	l := NewLatency()
	if len(b) == 0 {
		return l, nil
	}
	if len(b) > maxLatencyBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrLatency, len(b), maxLatencyBytes)
	}
	var p sketchpb.DDSketch
	if err := proto.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLatency, err)
	}
	if err := l.take(&p); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Latency) take(p *sketchpb.DDSketch) error {
	own := l.sk.ToProto().GetMapping()
	m := p.GetMapping()
	if m.GetGamma() != own.GetGamma() || m.GetIndexOffset() != own.GetIndexOffset() || m.GetInterpolation() != own.GetInterpolation() {
		return fmt.Errorf("%w: other mapping", ErrLatency)
	}
	n := p.GetNegativeValues()
	if len(n.GetBinCounts())+len(n.GetContiguousBinCounts()) > 0 || p.GetZeroCount() != 0 {
		return fmt.Errorf("%w: values below a microsecond", ErrLatency)
	}
	pos := p.GetPositiveValues()
	for i, c := range pos.GetContiguousBinCounts() {
		if err := l.addBin(int64(pos.GetContiguousBinIndexOffset())+int64(i), c); err != nil {
			return err
		}
	}
	for i, c := range pos.GetBinCounts() {
		if err := l.addBin(int64(i), c); err != nil {
			return err
		}
	}
	if l.sk.GetCount() > maxCount {
		return fmt.Errorf("%w: too many calls", ErrLatency)
	}
	return nil
}

func (l *Latency) addBin(index int64, count float64) error {
	if count == 0 {
		return nil
	}
	if index < 0 || index >= latencyBins || !(count > 0 && count <= maxCount) || count != math.Trunc(count) {
		return fmt.Errorf("%w: bin %d holds %v", ErrLatency, index, count)
	}
	if err := l.sk.AddWithCount(l.sk.Value(int(index)), count); err != nil {
		return fmt.Errorf("%w: bin %d: %w", ErrLatency, index, err)
	}
	return nil
}
