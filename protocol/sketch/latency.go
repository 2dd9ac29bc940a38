package sketch

import (
	"errors"
	"fmt"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
)

// Limits of a latency sketch. Latencies are clamped to 1 µs and a day, so a
// sketch never has more than latencyBins bins and a hostile one cannot ask for more.
const (
	latencyAccuracy = 0.02 // relative, of a quantile
	latencyBins     = 640  // log(day / µs) / log(gamma), rounded up
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

// Encode returns the sketch as packed counts: first bin, number of bins less
// one, total, each in gamma code, and the bins' counts. Nil when empty.
func (l *Latency) Encode() ([]byte, error) {
	if l.sk.IsEmpty() {
		return nil, nil
	}
	var counts []uint64
	first := 0
	l.sk.GetPositiveValueStore().ForEach(func(index int, count float64) bool {
		if counts == nil {
			first = index
		}
		for len(counts) < index-first { // bins between that hold nothing
			counts = append(counts, 0)
		}
		counts = append(counts, uint64(count))
		return false
	})
	if first < 0 || first+len(counts) > latencyBins {
		return nil, fmt.Errorf("%w: bins from %d on", ErrLatency, first)
	}
	var w bitWriter
	total := sumOf(counts)
	w.gamma(uint64(first))
	w.gamma(uint64(len(counts) - 1)) //nolint:gosec // not empty
	w.gamma(total)
	w.counts(counts, total)
	return w.out, nil
}

// DecodeLatency reads what Encode wrote, and nothing else. No bytes are an empty
// sketch.
func DecodeLatency(b []byte) (*Latency, error) {
	l := NewLatency()
	if len(b) == 0 {
		return l, nil
	}
	r := bitReader{in: b}
	first, more := r.gamma(), r.gamma()
	if total := r.gamma(); !r.failed && total <= maxCount && more < latencyBins && first+more < latencyBins {
		counts := make([]uint64, more+1)
		r.counts(counts, total)
		if r.end() && total > 0 {
			return l, l.take(int(first), counts) //nolint:gosec // below latencyBins
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrLatency, errPacked)
}

func (l *Latency) take(first int, counts []uint64) error {
	for i, c := range counts {
		if c == 0 {
			continue
		}
		if err := l.sk.AddWithCount(l.sk.Value(first+i), float64(c)); err != nil {
			return fmt.Errorf("%w: bin %d: %w", ErrLatency, first+i, err)
		}
	}
	return nil
}
