package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/controlplane/validation"
	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func (w worldDesired) LabTrial(model string) (desired.LabTrial, bool) {
	t, ok := w.lab[model]
	return t, ok && !t.Release.IsZero()
}

func (w worldDesired) SetLabTrial(_ context.Context, actor string, c desired.LabChange) (desired.LabTrial, error) {
	t := desired.LabTrial{LabChange: c, Actor: actor, Since: now, Seq: 11}
	w.lab[c.Model] = t
	return t, w.did("lab " + c.Model + " " + c.Version + " by " + actor)
}

// files are uploaded blobs.
type files map[release.Digest][]byte

type opened struct{ *bytes.Reader }

func (opened) Close() error { return nil }

func (f files) Open(_ context.Context, d release.Digest) (io.ReadSeekCloser, int64, error) {
	b, ok := f[d]
	if !ok {
		return nil, 0, errors.New("no such blob")
	}
	return opened{bytes.NewReader(b)}, int64(len(b)), nil
}

// validation is a real one over what the world holds.
func (w *world) validation() *validation.Store {
	s, err := validation.Open(context.Background(), validation.Config{
		Bucket: kvstore.NewMemory(), Registry: worldRegistry{nil, w}, Fleet: worldFleet{w}, Blobs: w.uploads, Ledger: worldLedger{nil, w},
		Now: func() time.Time { return now },
	})
	if err != nil {
		panic(err) // memory does not fail
	}
	return s
}

// upload is an evaluation of a version whose first wrong rows of 200 are wrong.
func (w *world) upload(t *testing.T, graph release.Digest, wrong int) release.Digest {
	t.Helper()
	var b bytes.Buffer
	h := evaluation.Header{
		Format: evaluation.Format, Task: evaluation.Classification, Graph: graph, Rows: release.DigestOf([]byte("heldout")), RowsName: "heldout.csv",
		Truth: "digit", Classes: []string{"0", "1"}, Golden: &evaluation.Golden{Rows: 64},
	}
	if err := evaluation.WriteHeader(&b, h, []string{evaluation.PredictionColumn}); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		said := i % 2
		if i < wrong {
			said = 1 - said
		}
		fmt.Fprintf(&b, "%d,%d,%d\n", i+1, i%2, said)
	}
	d := release.DigestOf(b.Bytes())
	w.uploads[d] = b.Bytes()
	return d
}

func code(err error) operator.Code { return operator.CodeOf(err) }

// A policy refuses a version until evidence passes its gates or somebody who may
// lets it past, and the ledger has all of it.
func TestGatesStopAndLetPast(t *testing.T) {
	w := newWorld()
	graphs := map[string]release.Digest{"1": release.DigestOf([]byte("graph 1")), "2": release.DigestOf([]byte("graph 2"))}
	for i := range w.versions {
		w.versions[i].Manifest = &release.Manifest{Variants: []release.Variant{{Graph: release.File{Digest: graphs[w.versions[i].Version]}}}}
	}
	s := w.service()
	publisher := as(t, operator.Publisher)
	policy := operator.GatePolicyChange{Reason: "from now on", Text: `
gates:
  - {kind: metric, metric: accuracy, at_least: 0.8}
  - {kind: champion, metric: accuracy, margin: 0.01}
`}
	if _, err := s.SetGatePolicy(as(t, operator.Operator), "digits", policy); code(err) != operator.Forbidden {
		t.Errorf("an operator sets gates: %v", err)
	}
	p, err := s.SetGatePolicy(publisher, "digits", policy)
	if err != nil || fmt.Sprint(p.Gates) != "[metric-accuracy champion-accuracy]" {
		t.Fatalf("got %+v, %v", p, err)
	}

	stage := operator.StageChange{Stage: operator.StageProduction, Reason: "go"}
	_, err = s.SetStage(publisher, "digits", "2", stage)
	if e, ok := errors.AsType[*operator.Error](err); !ok || e.Code != operator.NotCleared || !strings.Contains(e.Hint, "vedette-agent evaluate") {
		t.Errorf("without evidence: %v", err)
	}
	if _, err := s.SetStage(publisher, "digits", "1", stage); err != nil {
		t.Errorf("what is in production must stay possible: %v", err)
	}

	first, second := w.upload(t, graphs["1"], 30), w.upload(t, graphs["2"], 28)
	if _, err := s.AddEvidence(publisher, "digits", "2", operator.EvidenceAdded{Evaluation: &first}); code(err) != operator.Invalid {
		t.Errorf("an evaluation of another graph: %v", err)
	}
	v, err := s.AddEvidence(publisher, "digits", "2", operator.EvidenceAdded{Evaluation: &second})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintln(v.Gates[0].Status, v.Gates[1].Status, v.First); got != "passed missing champion-accuracy\n" {
		t.Errorf("got %s", got)
	}
	if v, err = s.AddEvidence(publisher, "digits", "1", operator.EvidenceAdded{Evaluation: &first}); err != nil || !v.Cleared {
		t.Fatalf("the version in production: %+v, %v", v, err)
	}
	v, err = s.Validation(publisher, "digits", "2")
	if err != nil || v.Gates[1].Status != operator.GateFailed || *v.Gates[1].Lower >= 0.01 || v.Cleared {
		t.Fatalf("two rows of 200 better is no proof: %+v, %v", v, err)
	}
	// 28 and 30 wrong: the candidate alone is right on 2 rows.
	if got := *v.Gates[1].Value; got != 0.01 {
		t.Errorf("difference %v, want 0.01", got)
	}

	if _, err := s.OverrideGate(as(t, operator.Operator), "digits", "2", "champion-accuracy", operator.Reasoned{Reason: "hurry"}); code(err) != operator.Forbidden {
		t.Errorf("an operator overrides: %v", err)
	}
	if _, err := s.OverrideGate(publisher, "digits", "2", "champion-accuracy", operator.Reasoned{}); code(err) != operator.ReasonRequired {
		t.Errorf("without a reason: %v", err)
	}
	if _, err := s.OverrideGate(publisher, "digits", "2", "metric-accuracy", operator.Reasoned{Reason: "x"}); code(err) != operator.Conflict {
		t.Errorf("a gate that is passed: %v", err)
	}
	v, err = s.OverrideGate(publisher, "digits", "2", "champion-accuracy", operator.Reasoned{Reason: "it mends site b"})
	if err != nil || !v.Cleared || v.Gates[1].Override.Actor != "ann" || v.Gates[1].Override.Was != operator.GateFailed {
		t.Fatalf("got %+v, %v", v, err)
	}
	if _, err := s.SetStage(publisher, "digits", "2", stage); err != nil {
		t.Errorf("after the override: %v", err)
	}
	var kinds []string
	for _, n := range w.notes {
		if n.Chain == validation.Chain {
			kinds = append(kinds, n.Kind)
		}
	}
	want := "gates.set gates.judged gates.evidence gates.judged gates.evidence gates.judged gates.judged gates.overridden gates.judged"
	if got := strings.Join(kinds, " "); got != want {
		t.Errorf("the ledger has\n%s\nwant\n%s", got, want)
	}
}

// The lab tries what is not cleared yet, where it can.
func TestLabTrials(t *testing.T) {
	w := newWorld()
	s := w.service()
	try := operator.LabTrialChange{Reason: "measure it"}
	if _, err := s.SetLabTrial(as(t, operator.Operator), "digits", "2", try); code(err) != operator.NoDevices {
		t.Errorf("without a lab: %v", err)
	}
	bench := w.fleet["cam-a1"]
	bench.Labels = map[string]string{"ring": "lab"}
	w.fleet["cam-a1"] = bench
	if _, err := s.SetLabTrial(as(t, operator.Operator), "digits", "2", try); code(err) != operator.Conflict {
		t.Errorf("a lab device that serves nothing: %v", err)
	}
	w.desired["cam-a1"] = desired.State{
		Assignments: []desired.Assignment{{Model: "digits", Release: first}}, Challengers: []desired.Challenger{{Model: "digits", Release: second}},
	}
	v, err := s.SetLabTrial(as(t, operator.Operator), "digits", "2", try)
	if err != nil || v.Lab == nil || v.Lab.Version != "2" || fmt.Sprint(v.Lab.Devices) != "[cam-a1]" {
		t.Fatalf("got %+v, %v", v, err)
	}
	if v, err = s.SetLabTrial(as(t, operator.Operator), "digits", "2", operator.LabTrialChange{End: true, Reason: "seen"}); err != nil || v.Lab != nil {
		t.Errorf("after the end: %+v, %v", v, err)
	}
}

// History tells stages and rollouts, and what held at a moment.
func TestHistory(t *testing.T) {
	w := newWorld()
	at := func(h int) time.Time { return now.Add(time.Duration(h) * time.Hour) }
	w.versions[1].StageLog = []operator.StageChanged{
		{From: operator.StageProduction, To: operator.StageArchived, Actor: "bob", Reason: "replaced by 2", At: at(-10)},
		{From: operator.StageNone, To: operator.StageProduction, Actor: "ann", Reason: "first", At: at(-50)},
	}
	w.versions[0].StageLog = []operator.StageChanged{{From: operator.StageNone, To: operator.StageProduction, Actor: "bob", Reason: "mends site b", At: at(-10)}}
	made := func(id string, d release.Digest, version string, h int, devices ...string) runner.View {
		st := &rollout.State{ID: id, Spec: rollout.Spec{Model: "digits", Version: version, Release: d}, Devices: map[string]*rollout.Device{}}
		st.Header.Started, st.Header.Creator, st.Header.Status = at(h), "ann", rollout.StatusCompleted
		for _, dev := range devices {
			st.Devices[dev] = &rollout.Device{State: rollout.DeviceHealthy, Site: "b"}
		}
		return runner.View{State: st, Timeline: []runner.Entry{{Reason: "because of " + id}}}
	}
	w.rollouts = []runner.View{made("r2", second, "2", -11, "cam-b1"), made("r1", first, "1", -49, "cam-a1", "cam-b1"), made("r0", first, "1", -60, "cam-b1", "cam-b2")}
	r0 := &w.rollouts[2] // whose devices r1 took over: cam-b1 had run its release, cam-b2 not yet
	moved := func(from rollout.DeviceState, id string) rollout.Change {
		r0.State.Devices[id].State = rollout.DeviceSuperseded
		return rollout.Change{Subject: rollout.SubjectDevices, From: string(from), To: string(rollout.DeviceSuperseded), Devices: []string{id}}
	}
	r0.Timeline = append(r0.Timeline, runner.Entry{At: at(-48), Changes: []rollout.Change{moved(rollout.DeviceHealthy, "cam-b1"), moved(rollout.DeviceOffered, "cam-b2")}})
	s := w.service()

	h, err := s.History(t.Context(), "digits", operator.HistoryQuery{})
	if err != nil || len(h.Stages) != 3 || len(h.Where) != 3 {
		t.Fatalf("got %+v, %v", h, err)
	}
	if r := h.Where[1]; r.Rollout != "r1" || !r.To.IsZero() || r.Devices != 2 || r.Reason != "because of r1" || r.Sites["b"] != 2 {
		t.Errorf("cam-a1 still runs what r1 brought: %+v", r)
	}
	if r := h.Where[2]; r.Rollout != "r0" || !r.To.Equal(at(-48)) || r.Devices != 1 {
		t.Errorf("r1 took the only device that had run what r0 brought: %+v", r)
	}
	h, err = s.History(t.Context(), "digits", operator.HistoryQuery{At: at(-20)})
	if err != nil || len(h.Stages) != 1 || h.Stages[0].Version != "1" || h.Stages[0].Stage != operator.StageProduction || len(h.Where) != 1 || h.Where[0].Rollout != "r1" {
		t.Errorf("twenty hours ago: %+v, %v", h, err)
	}
	if _, err := s.History(t.Context(), "nothing", operator.HistoryQuery{}); code(err) != operator.NotFound {
		t.Errorf("got %v", err)
	}
}

var _ Validation = (*validation.Store)(nil)
