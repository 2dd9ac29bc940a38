package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Rollouts drives rollouts.
type Rollouts interface {
	List() []runner.View
	Get(id string) (runner.View, error)
	// Revision is the ledger sequence of a rollout's newest record; it costs
	// nothing to ask.
	Revision(id string) (uint64, error)
	Plan(ctx context.Context, spec rollout.Spec) (rollout.Plan, error)
	Create(ctx context.Context, actor, reason string, spec rollout.Spec) (runner.View, error)
	Act(ctx context.Context, id string, c rollout.Command) (runner.View, error)
}

// rolloutError gives an answer of the engine its code.
func rolloutError(err error) error {
	var code operator.Code
	var hint string
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rollout.ErrNotNow):
		code, hint = operator.NotNow, "look at it with `vedette rollout status ID`; what is possible now is done with `vedette rollout ACTION ID --reason …`"
	case errors.Is(err, rollout.ErrHeld):
		code, hint = operator.Held, "let it wait with on_conflict: queue, or take the devices over with supersedes: the other rollout"
	case errors.Is(err, rollout.ErrStale):
		code, hint = operator.Stale, "look at what changed with `vedette rollout diff`, then revise that"
	case errors.Is(err, rollout.ErrNobody):
		code = operator.NoDevices
	case errors.Is(err, rollout.ErrReason):
		code = operator.ReasonRequired
	case errors.Is(err, rollout.ErrSpec):
		code = operator.Invalid
	case errors.Is(err, runner.ErrNotFound):
		code = operator.NotFound // the text says how to list them
	default:
		return validationError(err)
	}
	e := operator.Errorf(code, "%w", err)
	if hint != "" {
		e = e.WithHint("%s", hint)
	}
	return e
}

// Rollouts lists rollouts, newest first.
func (s *Service) Rollouts(_ context.Context, q operator.RolloutQuery) (*operator.Page[operator.RolloutSummary], error) {
	list := []operator.RolloutSummary{}
	for _, v := range s.d.Rollouts.List() {
		r := s.looks.summary(v)
		if (q.Model == "" || r.Model == q.Model) && (q.State == "" || r.State == q.State) && (!q.Active || !r.State.Ended()) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b operator.RolloutSummary) int { return strings.Compare(rolloutKey(&a), rolloutKey(&b)) })
	return paginate(list, q.Paging, rolloutKey)
}

func rolloutKey(r *operator.RolloutSummary) string { return newestFirst(r.Created, r.ID) }

func rolloutSummary(v runner.View) operator.RolloutSummary {
	h := &v.State.Header
	out := operator.RolloutSummary{
		ID: v.State.ID, Model: v.State.Spec.Model, Version: v.State.Spec.Version, Release: v.State.Spec.Release,
		State: operator.RolloutState(h.Status), Cause: h.Cause, Wave: h.Wave, Waves: len(v.State.Waves), Devices: len(v.State.Devices),
		Counts: map[string]int{}, Created: h.Created, Started: h.Started, Since: h.Since, CreatedBy: h.Creator,
	}
	if h.Status.Final() {
		out.Ended = h.Since
	}
	for _, d := range v.State.Devices {
		out.Counts[string(d.State)]++
	}
	if later := len(yetToCome(v)); later > 0 {
		out.Devices += later
		out.Counts[string(rollout.DeviceWaiting)] += later
	}
	return out
}

// yetToCome are the devices that a rollout selects and no wave has drawn: the
// engine names them when it opens one. One that ended before that keeps those of
// its end; a completed one has drawn all.
func yetToCome(v runner.View) []string {
	if v.Facts == nil || v.State.Header.Status == rollout.StatusCompleted {
		return nil
	}
	var ids []string
	for id, f := range v.Facts.Devices {
		if _, named := v.State.Devices[id]; !named && f.Selected {
			ids = append(ids, id)
		}
	}
	return ids
}

// Rollout is everything about one rollout.
func (s *Service) Rollout(_ context.Context, id string) (*operator.Rollout, error) {
	r, err := s.looks.rollout(id, s.rollout)
	return r, rolloutError(err)
}

func (s *Service) rollout(v runner.View) *operator.Rollout {
	h := &v.State.Header
	out := &operator.Rollout{
		RolloutSummary: rolloutSummary(v), Spec: rolloutSpec(v.State.Spec), WaveList: []operator.Wave{}, Gates: gates(v.Gates),
		Timeline: timeline(v.Timeline), Decisions: len(v.Timeline), Actions: []string{},
		Deadline: h.Deadline, Overall: h.Overall, Revision: v.Revision,
	}
	s.addProgress(out, v)
	for _, a := range v.Actions {
		out.Actions = append(out.Actions, string(a))
	}
	byWave := membersOf(v.State)
	for i := range v.State.Waves {
		out.WaveList = append(out.WaveList, s.wave(v, i, byWave[i+1]))
	}
	waiting := yetToCome(v)
	for id, d := range v.State.Devices {
		if d.Control {
			out.Control = append(out.Control, id)
		}
		if d.Wave == 0 {
			waiting = append(waiting, id)
		}
	}
	out.Control, out.Waiting, out.WaitingTotal = listed(out.Control), listed(waiting), len(waiting)
	return out
}

func (s *Service) wave(v runner.View, i int, m members) operator.Wave {
	state := v.State
	w := &state.Waves[i]
	out := operator.Wave{
		Number: i + 1, State: string(w.State), Cause: w.Cause, Planned: w.Planned, Counts: map[string]int{}, Devices: []operator.WaveDevice{},
		Gates: gates(w.Gates), Since: w.Since, Opened: w.Opened, SoakEnds: w.SoakEnds, Closed: w.Closed, Deadline: w.Deadline, Forced: w.Forced,
		Progress: s.waveProgress(v, i+1),
	}
	if i < len(state.Spec.Waves) {
		out.Spec = waveSpec(state.Spec.Waves[i])
		out.Name = out.Spec.Name
	}
	for at, ids := range m {
		out.Counts[string(at)] = len(ids)
		if late := lateOf(state, ids); late > 0 {
			if out.Late == nil {
				out.Late = map[string]int{}
			}
			out.Late[string(at)] = late
		}
	}
	for _, id := range m.first(operator.MaxListed) {
		out.Devices = append(out.Devices, s.waveDevice(state, id, state.Devices[id]))
	}
	out.More = m.len() - len(out.Devices)
	return out
}

func lateOf(s *rollout.State, ids []string) (n int) {
	for _, id := range ids {
		if s.Devices[id].Late {
			n++
		}
	}
	return n
}

func (s *Service) waveDevice(state *rollout.State, id string, d *rollout.Device) operator.WaveDevice {
	out := operator.WaveDevice{
		Device: id, State: string(d.State), Since: d.Since, Code: d.Code, Message: d.Message, Site: d.Site, Profile: d.Profile,
		Tries: d.Tries, Late: d.Late, Already: d.Already, Presence: operator.PresenceUnknown,
		Wave: d.Wave, Control: d.Control, Deadline: state.DeadlineOf(id),
	}
	if !d.Old.IsZero() {
		out.Old = s.ref(state.Spec.Model, d.Old).Version
	}
	if known, ok := s.d.Fleet.Device(id); ok {
		out.Presence, out.Heard = operator.Presence(known.Presence), known.LastSeen
	}
	return out
}

func gates(in []rollout.GateResult) []operator.Gate {
	out := []operator.Gate{}
	for _, g := range in {
		out = append(out, operator.Gate{
			Kind: string(g.Gate), Result: string(g.Result), Numerator: g.Numerator, Denominator: g.Denominator,
			Value: g.Value, Limit: g.Limit, From: g.From, To: g.To, Text: g.Text,
			Worse: g.Worse, Fine: g.Fine, EHarm: g.EHarm, EFine: g.EFine, EControl: g.EControl, Alpha: g.Alpha,
		})
	}
	return out
}

// changeText is one transition in words.
func changeText(c *rollout.Change) string {
	subject := c.Subject
	switch c.Subject {
	case rollout.SubjectWave:
		subject = fmt.Sprintf("wave %d", c.Wave)
	case rollout.SubjectDevices:
		subject = fmt.Sprintf("%d devices", len(c.Devices))
		if len(c.Devices) == 1 {
			subject = c.Devices[0]
		}
	}
	return fmt.Sprintf("%s %s: %s", subject, c.To, c.Why)
}

// ExplainRollout says why a rollout is where it is.
func (s *Service) ExplainRollout(_ context.Context, id string) (*operator.Explanation, error) {
	v, err := s.looks.view(id)
	if err != nil {
		return nil, rolloutError(err)
	}
	why := rollout.Explain(v.State, v.Facts, s.d.Now())
	out := &operator.Explanation{
		ID: id, State: operator.RolloutState(v.State.Header.Status), Summary: why.Summary, Waiting: append([]string{}, why.Waiting...),
		Gates: gates(v.Gates), Decisions: timeline(v.Timeline), Total: len(v.Timeline),
	}
	slices.Reverse(out.Decisions)
	return out, nil
}

// PlanRollout says what a rollout would do.
func (s *Service) PlanRollout(ctx context.Context, spec operator.RolloutSpec) (*operator.Plan, error) {
	p, err := s.d.Rollouts.Plan(ctx, specOf(spec))
	if err != nil {
		return nil, rolloutError(err)
	}
	out := planOf(&p)
	if w := s.gateWarning(ctx, &p.Spec); w != "" {
		out.Warnings = append(out.Warnings, w)
	}
	return out, nil
}

func planOf(p *rollout.Plan) *operator.Plan {
	out := &operator.Plan{
		Spec: rolloutSpec(p.Spec), Release: p.Spec.Release, Devices: p.Devices, Already: p.Already, Refused: p.Refused, Held: p.Held,
		Unmet: p.Unmet, Control: p.Control, Unheard: p.Unheard, Waves: []operator.PlanWave{}, Bytes: p.Bytes, FullBytes: p.FullBytes,
		Begins: p.Begins, FirstOffer: p.FirstOffer, Expected: release.Duration(p.Expected), Slow: release.Duration(p.Slow), Replays: rollout.Replays, Unfinished: p.Unfinished,
		Warnings: p.Warnings,
	}
	for _, c := range p.Conflicts {
		out.Conflicts = append(out.Conflicts, operator.PlanConflict(c))
	}
	for _, w := range p.Waves {
		out.Waves = append(out.Waves, planWave(&w))
	}
	return out
}

func planWave(w *rollout.PlanWave) operator.PlanWave {
	out := operator.PlanWave{
		Number: w.Number, Name: w.Name, Devices: w.Devices, Profiles: w.Profiles, Sites: w.Sites, Bytes: w.Bytes,
		Expected: release.Duration(w.Expected), Slow: release.Duration(w.Slow), Unfinished: w.Unfinished, Stalls: w.Stalls, Approval: w.Approval,
	}
	for _, d := range w.Detectable {
		out.Detectable = append(out.Detectable, operator.Detectable{Kind: string(d.Gate), Limit: d.Limit, Least: d.Least, Text: d.Text})
	}
	return out
}

// CreateRollout makes a rollout, and starts it when asked to.
func (s *Service) CreateRollout(ctx context.Context, c operator.RolloutCreate) (*operator.Rollout, error) {
	p, err := commander(ctx, operator.Operator, c.Reason)
	if err != nil {
		return nil, err
	}
	if err := checkNames(&c.Spec); err != nil {
		return nil, err
	}
	v, err := s.d.Rollouts.Create(ctx, p.Name, c.Reason, specOf(c.Spec))
	if err != nil {
		return nil, rolloutError(err)
	}
	if !c.Start {
		return s.rollout(v), nil
	}
	r, err := s.ActOnRollout(ctx, v.State.ID, operator.RolloutAction{Action: operator.ActStart, Reason: c.Reason})
	if err != nil {
		return nil, s.unstarted(ctx, v.State.ID, err)
	}
	return r, nil
}

// unstarted says what became of a rollout that was made to be started at once.
// One that may not start is aborted: nobody asked for a draft. After a fault it
// is not known how far the start came, so that one is left as it is.
func (s *Service) unstarted(ctx context.Context, id string, cause error) error {
	e, told := errors.AsType[*operator.Error](cause)
	if !told {
		s.d.Log.Error("rollout made and not started", "rollout", id, "error", cause)
		e = operator.Errorf(operator.Internal, "%s was made, and the server failed to start it", id)
	}
	if e.Code.Status() == http.StatusConflict {
		reason := shortened("was to start at once: "+e.Message, operator.MaxReason)
		_, err := s.ActOnRollout(ctx, id, operator.RolloutAction{Action: operator.ActAbort, Reason: reason})
		if err == nil {
			return e.WithHint("%s was made and, as it could not start, aborted: make it again when nothing is in its way", id)
		}
		s.d.Log.Warn("rollout that could not start not aborted", "rollout", id, "error", err)
	}
	return e.WithHint("%[1]s was made and not started: \"vedette rollout start %[1]s --reason …\" starts it, \"vedette rollout abort %[1]s --reason …\" ends it", id)
}

// shortened is the beginning of a text, of at most limit bytes.
func shortened(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}

// ActOnRollout does to a rollout what an operator asks for.
func (s *Service) ActOnRollout(ctx context.Context, id string, a operator.RolloutAction) (*operator.Rollout, error) {
	p, err := commander(ctx, operator.Operator, a.Reason)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(operator.Actions(), a.Action) {
		return nil, operator.Errorf(operator.Invalid, "there is no action %.40q", a.Action).WithHint("actions are %s", strings.Join(operator.Actions(), ", "))
	}
	cmd := rollout.Command{Action: rollout.Action(a.Action), Actor: p.Name, Reason: a.Reason}
	if a.Spec != nil {
		if err := revisable(&a); err != nil {
			return nil, err
		}
		cmd.Spec, cmd.Number = new(specOf(*a.Spec)), a.Number
	}
	v, err := s.d.Rollouts.Act(ctx, id, cmd)
	if err != nil {
		return nil, rolloutError(err)
	}
	return s.rollout(v), nil
}

// revisable checks a spec that is to replace that of a rollout.
func revisable(a *operator.RolloutAction) error {
	if a.Action != operator.ActRevise {
		return operator.Errorf(operator.Invalid, "%s takes no spec", a.Action).WithHint("only %s does", operator.ActRevise)
	}
	return checkNames(a.Spec)
}

// checkNames refuses names of waves that would not be shown but obeyed.
func checkNames(spec *operator.RolloutSpec) error {
	for _, w := range spec.Waves {
		if err := operator.CheckText("name of a wave", w.Name); err != nil {
			return err
		}
	}
	return nil
}

// specOf and rolloutSpec translate between the API and the engine, whose specs
// are the same JSON: a test compares them field by field.
func specOf(in operator.RolloutSpec) rollout.Spec { return same[rollout.Spec](in) }

func rolloutSpec(in rollout.Spec) operator.RolloutSpec {
	in.Release = release.Digest{} // the API names versions
	return same[operator.RolloutSpec](in)
}

func waveSpec(w rollout.WaveSpec) operator.WaveSpec { return same[operator.WaveSpec](w) }

// same returns a value as another type that has the same JSON.
func same[T any](v any) T {
	var out T
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		panic(fmt.Sprintf("%T is not %T: %v", v, out, err)) // finite numbers, strings and times: cannot be
	}
	return out
}
