package dashboard

import (
	"slices"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// decisionView is one decision. Devices that went the same way for the same
// reason are one change.
type decisionView struct {
	operator.Decision

	Changes []operator.Change
	More    int // changes that are not shown
}

// decisionViews are the decisions that a page shows: all of a small rollout; of
// a large one those that a person took or that moved it or a wave, because
// thousands of others follow devices.
func decisionViews(timeline []operator.Decision) (shown []decisionView, older int) {
	picked := timeline
	if len(timeline) > decisionsShown {
		picked = slices.DeleteFunc(slices.Clone(timeline), func(d operator.Decision) bool { return !milestone(&d) })
	}
	picked, _ = first(picked, decisionsShown)
	for _, d := range picked {
		v := decisionView{Decision: d}
		v.Changes, v.More = first(merged(d.Changes), changesShown)
		shown = append(shown, v)
	}
	return shown, len(timeline) - len(shown)
}

func milestone(d *operator.Decision) bool {
	return d.Actor != "engine" || slices.ContainsFunc(d.Changes, func(c operator.Change) bool { return c.Subject != "devices" })
}

// merged joins changes of devices that differ in nothing but the device.
func merged(changes []operator.Change) []operator.Change {
	type way struct {
		wave          int
		from, to, why string
	}
	at := map[way]int{}
	var out []operator.Change
	for _, c := range changes {
		k := way{c.Wave, c.From, c.To, c.Why}
		i, seen := at[k]
		if c.Subject != "devices" || !seen {
			at[k] = len(out)
			out = append(out, c)
			continue
		}
		out[i].Devices = append(slices.Clip(out[i].Devices), c.Devices...)
	}
	return out
}

// revisionView is one change of a rollout's spec.
type revisionView struct {
	operator.SpecRevision

	Differences []rollout.Difference
}

// revisionViews say what each revision changed, newest first.
func revisionViews(all []operator.SpecRevision) ([]revisionView, error) {
	var out []revisionView
	for i := len(all) - 1; i > 0; i-- {
		d, err := rollout.Differences(all[i-1].Spec, all[i].Spec)
		if err != nil {
			return nil, err
		}
		out = append(out, revisionView{all[i], d})
	}
	return out, nil
}
