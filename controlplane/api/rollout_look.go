package api

import (
	"maps"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// lookAge is for how long a look at a rollout that has not moved serves all who
// ask: a look gathers facts of every device and judges the gates, and some
// twenty people may watch one rollout.
const lookAge = time.Second

// lookKept is for how long a look is kept that nobody asks for again: it holds
// what is known of every device.
const lookKept = 5 * time.Minute

// looks remembers the last look at each rollout.
type looks struct {
	rollouts Rollouts
	now      func() time.Time

	mu        sync.Mutex // guards what follows
	last      map[string]*look
	summaries map[string]summaryAt
}

// look is one rollout as it was seen last.
type look struct {
	asked time.Time // when somebody asked last; guarded by mu of looks

	mu   sync.Mutex // guards what follows; held while looking, so that others wait for the same look
	view runner.View
	at   time.Time
	told *operator.Rollout // what is answered with view; nil for not asked yet
}

// summaryAt is the row of a list, as of a record of the ledger.
type summaryAt struct {
	revision uint64
	row      operator.RolloutSummary
}

func newLooks(rollouts Rollouts, now func() time.Time) *looks {
	return &looks{rollouts: rollouts, now: now, last: map[string]*look{}, summaries: map[string]summaryAt{}}
}

// view is a rollout as it is now: what the ledger says of it to the last record,
// the facts and gates at most lookAge old.
func (l *looks) view(id string) (runner.View, error) {
	seen, err := l.look(id)
	if err != nil {
		return runner.View{}, err
	}
	defer seen.mu.Unlock()
	return seen.view, nil
}

// rollout is what is answered of a rollout: tell makes it of a view, once a
// look. The answer is shared: nobody may change it.
func (l *looks) rollout(id string, tell func(runner.View) *operator.Rollout) (*operator.Rollout, error) {
	seen, err := l.look(id)
	if err != nil {
		return nil, err
	}
	defer seen.mu.Unlock()
	if seen.told == nil {
		seen.told = tell(seen.view)
	}
	return seen.told, nil
}

// look is the newest look at a rollout, locked unless there is an error.
func (l *looks) look(id string) (*look, error) {
	revision, err := l.rollouts.Revision(id)
	if err != nil {
		return nil, err
	}
	seen := l.entry(id)
	seen.mu.Lock()
	now := l.now()
	if age := now.Sub(seen.at); seen.view.State != nil && seen.view.Revision >= revision && age >= 0 && age < lookAge {
		return seen, nil
	}
	v, err := l.rollouts.Get(id)
	if err != nil {
		seen.mu.Unlock()
		return nil, err
	}
	seen.view, seen.at, seen.told = v, now, nil
	return seen, nil
}

// entry is where the looks at a rollout are kept. Those that nobody has asked for
// in a while are forgotten.
func (l *looks) entry(id string) *look {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.last, func(_ string, old *look) bool { return now.Sub(old.asked) > lookKept })
	seen := l.last[id]
	if seen == nil {
		seen = &look{}
		l.last[id] = seen
	}
	seen.asked = now
	return seen
}

// summary is the row of a rollout in a list. Counting its devices again is only
// worth it when it has moved.
func (l *looks) summary(v runner.View) operator.RolloutSummary {
	id := v.State.ID
	l.mu.Lock()
	known, ok := l.summaries[id]
	l.mu.Unlock()
	if ok && known.revision == v.Revision {
		return known.row
	}
	row := rolloutSummary(v)
	l.mu.Lock()
	l.summaries[id] = summaryAt{v.Revision, row}
	l.mu.Unlock()
	return row
}
