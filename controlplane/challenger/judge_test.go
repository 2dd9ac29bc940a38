package challenger

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/release"
)

var (
	began         = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	serving, next = release.Digest{1}, release.Digest{2}
)

// plane is a control plane with one challenge on four devices.
type plane struct {
	challenge desired.Challenge
	rows      uint64 // of the challenger on each device
	failed    uint64
	before    uint64 // rows that were served before the challenge
	refuse    error
	verdicts  []Record
	proposals []Proposal
	raised    []incident.Cause
	bucket    *kvstore.Memory
}

func newPlane() *plane {
	return &plane{bucket: kvstore.NewMemory(), before: 1_000_000, challenge: desired.Challenge{
		ChallengeChange: desired.ChallengeChange{Model: "digits", Version: "2", Release: next, Role: "share", Share: 100},
		Seq:             7, Since: began,
	}}
}

func (p *plane) Challenges() []desired.Challenge { return []desired.Challenge{p.challenge} }

func (p *plane) SetChallenge(_ context.Context, actor string, c desired.ChallengeChange) (desired.Challenge, error) {
	p.challenge.Ended = &desired.End{Actor: actor, Reason: c.Reason}
	return p.challenge, nil
}

func (p *plane) Beside(string, release.Digest, time.Time) (out []drift.Beside) {
	for _, d := range []string{"a", "b", "c", "d"} {
		out = append(out, drift.Beside{Device: d, Role: "share", BesideCounts: drift.BesideCounts{Rows: p.rows - p.failed, FailedRows: p.failed}})
	}
	return out
}

func (p *plane) Totals() (out []drift.Total) {
	for _, d := range []string{"a", "b", "c", "d", "elsewhere"} {
		out = append(out, drift.Total{Device: d, Model: "digits", Release: serving, Rows: p.before + 9*p.rows, FailedRows: p.before / 2},
			drift.Total{Device: d, Model: "digits", Release: next, Rows: p.rows}, drift.Total{Device: d, Model: "other", Release: serving, Rows: 5})
	}
	return out
}

func (p *plane) Note(_ context.Context, kind, actor string, body any) error {
	if kind != KindVerdict || actor != Actor {
		return errors.New("another record")
	}
	p.verdicts = append(p.verdicts, body.(Record))
	return nil
}

func (p *plane) Propose(_ context.Context, x Proposal) error {
	if p.refuse != nil {
		return p.refuse
	}
	p.proposals = append(p.proposals, x)
	return nil
}

func (p *plane) Raise(_ context.Context, _ time.Time, c incident.Cause) error {
	p.raised = append(p.raised, c)
	return nil
}

func (p *plane) open(t *testing.T) *Judge {
	t.Helper()
	j, err := Open(t.Context(), Config{Challenges: p, Monitor: p, Bucket: p.bucket, Ledger: p, Promoter: p, Alarm: p})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func (p *plane) tick(t *testing.T, j *Judge, after time.Duration) Finding {
	t.Helper()
	if err := j.Tick(t.Context(), began.Add(after)); err != nil {
		t.Fatal(err)
	}
	f, ok := j.Finding("digits", 7)
	if !ok {
		t.Fatal("nothing was found")
	}
	return f
}

func TestPromotion(t *testing.T) {
	p := newPlane()
	j := p.open(t)
	p.rows = 100
	if f := p.tick(t, j, time.Minute); f.Verdict != Going || f.Rows != 0 {
		t.Errorf("what was there when a device is first seen counts: %+v", f)
	}
	p.rows = 5100
	p.refuse = errors.New("no template")
	if err := j.Tick(t.Context(), began.Add(time.Hour)); !errors.Is(err, p.refuse) {
		t.Errorf("a proposal that is refused: got %v", err)
	}
	p.refuse = nil
	p.rows = 0 // the verdict stands whatever comes after it
	j = p.open(t)
	f := p.tick(t, j, 2*time.Hour)
	if f.Verdict != Promote || f.Rows != 20_000 || f.Questions[0].ServingOf != 180_000 || f.Questions[0].ServingBad != 0 {
		t.Errorf("got %+v", f)
	}
	p.tick(t, p.open(t), 3*time.Hour)
	if len(p.proposals) != 1 || p.proposals[0].Digest != next || !json.Valid(p.proposals[0].Evidence) || len(p.raised) != 0 || p.challenge.Ended != nil {
		t.Errorf("proposals %+v, raised %+v, ended %v", p.proposals, p.raised, p.challenge.Ended)
	}
	if r := p.verdicts[0]; len(p.verdicts) != 1 || r.Decision != 7 || r.Version != "2" || r.Verdict != Promote {
		t.Errorf("in the ledger: %+v", r)
	}
}

func TestAbort(t *testing.T) {
	p := newPlane()
	j := p.open(t)
	p.rows = 10
	p.tick(t, j, time.Minute)
	p.rows, p.failed = 60, 40
	if f := p.tick(t, j, 6*time.Minute); f.Verdict != Abort {
		t.Fatalf("got %+v", f)
	}
	if p.challenge.Ended == nil || p.challenge.Ended.Actor != Actor || !strings.Contains(p.challenge.Ended.Reason, "errors") {
		t.Errorf("the challenge goes on: %+v", p.challenge.Ended)
	}
	if len(p.raised) != 1 || p.raised[0].Severity != incident.Critical || len(p.proposals) != 0 {
		t.Errorf("raised %+v, proposals %+v", p.raised, p.proposals)
	}
	p.challenge.Ended, p.challenge.Seq = nil, 8 // another one begins
	if err := j.Tick(t.Context(), began.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if f, ok := j.Finding("digits", 8); !ok || f.Verdict != Going || f.Rows != 0 {
		t.Errorf("the next challenge: got %+v, %v", f, ok)
	}
	if _, ok := j.Finding("digits", 7); ok {
		t.Error("the former challenge is still judged")
	}
}

func TestUndecidedWaitsForAHuman(t *testing.T) {
	p := newPlane()
	p.challenge.Duration = release.Duration(time.Hour)
	j := p.open(t)
	p.tick(t, j, time.Minute)
	if f := p.tick(t, j, time.Hour); f.Verdict != Undecided {
		t.Fatalf("got %+v", f)
	}
	p.tick(t, j, 2*time.Hour)
	if p.challenge.Ended != nil || len(p.proposals) != 0 || len(p.verdicts) != 1 || len(p.raised) != 1 || p.raised[0].Severity != incident.Warning {
		t.Errorf("ended %v, proposals %v, verdicts %v, raised %v", p.challenge.Ended, p.proposals, p.verdicts, p.raised)
	}
}

func TestRulesOfAChallenge(t *testing.T) {
	c := newPlane().challenge
	if r := RulesOf(&c); r.Margin != DefaultMargin || r.Duration != DefaultDuration || r.Devices != DefaultDevices {
		t.Errorf("by default: got %+v", r)
	}
	c.Margin, c.Device = 0.5, "a"
	if r := RulesOf(&c); r.Margin != 0.5 || r.Devices != 1 {
		t.Errorf("on one device: got %+v", r)
	}
}
