package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/promotion"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// worldPromotions has version 2 waiting for somebody of role publisher.
type worldPromotions struct{ *world }

func (w worldPromotions) Policy(model string) operator.PromotionPolicy {
	return operator.PromotionPolicy{Model: model, Text: "on: all\n"}
}

func (w worldPromotions) List(string) []operator.Promotion {
	p, _ := w.Get(second)
	return []operator.Promotion{p}
}

func (w worldPromotions) Get(d release.Digest) (operator.Promotion, error) {
	if d != second {
		return operator.Promotion{}, promotion.ErrNotFound
	}
	return operator.Promotion{
		Model: "digits", Version: "2", Release: second, State: operator.PromotionAwaiting, Approver: operator.Publisher, Created: now, Since: now,
	}, nil
}

func (w worldPromotions) SetPolicy(_ context.Context, actor, model string, c operator.PromotionPolicyChange) (operator.PromotionPolicy, error) {
	return operator.PromotionPolicy{Model: model, Text: c.Text, Actor: actor, Reason: c.Reason}, w.did("promotion policy " + model)
}

func (w worldPromotions) Decide(_ context.Context, actor string, d release.Digest, approve bool, _ string) (operator.Promotion, error) {
	if !approve {
		return operator.Promotion{}, promotion.ErrState
	}
	p, err := w.Get(d)
	p.Decided = actor
	return p, errors.Join(err, w.did("approve "+p.Version))
}

// TestPromotionRoles: who approves must hold the role that the policy names.
func TestPromotionRoles(t *testing.T) {
	w := newWorld()
	s := w.service()
	decide := func(role operator.Role, approve bool, version string) error {
		_, err := s.DecidePromotion(as(t, role), "digits", version, operator.PromotionDecision{Approve: approve, Reason: "looked at it"})
		return err
	}
	for _, tt := range []struct {
		name string
		err  error
		want operator.Code
	}{
		{"viewer", decide(operator.Viewer, true, "2"), operator.Forbidden},
		{"operator, where a publisher is needed", decide(operator.Operator, true, "2"), operator.Forbidden},
		{"publisher", decide(operator.Publisher, true, "2"), ""},
		{"what waits for nobody", decide(operator.Admin, false, "2"), operator.Conflict},
		{"no promotion", decide(operator.Admin, true, "1"), operator.NotFound},
		{"policy by an operator", errOnly(s.SetPromotionPolicy(as(t, operator.Operator), "digits", operator.PromotionPolicyChange{Reason: "x"})), operator.Forbidden},
		{"policy without a reason", errOnly(s.SetPromotionPolicy(as(t, operator.Publisher), "digits", operator.PromotionPolicyChange{})), operator.ReasonRequired},
		{"policy of no model", errOnly(s.SetPromotionPolicy(as(t, operator.Publisher), "../x", operator.PromotionPolicyChange{Reason: "x"})), operator.Invalid},
		{"policy", errOnly(s.SetPromotionPolicy(as(t, operator.Publisher), "new", operator.PromotionPolicyChange{Reason: "x"})), ""},
	} {
		if got := operator.CodeOf(tt.err); got != tt.want {
			t.Errorf("%s: got %v, want code %q", tt.name, tt.err, tt.want)
		}
	}
	if list, err := s.Promotions(t.Context(), "digits"); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
}

func errOnly(_ *operator.PromotionPolicy, err error) error { return err }

// TestLineageOfAPackedVersion: what is not known is said, not guessed.
func TestLineageOfAPackedVersion(t *testing.T) {
	s := newWorld().service()
	l, err := s.Lineage(t.Context(), "digits", "2")
	if err != nil || l.Release.Version != "2" || len(l.Gaps) == 0 {
		t.Errorf("got %+v, %v", l, err)
	}
	if _, err := s.Lineage(t.Context(), "digits", "9"); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := s.DeviceLineage(t.Context(), "nobody", operator.LineageQuery{At: now.Add(-time.Hour)}); operator.CodeOf(err) != operator.NotFound {
		t.Errorf("got %v", err)
	}
}
