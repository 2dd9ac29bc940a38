package dashboard

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// incidentList is a site that drifts, a rollout that stopped, and what is over.
func (f *fleet) incidentList() []operator.Incident {
	return []operator.Incident{
		{
			ID: "inc-1", Key: "monitor/drift/digits/b/", Kind: "drift", Severity: "warning", State: "open", Model: "digits", Version: "1", Cohort: f.text("b"),
			Summary: f.text("site b has left the training data: 3 of 3 devices, 21 of 64 features apart"), Detail: f.text("furthest apart: p20 (PSI 3.10), p12 (PSI 2.40)"),
			Link: "/drift/digits?cohort=b", Count: 14, Flaps: 2, Opened: now.Add(-3 * time.Hour), Last: now.Add(-time.Minute),
			Timeline: []operator.IncidentEntry{
				{At: now.Add(-3 * time.Hour), What: "opened", Text: f.text("site b has left the training data")},
				{At: now.Add(-179 * time.Minute), What: "told", Who: f.text("chat"), Text: "open"},
				{At: now.Add(-2 * time.Hour), What: "acknowledged", Who: f.text("grace"), Text: f.text("on my way")},
			},
		},
		{
			ID: "inc-2", Key: "rollout/digits-2-1", Kind: "rollout_stopped", Severity: "critical", State: "acknowledged", Owner: f.text("grace"), Model: "digits", Version: "2",
			Summary: f.text("rollout digits-2-1 of digits 2 is halted"), Link: "/rollouts/digits-2-1", Count: 1, Opened: now.Add(-time.Hour), Last: now.Add(-time.Hour), Silence: "sil-1",
		},
		{
			ID: "inc-3", Key: "monitor/sensor_fault/digits/a/cam-a2", Kind: "sensor_fault", Severity: "warning", State: "resolved", Model: "digits", Device: "cam-a2", Cohort: "a",
			Summary: f.text("device cam-a2 has left its cohort"), Count: 3, Opened: now.Add(-50 * time.Hour), Last: now.Add(-49 * time.Hour), Resolved: now.Add(-48 * time.Hour),
		},
	}
}

func (f *fleet) Incidents(_ context.Context, q operator.IncidentQuery) (*operator.Page[operator.Incident], error) {
	all := f.incidentList()
	if q.Open {
		all = all[:2]
	}
	return &operator.Page[operator.Incident]{Items: all, Total: len(all)}, nil
}

func (f *fleet) Incident(_ context.Context, id string) (*operator.Incident, error) {
	for _, i := range f.incidentList() {
		if i.ID == id {
			return &i, nil
		}
	}
	return nil, operator.Errorf(operator.NotFound, "there is no incident %s", id)
}

func (f *fleet) Silences(context.Context) ([]operator.Silence, error) {
	return []operator.Silence{
		{ID: "sil-1", Model: "digits", Kind: "rollout_stopped", From: now.Add(-time.Hour), Until: now.Add(3 * time.Hour), Who: f.text("grace"), Reason: f.text("waiting for a spare part"), Active: true},
		{ID: "sil-0", Model: "digits", Until: now.Add(-time.Hour)},
	}, nil
}

func (f *fleet) NotifySettings(context.Context) (*operator.NotifySettings, error) {
	return &operator.NotifySettings{Receivers: []operator.Receiver{
		{Name: "pager", Severity: "critical", Webhook: &operator.NotifyWebhook{URL: f.text("https://pager.example.org/vedette")}},
		{Name: "data-science", Kinds: []string{"drift", "accuracy"}, Email: &operator.NotifyEmail{Server: f.text("mail.example.org:587")}},
		{Name: "chat", Slack: &operator.NotifySlack{}},
	}}, nil
}

func (f *fleet) AcknowledgeIncident(ctx context.Context, id string, r operator.Reasoned) (*operator.Incident, error) {
	return nil, f.did(ctx, "acknowledge %s because %s", id, r.Reason)
}

func (f *fleet) ResolveIncident(ctx context.Context, id string, r operator.Reasoned) (*operator.Incident, error) {
	return nil, f.did(ctx, "resolve %s because %s", id, r.Reason)
}

func (f *fleet) CreateSilence(ctx context.Context, c operator.SilenceCreate) (*operator.Silence, error) {
	return nil, f.did(ctx, "silence %s for %s because %s", c.Key, c.For, c.Reason)
}

func (f *fleet) ExpireSilence(ctx context.Context, id string, r operator.Reasoned) error {
	return f.did(ctx, "expire %s because %s", id, r.Reason)
}

func (f *fleet) Redeliver(ctx context.Context, id string, r operator.Reasoned) (*operator.RetrainEvent, error) {
	return nil, f.did(ctx, "redeliver %s because %s", id, r.Reason)
}
