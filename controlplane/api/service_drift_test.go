package api

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/retrain"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// score has two features; the device is alone in its cohort's list.
func score(d release.Digest, cohort string, devices ...string) drift.Score {
	compare := drift.Comparison{MaxPSI: 0.5, Features: []drift.FeatureScore{{Name: "pixel 1", PSI: 0.5, Apart: true}, {Name: "class", Side: "output"}}}
	out := drift.Score{Model: "digits", Release: d}
	if cohort != "" {
		out.Cohorts = []drift.CohortScore{{Cohort: cohort, Verdict: drift.Drift, Devices: len(devices), Training: compare, Accuracy: drift.AccuracyScore{Labels: 10, Correct: 6}}}
	}
	for _, id := range devices {
		out.Devices = append(out.Devices, drift.DeviceScore{
			Device: id, Cohort: cohort, Verdict: drift.SensorFault, Training: compare,
			Neighbours: &drift.Comparison{Features: []drift.FeatureScore{{PSI: 0.7, Noise: 0.1, Apart: true}, {PSI: 0.2}}},
		})
	}
	return out
}

func TestHeatMap(t *testing.T) {
	w := newWorld()
	w.scores = []drift.Score{score(first, "a", "cam-a1"), score(second, "b", "cam-b1", "cam-b2"), {Model: "digits", Release: second}}
	w.scores[1].Devices = append(w.scores[1].Devices, drift.DeviceScore{Device: "new", Verdict: drift.Insufficient})
	got, err := w.service().Drift(t.Context(), "digits")
	if err != nil || got.Threshold != 0.2 || got.CohortBy != "site" || len(got.Releases) != 3 {
		t.Fatalf("got %+v, %v", got, err)
	}
	newest := got.Releases[0]
	if newest.Version != "2" || !slices.Equal(newest.Features, []string{"pixel 1", "class"}) || len(newest.Cohorts) != 2 {
		t.Fatalf("the highest sequence comes first: got %+v", newest)
	}
	b := newest.Cohorts[0]
	if b.Cohort != "b" || b.Verdict != operator.VerdictDrift || len(b.Devices) != 2 || !strings.Contains(b.Text, "world has changed") {
		t.Errorf("got %+v", b)
	}
	cell := b.Devices[0].Cells[0]
	if cell.PSI != 0.5 || cell.CohortPSI != 0.7 || !cell.CohortApart || b.Devices[0].Cells[1].Side != "output" {
		t.Errorf("got %+v", cell)
	}
	if lonely := newest.Cohorts[1]; lonely.Cohort != "" || len(lonely.Devices) != 1 || lonely.Devices[0].Device != "new" {
		t.Errorf("a device without a cohort: got %+v", lonely)
	}
}

func TestTotalsKeepLossesApart(t *testing.T) {
	w := newWorld()
	w.totals = []drift.Total{
		{Device: "cam-a1", Model: "digits", Release: first, Rows: 10, FailedRows: 1, Labels: 5, Matched: 4, Correct: 3},
		{Device: "cam-a1", LostRecords: 2, LostRows: 40, LostLabels: 7},
		{Device: "cam-b1", Model: "digits", Release: second, Rows: 99},
	}
	s := w.service()
	got, err := s.Totals(t.Context(), operator.TotalQuery{Device: "cam-a1"})
	if err != nil || len(got.Items) != 1 || got.Items[0].Version != "1" || got.Items[0].Correct != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
	if len(got.Lost) != 1 || got.Lost[0] != (operator.Loss{Device: "cam-a1", Records: 2, Rows: 40, Labels: 7}) {
		t.Errorf("got %+v", got.Lost)
	}
	if got, err := s.Totals(t.Context(), operator.TotalQuery{Model: "beer"}); err != nil || len(got.Items) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestQuality(t *testing.T) {
	w := newWorld()
	series := func(d release.Digest, cohort string) drift.Series {
		return drift.Series{Model: "digits", Release: d, Cohort: cohort, Bucket: time.Minute, Points: []drift.Point{
			{AtMS: now.UnixMilli(), Rows: 5, MaxPSI: -1, Accuracy: -1},
			{AtMS: now.Add(time.Minute).UnixMilli(), Rows: 6, MaxPSI: 0.3, Accuracy: 0.5, Labels: 4, Correct: 2},
		}}
	}
	w.series = []drift.Series{series(second, "b"), series(second, "a"), series(first, "b")}
	w.policies = []retrain.Policy{{Model: "digits", AccuracyFloor: 0.9}}
	s := w.service()
	got, err := s.Quality(t.Context(), operator.QualityQuery{Model: "digits"})
	if err != nil || got.Floor != 0.9 || len(got.Series) != 3 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got.Series[0].Version != "1" || got.Series[1].Cohort != "a" || got.Series[2].Cohort != "b" {
		t.Errorf("order: got %+v", got.Series)
	}
	p := got.Series[0].Points
	if p[0].Accuracy != nil || p[0].PSI != nil || *p[1].Accuracy != 0.5 || *p[1].PSI != 0.3 {
		t.Errorf("got %+v", p)
	}
	got, err = s.Quality(t.Context(), operator.QualityQuery{Model: "digits", Version: "2", Cohort: "b", Since: now.Add(time.Second), Until: now.Add(time.Hour)})
	if err != nil || len(got.Series) != 1 || len(got.Series[0].Points) != 1 || got.Series[0].Points[0].Rows != 6 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAlarmsAndRequests(t *testing.T) {
	w := newWorld()
	w.alarms = []drift.Alarm{
		{ID: "old", RaisedMS: 1000},
		{ID: "gone", RaisedMS: 2000, ClearedMS: 2500, Reason: "recovered"},
		{ID: "new", RaisedMS: 3000, Features: []drift.FeatureScore{{Name: "pixel 1"}}, Accuracy: &drift.AccuracyScore{Labels: 3}},
	}
	w.requests = []retrain.Request{{ID: "r1", AtMS: 1000}, {ID: "r2", AtMS: 2000, Status: "pending", Alarm: w.alarms[2], Deliveries: []retrain.Delivery{{Destination: "http://x", State: delivery.State{Attempts: 2, NextMS: 9}}}}}
	s := w.service()
	page, err := s.Alarms(t.Context(), operator.AlarmQuery{Paging: operator.Paging{Limit: 2}})
	if err != nil || len(page.Items) != 2 || page.Items[0].ID != "new" || page.Items[1].ID != "gone" || page.Total != 3 {
		t.Fatalf("got %+v, %v", page, err)
	}
	if a := page.Items[0]; len(a.Cells) != 1 || a.Accuracy.Labels != 3 || !a.Cleared.IsZero() {
		t.Errorf("got %+v", a)
	}
	if page, err = s.Alarms(t.Context(), operator.AlarmQuery{Paging: operator.Paging{Cursor: page.Next}}); err != nil || len(page.Items) != 1 || page.Items[0].ID != "old" {
		t.Errorf("next page: got %+v, %v", page, err)
	}
	if page, err = s.Alarms(t.Context(), operator.AlarmQuery{Open: true}); err != nil || len(page.Items) != 2 {
		t.Errorf("open: got %+v, %v", page, err)
	}
	events, err := s.RetrainEvents(t.Context(), operator.RetrainQuery{})
	if err != nil || len(events.Items) != 2 || events.Items[0].ID != "r2" || events.Items[0].Alarm.ID != "new" || events.Items[0].Deliveries[0].Target != "http://x" {
		t.Errorf("got %+v, %v", events, err)
	}
}

func TestRetrainPolicySetsTheFloorAndHidesTheSecret(t *testing.T) {
	w := newWorld()
	s := w.service()
	got, err := s.SetRetrainPolicy(as(t, operator.Operator), operator.RetrainPolicy{
		Model: "digits", OnDrift: true, AccuracyFloor: 0.9, Cooldown: release.Duration(time.Hour), Webhooks: []string{"http://x"}, Secret: "s3cret", Reason: "why",
	})
	if err != nil || !got.OnDrift || got.AccuracyFloor != 0.9 || time.Duration(got.Cooldown) != time.Hour || got.Secret != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	if w.floors["digits"] != 0.9 || w.policies[0].Secret != "s3cret" || time.Duration(w.policies[0].Cooldown) != time.Hour {
		t.Errorf("floors %v, policies %+v", w.floors, w.policies)
	}
}

func TestOverview(t *testing.T) {
	w := newWorld()
	w.rollouts = []runner.View{view("digits-2-1", rollout.StatusPaused), view("digits-1-1", rollout.StatusCompleted)}
	w.alarms = []drift.Alarm{{ID: "x", Model: "digits", RaisedMS: 1}, {ID: "y", RaisedMS: 1, ClearedMS: 2}}
	w.totals = []drift.Total{{Device: "cam-a1", Model: "digits", Rows: 10, FailedRows: 2, Labels: 5}, {Device: "cam-a1", LostRows: 3, LostRecords: 1}}
	w.scores = []drift.Score{score(first, "b", "cam-b1")}
	got, err := w.service().Overview(t.Context())
	if err != nil || got.Devices != 4 || got.Online != 3 || got.Offline != 1 || got.Marked != 2 || got.Rows != 12 || got.Labels != 5 || got.LostRows != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
	if len(got.Rollouts) != 1 || got.Rollouts[0].ID != "digits-2-1" || len(got.Alarms) != 1 || len(got.Models) != 1 {
		t.Errorf("got %+v", got)
	}
	if len(got.Sites) != 2 || got.Sites[1].Site != "b" || got.Sites[1].Devices != 3 || got.Sites[1].Online != 2 ||
		got.Sites[1].Verdict != operator.VerdictDrift || *got.Sites[1].Accuracy != 0.6 || got.Sites[1].Versions["digits 2"] != 1 {
		t.Errorf("got %+v", got.Sites)
	}
	if got.Sites[0].Verdict != operator.VerdictInsufficient || got.Sites[0].Accuracy != nil {
		t.Errorf("a site without evidence: got %+v", got.Sites[0])
	}
}

func TestServerTellsWhoAsks(t *testing.T) {
	got, err := newWorld().service().Server(as(t, operator.Viewer))
	if err != nil || got.Principal.Name != "ann" || got.Version != "test" || got.Storage.BlobBytes != 5 || got.CohortBy != "site" {
		t.Errorf("got %+v, %v", got, err)
	}
}
