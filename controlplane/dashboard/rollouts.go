package dashboard

import (
	"context"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// deviceStates are those of a device in a rollout, in the order of a bar. Late
// is no state of its own but a mark that goes before it.
var deviceStates = []string{
	"healthy", "active", "trialing", "verifying", "downloading", "offered", "shadowing", "waiting",
	"late", "superseded", "reverted", "refused", "failed",
}

func stateClass(name string) string { return "s-" + name }

// rolloutRow is one rollout in a list.
type rolloutRow struct {
	operator.RolloutSummary

	Parts  []part
	Wagons []wagon
	Waits  []string // what it waits for
}

// wagon is one wave in the small train that shows how far a rollout is.
type wagon struct {
	Number int
	Is     string // done, now, stopped, back, next
}

func rowOf(r operator.RolloutSummary) rolloutRow {
	out := rolloutRow{RolloutSummary: r, Parts: bar(r.Counts, deviceStates, stateClass)}
	for i := 1; i <= r.Waves; i++ {
		out.Wagons = append(out.Wagons, wagon{Number: i, Is: wagonState(r, i)})
	}
	return out
}

// Done is how many devices have the new version for good.
func (r rolloutRow) Done() int { return r.Counts["healthy"] }

func wagonState(r operator.RolloutSummary, wave int) string {
	switch {
	case wave > r.Wave:
		return "next"
	case r.State == operator.RolloutReverting || r.State == operator.RolloutReverted:
		return "back"
	case wave < r.Wave || r.State == operator.RolloutCompleted:
		return "done"
	case tone(r.State) == "bad" || r.State.Ended():
		return "stopped"
	default:
		return "now"
	}
}

// rolloutsView is the list of rollouts: those that go on before those that have
// ended.
type rolloutsView struct {
	Active []rolloutRow
	Ended  []rolloutRow
	Total  int
	Next   string
	Query  operator.RolloutQuery
	Models []operator.Model
	States []operator.RolloutState
}

// rolloutStates are those that the list can be filtered by.
var rolloutStates = []operator.RolloutState{
	operator.RolloutDraft, operator.RolloutQueued, operator.RolloutAwaiting, operator.RolloutRunning, operator.RolloutPaused, operator.RolloutHalted,
	operator.RolloutReverting, operator.RolloutReverted, operator.RolloutCompleted, operator.RolloutAborted, operator.RolloutReplaced,
}

// explained bounds the rollouts of a list that say what they wait for.
const explained = 20

func (s *Server) rollouts(ctx context.Context, r *request) (string, *page, error) {
	q, err := rolloutQuery(r)
	if err != nil {
		return "", nil, err
	}
	v := rolloutsView{Query: q, States: rolloutStates}
	if v.Models, err = s.cfg.Service.Models(ctx); err != nil {
		return "", nil, err
	}
	if err := s.fillRollouts(ctx, &v); err != nil {
		return "", nil, err
	}
	return "rollouts", &page{Title: "Rollouts", Section: "rollouts", Live: "#list", Kinds: "rollout", Data: v}, nil
}

func rolloutQuery(r *request) (operator.RolloutQuery, error) {
	var q operator.RolloutQuery
	values := r.URL.Query()
	dropEmpty(values)
	err := operator.DecodeQuery(values, &q)
	return q, err
}

// fillRollouts reads the rollouts that go on, on the first page alone, and
// those that do not.
func (s *Server) fillRollouts(ctx context.Context, v *rolloutsView) error {
	q := v.Query
	q.Limit = pageLength
	if q.Cursor == "" {
		active := q
		active.Active = true
		list, err := s.cfg.Service.Rollouts(ctx, active)
		if err != nil {
			return err
		}
		for i, item := range list.Items {
			v.Active = append(v.Active, s.waits(ctx, item, i < explained))
		}
		v.Total = list.Total
		if q.Active {
			v.Next = rolloutsNext(q, list.Next)
			return nil
		}
	}
	list, err := s.cfg.Service.Rollouts(ctx, q)
	if err != nil {
		return err
	}
	v.Total, v.Next = list.Total, rolloutsNext(q, list.Next)
	for _, item := range list.Items {
		switch {
		case item.State.Ended():
			v.Ended = append(v.Ended, rowOf(item))
		case q.Active: // a later page of those that go on
			v.Active = append(v.Active, rowOf(item))
		}
	}
	return nil
}

func rolloutsNext(q operator.RolloutQuery, cursor string) string {
	if cursor == "" {
		return ""
	}
	q.Cursor, q.Limit = cursor, 0
	return "/rollouts?" + operator.EncodeQuery(q).Encode()
}

// waits adds what a rollout waits for. One that cannot be explained is still
// worth showing.
func (s *Server) waits(ctx context.Context, r operator.RolloutSummary, explain bool) rolloutRow {
	row := rowOf(r)
	if explain {
		if why, err := s.cfg.Service.ExplainRollout(ctx, r.ID); err == nil {
			row.Waits = why.Waiting
		}
	}
	return row
}
