package desired

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// ChallengeChain is where challenges are recorded.
const ChallengeChain = "challenges"

// KindChallenge is the ledger kind of a ChallengeChange.
const KindChallenge = "challenge.changed"

// ErrChallenge says that a challenge cannot be as it was asked for.
var ErrChallenge = errors.New("no such challenge is possible")

// ChallengeChange is the ledger body of a challenge that begins or, with the
// zero release, ends. A model has one at most.
type ChallengeChange struct {
	Model   string         `json:"model"`
	Version string         `json:"version,omitempty"` // for people
	Release release.Digest `json:"release"`
	Role    string         `json:"role,omitempty"`     // protocol.RoleShadow or RoleShare
	Share   int            `json:"share,omitempty"`    // parts per thousand of the calls; 0 is all of them for a shadow
	Device  string         `json:"device,omitempty"`   // on this one alone, else
	Match   string         `json:"selector,omitempty"` // on those whose labels match; empty selects all
	// Margin and Duration are rules of the test that it goes through; zero are the defaults.
	Margin   float64          `json:"margin,omitempty"`   // how much worse it may be at most, as a part of the rate of what serves
	Duration release.Duration `json:"duration,omitempty"` // after which a human is asked
	Reason   string           `json:"reason"`
}

// Bounds of a test.
const (
	MaxMargin   = 10
	MinDuration = time.Minute
	MaxDuration = 180 * 24 * time.Hour
)

// Challenge is a release that runs beside the primary one of its model on the
// devices that match and have one assigned. It follows labels: a device that
// enrols or is relabelled takes part from then on.
type Challenge struct {
	ChallengeChange

	Seq   uint64    // ledger sequence that began it
	Since time.Time // server's clock
	Actor string
	Ended *End // nil while it goes on
}

// End is how a challenge ended.
type End struct {
	At     time.Time
	Actor  string
	Reason string
}

// challenge is the fold of one model's challenges.
type challenge struct {
	Challenge // the newest

	newest   uint64 // ledger sequence of its newest record
	selector rollout.Selector
}

// check refuses what a device would refuse.
func (c *ChallengeChange) check() error {
	if err := protocol.CheckName(c.Model); err != nil {
		return fmt.Errorf("%w: model: %w", ErrChallenge, err)
	}
	if _, err := rollout.ParseSelector(c.Match); err != nil {
		return fmt.Errorf("%w: %w", ErrChallenge, err)
	}
	switch {
	case c.Release.IsZero():
	case !(c.Margin >= 0 && c.Margin <= MaxMargin):
		return fmt.Errorf("%w: a margin of %v is not between 0 and %d", ErrChallenge, c.Margin, MaxMargin)
	case c.Duration != 0 && (time.Duration(c.Duration) < MinDuration || time.Duration(c.Duration) > MaxDuration):
		return fmt.Errorf("%w: it lasts %s, not from %s to %s", ErrChallenge, time.Duration(c.Duration), MinDuration, MaxDuration)
	case c.Device != "" && c.Match != "":
		return fmt.Errorf("%w: it is on one device or on those that a selector matches, not both", ErrChallenge)
	case c.Role == protocol.RoleShadow && c.Share >= 0 && c.Share <= protocol.MaxShare:
	case c.Role == protocol.RoleShare && c.Share > 0 && c.Share <= protocol.MaxShare:
	default:
		return fmt.Errorf("%w: a %s of %d parts per thousand of the calls", ErrChallenge, cmp.Or(c.Role, "challenger"), c.Share)
	}
	return nil
}

// SetChallenge begins a challenge in place of the model's present one, or ends
// it. It returns when the change is in the ledger; the devices are told then.
func (d *Desired) SetChallenge(ctx context.Context, actor string, c ChallengeChange) (Challenge, error) {
	if err := c.check(); err != nil {
		return Challenge{}, err
	}
	rec, err := d.ledger.Append(ctx, ChallengeChain, ledger.Any, KindChallenge, actor, c)
	if err != nil {
		return Challenge{}, fmt.Errorf("change challenge: %w", err)
	}
	if err := d.Apply(rec); err != nil {
		return Challenge{}, err
	}
	out, _ := d.Challenge(c.Model)
	return out, nil
}

// Challenge is the newest challenge of a model, perhaps one that has ended; ok
// is false when there never was one.
func (d *Desired) Challenge(model string) (c Challenge, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.challenges[model]; f != nil {
		return f.Challenge, true
	}
	return Challenge{}, false
}

// Challenges lists the newest challenge of each model, by model.
func (d *Desired) Challenges() []Challenge {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Challenge
	for _, model := range slices.Sorted(maps.Keys(d.challenges)) {
		out = append(out, d.challenges[model].Challenge)
	}
	return out
}

func (d *Desired) foldChallenge(r ledger.Record, c ChallengeChange) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.challenges[c.Model]
	if f == nil {
		f = &challenge{}
		d.challenges[c.Model] = f
	}
	if r.Seq <= f.newest {
		return nil
	}
	f.newest = r.Seq
	if c.Release.IsZero() {
		f.Ended = &End{At: r.At, Actor: r.Actor, Reason: c.Reason}
	} else {
		f.Challenge = Challenge{ChallengeChange: c, Seq: r.Seq, Since: r.At, Actor: r.Actor}
		f.selector, _ = rollout.ParseSelector(c.Match) // was checked before it was recorded
	}
	var touched []string
	for _, id := range slices.Sorted(maps.Keys(d.devices)) {
		if _, has := d.devices[id].assigned[c.Model]; has {
			touched = append(touched, id)
		}
	}
	return touched
}

// matches says whether the challenge is meant for a device with those labels.
func (f *challenge) matches(id string, labels map[string]string) bool {
	if f.Ended != nil || f.Release.IsZero() {
		return false
	}
	if f.Device != "" {
		return f.Device == id
	}
	return f.selector.Matches(labels)
}

// challengers are the challengers of a device's assignments. A device has one
// of a model at most: while a rollout wants a shadow there, or the lab tries a
// release, the challenge of the model waits. The caller holds mu.
func (d *Desired) challengers(id string, dev *device, assigned []Assignment) []Challenger {
	var out []Challenger
	for _, a := range assigned {
		if c, ok := dev.shadow(a); ok {
			out = append(out, c)
			continue
		}
		if c, ok := d.tried(dev, a); ok {
			out = append(out, c)
			continue
		}
		f := d.challenges[a.Model]
		if f == nil || a.Release.IsZero() || a.Release == f.Release || !f.matches(id, dev.labels) {
			continue
		}
		out = append(out, Challenger{Model: a.Model, Release: f.Release, Role: f.Role, Share: f.Share, Seq: f.Seq})
	}
	return out
}

// shadow is what a rollout wants beside an assignment. Every later decision
// about the model ends it, whether it lets the shadow answer or takes it away.
func (dev *device) shadow(beside Assignment) (c Challenger, ok bool) {
	c, ok = dev.shadows[beside.Model]
	return c, ok && c.Seq >= beside.Seq && !beside.Release.IsZero() && c.Release != beside.Release
}

// Challenger is a release that a device runs beside its primary one.
type Challenger struct {
	Model   string         `json:"model"`
	Release release.Digest `json:"release"`
	Role    string         `json:"role"`
	Share   int            `json:"share,omitempty"`   // parts per thousand of the calls
	Seq     uint64         `json:"seq"`               // ledger sequence of the decision
	Rollout string         `json:"rollout,omitempty"` // that asked for it; empty for a challenge
}

func (c *Challenger) wire() *protocol.Assignment {
	return &protocol.Assignment{
		Model: c.Model, Release: c.Release.Bytes(), Role: c.Role, Share: uint32(c.Share), Decision: c.Seq, //nolint:gosec // checked: at most 1000
	}
}
