package dashboard

import (
	"context"
	"slices"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// deviceStates are those of a device in a rollout, in the order of a bar.
var deviceStates = []string{
	"healthy", "active", "trialing", "verifying", "downloading", "offered", "waiting",
	"superseded", "reverted", "refused", "failed",
}

func stateClass(name string) string { return "s-" + name }

// rolloutRow is one rollout in a list.
type rolloutRow struct {
	operator.RolloutSummary

	Parts  []part
	Wagons []wagon
}

// wagon is one wave in the small train that shows how far a rollout is.
type wagon struct {
	Number int
	Is     string // done, now, stopped, next
}

func rowOf(r operator.RolloutSummary) rolloutRow {
	out := rolloutRow{RolloutSummary: r, Parts: bar(r.Counts, deviceStates, stateClass)}
	for i := 1; i <= r.Waves; i++ {
		out.Wagons = append(out.Wagons, wagon{Number: i, Is: wagonState(r, i)})
	}
	return out
}

func wagonState(r operator.RolloutSummary, wave int) string {
	switch {
	case wave > r.Wave:
		return "next"
	case wave < r.Wave || r.State == operator.RolloutCompleted:
		return "done"
	case tone(r.State) == "bad":
		return "stopped"
	default:
		return "now"
	}
}

// rolloutsView is the list of rollouts.
type rolloutsView struct {
	Items []rolloutRow
	Total int
	Next  string
	Query operator.RolloutQuery
}

func (s *Server) rollouts(ctx context.Context, r *request) (string, *page, error) {
	var q operator.RolloutQuery
	if err := operator.DecodeQuery(r.URL.Query(), &q); err != nil {
		return "", nil, err
	}
	q.Limit = pageLength
	list, err := s.cfg.Service.Rollouts(ctx, q)
	if err != nil {
		return "", nil, err
	}
	v := rolloutsView{Total: list.Total, Query: q}
	for _, item := range list.Items {
		v.Items = append(v.Items, rowOf(item))
	}
	if list.Next != "" {
		q.Cursor, q.Limit = list.Next, 0
		v.Next = "/rollouts?" + operator.EncodeQuery(q).Encode()
	}
	return "rollouts", &page{Title: "Rollouts", Section: "rollouts", Live: "#list", Kinds: "rollout", Data: v}, nil
}

// rolloutView is everything about one rollout.
type rolloutView struct {
	*operator.Rollout

	Why      *operator.Explanation
	WaveList []waveView
	Buttons  []button
	Parts    []part
}

// waveView is one wave; devices are grouped by site.
type waveView struct {
	operator.Wave

	Parts []part
	Sites []siteDevices
	Now   bool
	Gates []operator.Gate
	Done  int // devices that are healthy
	More  int // devices without a chip
}

type siteDevices struct {
	Site    string
	Devices []operator.WaveDevice
}

// button leads to the form of one action.
type button struct {
	Action, Label, Look string
}

// buttonLooks are actions as people see them, in the order of the page.
var buttonLooks = []button{
	{operator.ActStart, "Start", "primary"},
	{operator.ActApprove, "Approve", "primary"},
	{operator.ActDeny, "Deny", "danger"},
	{operator.ActResume, "Resume", "primary"},
	{operator.ActNext, "Open next wave", "plain"},
	{operator.ActRetry, "Try failed devices again", "plain"},
	{operator.ActPause, "Pause", "plain"},
	{operator.ActRollback, "Roll back", "danger"},
	{operator.ActAbort, "Abort", "danger"},
}

func buttonsOf(actions []string) []button {
	var out []button
	for _, b := range buttonLooks {
		if slices.Contains(actions, b.Action) {
			out = append(out, b)
		}
	}
	return out
}

func (s *Server) rollout(ctx context.Context, r *request) (string, *page, error) {
	x, err := s.cfg.Service.Rollout(ctx, r.PathValue("rollout"))
	if err != nil {
		return "", nil, err
	}
	why, err := s.cfg.Service.ExplainRollout(ctx, x.ID)
	if err != nil {
		return "", nil, err
	}
	v := rolloutView{Rollout: x, Why: why, Buttons: buttonsOf(x.Actions), Parts: bar(x.Counts, deviceStates, stateClass)}
	for _, w := range x.WaveList {
		v.WaveList = append(v.WaveList, waveOf(x, w))
	}
	return "rollout", &page{
		Title: x.Model + " " + x.Version, Section: "rollouts", Live: "#head,#waves,#timeline", Kinds: "rollout,device", Data: v,
	}, nil
}

// waveOf shows the newest wave's gates as they are judged now, and those of
// others as they stood.
func waveOf(r *operator.Rollout, w operator.Wave) waveView {
	out := waveView{
		Wave: w, Parts: bar(w.Counts, deviceStates, stateClass), Gates: w.Gates, Done: w.Counts["healthy"],
		Now: w.Number == r.Wave && !r.State.Ended(),
	}
	if out.Now && len(r.Gates) > 0 {
		out.Gates = r.Gates
	}
	var shown []operator.WaveDevice
	shown, out.More = first(troubleFirst(w.Devices), chipsShown)
	for _, d := range shown {
		i := slices.IndexFunc(out.Sites, func(s siteDevices) bool { return s.Site == d.Site })
		if i < 0 {
			i = len(out.Sites)
			out.Sites = append(out.Sites, siteDevices{Site: d.Site})
		}
		out.Sites[i].Devices = append(out.Sites[i].Devices, d)
	}
	return out
}

// troubleFirst puts devices that failed or are under way before those that are
// well or wait, when not all of them can be shown.
func troubleFirst(devices []operator.WaveDevice) []operator.WaveDevice {
	if len(devices) <= chipsShown {
		return devices
	}
	out := slices.Clone(devices)
	slices.SortStableFunc(out, func(a, b operator.WaveDevice) int { // the last states are the worst
		return slices.Index(deviceStates, b.State) - slices.Index(deviceStates, a.State)
	})
	return out
}
