package outbox

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unique"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Entry is one record body with what the outbox needs to know of it.
type Entry struct {
	Body  string // encoded protocol.Body
	size  int    // of Body, also while that is on disk only
	Sum   Sum    // what it adds to the accounting
	Model string // whose budget it uses, "" for none
	// lane names the records it may be merged with: same kind, model, release,
	// role and boot.
	lane string
	// start is when its span began by the device's clock, Unix milliseconds.
	start int64
	// weight is how many records were merged into it.
	weight uint32
	// sample says that it is rows for labelling: it counts nothing, and is given up
	// before anything else. It is of no use to anyone after expires.
	sample  bool
	expires deadline
}

// deadline is a moment on the clocks of a boot.
type deadline struct {
	boot      string
	monotonic uint64
	wall      int64
}

// passed says whether now is after the deadline: by the monotonic clock within
// its boot, else by the wall clock, which is all there is.
func (d deadline) passed(now *protocol.Stamp) bool {
	if d.boot == string(now.GetBoot()) {
		return now.GetMonotonicMs() > d.monotonic
	}
	return now.GetWallMs() > d.wall
}

// NewEntry encodes a body. ErrTooLarge when no message could carry it.
func NewEntry(b *protocol.Body) (Entry, error) {
	raw, err := sketch.EncodeBody(b)
	if err != nil {
		return Entry{}, fmt.Errorf("make record: %w", err)
	}
	if len(raw) > MaxBody {
		return Entry{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(raw), MaxBody)
	}
	return describe(b, string(raw)), nil
}

// entryOf reads an encoded body back.
func entryOf(raw string) (Entry, error) {
	b, err := sketch.DecodeBody([]byte(raw))
	if err != nil {
		return Entry{}, fmt.Errorf("read record: %w", err)
	}
	return describe(b, raw), nil
}

func describe(b *protocol.Body, raw string) Entry {
	e := Entry{Body: raw, size: len(raw), Sum: sumOf(protocol.TallyOf(b)), start: b.GetAt().GetWallMs(), weight: 1}
	boot := string(b.GetAt().GetBoot())
	switch k := b.GetKind().(type) {
	case *protocol.Body_Window:
		w := k.Window
		e.Model, e.start, e.weight = w.GetModel(), w.GetStartWallMs(), max(1, w.GetMerged())
		e.lane = lane("window", w.GetModel(), string(w.GetRelease()), w.GetRole(), w.GetProvider(), strconv.Itoa(len(w.GetStreams())),
			string(w.GetComparison().GetPrimary()), boot)
	case *protocol.Body_Labels:
		l := k.Labels
		e.Model, e.start = l.GetModel(), cmp.Or(l.GetStartWallMs(), e.start) // labels that joined nothing have no span
		e.lane = lane("labels", l.GetModel(), string(l.GetRelease()), l.GetRole(), strconv.Itoa(len(l.GetConfusion())), strconv.Itoa(len(l.GetCalibration())), boot)
	case *protocol.Body_Event:
		v := k.Event
		e.Model = v.GetModel()
		e.lane = lane("event", v.GetKind(), v.GetModel(), string(v.GetRelease()), boot)
	case *protocol.Body_Sample:
		s := k.Sample
		e.Model, e.start, e.sample = s.GetModel(), s.GetStartWallMs(), true
		e.expires = deadline{boot, s.GetEndMonotonicMs() + s.GetExpiresMs(), s.GetEndWallMs() + int64(s.GetExpiresMs())} //nolint:gosec // at most a year
	}
	e.Model = unique.Make(e.Model).Value()
	return e
}

// lane is one string for all records of the lane: there are many of them.
func lane(parts ...string) string { return unique.Make(strings.Join(parts, "\x00")).Value() }

const hour = int64(time.Hour / time.Millisecond)

// distance says how much resolution merging two spans costs: 0 within one UTC
// hour, 1 within one day, 2 beyond [P-4.8].
func distance(a, b int64) int {
	switch {
	case a/hour == b/hour:
		return 0
	case a/(24*hour) == b/(24*hour):
		return 1
	default:
		return 2
	}
}
