package dashboard

import (
	"context"
	"net/http"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// reviseView is the form that changes the spec of a rollout that is under way.
// It is sent to itself until the person has seen what exactly changes.
type reviseView struct {
	*operator.Rollout

	Text        string // the new spec as YAML
	Reason      string
	Shown       bool // Differences are of this text
	Differences []rollout.Difference
	Seen        string // fingerprint of the spec whose differences are shown
	Notice      string
	Error       *operator.Error
}

// revisable is the rollout, when its spec can be changed now.
func (s *Server) revisable(ctx context.Context, r *request) (*reviseView, error) {
	if err := allow(r.who, operator.Operator); err != nil {
		return nil, err
	}
	x, err := s.cfg.Service.Rollout(ctx, r.PathValue("rollout"))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(x.Actions, operator.ActRevise) {
		return nil, notNow(x, operator.ActRevise)
	}
	text, err := specYAML(&x.Spec)
	return &reviseView{Rollout: x, Text: text}, err
}

// reviseForm shows the spec as it is.
func (s *Server) reviseForm(ctx context.Context, r *request) (string, *page, error) {
	v, err := s.revisable(ctx, r)
	if err != nil {
		return "", nil, err
	}
	return "revise", v.page(), nil
}

func (v *reviseView) page() *page {
	return &page{Title: "Revise " + v.ID, Section: "rollouts", Data: v}
}

// revise shows what a new spec changes, and sends it when that was seen.
func (s *Server) revise(w http.ResponseWriter, r *request) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	v, err := s.revisable(ctx, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v.Text, v.Reason = r.PostForm.Get("yaml"), reasonOf(r)
	sent, err := s.sendRevision(ctx, r, v)
	if sent {
		http.Redirect(w, r.Request, "/rollouts/"+queryPath(v.ID), http.StatusSeeOther)
		return
	}
	status := http.StatusOK
	if err != nil {
		v.Error = s.explain(err)
		status = v.Error.Code.Status()
	}
	p := v.page()
	s.dress(ctx, r, p)
	s.write(w, status, "revise", p)
}

func (s *Server) sendRevision(ctx context.Context, r *request, v *reviseView) (sent bool, err error) {
	spec, err := completeSpec(v.Text)
	if err != nil {
		return false, err
	}
	if v.Differences, err = rollout.Differences(v.Spec, *spec); err != nil {
		return false, err
	}
	v.Shown, v.Seen = true, fingerprint(spec)+fingerprint(&v.Spec) // neither side may have changed
	switch {
	case r.PostForm.Get("do") != "send":
		return false, nil
	case r.PostForm.Get("seen") != v.Seen:
		v.Notice = "The spec has changed since the differences were shown. These are the differences now."
		return false, nil
	}
	number := max(0, len(v.Revisions)-1)
	_, err = s.cfg.Service.ActOnRollout(ctx, v.ID, operator.RolloutAction{Action: operator.ActRevise, Reason: v.Reason, Spec: spec, Number: &number})
	return err == nil, err
}
