package desired

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Chain is where changes of settings are recorded.
const Chain = "settings"

// KindSettings is the ledger kind of a SettingsChange.
const KindSettings = "settings.changed"

// RolloutChain is the ledger chain of a rollout.
func RolloutChain(id string) string { return rolloutPrefix + id }

// rolloutPrefix is how the chains of rollouts begin.
const rolloutPrefix = "rollout."

// Bounds of settings. Below, a fleet would drown its server; above, nobody
// would notice a device that fell silent.
const (
	MinInterval = time.Second
	MaxInterval = 24 * time.Hour

	maxMillis = int64(MaxInterval / time.Millisecond)
)

// ErrSettings says that a setting is out of its bounds.
var ErrSettings = errors.New("settings must be 0 for the default or 1s to 24h")

// SettingsChange is the ledger body of a change of settings.
type SettingsChange struct {
	Device   string   `json:"device,omitempty"` // empty for the whole fleet
	Settings Settings `json:"settings"`
	Reason   string   `json:"reason"`
}

// SetSettings changes what devices are asked to keep: all of them, or one. It
// returns when the change is in the ledger; the devices are told then.
func (d *Desired) SetSettings(ctx context.Context, actor string, c SettingsChange) error {
	for _, v := range []release.Duration{c.Settings.Window, c.Settings.Report, c.Settings.Snapshot} {
		if t := time.Duration(v); t != 0 && (t < MinInterval || t > MaxInterval) {
			return fmt.Errorf("%w: got %v", ErrSettings, t)
		}
	}
	if n := c.Settings.SampleRows; n < 0 || n > release.MaxSampleRows {
		return fmt.Errorf("%w: sample_rows must be 0 to %d, got %d", ErrSettings, release.MaxSampleRows, n)
	}
	if c.Device != "" {
		if err := protocol.CheckDeviceID(c.Device); err != nil {
			return err
		}
	}
	rec, err := d.ledger.Append(ctx, Chain, ledger.Any, KindSettings, actor, c)
	if err != nil {
		return fmt.Errorf("change settings: %w", err)
	}
	return d.Apply(rec)
}

// fold takes in one record and returns the devices it concerns, of those that
// are known.
func (d *Desired) fold(r ledger.Record) (touched []string, err error) {
	d.mu.Lock()
	d.last = max(d.last, r.Seq)
	d.mu.Unlock()
	switch {
	case r.Chain == Chain && r.Kind == KindSettings:
		var c SettingsChange
		if err := r.Decode(&c); err != nil {
			return nil, err
		}
		return d.foldSettings(r.Seq, c), nil
	case r.Chain == ChallengeChain && r.Kind == KindChallenge:
		var c ChallengeChange
		if err := r.Decode(&c); err != nil {
			return nil, err
		}
		return d.foldChallenge(r, c), nil
	case r.Chain == LabChain && r.Kind == KindLab:
		var c LabChange
		if err := r.Decode(&c); err != nil {
			return nil, err
		}
		return d.foldLab(r, c), nil
	case strings.HasPrefix(r.Chain, rolloutPrefix):
		var c struct {
			Decision struct {
				Assign []rollout.Assigned `json:"assign"`
			} `json:"decision"`
		}
		if err := r.Decode(&c); err != nil {
			return nil, err
		}
		return d.foldAssigned(r.Seq, strings.TrimPrefix(r.Chain, rolloutPrefix), c.Decision.Assign), nil
	case r.Kind == fleet.KindLabels || r.Kind == fleet.KindEnrolled:
		var c fleet.Noted
		if err := r.Decode(&c); err != nil {
			return nil, err
		}
		return d.foldLabels(r.Seq, c), nil
	}
	return nil, nil
}

func (d *Desired) foldSettings(seq uint64, c SettingsChange) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.Device != "" {
		dev := d.deviceOf(c.Device)
		if seq <= dev.settings.seq {
			return nil
		}
		dev.settings = settings{c.Settings, seq}
		return []string{c.Device}
	}
	if seq <= d.fleet.seq {
		return nil
	}
	d.fleet = settings{c.Settings, seq}
	return slices.Sorted(maps.Keys(d.devices))
}

func (d *Desired) foldAssigned(seq uint64, owner string, assign []rollout.Assigned) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var touched []string
	for _, a := range assign {
		for _, id := range a.Devices {
			if d.deviceOf(id).take(seq, owner, &a) {
				touched = append(touched, id)
			}
		}
	}
	slices.Sort(touched)
	return slices.Compact(touched)
}

// take folds what a rollout decided about a device, and says whether that is news.
func (dev *device) take(seq uint64, owner string, a *rollout.Assigned) bool {
	if a.Role == protocol.RoleShadow {
		if seq <= dev.shadows[a.Model].Seq {
			return false
		}
		if dev.shadows == nil {
			dev.shadows = map[string]Challenger{}
		}
		dev.shadows[a.Model] = Challenger{Model: a.Model, Release: a.Release, Role: a.Role, Share: a.Share, Seq: seq, Rollout: owner}
		return true
	}
	if seq <= dev.assigned[a.Model].Seq {
		return false
	}
	dev.assigned[a.Model] = Assignment{Model: a.Model, Release: a.Release, Seq: seq, Rollout: owner}
	return true
}

func (d *Desired) foldLabels(seq uint64, c fleet.Noted) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev := d.deviceOf(c.Device)
	if seq <= dev.labelSeq {
		return nil
	}
	dev.labels, dev.labelSeq = c.Labels, seq
	return []string{c.Device}
}

// deviceOf returns a device's part of the fold, a new one if there is none. The
// caller holds mu.
func (d *Desired) deviceOf(id string) *device {
	dev, ok := d.devices[id]
	if !ok {
		dev = &device{assigned: map[string]Assignment{}}
		d.devices[id] = dev
	}
	return dev
}
