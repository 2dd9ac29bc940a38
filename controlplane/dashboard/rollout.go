package dashboard

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Bounds of the page of one rollout, whatever its size.
const (
	waveChips      = 40   // devices of one wave that are shown one by one
	stuckShown     = 15   // another page has them all
	decisionsShown = 25   // newest first; another page has them all
	changesShown   = 8    // of one decision
	bigRollout     = 1000 // devices from which on the page follows at a slower pace
	bigRefresh     = 5 * time.Second
)

// rolloutView is everything about one rollout.
type rolloutView struct {
	*operator.Rollout

	Why      *operator.Explanation
	WaveList []waveView
	Gates    []gateView
	Buttons  []button
	Parts    []part
	Held     []part // the control group
	Shown    []decisionView
	Terms    []term
	Changed  []revisionView
	Text     string // the spec as YAML
}

// Held out is how many devices the control group has.
func (v *rolloutView) HeldOut() int { return total(v.ControlCounts) }

// Healthy is how many devices have the new version for good.
func (v *rolloutView) Healthy() int { return v.Counts["healthy"] }

// MoreStuck is how many devices hold the rollout up and are not named.
func (v *rolloutView) MoreStuck() int { return v.StuckTotal - len(v.Stuck) }

// Older is how many decisions are not shown.
func (v *rolloutView) Older() int { return max(0, v.Decisions-len(v.Shown)) }

// Revised is how often the spec was changed.
func (v *rolloutView) Revised() int { return max(0, len(v.Revisions)-1) }

func (s *Server) rollout(ctx context.Context, r *request) (string, *page, error) {
	x, err := s.cfg.Service.Rollout(ctx, r.PathValue("rollout"))
	if err != nil {
		return "", nil, err
	}
	why, err := s.cfg.Service.ExplainRollout(ctx, x.ID)
	if err != nil {
		return "", nil, err
	}
	v, err := rolloutViewOf(x, why, s.cfg.Now())
	if err != nil {
		return "", nil, err
	}
	p := &page{
		Title: x.Model + " " + x.Version, Section: "rollouts", Live: "#head,#waves,#gates,#stuck,#timeline,#spec", Kinds: "rollout,device", Data: v,
	}
	if x.Devices >= bigRollout {
		p.Every = bigRefresh
	}
	return "rollout", p, nil
}

func rolloutViewOf(x *operator.Rollout, why *operator.Explanation, now time.Time) (*rolloutView, error) {
	v := &rolloutView{
		Rollout: x, Why: why, Buttons: buttonsOf(x.Actions), Parts: bar(withLate(x), deviceStates, stateClass),
		Held: bar(x.ControlCounts, deviceStates, stateClass), Gates: gateViews(x.Gates, &x.Spec), Terms: termsOf(&x.Spec),
	}
	for i := range x.WaveList {
		v.WaveList = append(v.WaveList, waveOf(x, &x.WaveList[i], now))
	}
	v.Shown = decisionViews(x.Timeline)
	v.Stuck, _ = first(x.Stuck, stuckShown)
	var err error
	if v.Text, err = specYAML(&x.Spec); err != nil {
		return nil, err
	}
	v.Changed, err = revisionViews(x.Revisions)
	return v, err
}

// withLate counts the devices of a rollout, late ones apart from others of
// their state.
func withLate(x *operator.Rollout) map[string]int {
	late := map[string]int{}
	for i := range x.WaveList {
		for state, n := range x.WaveList[i].Late {
			late[state] += n
		}
	}
	return apart(x.Counts, late)
}

// apart takes late devices out of the counts of their states.
func apart(counts, late map[string]int) map[string]int {
	out := maps.Clone(counts)
	for state, n := range late {
		n = min(n, out[state])
		out[state] -= n
		out["late"] += n
	}
	return out
}

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// waveView is one wave; devices are grouped by site.
type waveView struct {
	operator.Wave

	Parts []part
	Needs []need
	Sites []siteDevices
	Now   bool
	Size  string // how many devices it is to have
	Done  int    // devices that are healthy
	Have  int    // devices it has
	More  int    // devices without a chip
	Gates []gateView
	Next  *nextView // of the wave that waits for approval
}

// nextView is whom a person approves.
type nextView struct {
	Sites, Profiles string
	Names           []string
	More            int // that are not named
}

func nextOf(n *operator.NextWave) *nextView {
	out := &nextView{Sites: countsText(n.Sites, "no site"), Profiles: countsText(n.Profiles, "no profile")}
	out.Names, _ = first(n.Devices, waveChips)
	out.More = n.Total - len(out.Names)
	return out
}

// countsText is counts in words, such as "a 2, b 1".
func countsText(counts map[string]int, none string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, cmp.Or(name, none)+" "+formatCount(counts[name]))
	}
	return strings.Join(out, ", ")
}

type siteDevices struct {
	Site    string
	Devices []operator.WaveDevice
}

// waveOf shows the gates of waves that are over as they stood; those of the
// newest have a part of the page to themselves.
func waveOf(r *operator.Rollout, w *operator.Wave, now time.Time) waveView {
	out := waveView{
		Wave: *w, Parts: bar(apart(w.Counts, w.Late), deviceStates, stateClass), Done: w.Counts["healthy"], Have: total(w.Counts), Size: waveSize(w, r),
		Now: w.Number == r.Wave && !r.State.Ended(), Needs: needsOf(w, now),
	}
	if w.Number != r.Wave || len(r.Gates) == 0 {
		out.Gates = gateViews(w.Gates, &r.Spec)
	}
	if r.Next != nil && r.Next.Number == w.Number {
		out.Next = nextOf(r.Next)
	}
	var shown []operator.WaveDevice
	shown, out.More = first(troubleFirst(w.Devices, waveChips), waveChips)
	out.More += w.More
	for _, d := range shown {
		i := slices.IndexFunc(out.Sites, func(s siteDevices) bool { return s.Site == d.Site })
		if i < 0 {
			i = len(out.Sites)
			out.Sites = append(out.Sites, siteDevices{Site: d.Site})
		}
		out.Sites[i].Devices = append(out.Sites[i].Devices, d)
	}
	slices.SortStableFunc(out.Sites, func(a, b siteDevices) int { return cmp.Compare(a.Site, b.Site) })
	return out
}

// troubleFirst puts devices that failed or are under way before those that are
// well or wait, when not all of them can be shown.
func troubleFirst(devices []operator.WaveDevice, most int) []operator.WaveDevice {
	if len(devices) <= most {
		return devices
	}
	rank := map[string]int{}
	for i, name := range deviceStates { // the last states are the worst
		rank[name] = i
	}
	out := slices.Clone(devices)
	slices.SortStableFunc(out, func(a, b operator.WaveDevice) int { return rank[b.State] - rank[a.State] })
	return out
}

// need is something that a wave needs before it passes, and how much of it is
// there.
type need struct {
	Name string
	Have string
	Want string
	X    float64 // share of it, 0 to 100
	Met  bool
	At   time.Time // of a need that is a moment, instead of Have and Want
}

// needsOf lists what a wave needs. Waves that are pending or over have only
// what was asked of them.
func needsOf(w *operator.Wave, now time.Time) []need {
	p, e := &w.Progress, &w.Spec.Evidence
	var out []need
	if p.Counted > 0 {
		out = append(out, amount("Healthy", float64(p.Healthy), float64(p.Needed), formatCount(p.Healthy)+" of "+formatCount(p.Counted), formatCount(p.Needed)))
	} else if w.Spec.Quorum > 0 {
		out = append(out, need{Name: "Healthy", Want: formatNumber(100*w.Spec.Quorum) + "\u2009%"})
	}
	if e.Devices > 0 {
		out = append(out, amount("Devices that predicted", float64(p.Devices), float64(e.Devices), formatCount(p.Devices), formatCount(e.Devices)))
	}
	if e.Inferences > 0 {
		out = append(out, amount("Predictions", float64(p.Inferences), float64(e.Inferences), formatCount(p.Inferences), formatCount(e.Inferences)))
	}
	if e.Hours > 0 {
		out = append(out, amount("Time open", p.Hours, e.Hours, formatDuration(hours(p.Hours)), formatDuration(hours(e.Hours))))
	}
	return append(out, moments(w, now)...)
}

func hours(h float64) time.Duration {
	return time.Duration(h * float64(time.Hour)).Round(time.Second)
}

func amount(name string, have, want float64, haveText, wantText string) need {
	return need{Name: name, Have: haveText, Want: wantText, X: 100 * min(1, have/want), Met: have >= want}
}

// moments are the needs of a wave that are times: its soak and its deadline.
func moments(w *operator.Wave, now time.Time) []need {
	var out []need
	switch {
	case w.Spec.Soak == nil || *w.Spec.Soak == 0:
	case w.State == "soaking" && !w.SoakEnds.IsZero():
		soak := time.Duration(*w.Spec.Soak)
		left := min(max(0, w.SoakEnds.Sub(now)), soak)
		out = append(out, need{Name: "Soak ends", At: w.SoakEnds, X: 100 * float64(soak-left) / float64(soak), Met: left == 0})
	default:
		out = append(out, need{Name: "Soak", Want: formatDuration(time.Duration(*w.Spec.Soak))})
	}
	if !w.Deadline.IsZero() && w.Closed.IsZero() {
		out = append(out, need{Name: "Deadline", At: w.Deadline})
	} else if w.Spec.Deadline > 0 && w.Opened.IsZero() {
		out = append(out, need{Name: "Deadline", Want: formatDuration(time.Duration(w.Spec.Deadline))})
	}
	if w.Spec.Approval && w.Opened.IsZero() {
		out = append(out, need{Name: "Approval", Want: "by a person"})
	}
	return out
}
