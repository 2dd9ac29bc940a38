package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// View is one rollout as it stands, with what its gates say at this moment.
type View struct {
	State    *rollout.State       `json:"state"`           // not to be changed
	Facts    *rollout.Facts       `json:"-"`               // as known now; not to be changed
	Revision uint64               `json:"revision"`        // ledger sequence of its newest record
	Gates    []rollout.GateResult `json:"gates,omitempty"` // of the newest wave, judged now
	Actions  []rollout.Action     `json:"actions"`         // possible now
	Timeline []Entry              `json:"timeline"`        // oldest first
}

// Explanation says why a rollout is where it is.
type Explanation struct {
	rollout.Explanation
	View View `json:"view"`
}

// prepare fills in what a spec leaves open and checks it.
func (r *Runner) prepare(ctx context.Context, spec rollout.Spec) (rollout.Spec, rollout.Requirements, error) {
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return spec, rollout.Requirements{}, err
	}
	digest, manifest, err := r.cfg.Releases.Release(ctx, spec.Model, spec.Version)
	if err != nil {
		return spec, rollout.Requirements{}, fmt.Errorf("find %s %s: %w", spec.Model, spec.Version, err)
	}
	if !spec.Release.IsZero() && spec.Release != digest {
		return spec, rollout.Requirements{}, fmt.Errorf("%w: release is %s, version %s is %s", rollout.ErrSpec, spec.Release, spec.Version, digest)
	}
	spec.Release = digest
	return spec, requirements(manifest), nil
}

func requirements(m *release.Manifest) rollout.Requirements {
	r := rollout.Requirements{
		MinAgent: m.Limits.MinAgent, MinRuntime: m.Limits.MinRuntime, MemoryBytes: m.Limits.MemoryBytes,
	}
	for _, v := range m.Variants {
		r.Variants = append(r.Variants, rollout.Variant{
			Name: v.Name, Arch: v.Arch, Providers: v.Providers,
			Bytes: v.Graph.Size + m.Baseline.Size + m.Golden.Size,
		})
	}
	return r
}

// Plan says what a rollout would do. It looks at every device and lays its
// presence out, which costs far more than a view: one plan is made at a time, and
// whoever asks for another waits until ctx ends.
func (r *Runner) Plan(ctx context.Context, spec rollout.Spec) (rollout.Plan, error) {
	select {
	case r.planning <- struct{}{}:
		defer func() { <-r.planning }()
	case <-ctx.Done():
		return rollout.Plan{}, fmt.Errorf("plan rollout: another plan is being made: %w", ctx.Err())
	}
	spec, requires, err := r.prepare(ctx, spec)
	if err != nil {
		return rollout.Plan{}, err
	}
	if err := r.superseded("", &spec); err != nil {
		return rollout.Plan{}, fmt.Errorf("plan rollout: %w", err)
	}
	id := r.freeID(spec)
	now := r.cfg.Now()
	draft := rollout.New(id, "", spec, requires, now)
	p := rollout.MakePlan(id, spec, requires, r.gather(draft), presence{r.cfg.Fleet}, now)
	for _, parent := range r.ancestors(draft) {
		if s := r.chain(parent).state; !s.Header.Status.Final() {
			p.Supersede(s)
		}
	}
	return p, nil
}

// Create makes a rollout in state draft. It is named after model and version.
func (r *Runner) Create(ctx context.Context, actor, reason string, spec rollout.Spec) (View, error) {
	if strings.TrimSpace(reason) == "" || actor == "" {
		return View{}, fmt.Errorf("create rollout: %w", rollout.ErrReason)
	}
	spec, requires, err := r.prepare(ctx, spec)
	if err != nil {
		return View{}, fmt.Errorf("create rollout: %w", err)
	}
	if err := r.cleared(ctx, spec); err != nil {
		return View{}, fmt.Errorf("create rollout: %w", err)
	}
	r.deciding.Lock()
	defer r.deciding.Unlock()
	if err := r.superseded("", &spec); err != nil {
		return View{}, fmt.Errorf("create rollout: %w", err)
	}
	for range maxConflicts {
		c, err := r.create(ctx, actor, reason, rollout.New(r.freeID(spec), actor, spec, requires, r.cfg.Now()))
		if errors.Is(err, ledger.ErrConflict) {
			continue // the id is taken in the ledger; create has taken it in
		}
		if err != nil {
			return View{}, err
		}
		return r.view(c), nil
	}
	return View{}, fmt.Errorf("create rollout: %w: another server creates rollouts, too", ledger.ErrConflict)
}

func (r *Runner) create(ctx context.Context, actor, reason string, s *rollout.State) (*chain, error) {
	name := desired.RolloutChain(s.ID)
	rec, err := r.cfg.Ledger.Append(ctx, name, 0, KindCreated, actor, Created{Reason: reason, State: s})
	if errors.Is(err, ledger.ErrConflict) {
		c, readErr := r.read(ctx, name)
		if readErr != nil {
			return nil, fmt.Errorf("create rollout %s: %w", s.ID, readErr)
		}
		r.set(c)
	}
	if err != nil {
		return nil, fmt.Errorf("create rollout %s: %w", s.ID, err)
	}
	c, err := begin(rec)
	if err != nil {
		return nil, err
	}
	r.set(c)
	r.Nudge()
	return c, nil
}

// freeID is the first id of model, version and number that is not taken.
func (r *Runner) freeID(spec rollout.Spec) string {
	base := strings.NewReplacer(".", "-", "_", "-").Replace(spec.Model + "-" + spec.Version)
	r.mu.RLock()
	defer r.mu.RUnlock()
	for n := 1; ; n++ {
		id := fmt.Sprintf("%s-%d", base, n)
		if _, taken := r.rollouts[id]; !taken {
			return id
		}
	}
}

// Act carries out an operator's command. When it returns, the command and what
// followed from it are in the ledger and the devices are being told.
func (r *Runner) Act(ctx context.Context, id string, cmd rollout.Command) (View, error) {
	if cmd.Action == rollout.Replace {
		return View{}, fmt.Errorf("replace rollout %s: %w: start a rollout that supersedes it", id, rollout.ErrNotNow)
	}
	if err := r.mayAct(ctx, id, &cmd); err != nil {
		return View{}, err
	}
	if cmd.Action == rollout.Revise {
		if err := r.prepareRevision(ctx, id, &cmd); err != nil {
			return View{}, err
		}
	}
	if err := r.decide(ctx, id, &cmd); err != nil {
		return View{}, err
	}
	r.Nudge()
	return r.Get(id)
}

// prepareRevision fills in what a revision leaves open and checks it as far as
// the engine cannot.
func (r *Runner) prepareRevision(ctx context.Context, id string, cmd *rollout.Command) error {
	if cmd.Spec == nil {
		return fmt.Errorf("revise rollout %s: %w: it is missing", id, rollout.ErrSpec)
	}
	spec, _, err := r.prepare(ctx, *cmd.Spec)
	if err == nil {
		err = r.superseded(id, &spec)
	}
	if err == nil {
		err = r.cleared(ctx, spec)
	}
	if err != nil {
		return fmt.Errorf("revise rollout %s: %w", id, err)
	}
	cmd.Spec = &spec
	return nil
}

// Get returns one rollout.
func (r *Runner) Get(id string) (View, error) {
	c := r.chain(id)
	if c == nil {
		return View{}, fmt.Errorf("rollout %q: %w", id, ErrNotFound)
	}
	return r.view(c), nil
}

func (r *Runner) view(c *chain) View {
	v := View{State: c.state, Facts: c.facts, Revision: c.head, Actions: c.state.Actions(), Timeline: c.timeline}
	if !c.state.GoesOn() {
		return v
	}
	v.Facts = r.gather(c.state)
	if c.state.Header.Wave > 0 {
		v.Gates = rollout.Judge(c.state, v.Facts, r.cfg.Now())
	}
	return v
}

// List returns all rollouts, the newest first, without gates and timelines.
func (r *Runner) List() []View {
	r.mu.RLock()
	chains := slices.Collect(maps.Values(r.rollouts))
	r.mu.RUnlock()
	slices.SortFunc(chains, func(a, b *chain) int {
		if c := b.state.Header.Created.Compare(a.state.Header.Created); c != 0 {
			return c
		}
		return strings.Compare(b.state.ID, a.state.ID)
	})
	out := make([]View, len(chains))
	for i, c := range chains {
		out[i] = View{State: c.state, Facts: c.facts, Revision: c.head, Actions: c.state.Actions()}
	}
	return out
}

// unfinished are the rollouts that go on by themselves, by id.
func (r *Runner) unfinished() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []string
	for _, id := range slices.Sorted(maps.Keys(r.rollouts)) {
		if !r.rollouts[id].state.Header.Status.Final() {
			out = append(out, id)
		}
	}
	return out
}

// Explain says why a rollout is where it is and what it waits for.
func (r *Runner) Explain(id string) (Explanation, error) {
	v, err := r.Get(id)
	if err != nil {
		return Explanation{}, err
	}
	return Explanation{Explanation: rollout.Explain(v.State, v.Facts, r.cfg.Now()), View: v}, nil
}

// ExplainDevice says why a device is where it is in a rollout.
func (r *Runner) ExplainDevice(id, device string) (string, error) {
	v, err := r.Get(id)
	if err != nil {
		return "", err
	}
	return rollout.ExplainDevice(v.State, v.Facts, device, r.cfg.Now()), nil
}
