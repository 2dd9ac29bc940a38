package api

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func codeOf(err error) operator.Code {
	if e, ok := errors.AsType[*operator.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestIncidentsOfPeople(t *testing.T) {
	w := newWorld()
	s, ctx := w.service(), as(t, operator.Operator)
	for i, key := range []string{"a", "b", "c"} {
		at := now.Add(time.Duration(i-10) * time.Minute)
		if err := w.board.Raise(ctx, at, incident.Cause{Key: key, Kind: incident.Drift, Model: "digits", Cohort: key, Summary: "site " + key + " left"}); err != nil {
			t.Fatal(err)
		}
	}
	why := operator.Reasoned{Reason: "on it"}
	list := func(q operator.IncidentQuery) string {
		t.Helper()
		page, err := s.Incidents(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, i := range page.Items {
			out = append(out, i.Key+" "+i.State)
		}
		return strings.Join(out, ", ")
	}
	first, _ := w.board.Newest("a")
	if got, err := s.AcknowledgeIncident(ctx, first.ID, why); err != nil || got.Owner != "ann" || got.State != "acknowledged" {
		t.Fatalf("acknowledge: got %+v, %v", got, err)
	}
	last, _ := w.board.Newest("c")
	if _, err := s.ResolveIncident(ctx, last.ID, why); err != nil {
		t.Fatal(err)
	}
	if got, want := list(operator.IncidentQuery{}), "b open, a acknowledged, c resolved"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := list(operator.IncidentQuery{Open: true, Model: "digits"}), "b open, a acknowledged"; got != want {
		t.Errorf("open: got %s, want %s", got, want)
	}
	if got := list(operator.IncidentQuery{Kind: incident.Accuracy}); got != "" {
		t.Errorf("of another kind: got %s", got)
	}
	if i, err := s.Incident(ctx, first.ID); err != nil || len(i.Timeline) != 2 || i.Timeline[1].Who != "ann" || i.Timeline[1].Text != "on it" {
		t.Errorf("one: got %+v, %v", i, err)
	}
	if _, err := s.ResolveIncident(ctx, last.ID, why); codeOf(err) != operator.Conflict {
		t.Errorf("resolve twice: got %v", err)
	}
	if _, err := s.Incident(ctx, "inc-0"); codeOf(err) != operator.NotFound {
		t.Errorf("unknown: got %v", err)
	}
	if _, err := s.AcknowledgeIncident(ctx, first.ID, operator.Reasoned{}); codeOf(err) != operator.ReasonRequired {
		t.Errorf("no reason: got %v", err)
	}
	if _, err := s.AcknowledgeIncident(as(t, operator.Viewer), first.ID, why); codeOf(err) != operator.Forbidden {
		t.Errorf("viewer: got %v", err)
	}
	var kinds []string
	for _, n := range w.notes {
		kinds = append(kinds, n.Kind)
	}
	if got := strings.Join(kinds, " "); got != "incident.acknowledged incident.resolved" {
		t.Errorf("ledger: got %s", got)
	}
}

func TestSilencesAndSettings(t *testing.T) {
	w := newWorld()
	s, ctx := w.service(), as(t, operator.Operator)
	x, err := s.CreateSilence(ctx, operator.SilenceCreate{Model: "digits", For: release.Duration(time.Hour), Reason: "works"})
	if err != nil || !x.Active || x.Who != "ann" || !x.Until.Equal(now.Add(time.Hour)) {
		t.Fatalf("got %+v, %v", x, err)
	}
	if err := w.board.Raise(ctx, now, incident.Cause{Key: "a", Kind: incident.Drift, Model: "digits"}); err != nil {
		t.Fatal(err)
	}
	if page, _ := s.Incidents(ctx, operator.IncidentQuery{}); page.Items[0].Silence != x.ID {
		t.Errorf("silence: got %+v", page.Items[0])
	}
	if _, err := s.CreateSilence(ctx, operator.SilenceCreate{For: release.Duration(time.Hour), Reason: "all"}); codeOf(err) != operator.Invalid {
		t.Errorf("of everything: got %v", err)
	}
	if err := s.ExpireSilence(ctx, x.ID, operator.Reasoned{Reason: "done"}); err != nil {
		t.Error(err)
	}
	if err := s.ExpireSilence(ctx, x.ID, operator.Reasoned{Reason: "done"}); codeOf(err) != operator.NotFound {
		t.Errorf("expire twice: got %v", err)
	}
	settings := operator.NotifySettings{Reason: "first", Receivers: []operator.Receiver{{Name: "ops", Webhook: &operator.NotifyWebhook{URL: "http://127.0.0.1:1/", Secret: "s3cret"}}}}
	if _, err := s.SetNotifySettings(ctx, settings); codeOf(err) != operator.Forbidden {
		t.Errorf("operator: got %v", err)
	}
	got, err := s.SetNotifySettings(as(t, operator.Admin), settings)
	if err != nil || got.Receivers[0].Webhook.Secret != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	tried, err := s.TestReceiver(ctx, "ops", operator.Reasoned{Reason: "try"})
	if err != nil || tried.Sent || tried.Error == "" {
		t.Errorf("nobody listens there: got %+v, %v", tried, err)
	}
	if _, err := s.TestReceiver(ctx, "nobody", operator.Reasoned{Reason: "try"}); codeOf(err) != operator.NotFound {
		t.Errorf("unknown: got %v", err)
	}
}
