package dashboard

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// command is one thing that a person can do: a form that says what will
// happen and asks why, and what carries it out. The form is a page of its own;
// with JavaScript it opens in a dialog.
type command struct {
	role operator.Role
	form func(ctx context.Context, s Service, r *request) (*form, error)
	run  func(ctx context.Context, s Service, r *request) error
}

// form asks for what a command needs.
type form struct {
	Title  string
	Text   string   // what will happen
	Points []string // what exactly, as things are now
	Button string
	Danger bool
	Back   string // where the page goes afterwards
	Fields []field
	Reason string          // given before, when the form is shown again
	Error  *operator.Error // why it is shown again
}

// field is one more thing that a form asks for.
type field struct {
	Name, Label, Hint, Value string
	Options                  []string // a choice instead of text
}

// commands are those of the pages by the path of their form.
func commands() map[string]command {
	return map[string]command{
		"/rollouts/{rollout}/{action}": {
			role: operator.Operator, form: rolloutForm,
			run: func(ctx context.Context, s Service, r *request) error {
				_, err := s.ActOnRollout(ctx, r.PathValue("rollout"), operator.RolloutAction{Action: r.PathValue("action"), Reason: reasonOf(r)})
				return err
			},
		},
		"/devices/{device}/labels": {role: operator.Operator, form: labelForm, run: setLabels},
		"/devices/{device}/revoke": {
			role: operator.Admin, form: revokeForm,
			run: func(ctx context.Context, s Service, r *request) error {
				return s.RevokeDevice(ctx, r.PathValue("device"), operator.Reasoned{Reason: reasonOf(r)})
			},
		},
		"/models/{model}/versions/{version}/stage":                 {role: operator.Publisher, form: stageForm, run: setStage},
		"/models/{model}/versions/{version}/challenge":             {role: operator.Operator, form: challengeForm, run: setChallenge},
		"/models/{model}/versions/{version}/promotion/{decision}":  {role: operator.Operator, form: decisionForm, run: decidePromotion},
		"/models/{model}/versions/{version}/lab":                   {role: operator.Operator, form: labForm, run: tryInLab},
		"/models/{model}/versions/{version}/gates/{gate}/override": {role: operator.Publisher, form: overrideForm, run: overrideGate},
		"/models/{model}/end-challenge":                            {role: operator.Operator, form: endChallengeForm, run: endChallenge},
		"/enrolment/{token}/revoke": {
			role: operator.Operator, form: tokenForm,
			run: func(ctx context.Context, s Service, r *request) error {
				return s.RevokeEnrolToken(ctx, r.PathValue("token"))
			},
		},
	}
}

// reasonOf is the reason as one line: the form's field has room for several.
func reasonOf(r *request) string { return strings.Join(strings.Fields(r.PostForm.Get("reason")), " ") }

// ask shows the form of a command.
func (s *Server) ask(c command) signedInHandler {
	return s.show(func(ctx context.Context, r *request) (string, *page, error) {
		if err := allow(r.who, c.role); err != nil {
			return "", nil, err
		}
		f, err := c.form(ctx, s.cfg.Service, r)
		if err != nil {
			return "", nil, err
		}
		return "form", &page{Title: f.Title, Data: f}, nil
	})
}

// act carries a command out and goes back to the page it came from. A refusal
// shows the form again, with what to do.
func (s *Server) act(c command) signedInHandler {
	return func(w http.ResponseWriter, r *request) {
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		err := allow(r.who, c.role)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		f, err := c.form(ctx, s.cfg.Service, r)
		if err == nil {
			err = c.run(ctx, s.cfg.Service, r)
		}
		switch {
		case f == nil:
			s.fail(w, r, err)
		case err != nil:
			f.Error, f.Reason = s.explain(err), reasonOf(r)
			s.refuse(ctx, w, r, f)
		case r.Header.Get("HX-Request") != "":
			w.Header().Set("HX-Redirect", f.Back)
		default:
			http.Redirect(w, r.Request, f.Back, http.StatusSeeOther)
		}
	}
}

// refuse shows a form again. To the dialog it is an ordinary answer: htmx
// shows no others.
func (s *Server) refuse(ctx context.Context, w http.ResponseWriter, r *request, f *form) {
	for i := range f.Fields {
		f.Fields[i].Value = r.PostForm.Get(f.Fields[i].Name)
	}
	status := f.Error.Code.Status()
	if r.Header.Get("HX-Request") != "" {
		status = http.StatusOK
	}
	p := &page{Title: f.Title, Data: f}
	s.dress(ctx, r, p)
	s.write(w, status, "form", p)
}

func allow(p operator.Principal, need operator.Role) error {
	if p.Role.Allows(need) {
		return nil
	}
	return operator.Errorf(operator.Forbidden, "this needs role %s, and %s is %s", need, p.Name, p.Role).
		WithHint("ask an administrator for a token of role %s", need)
}

func labelForm(ctx context.Context, s Service, r *request) (*form, error) {
	d, err := s.Device(ctx, r.PathValue("device"))
	if err != nil {
		return nil, err
	}
	return &form{
		Title: "Labels of " + d.ID, Text: "Labels decide which rollouts take the device in and which cohort it is compared with.",
		Button: "Save labels", Back: "/devices/" + queryPath(d.ID),
		Fields: []field{
			{Name: "labels", Label: "Labels", Hint: "name=value, separated by spaces; what is missing is removed", Value: labelText(d.Labels)},
			{Name: "revision", Value: d.Revision},
		},
	}, nil
}

func labelText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for name, value := range labels {
		parts = append(parts, name+"="+value)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func setLabels(ctx context.Context, s Service, r *request) error {
	id := r.PathValue("device")
	d, err := s.Device(ctx, id)
	if err != nil {
		return err
	}
	change := operator.LabelChange{Set: map[string]string{}, Reason: reasonOf(r), Revision: r.PostForm.Get("revision")}
	for pair := range strings.FieldsSeq(r.PostForm.Get("labels")) {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return operator.Errorf(operator.Invalid, "%.80q is not name=value", pair)
		}
		change.Set[name] = value
	}
	for name := range d.Labels {
		if _, kept := change.Set[name]; !kept {
			change.Remove = append(change.Remove, name)
		}
	}
	slices.Sort(change.Remove)
	_, err = s.SetLabels(ctx, id, change)
	return err
}

func revokeForm(ctx context.Context, s Service, r *request) (*form, error) {
	d, err := s.Device(ctx, r.PathValue("device"))
	if err != nil {
		return nil, err
	}
	return &form{
		Title: "Revoke " + d.ID, Button: "Revoke device", Danger: true, Back: "/devices/" + queryPath(d.ID),
		Text: "Its certificate is refused from now on and its connection is cut. It goes on serving what it has. " +
			"To come back it must enrol anew.",
	}, nil
}

func stageForm(ctx context.Context, s Service, r *request) (*form, error) {
	v, err := s.Version(ctx, r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	return &form{
		Title: "Stage of " + v.Model + " " + v.Version.Version, Button: "Set stage",
		Back: "/models/" + queryPath(v.Model) + "/versions/" + queryPath(v.Version.Version),
		Text: "The stage says where a version stands in its life. It moves no device: rollouts do.",
		Fields: []field{
			{Name: "stage", Label: "Stage", Value: string(v.Stage), Options: []string{
				string(operator.StageNone), string(operator.StageStaging), string(operator.StageProduction), string(operator.StageArchived),
			}},
			{Name: "revision", Value: v.Revision},
		},
	}, nil
}

func setStage(ctx context.Context, s Service, r *request) error {
	_, err := s.SetStage(ctx, r.PathValue("model"), r.PathValue("version"), operator.StageChange{
		Stage: operator.Stage(r.PostForm.Get("stage")), Reason: reasonOf(r), Revision: r.PostForm.Get("revision"),
	})
	return err
}

func tokenForm(_ context.Context, _ Service, r *request) (*form, error) {
	return &form{
		Title: "Revoke enrolment token " + r.PathValue("token"), Button: "Revoke token", Danger: true, Back: "/enrolment",
		Text: "No device can enrol with it any more. Devices that have enrolled stay.",
	}, nil
}
