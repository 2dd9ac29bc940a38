package dashboard

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Promotions tells of version 2 that it waits for somebody to approve it.
func (f *fleet) Promotions(context.Context, string) ([]operator.Promotion, error) {
	return []operator.Promotion{{
		Model: "digits", Version: "2", Release: digest2, Why: f.text("published by ci"), Retrain: f.text("q-7"), State: operator.PromotionAwaiting,
		Text: f.text("waits for somebody of role operator or above"), Approver: operator.Operator, Created: now.Add(-time.Hour), Since: now.Add(-time.Hour), Deadline: now.Add(71 * time.Hour),
	}, {
		Model: "digits", Version: "1", Release: digest1, Why: f.text("published by ann"), State: operator.PromotionCompleted, Text: f.text("on the fleet"), Rollout: "digits-1",
		Created: now.Add(-48 * time.Hour), Since: now.Add(-47 * time.Hour),
	}}, nil
}

// PromotionPolicy is one that asks an operator.
func (f *fleet) PromotionPolicy(_ context.Context, model string) (*operator.PromotionPolicy, error) {
	return &operator.PromotionPolicy{Model: model, Text: f.text("on: retrain\napproval: operator\n"), Actor: f.text("ann"), Reason: f.text("agreed"), At: now.Add(-72 * time.Hour)}, nil
}

// DecidePromotion notes who decided.
func (f *fleet) DecidePromotion(ctx context.Context, model, version string, d operator.PromotionDecision) (*operator.Promotion, error) {
	verb := map[bool]string{true: "approve ", false: "deny "}[d.Approve]
	return &operator.Promotion{Model: model, Version: version}, f.did(ctx, "%s%s %s because %s", verb, model, version, d.Reason)
}

// Lineage is that of a version which answers a request for retraining.
func (f *fleet) Lineage(context.Context, string, string) (*operator.Provenance, error) {
	return &operator.Provenance{
		Release: ref2, Sequence: 2, Published: now.Add(-time.Hour), By: f.text("ci"),
		Signature: operator.Signature{Role: "model-digits", Threshold: 1, KeyIDs: []string{"3f2a9c51d0e4b7"}},
		Rollouts:  []operator.LineageRollout{{ID: "digits-2", Status: "running", Creator: f.text("promotion/1234"), Created: now.Add(-time.Hour)}},
		Candidate: &operator.LineageCandidate{Source: f.text("models:/digits/7"), User: f.text("ann"), Registered: now.Add(-2 * time.Hour), Retrain: f.text("q-7")},
		Run: &operator.LineageRun{
			ID: "9f3c3b1c5f6e4c7b8a1d2e3f4a5b6c7d", Name: f.text("bold-crane"), User: f.text("ann"), Status: "FINISHED", Started: now.Add(-3 * time.Hour), Seed: f.text("7"),
			Datasets: []operator.LineageDataset{{Name: f.text("digits"), Digest: f.text("ab12"), Context: f.text("training")}},
		},
		Commit: f.text("c0ffee"), Author: f.text("ann"), Data: f.text("uci-1991"), Parent: &ref1, Gaps: []string{f.text("nothing is known of the weather")},
	}, nil
}
