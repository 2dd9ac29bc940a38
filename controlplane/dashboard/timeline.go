package dashboard

import (
	"context"
	"fmt"
	"slices"
	"strings"

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

// decisionViews are the decisions that the page of a rollout shows: all of a
// small one; of a large one those that a person took or that moved it or a
// wave, because thousands of others follow devices.
func decisionViews(timeline []operator.Decision) []decisionView {
	if len(timeline) > decisionsShown {
		timeline = slices.DeleteFunc(slices.Clone(timeline), func(d operator.Decision) bool { return !milestone(&d) })
	}
	timeline, _ = first(timeline, decisionsShown)
	return decided(timeline)
}

func decided(list []operator.Decision) []decisionView {
	out := make([]decisionView, len(list))
	for i, d := range list {
		out[i].Decision = d
		out[i].Changes, out[i].More = first(merged(d.Changes), changesShown)
	}
	return out
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
			c.Count = max(c.Count, len(c.Devices))
			out = append(out, c)
			continue
		}
		out[i].Devices = append(slices.Clip(out[i].Devices), c.Devices...)
		out[i].Count += max(c.Count, len(c.Devices))
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

// changeNames are the devices of a change, the first of many.
func changeNames(c operator.Change) string {
	shown, _ := first(c.Devices, namesShown)
	out := strings.Join(shown, ", ")
	if more := c.Count - len(shown); more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}

// decisionsView is a page of a rollout's decisions, all of them.
type decisionsView struct {
	ID    string
	Total int
	Shown []decisionView
	Next  string
}

func (s *Server) decisions(ctx context.Context, r *request) (string, *page, error) {
	id := r.PathValue("rollout")
	list, err := s.cfg.Service.RolloutDecisions(ctx, id, operator.Paging{Limit: pageLength, Cursor: r.URL.Query().Get("cursor")})
	if err != nil {
		return "", nil, err
	}
	v := decisionsView{ID: id, Total: list.Total, Shown: decided(list.Items)}
	if list.Next != "" {
		v.Next = "/rollouts/" + queryPath(id) + "/decisions?cursor=" + queryEscape(list.Next)
	}
	return "decisions", &page{Title: "Decisions of " + id, Section: "rollouts", Data: v}, nil
}

// membersView is a page of a rollout's devices.
type membersView struct {
	*operator.Page[operator.WaveDevice]

	ID     string
	Query  operator.RolloutDeviceQuery
	States []string
	Next   string
}

func (s *Server) members(ctx context.Context, r *request) (string, *page, error) {
	var q operator.RolloutDeviceQuery
	values := r.URL.Query()
	dropEmpty(values)
	if err := operator.DecodeQuery(values, &q); err != nil {
		return "", nil, err
	}
	q.Limit = pageLength
	id := r.PathValue("rollout")
	list, err := s.cfg.Service.RolloutDevices(ctx, id, q)
	if err != nil {
		return "", nil, err
	}
	v := membersView{Page: list, ID: id, Query: q, States: slices.DeleteFunc(slices.Clone(deviceStates), func(s string) bool { return s == "late" })}
	if list.Next != "" {
		q.Cursor, q.Limit = list.Next, 0
		v.Next = "/rollouts/" + queryPath(id) + "/devices?" + operator.EncodeQuery(q).Encode()
	}
	return "members", &page{Title: "Devices of " + id, Section: "rollouts", Live: "#list", Kinds: "rollout", Every: bigRefresh, Data: v}, nil
}
