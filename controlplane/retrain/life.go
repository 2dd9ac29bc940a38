package retrain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// What a trigger may answer.
var (
	// ErrNotFound says that there is no such request.
	ErrNotFound = errors.New("no such retrain request")
	// ErrAlive says that a request has no dead letter.
	ErrAlive = errors.New("the request has no dead letter")
)

// Answer is the version that came of a request.
type Answer struct {
	Model   string `json:"model"`   // registered
	Version string `json:"version"` // of it
	Release string `json:"release,omitempty"`
	State   string `json:"state"` // answered, validated, rolled_out, rejected
	AtMS    int64  `json:"at_ms"` // when it came to this state
	Text    string `json:"text,omitempty"`
}

// Request returns one by its id.
func (t *Trigger) Request(id string) (Request, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.requests[id]
	if s == nil {
		return Request{}, fmt.Errorf("%w: %.80q", ErrNotFound, id)
	}
	return s.Request.clone(), nil
}

// Answered takes in that a registered version carries the tag of a request. The
// newest version counts; the same again changes nothing.
func (t *Trigger) Answered(ctx context.Context, now time.Time, id, model, version string) error {
	return t.change(ctx, id, func(r *Request) bool {
		if r.Answer != nil && r.Answer.Model == model && r.Answer.Version == version {
			return false
		}
		r.Answer = &Answer{Model: model, Version: version, State: operator.RetrainAnswered, AtMS: now.UnixMilli(), Text: "registered, not yet a release"}
		return true
	})
}

// Advance takes in what became of the version that answers a request: state is
// validated, rolled_out or rejected, release the version of the release made of
// it. The same again changes nothing.
func (t *Trigger) Advance(ctx context.Context, now time.Time, id, state, release, text string) error {
	return t.change(ctx, id, func(r *Request) bool {
		a := r.Answer
		if a == nil || a.State == state && a.Release == release && a.Text == text {
			return false
		}
		a.State, a.Release, a.Text, a.AtMS = state, release, text, now.UnixMilli()
		return true
	})
}

// Redeliver tries the dead letters of a request again.
func (t *Trigger) Redeliver(ctx context.Context, now time.Time, id string) (Request, error) {
	dead := false
	err := t.change(ctx, id, func(r *Request) bool {
		for i := range r.Deliveries {
			if d := &r.Deliveries[i]; d.Dead() {
				d.Again(now)
				dead = true
			}
		}
		return dead
	})
	if err == nil && !dead {
		err = fmt.Errorf("%w: %s", ErrAlive, id)
	}
	if err != nil {
		return Request{}, err
	}
	t.nudge()
	return t.Request(id)
}

// change stores a changed copy of a request and then takes it in.
func (t *Trigger) change(ctx context.Context, id string, do func(*Request) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := t.requests[id]
	if held == nil {
		return fmt.Errorf("%w: %.80q", ErrNotFound, id)
	}
	next := &stored{Request: held.Request.clone(), Targets: slices.Clone(held.Targets)}
	if !do(&next.Request) {
		return nil
	}
	next.settle()
	if err := t.put(ctx, requestKey(&next.Request), next); err != nil {
		return err
	}
	t.requests[id] = next
	return nil
}
