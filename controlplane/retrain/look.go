package retrain

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Look holds the conditions and schedules of all policies against what the
// monitor scored last, and stores the requests that come of it.
func (t *Trigger) Look(ctx context.Context, now time.Time) ([]Request, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var asked []Request
	for model, p := range t.policies {
		if t.cfg.Scores == nil || len(p.When) == 0 && p.Schedule == nil {
			continue
		}
		r, err := t.lookAt(ctx, now, model, &p)
		if r != nil {
			asked = append(asked, *r)
		}
		if err != nil {
			return asked, err
		}
	}
	return asked, nil
}

// memoryEvery is how often a memory is stored in which nothing began or ended.
const memoryEvery = time.Minute

// lookAt decides about one model. What runs is stored before the request that
// comes of it: after a crash the same run makes the same request.
func (t *Trigger) lookAt(ctx context.Context, now time.Time, model string, p *Policy) (*Request, error) {
	before := t.memories[model]
	s := &situation{
		policy: p, memory: before, groups: t.scores(model), asked: t.askedOf(model),
		openCount: t.openCount(model, now), lastMS: t.lastAsked(model), now: now,
	}
	after, w := decide(s)
	scheduled := after.ScheduledMS
	if w != nil {
		after.ScheduledMS = before.ScheduledMS // until the request is stored
	}
	if err := t.remember(ctx, now, model, &before, after, w != nil); err != nil || w == nil {
		return nil, err
	}
	var asked *Request
	if t.requests[w.id] == nil {
		r, err := t.ask(ctx, now, p, t.ofWant(now, w))
		if err != nil {
			return nil, err
		}
		asked = &r
	}
	after.ScheduledMS = scheduled
	t.memories[model] = after
	t.written[model] = 0 // stored at the next look
	return asked, nil
}

// scores asks for each level once.
func (t *Trigger) scores(model string) func(drift.Level) []drift.GroupScore {
	known := map[drift.Level][]drift.GroupScore{}
	return func(by drift.Level) []drift.GroupScore {
		groups, ok := known[by]
		if !ok {
			groups = t.cfg.Scores.Groups(model, by)
			known[by] = groups
		}
		return groups
	}
}

// remember takes a memory in, and stores it when something began or ended, or
// a minute has passed.
func (t *Trigger) remember(ctx context.Context, now time.Time, model string, before *Memory, after Memory, must bool) error {
	same := before.Policy == after.Policy && before.ScheduledMS == after.ScheduledMS && sameRuns(before.Runs, after.Runs)
	if must || !same || now.UnixMilli()-t.written[model] >= memoryEvery.Milliseconds() {
		if err := t.put(ctx, memoryKey(model), &after); err != nil {
			return err
		}
		t.written[model] = now.UnixMilli()
	}
	t.memories[model] = after
	return nil
}

func sameRuns(a, b map[string]Run) bool {
	if len(a) != len(b) {
		return false
	}
	for k, r := range a {
		if b[k].StartMS != r.StartMS {
			return false
		}
	}
	return true
}

// askedOf are the runs that requests were made of. A request that was rejected
// may be made again.
func (t *Trigger) askedOf(model string) map[string]bool {
	out := map[string]bool{}
	for _, s := range t.requests {
		if s.Request.Model == model && s.Request.State() != operator.RetrainRejected {
			for _, subject := range s.Request.Subjects {
				out[subject] = true
			}
		}
	}
	return out
}
