package observe

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// What can be wrong with feedback. Nothing is counted then.
var (
	// ErrUnknownModel says that no release of the model was ever announced here.
	ErrUnknownModel = errors.New("model is not known on this device")
	// ErrLabel says that a label is neither a class of the model nor the index of one.
	ErrLabel = errors.New("label is not a class of the model")
)

// calibrationBins divide the confidence range; maxConfusion bounds the classes
// of which every pair is counted.
const (
	calibrationBins = 10
	maxConfusion    = 64
)

// labelsKey tells label records apart: those of predictions of a former boot
// have no monotonic time in this one.
type labelsKey struct {
	model   string
	release release.Digest
	former  bool
	role    string // infer.RoleShadow or RoleShare, empty for the primary one
}

// labels gathers what truths of one release said, until they are handed over.
type labels struct {
	key     labelsKey
	name    string // under which the sink keeps it
	classes int

	mu      sync.Mutex // guards everything below
	now     *protocol.Labels
	changed bool // since it was written down
}

func newLabels(key labelsKey, classes int) *labels {
	name := "labels/" + key.model + "/" + hex.EncodeToString(key.release[:])
	if key.role != "" {
		name += "/" + key.role
	}
	if key.former {
		name += "/former"
	}
	l := &labels{key: key, name: name, classes: classes}
	l.now = l.fresh()
	return l
}

func (l *labels) fresh() *protocol.Labels {
	return &protocol.Labels{Model: l.key.model, Release: append([]byte(nil), l.key.release[:]...), Role: l.key.role}
}

// Feedback joins a truth with its prediction. label is a class name of the
// release's schema or the index of one. matched is false when the prediction is
// not held any more, was never seen or has its label already; that is counted,
// and no error.
func (o *Observer) Feedback(_ context.Context, model, id, label string) (matched bool, err error) {
	joined, l, err := o.join(model, id, label)
	if err != nil {
		return false, err
	}
	if joined != Matched {
		l.unmatched(1)
	}
	return joined == Matched, nil
}

// role is the one of the release that answered, empty for the primary one.
func (p *prediction) role() string {
	if p.share {
		return infer.RoleShare
	}
	return ""
}

// former tells whether a prediction was made before this start of the agent.
func (o *Observer) former(p prediction) bool { return p.at.boot != bootTag(o.base.GetBoot()) }

// fallback is the release that a label is counted for when its prediction is
// not known.
func (o *Observer) fallback(model string) (knownRelease, bool) {
	return o.known.newest(model)
}

// expired tells whether a prediction has waited too long. A clock that was set
// back since another boot makes its predictions younger, not older.
func (o *Observer) expired(p prediction) bool {
	now := o.boot.Stamp()
	if p.at.boot == bootTag(o.base.GetBoot()) {
		return now.GetMonotonicMs() > p.at.monotonic+uint64(o.cfg.Keep.Milliseconds()) //nolint:gosec // positive
	}
	return now.GetWallMs()-p.at.wall > o.cfg.Keep.Milliseconds()
}

// classOf reads a label: a name first, for classes may be named by numbers.
func classOf(classes []string, label string) (int, error) {
	for i, c := range classes {
		if c == label {
			return i, nil
		}
	}
	if i, err := strconv.Atoi(label); err == nil && i >= 0 && i < len(classes) {
		return i, nil
	}
	return 0, fmt.Errorf("%w: %.64q, which has %d classes", ErrLabel, label, len(classes))
}

func (o *Observer) labelsOf(key labelsKey, classes int) *labels {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.labels[key]
	if l == nil {
		l = newLabels(key, classes)
		o.labels[key] = l
	}
	return l
}

func (l *labels) unmatched(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n == 0 {
		return
	}
	l.now.Unmatched += n
	l.changed = true
}

func (l *labels) matched(p prediction, truth int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = true
	n := l.now
	l.span(p.at)
	n.Matched++
	correct := int(p.class) == truth
	if correct {
		n.Correct++
	}
	if l.classes <= maxConfusion && p.class >= 0 && int(p.class) < l.classes {
		if n.Confusion == nil {
			n.Confusion = make([]uint64, l.classes*l.classes)
		}
		n.Confusion[truth*l.classes+int(p.class)]++
	}
	calibrate(n, p.confidence, correct)
}

// span widens the record over the moments of its predictions. Those of former
// boots keep the monotonic part at zero.
func (l *labels) span(at moment) {
	n := l.now
	first := n.GetMatched() == 0
	if first || at.wall < n.GetStartWallMs() {
		n.StartWallMs = at.wall
	}
	if first || at.wall > n.GetEndWallMs() {
		n.EndWallMs = at.wall
	}
	if l.key.former {
		return
	}
	if first || at.monotonic < n.GetStartMonotonicMs() {
		n.StartMonotonicMs = at.monotonic
	}
	n.EndMonotonicMs = max(n.GetEndMonotonicMs(), at.monotonic)
}

func calibrate(n *protocol.Labels, confidence float32, correct bool) {
	c := float64(confidence)
	if math.IsNaN(c) || c < 0 || c > 1 {
		return
	}
	for len(n.GetCalibration()) < calibrationBins {
		n.Calibration = append(n.Calibration, &protocol.CalibrationBin{})
	}
	b := n.GetCalibration()[min(int(c*calibrationBins), calibrationBins-1)]
	b.Count++
	b.Confidence += c
	b.Squared += c * c
	if correct {
		b.Correct++
		b.ConfidenceCorrect += c
	}
}

func (l *labels) empty() bool { return l.now.GetMatched()+l.now.GetUnmatched() == 0 }
