package dashboard

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

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
	{operator.ActRevise, "Revise", "plain"},
	{operator.ActRollback, "Roll back", "danger"},
	{operator.ActAbort, "Abort", "danger"},
}

// Page says that the action has a page of its own instead of a dialog.
func (b button) Page() bool { return b.Action == operator.ActRevise }

func buttonsOf(actions []string) []button {
	var out []button
	for _, b := range buttonLooks {
		if slices.Contains(actions, b.Action) {
			out = append(out, b)
		}
	}
	return out
}

// actionTexts say what an action will do.
var actionTexts = map[string]string{
	operator.ActStart:    "The first wave opens and its devices are offered the new version.",
	operator.ActApprove:  "The next wave may open, and does as soon as nothing else holds it.",
	operator.ActDeny:     "The rollout does not go on. Devices keep what they run.",
	operator.ActPause:    "No further device is offered the new version until somebody resumes. Devices that have it keep it.",
	operator.ActResume:   "The rollout goes on from where it stands. A gate that fails now is waived, until it gets worse.",
	operator.ActNext:     "The open wave is closed and the next one opens now, before its soak time and gates have said all they could.",
	operator.ActAbort:    "The rollout ends here. Devices keep what they run now, old version or new.",
	operator.ActRollback: "Every device of this rollout goes back to what it ran before, and is watched doing so.",
	operator.ActRetry:    "Devices that failed or refused are offered the new version again.",
}

func rolloutForm(ctx context.Context, s Service, r *request) (*form, error) {
	id, action := r.PathValue("rollout"), r.PathValue("action")
	i := slices.IndexFunc(buttonLooks, func(b button) bool { return b.Action == action && !b.Page() })
	if i < 0 {
		return nil, operator.Errorf(operator.NotFound, "there is no action %.40q", action)
	}
	x, err := s.Rollout(ctx, id)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(x.Actions, action) {
		return nil, notNow(x, action)
	}
	look := buttonLooks[i]
	f := &form{
		Title: look.Label + ": " + x.Model + " " + x.Version, Text: actionTexts[action], Button: look.Label,
		Danger: look.Look == "danger", Back: "/rollouts/" + queryPath(id), Points: consequences(x, action),
	}
	if action == operator.ActStart && r.Method == http.MethodGet { // who sends the form has seen it
		f.Points = firstOffers(ctx, s, x)
	}
	return f, nil
}

func notNow(x *operator.Rollout, action string) error {
	err := operator.Errorf(operator.Conflict, "%s cannot %s now: it is %s", x.ID, action, words(x.State))
	if len(x.Actions) == 0 {
		return err.WithHint("nothing more can be done to it")
	}
	return err.WithHint("possible now: %s", strings.Join(x.Actions, ", "))
}

// firstOffers says what the start of a rollout will do, from its plan. The
// start needs no plan: without one there is nothing to say.
func firstOffers(ctx context.Context, s Service, x *operator.Rollout) []string {
	p, err := s.PlanRollout(ctx, x.Spec)
	if err != nil || len(p.Waves) == 0 {
		return nil
	}
	w := p.Waves[0]
	out := []string{fmt.Sprintf("As things are now, %s offered %s at first, of %d in all.", areDevices(len(w.Devices)), x.Version, p.Devices)}
	return append(out, p.Warnings...)
}

// consequences say what an action will do to the devices as they are now.
func consequences(x *operator.Rollout, action string) []string {
	c := census(x)
	switch action {
	case operator.ActApprove, operator.ActNext:
		return append(c.closing(x, action), c.nextWave(x)...)
	case operator.ActDeny, operator.ActAbort:
		return c.ending(x)
	case operator.ActPause:
		return []string{
			areDevices(c.underWay) + " under way and may go on.",
			areDevices(c.waiting) + " waiting and offered nothing until somebody resumes.",
		}
	case operator.ActResume:
		return waivers(x)
	case operator.ActRollback:
		return goingBack(x)
	case operator.ActRetry:
		return []string{fmt.Sprintf("%s offered %s again", areDevices(c.lost), x.Version) + again(x)}
	}
	return nil
}

// headcount is how many devices of a rollout are where.
type headcount struct {
	serving  int // have the new version
	underWay int // are on the way to it
	waiting  int // are asked nothing yet
	lost     int // failed, refused or gone back
}

func census(x *operator.Rollout) headcount {
	n := x.Counts
	return headcount{
		serving: n["active"] + n["healthy"], waiting: n["waiting"], lost: n["failed"] + n["refused"] + n["reverted"],
		underWay: n["shadowing"] + n["offered"] + n["downloading"] + n["verifying"] + n["trialing"],
	}
}

// again names devices that would be offered the version again, the first of
// many.
func again(x *operator.Rollout) string {
	var ids []string
	for i := range x.WaveList {
		for _, d := range x.WaveList[i].Devices {
			if d.State == "failed" || d.State == "refused" || d.State == "reverted" {
				ids = append(ids, d.Device)
			}
		}
	}
	if len(ids) == 0 {
		return "."
	}
	return ": " + names(ids) + "."
}

func (c headcount) ending(x *operator.Rollout) []string {
	out := []string{fmt.Sprintf("%s version %s and keep it.", haveDevices(c.serving), x.Version)}
	if c.underWay > 0 {
		out = append(out, fmt.Sprintf("Offers to %s that are not finished are withdrawn.", devices(c.underWay)))
	}
	return append(out, areDevices(c.waiting)+" never offered it by this rollout.")
}

// goingBack says how many devices go back to what.
func goingBack(x *operator.Rollout) []string {
	var out []string
	versions := slices.Sorted(maps.Keys(x.Returns))
	slices.Reverse(versions) // those that had none last
	for _, version := range versions {
		to := "to version " + version
		if version == "" {
			to = "to having no version of the model"
		}
		out = append(out, goDevices(x.Returns[version])+" back "+to+".")
	}
	if text := budgetText(&x.Spec.Revert); text != "" {
		return append(out, "At most "+text+", as the spec says.")
	}
	return append(out, "All at once: what they go back to is still on them, so nothing is downloaded.")
}

// closing says what the open wave is closed with.
func (c headcount) closing(x *operator.Rollout, action string) []string {
	if action != operator.ActNext || x.Wave < 1 || x.Wave > len(x.WaveList) {
		return nil
	}
	w := &x.WaveList[x.Wave-1]
	out := []string{fmt.Sprintf("Wave %d is closed with %d of %s healthy.", w.Number, w.Progress.Healthy, devices(w.Progress.Counted))}
	var open []string
	for _, g := range x.Gates {
		if g.Result == "inconclusive" {
			open = append(open, g.Kind)
		}
	}
	if len(open) > 0 {
		out = append(out, "Kept as unproven: "+strings.Join(open, ", ")+".")
	}
	return out
}

func (c headcount) nextWave(x *operator.Rollout) []string {
	if x.Wave >= len(x.WaveList) {
		return nil
	}
	w := &x.WaveList[x.Wave]
	return []string{fmt.Sprintf("Wave %s opens and brings version %s to %s; %s it now.",
		strings.TrimSpace(fmt.Sprint(w.Number, " ", w.Name)), x.Version, waveSize(w, x), haveDevices(c.serving))}
}

// waivers are the gates that fail now.
func waivers(x *operator.Rollout) []string {
	var out []string
	for _, g := range x.Gates {
		if g.Result == "fail" {
			out = append(out, fmt.Sprintf("Gate %s is waived: %s.", g.Kind, strings.TrimSuffix(g.Text, ".")))
		}
	}
	return out
}

// waveSize is how many devices a wave is to have, in words.
func waveSize(w *operator.Wave, x *operator.Rollout) string {
	switch {
	case x.Next != nil && x.Next.Number == w.Number:
		return devices(x.Next.Total) + " more as planned now"
	case w.Spec.Count > 0 && x.WaitingTotal > 0:
		return devices(min(w.Spec.Count, x.WaitingTotal)) + " more"
	case w.Spec.Count > 0:
		return devices(w.Spec.Count) + " more"
	}
	return fmt.Sprintf("%s\u2009%% of %s in all", formatNumber(w.Spec.Percent), devices(x.Devices))
}

func devices(n int) string { return plural(n, "device", "devices") }

func areDevices(n int) string  { return plural(n, "device is", "devices are") }
func haveDevices(n int) string { return plural(n, "device has", "devices have") }
func goDevices(n int) string   { return plural(n, "device goes", "devices go") }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return formatCount(n) + " " + many
}
