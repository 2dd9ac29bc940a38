package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func TestDevices(t *testing.T) {
	w := newWorld()
	w.totals = []drift.Total{
		{Device: "cam-b1", Model: "digits", Release: second, Rows: 10, Uncertain: 3},
		{Device: "cam-b1", LostRecords: 2, LostRows: 40},
	}
	w.alarms = []drift.Alarm{
		{Kind: drift.SensorAlarm, Device: "cam-a1", Message: "dead row of pixels", RaisedMS: now.UnixMilli()},
		{Kind: drift.SensorAlarm, Device: "cam-b1", RaisedMS: 1, ClearedMS: 2},
	}
	w.rollouts = []runner.View{view("digits-2-1", rollout.StatusRunning), view("digits-1-1", rollout.StatusCompleted)}
	full := w.fleet["cam-a1"]
	full.ReportedAt, full.Facts.DiskBytes, full.DiskFreeBytes = now, 64<<20, 1<<20
	full.Models[0].Waiting = "18 MiB are free"
	w.fleet["cam-a1"] = full
	s := w.service()
	page, err := s.Devices(t.Context(), operator.DeviceQuery{})
	if err != nil || page.Total != 4 {
		t.Fatalf("got %+v, %v", page, err)
	}
	byID := map[string]operator.Device{}
	for _, d := range page.Items {
		byID[d.ID] = d
	}
	b1 := byID["cam-b1"]
	m := b1.Models[0]
	if m.Active.Version != "2" || m.Previous.Version != "1" || m.Desired.Version != "2" || m.State != "watching" || !m.Serving {
		t.Errorf("cam-b1 runs %+v", m)
	}
	if b1.Site != "b" || b1.Revision != "7" || b1.DesiredGeneration != 9 || b1.Rollout != "digits-2-1" || b1.RolloutWave != 1 || b1.RolloutState != "healthy" {
		t.Errorf("cam-b1 is %+v", b1)
	}
	if got, want := byID["cam-a1"].Models[0].Waiting, "18 MiB are free"; got != want || m.Waiting != "" {
		t.Errorf("cam-a1 waits for %q and cam-b1 for %q, want %q and nothing", got, m.Waiting, want)
	}
	if d := byID["new"]; len(d.Models) != 1 || d.Models[0].Desired.Version != "2" || d.Models[0].Active != nil {
		t.Errorf("a device that is to get its first release: got %+v", d.Models)
	}
	for id, want := range map[string]string{
		"cam-a1": operator.MarkSensorFault + " " + operator.MarkDiskFull, "cam-b1": operator.MarkLost + " " + operator.MarkUncertain,
		"cam-b2": operator.MarkRevoked + " " + operator.MarkRefused, "new": "",
	} {
		var kinds []string
		for _, k := range byID[id].Marks {
			kinds = append(kinds, k.Kind)
		}
		if got := strings.Join(kinds, " "); got != want {
			t.Errorf("marks of %s: got %q, want %q", id, got, want)
		}
	}
}

func TestDeviceQueries(t *testing.T) {
	s := newWorld().service()
	for name, c := range map[string]struct {
		q    operator.DeviceQuery
		want string
	}{
		"selector":     {operator.DeviceQuery{Selector: "site=b"}, "cam-b1 cam-b2 new"},
		"presence":     {operator.DeviceQuery{Presence: operator.Offline}, "cam-b2"},
		"model":        {operator.DeviceQuery{Model: "digits"}, "cam-a1 cam-b1 cam-b2 new"},
		"other model":  {operator.DeviceQuery{Model: "beer"}, ""},
		"release":      {operator.DeviceQuery{Release: &second}, "cam-b1"},
		"text in id":   {operator.DeviceQuery{Text: "cam-b"}, "cam-b1 cam-b2"},
		"text in site": {operator.DeviceQuery{Text: "a"}, "cam-a1 cam-b1 cam-b2"},
		"page":         {operator.DeviceQuery{Paging: operator.Paging{Limit: 2, Cursor: cursorOf("cam-a1")}}, "cam-b1 cam-b2"},
	} {
		page, err := s.Devices(t.Context(), c.q)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var ids []string
		for _, d := range page.Items {
			ids = append(ids, d.ID)
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if _, err := s.Devices(t.Context(), operator.DeviceQuery{Selector: "site in"}); operator.CodeOf(err) != operator.Invalid {
		t.Errorf("broken selector: got %v", err)
	}
}

func TestDeviceDetail(t *testing.T) {
	w := newWorld()
	w.totals = []drift.Total{
		{Device: "cam-a1", Model: "digits", Release: first, Rows: 10},
		{Device: "cam-a1", LostRecords: 1, UnknownLoss: true},
		{Device: "cam-b1", Model: "digits", Release: second, Rows: 99},
	}
	w.scores = []drift.Score{score(first, "a", "cam-a1"), score(second, "b", "cam-b1")}
	w.rollouts = []runner.View{view("digits-2-1", rollout.StatusRunning)}
	d := w.fleet["cam-b1"]
	d.Epochs = []fleet.Epoch{{ID: "ab", Sent: 4, Acked: 3, Current: true}}
	d.Events = []fleet.Event{{Kind: "salvage", Release: first, Received: now}}
	w.fleet["cam-b1"] = d
	got, err := w.service().Device(t.Context(), "cam-b1")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Totals) != 1 || got.Totals[0].Rows != 99 || got.Totals[0].Version != "2" || got.Lost != nil {
		t.Errorf("totals: got %+v, lost %+v", got.Totals, got.Lost)
	}
	if len(got.Drift) != 1 || got.Drift[0].Version != "2" || got.Drift[0].Cohort != "b" {
		t.Errorf("drift: got %+v", got.Drift)
	}
	if len(got.Epochs) != 1 || got.Epochs[0] != (operator.Epoch{ID: "ab", Sent: 4, Acknowledged: 3, Current: true}) {
		t.Errorf("epochs: got %+v", got.Epochs)
	}
	if len(got.Events) != 1 || got.Events[0].Release == nil || *got.Events[0].Release != first || len(got.Rollouts) != 1 {
		t.Errorf("events: got %+v, rollouts %+v", got.Events, got.Rollouts)
	}
	if a1, err := w.service().Device(t.Context(), "cam-a1"); err != nil || a1.Lost == nil || !a1.Lost.Unknown {
		t.Errorf("loss of cam-a1: got %+v, %v", a1.Lost, err)
	}
}

func TestVersionsAndWhereTheyRun(t *testing.T) {
	w := newWorld()
	w.alarms = []drift.Alarm{{Model: "digits", RaisedMS: 1}, {Model: "digits", RaisedMS: 1, ClearedMS: 2}}
	w.versions[0].Manifest = &release.Manifest{Lineage: release.Lineage{Author: "ann"}}
	s := w.service()
	m, err := s.Model(t.Context(), "digits")
	if err != nil || m.Devices != 3 || m.Alarms != 1 || m.Latest.Version != "2" || m.Production != "1" || len(m.List) != 2 {
		t.Errorf("got %+v, %v", m, err)
	}
	if got := m.List[0].Running; got.Active != 1 || got.Desired != 2 || got.Failed != 1 || got.Sites["b"] != 1 || got.Devices != nil {
		t.Errorf("version 2 runs %+v", got)
	}
	v, err := s.Version(t.Context(), "digits", "1")
	if err != nil || !slices.Equal(v.Running.Devices, []string{"cam-a1", "cam-b2"}) || v.Baseline.Rows != 100 || v.Signature.Threshold != 1 {
		t.Errorf("got %+v, %v", v, err)
	}
	if m.List[0].Author != "ann" {
		t.Errorf("got %+v", m.List[0])
	}
	w.versions[0].Withdrawn = true
	if m, err := s.Model(t.Context(), "digits"); err != nil || m.Latest.Version != "1" {
		t.Errorf("a withdrawn version is the latest: %+v, %v", m.Latest, err)
	}
}
