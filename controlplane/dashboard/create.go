package dashboard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// createView is the form that makes a rollout. It is sent to itself until the
// person has seen the plan of exactly what is made.
type createView struct {
	Values  url.Values // of the form
	YAML    bool       // the spec is written as YAML
	Sent    bool       // it was filled in before
	Room    bool       // more empty rows were asked for
	Text    string     // the YAML
	Reason  string
	Choices []choice
	Gates   []gateField
	Found   matching
	Plan    *planView // nil until asked for
	Seen    string    // fingerprint of the spec whose plan is shown
	Notice  string
	Error   *operator.Error
}

// choice is a model with its versions.
type choice struct {
	Model    string
	Versions []operator.Version
}

// gateField is one gate in the form.
type gateField struct {
	Kind, Measure, Unit string
	Compares            bool
}

// Bounds of the choices of a form.
const (
	modelsOffered   = 50
	versionsOffered = 30
	matchingShown   = 8 // names of devices that a selector matches
)

// Get is a field as it was filled in.
func (v *createView) Get(name string) string { return v.Values.Get(name) }

// Rows are the names of the rows of a list: those that are filled in and one
// more, or some more when there is to be room.
func (v *createView) Rows(prefix string) []string {
	n := rowsOf(v.Values, prefix)
	if n == 0 || v.Room || !blank(v.Values, rowName(prefix, n-1)) {
		n++
	}
	if v.Room {
		n++
	}
	out := make([]string, min(n, maxRows))
	for i := range out {
		out[i] = rowName(prefix, i)
	}
	return out
}

// newRollout shows the form, filled in with the defaults.
func (s *Server) newRollout(ctx context.Context, r *request) (string, *page, error) {
	if err := allow(r.who, operator.Operator); err != nil {
		return "", nil, err
	}
	q := r.URL.Query()
	v := &createView{YAML: q.Get("as") == "yaml"}
	choices, err := s.choices(ctx)
	if err != nil {
		return "", nil, err
	}
	model, version := chosen(choices, q.Get("model"), q.Get("version"))
	spec, err := defaultSpec(model, version)
	if err != nil {
		return "", nil, err
	}
	spec.Selector = q.Get("selector")
	v.Choices = choices
	return "create", s.createPage(ctx, v, spec), nil
}

// createPage fills in what the form shows beside what the person wrote. With a
// spec the form is written anew from it.
func (s *Server) createPage(ctx context.Context, v *createView, spec *operator.RolloutSpec) *page {
	if spec != nil {
		v.Values = formOfSpec(spec)
		text, err := specYAML(spec)
		if err != nil {
			v.Error = s.explain(err)
		}
		v.Text = text
	}
	if v.Values == nil {
		v.Values = url.Values{}
	}
	for _, kind := range rollout.Kinds() {
		unit := "%"
		if kind == rollout.Drift {
			unit = "PSI"
		}
		v.Gates = append(v.Gates, gateField{Kind: string(kind), Measure: gateMeasures[string(kind)], Unit: unit})
	}
	v.Found = s.match(ctx, v.Get("selector"))
	return &page{Title: "New rollout", Section: "rollouts", Data: v}
}

// choices are the versions that can be rolled out, newest first.
func (s *Server) choices(ctx context.Context) ([]choice, error) {
	models, err := s.cfg.Service.Models(ctx)
	if err != nil {
		return nil, err
	}
	models, _ = first(models, modelsOffered)
	var out []choice
	for _, m := range models {
		detail, err := s.cfg.Service.Model(ctx, m.Name)
		if err != nil {
			return nil, err
		}
		usable := slices.DeleteFunc(slices.Clone(detail.List), func(v operator.Version) bool { return v.BelowFloor || v.Withdrawn })
		usable, _ = first(usable, versionsOffered)
		if len(usable) > 0 {
			out = append(out, choice{Model: m.Name, Versions: usable})
		}
	}
	return out, nil
}

// chosen is the version that was asked for, or the newest of the first model.
func chosen(choices []choice, model, version string) (string, string) {
	for _, c := range choices {
		if model != "" && c.Model != model {
			continue
		}
		if version == "" {
			version = c.Versions[0].Version
		}
		return c.Model, version
	}
	return model, version
}

// createRollout answers the form: with the plan, with another form of the same
// spec, or with the rollout.
func (s *Server) createRollout(w http.ResponseWriter, r *request) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	if err := allow(r.who, operator.Operator); err != nil {
		s.fail(w, r, err)
		return
	}
	v := &createView{Values: r.PostForm, Sent: true, YAML: r.PostForm.Has("yaml"), Text: r.PostForm.Get("yaml"), Reason: reasonOf(r)}
	var err error
	if v.Choices, err = s.choices(ctx); err != nil {
		s.fail(w, r, err)
		return
	}
	var spec *operator.RolloutSpec
	made := ""
	if v.Room = r.PostForm.Get("do") == "row"; !v.Room { // room is made whatever the fields hold
		if spec, err = v.spec(); err == nil {
			made, err = s.create(ctx, r, v, spec)
		}
	}
	if made != "" {
		http.Redirect(w, r.Request, "/rollouts/"+queryPath(made), http.StatusSeeOther)
		return
	}
	status := http.StatusOK
	if err != nil {
		v.Error = s.explain(err)
		status = v.Error.Code.Status()
		spec = nil // what was typed stays
	}
	p := s.createPage(ctx, v, spec)
	s.dress(ctx, r, p)
	s.write(w, status, "create", p)
}

// spec is what was asked for, with its defaults.
func (v *createView) spec() (*operator.RolloutSpec, error) {
	text := v.Text
	if !v.YAML {
		s, err := specOfForm(v.Values)
		if err != nil {
			return nil, err
		}
		if text, err = specYAML(s); err != nil {
			return nil, err
		}
	}
	return completeSpec(text)
}

// create does what the pressed button says, and returns the id of the rollout
// that it made.
func (s *Server) create(ctx context.Context, r *request, v *createView, spec *operator.RolloutSpec) (string, error) {
	switch do := r.PostForm.Get("do"); do {
	case "yaml", "form":
		v.YAML = do == "yaml"
		return "", nil
	case "create", "start":
		if r.PostForm.Get("seen") == fingerprint(spec) {
			made, err := s.cfg.Service.CreateRollout(ctx, operator.RolloutCreate{Spec: *spec, Reason: v.Reason, Start: do == "start"})
			if err == nil {
				return made.ID, nil
			}
			return "", err
		}
		v.Notice = "The form has changed since the plan below was made. This is the plan of what it says now."
	}
	p, err := s.cfg.Service.PlanRollout(ctx, *spec)
	if err != nil {
		return "", err
	}
	v.Plan, v.Seen = planOf(p), fingerprint(spec)
	return "", nil
}

// fingerprint tells whether a spec is the one whose plan was shown.
func fingerprint(s *operator.RolloutSpec) string {
	b, err := json.Marshal(s)
	if err != nil {
		return "" // matches no other
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// matching is which devices a selector matches.
type matching struct {
	Total int
	Names []string
	More  int
	Error *operator.Error
}

func (s *Server) match(ctx context.Context, selector string) matching {
	list, err := s.cfg.Service.Devices(ctx, operator.DeviceQuery{Selector: selector, Paging: operator.Paging{Limit: matchingShown}})
	if err != nil {
		return matching{Error: s.explain(err)}
	}
	m := matching{Total: list.Total}
	shown, _ := first(list.Items, matchingShown)
	for _, d := range shown {
		m.Names = append(m.Names, d.ID)
	}
	m.More = m.Total - len(m.Names)
	return m
}

// matching counts the devices of a selector while a person writes it.
func (s *Server) matching(ctx context.Context, r *request) (string, *page, error) {
	return "matching", &page{Title: "Matching devices", Section: "rollouts", Data: s.match(ctx, r.URL.Query().Get("selector"))}, nil
}

// planView is a plan as a page shows it.
type planView struct {
	*operator.Plan

	Waves   []planWaveView
	Refused []reasoned
	Unmet   []reasoned
}

// planWaveView is one wave of a plan.
type planWaveView struct {
	operator.PlanWave

	Profiles []counted
	Sites    []counted
	Size     int
}

// counted is how many devices share something.
type counted struct {
	Name string
	N    int
}

// reasoned is how many devices share a reason, and which.
type reasoned struct {
	Why     string
	Devices []string
}

const groupsShown = 6 // profiles or sites of one wave of a plan

func planOf(p *operator.Plan) *planView {
	v := &planView{Plan: p, Refused: byReason(p.Refused), Unmet: byReason(p.Unmet)}
	for _, w := range p.Waves {
		v.Waves = append(v.Waves, planWaveView{PlanWave: w, Profiles: largest(w.Profiles), Sites: largest(w.Sites), Size: len(w.Devices)})
	}
	return v
}

// largest are the largest groups and the rest as one.
func largest(groups map[string]int) []counted {
	var out []counted
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, counted{name, groups[name]})
	}
	slices.SortStableFunc(out, func(a, b counted) int { return b.N - a.N })
	if len(out) <= groupsShown {
		return out
	}
	rest := counted{Name: plural(len(out)-groupsShown, "other", "others")}
	for _, c := range out[groupsShown:] {
		rest.N += c.N
	}
	return append(out[:groupsShown:groupsShown], rest)
}

func byReason(devices map[string]string) []reasoned {
	by := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(devices)) {
		by[devices[id]] = append(by[devices[id]], id)
	}
	var out []reasoned
	for _, why := range slices.Sorted(maps.Keys(by)) {
		out = append(out, reasoned{why, by[why]})
	}
	slices.SortStableFunc(out, func(a, b reasoned) int { return len(b.Devices) - len(a.Devices) })
	out, _ = first(out, groupsShown)
	return out
}
