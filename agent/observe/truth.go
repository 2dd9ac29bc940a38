package observe

import (
	"context"
	"errors"
	"fmt"
)

// Joined is what became of a truth.
type Joined int

// What may become of a truth.
const (
	Unmatched Joined = iota // no prediction of that id is held, or not any more
	Matched
	Repeated // the prediction has its label already
)

// Truth joins a truth with its prediction, as Feedback does, for truths that
// may come again after a kill: only a match is counted, and only once. What
// found no prediction is counted by CountUnmatched, when the caller has written
// down that it will not come again.
func (o *Observer) Truth(_ context.Context, model, id, label string) (Joined, error) {
	joined, _, err := o.join(model, id, label)
	return joined, err
}

// CountUnmatched counts truths for which Truth found no prediction.
func (o *Observer) CountUnmatched(model string, n uint64) error {
	fallback, ok := o.fallback(model)
	if !ok {
		return fmt.Errorf("%w: %q", ErrUnknownModel, model)
	}
	o.labelsOf(labelsKey{model: model, release: fallback.Release}, len(fallback.Classes)).unmatched(n)
	return nil
}

// join finds the prediction, marks it and counts the match. It returns whom an
// unmatched truth is to be counted for, too.
func (o *Observer) join(model, id, label string) (Joined, *labels, error) {
	fallback, ok := o.fallback(model)
	if !ok {
		return Unmatched, nil, fmt.Errorf("%w: %q", ErrUnknownModel, model)
	}
	p, err := o.ring.find(model, id)
	k, found := o.known.find(p.release)
	if err != nil || !found || o.expired(p) {
		if !errors.Is(err, errNoPrediction) && err != nil {
			return Unmatched, nil, err
		}
		if _, err := classOf(fallback.Classes, label); err != nil {
			return Unmatched, nil, err
		}
		return Unmatched, o.labelsOf(labelsKey{model: model, release: fallback.Release}, len(fallback.Classes)), nil
	}
	truth, err := classOf(k.Classes, label)
	if err != nil {
		return Unmatched, nil, err
	}
	first, err := o.ring.label(p)
	if err != nil {
		return Unmatched, nil, err
	}
	l := o.labelsOf(labelsKey{model: model, release: k.Release, former: o.former(p), role: p.role()}, len(k.Classes))
	if !first {
		return Repeated, l, nil
	}
	l.matched(p, truth)
	o.scoreShadow(model, id, k.Classes[truth])
	return Matched, l, nil
}
