package rollout

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// ErrSpec says that a rollout as asked for makes no sense. The error that wraps
// it names the field.
var ErrSpec = errors.New("rollout spec")

// Selector decides by labels which devices a rollout is for.
type Selector struct{ s labels.Selector }

// ParseSelector reads a label selector in the syntax of Kubernetes:
// "site=b,ring!=canary", "site in (a,b)", "gpu". The empty text selects all.
func ParseSelector(text string) (Selector, error) {
	s, err := labels.Parse(text)
	if err != nil {
		return Selector{}, fmt.Errorf("%w: selector %q: %w", ErrSpec, text, err)
	}
	return Selector{s}, nil
}

// Matches says whether a device with these labels is selected. The zero
// Selector selects all.
func (s Selector) Matches(l map[string]string) bool {
	return s.s == nil || s.s.Matches(labels.Set(l))
}

// Requires says that only devices whose label has that value are selected.
func (s Selector) Requires(label, value string) bool {
	if s.s == nil {
		return false
	}
	exact, found := s.s.RequiresExactMatch(label)
	return found && exact == value
}

// DefaultGates are the gates of a rollout that names none, in order.
//
// Counting gates hold a wave without an answer: they speak as soon as a device
// has tried. The others need traffic, some need labels or several devices, so
// without an answer they let the wave pass after its soak time as unproven.
func DefaultGates() []GateSpec {
	return []GateSpec{
		{Kind: Golden, Limit: new(0.0), Inconclusive: Hold},
		{Kind: Install, Limit: new(0.1), Inconclusive: Hold},
		{Kind: Crash, Limit: new(0.05), Inconclusive: Hold},
		{Kind: Errors, Limit: new(0.01), Min: 20, Inconclusive: Hold},
		{Kind: Latency, Limit: new(0.5), Min: 20, Inconclusive: Pass},
		{Kind: Drift, Limit: new(0.25), Min: 20, Inconclusive: Pass},
		{Kind: Shadow, Limit: new(0.02), Min: 100, Inconclusive: Pass},
		{Kind: Accuracy, Limit: new(0.02), Min: 20, Inconclusive: Pass},
	}
}

// DefaultWaves are one device, half of them, all of them.
func DefaultWaves() []WaveSpec {
	return []WaveSpec{{Name: "canary", Count: 1}, {Name: "half", Percent: 50}, {Name: "all", Percent: 100}}
}

// WithDefaults returns the spec with every empty field filled in.
func (s Spec) WithDefaults() Spec {
	if len(s.Waves) == 0 {
		s.Waves = DefaultWaves()
	}
	s.Waves = slices.Clone(s.Waves)
	for i := range s.Waves {
		s.Waves[i] = s.Waves[i].withDefaults(i + 1)
	}
	s.Gates = mergeGates(s.Gates)
	if s.Control == nil {
		control := DefaultControl
		s.Control = &control
	}
	if s.OnFailure == "" {
		s.OnFailure = Pause
	}
	if s.OnConflict == "" {
		s.OnConflict = Refuse
	}
	if s.Alpha == nil {
		s.Alpha = new(DefaultAlpha)
	}
	s.Shadow = s.Shadow.withDefaults()
	setDuration(&s.DeviceDeadline, DefaultDeviceDeadline)
	setDuration(&s.DecisionDeadline, DefaultDecision)
	setDuration(&s.Deadline, DefaultDeadline)
	return s
}

func (w WaveSpec) withDefaults(number int) WaveSpec {
	if w.Name == "" {
		w.Name = fmt.Sprintf("wave %d", number)
	}
	if w.Quorum == 0 {
		w.Quorum = DefaultQuorum
	}
	if w.Soak == nil {
		soak := release.Duration(DefaultSoak)
		w.Soak = &soak
	}
	setDuration(&w.Lateness, DefaultLateness)
	return w
}

// limit is the largest value that is still good.
func (g GateSpec) limit() float64 {
	if g.Limit == nil {
		return 0
	}
	return *g.Limit
}

func setDuration(d *release.Duration, otherwise time.Duration) {
	if *d == 0 {
		*d = release.Duration(otherwise)
	}
}

// mergeGates puts what the spec says of a gate in the place of its default.
func mergeGates(asked []GateSpec) []GateSpec {
	out := DefaultGates()
	for i, g := range out {
		at := slices.IndexFunc(asked, func(a GateSpec) bool { return a.Kind == g.Kind })
		if at < 0 {
			continue
		}
		a := asked[at]
		if a.Limit == nil {
			a.Limit = g.Limit
		}
		if a.Min == 0 {
			a.Min = g.Min
		}
		if a.Inconclusive == "" {
			a.Inconclusive = g.Inconclusive
		}
		out[i] = a
	}
	for _, a := range asked {
		if !slices.Contains(Kinds(), a.Kind) {
			out = append(out, a) // for Validate to refuse
		}
	}
	return out
}

// Validate checks a spec with its defaults filled in.
func (s *Spec) Validate() error {
	return errors.Join(s.checkNames(), s.checkWaves(), s.checkGates(), s.checkLimits(), s.checkShadow(), s.checkWindows())
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrSpec, fmt.Errorf(format, args...))
}

func (s *Spec) checkNames() error {
	if err := protocol.CheckName(s.Model); err != nil {
		return refused("model: %w", err)
	}
	if err := protocol.CheckName(s.Version); err != nil {
		return refused("version: %w", err)
	}
	_, err := ParseSelector(s.Selector)
	return err
}

func (s *Spec) checkWaves() error {
	if len(s.Waves) == 0 || len(s.Waves) > MaxWaves {
		return refused("has %d waves, must have 1 to %d", len(s.Waves), MaxWaves)
	}
	percent := 0.0
	for i, w := range s.Waves {
		if err := w.check(); err != nil {
			return refused("waves.%d.%w", i+1, err)
		}
		if w.Percent > 0 && w.Percent <= percent {
			return refused("wave %d: percent includes the waves before, so it must be above %v", i+1, percent)
		}
		percent = max(percent, w.Percent)
	}
	if s.Waves[len(s.Waves)-1].Percent != 100 {
		return refused("the last wave must be 100 percent: to reach fewer devices, narrow the selector")
	}
	return nil
}

func (w WaveSpec) check() error {
	switch {
	case w.Count < 0:
		return fmt.Errorf("count is %d, must be above zero", w.Count)
	case !(w.Percent >= 0 && w.Percent <= 100):
		return fmt.Errorf("percent is %v, must be 0 to 100", w.Percent)
	case (w.Count > 0) == (w.Percent > 0):
		return errors.New("count or percent, exactly one of them, must be above zero")
	case !(w.Quorum > 0 && w.Quorum <= 1):
		return fmt.Errorf("quorum is %v, must be above 0 and at most 1", w.Quorum)
	case w.soak() < 0:
		return fmt.Errorf("soak is %v, must not be negative", w.soak())
	case w.Lateness <= 0:
		return fmt.Errorf("lateness is %v, must be above zero", w.Lateness)
	case w.Deadline < 0:
		return fmt.Errorf("deadline is %v, must not be negative", w.Deadline)
	case w.Deadline > 0 && time.Duration(w.Deadline) <= w.soak():
		return fmt.Errorf("deadline is %v, must be longer than soak: the wave could not pass", w.Deadline)
	}
	return w.Evidence.check()
}

// check refuses what could never be seen. More devices than the wave has are
// found when it opens: how many it has is not known before.
func (e EvidenceSpec) check() error {
	if e.Devices < 0 {
		return fmt.Errorf("evidence.devices is %d, must not be negative", e.Devices)
	}
	if !(e.Hours >= 0) || math.IsInf(e.Hours, 0) {
		return fmt.Errorf("evidence.hours is %v, must be a number that is not negative", e.Hours)
	}
	return nil
}

func (s *Spec) checkGates() error {
	seen := map[GateKind]bool{}
	for _, g := range s.Gates {
		switch {
		case !slices.Contains(Kinds(), g.Kind):
			return refused("gate %q does not exist, there are %v", g.Kind, Kinds())
		case seen[g.Kind]:
			return refused("gate %s is there twice", g.Kind)
		case g.Limit == nil || !(*g.Limit >= 0) || math.IsInf(*g.Limit, 0):
			return refused("gate %s: limit must be a number that is not negative", g.Kind)
		case !g.Off && g.isShare() && *g.Limit >= 1:
			return refused("gate %s: limit is %v, a share of at most 1: it could never fail; write 0.05 for 5 %%, or off: true", g.Kind, *g.Limit)
		case g.Inconclusive != Hold && g.Inconclusive != Pass:
			return refused("gate %s: inconclusive is %q, must be %q or %q", g.Kind, g.Inconclusive, Hold, Pass)
		}
		seen[g.Kind] = true
	}
	return nil
}

// isShare says that what a gate measures is a share, so never above 1. Latency
// is a ratio and drift a distance: they have no upper end.
func (g GateSpec) isShare() bool { return g.Kind != Latency && g.Kind != Drift }

// lastYear leaves room for deadlines: JSON knows no year after 9999, and a
// duration is at most 292 years.
const lastYear = 8999

func (s *Spec) checkLimits() error {
	switch {
	case s.Control == nil || !(*s.Control >= 0 && *s.Control < 1):
		return refused("control must be at least 0 and below 1")
	case s.Budget.check() != nil:
		return refused("budget.%w", s.Budget.check())
	case s.Revert.check() != nil:
		return refused("revert_budget.%w", s.Revert.check())
	case s.Revert.BytesPerSecond > 0:
		return refused("revert_budget.bytes_per_second bounds nothing: a device goes back to what it has kept")
	case s.Require.check() != nil:
		return refused("require.%w", s.Require.check())
	case s.Alpha == nil || !(*s.Alpha > 0 && *s.Alpha < 1):
		return refused("alpha must be above 0 and below 1")
	case s.OnConflict != Refuse && s.OnConflict != Queue:
		return refused("on_conflict is %q, must be %q or %q", s.OnConflict, Refuse, Queue)
	case s.OnFailure != Pause && s.OnFailure != Revert:
		return refused("on_failure is %q, must be %q or %q", s.OnFailure, Pause, Revert)
	case s.StartAt.Year() > lastYear:
		return refused("start_at is %s, must be before the year %d", s.StartAt.Format(time.DateOnly), lastYear+1)
	case s.DeviceDeadline <= 0:
		return refused("device_deadline is %v, must be above zero", s.DeviceDeadline)
	case s.DecisionDeadline <= 0:
		return refused("decision_deadline is %v, must be above zero", s.DecisionDeadline)
	case s.Deadline <= 0:
		return refused("deadline is %v, must be above zero", s.Deadline)
	}
	return nil
}

// gate returns the spec of one gate.
func (s *Spec) gate(kind GateKind) GateSpec {
	for _, g := range s.Gates {
		if g.Kind == kind {
			return g
		}
	}
	return GateSpec{Kind: kind, Off: true}
}

func (w WaveSpec) soak() time.Duration {
	if w.Soak == nil {
		return 0
	}
	return time.Duration(*w.Soak)
}
