package desired

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// LabChain is where trials in the lab are recorded.
const LabChain = "lab"

// KindLab is the ledger kind of a LabChange.
const KindLab = "lab.changed"

// LabChange is the ledger body of a lab trial that begins or, with the zero
// release, ends. A model has one at most.
type LabChange struct {
	Model   string         `json:"model"`
	Version string         `json:"version,omitempty"` // for people
	Release release.Digest `json:"release"`
	Reason  string         `json:"reason"`
}

// LabTrial is a release that lab devices run as a shadow beside the version of
// the model that they serve: it passes their trial like any, and answers nobody.
type LabTrial struct {
	LabChange

	Seq   uint64 // ledger sequence
	Since time.Time
	Actor string
}

// SetLabTrial begins a trial in place of the model's present one, or ends it. It
// returns when the change is in the ledger; the devices are told then.
func (d *Desired) SetLabTrial(ctx context.Context, actor string, c LabChange) (LabTrial, error) {
	if err := protocol.CheckName(c.Model); err != nil {
		return LabTrial{}, fmt.Errorf("%w: model: %w", ErrChallenge, err)
	}
	rec, err := d.ledger.Append(ctx, LabChain, ledger.Any, KindLab, actor, c)
	if err != nil {
		return LabTrial{}, fmt.Errorf("change lab trial: %w", err)
	}
	if err := d.Apply(rec); err != nil {
		return LabTrial{}, err
	}
	out, _ := d.LabTrial(c.Model)
	return out, nil
}

// LabTrial is what the lab tries of a model; ok is false when that is nothing.
func (d *Desired) LabTrial(model string) (t LabTrial, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t = d.lab[model]
	return t, !t.Release.IsZero()
}

func (d *Desired) foldLab(r ledger.Record, c LabChange) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Seq <= d.lab[c.Model].Seq {
		return nil
	}
	d.lab[c.Model] = LabTrial{LabChange: c, Seq: r.Seq, Since: r.At, Actor: r.Actor}
	var touched []string
	for _, id := range slices.Sorted(maps.Keys(d.devices)) {
		if _, has := d.devices[id].assigned[c.Model]; has {
			touched = append(touched, id)
		}
	}
	return touched
}

// tried is what the lab wants beside an assignment. The caller holds mu.
func (d *Desired) tried(dev *device, beside Assignment) (c Challenger, ok bool) {
	t := d.lab[beside.Model]
	if t.Release.IsZero() || beside.Release.IsZero() || t.Release == beside.Release || !fleet.InLab(dev.labels) {
		return Challenger{}, false
	}
	return Challenger{Model: beside.Model, Release: t.Release, Role: protocol.RoleShadow, Seq: t.Seq}, true
}
