package api

import (
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/challenger"
	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// oneVerdict is that on the challenge of one ledger sequence.
type oneVerdict struct {
	decision uint64
	finding  challenger.Finding
}

func (v oneVerdict) Finding(_ string, decision uint64) (challenger.Finding, bool) {
	return v.finding, decision == v.decision
}

func TestChallengeShowsItsTest(t *testing.T) {
	w := newWorld()
	w.challenges["digits"] = desired.Challenge{
		ChallengeChange: desired.ChallengeChange{Model: "digits", Version: "2", Release: second, Role: "share", Share: 100, Margin: 0.5, Duration: release.Duration(48 * time.Hour)},
		Seq:             9, Since: now,
	}
	s := w.service()
	s.d.Verdicts = oneVerdict{9, challenger.Finding{
		Verdict: challenger.Promote, Why: "as good", Devices: 4, Rows: 1000, Fine: 31, FineAt: 20, Harm: 0.1, HarmAt: 20,
		Questions: []challenger.Question{{Name: challenger.Errors, Bad: 1, Of: 1000, Fine: 31, Harm: 0.1, Dispersion: 1}},
	}}
	got, err := s.Challenge(t.Context(), "digits")
	if err != nil || got.Test == nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	if x := got.Test; x.Verdict != operator.ChallengePromote || x.Margin != 0.5 || !x.Until.Equal(now.Add(48*time.Hour)) || x.Questions[0].Name != "errors" {
		t.Errorf("got %+v", x)
	}
	s.d.Verdicts = oneVerdict{8, challenger.Finding{Verdict: challenger.Promote}}
	if got, err = s.Challenge(t.Context(), "digits"); err != nil || got.Test != nil {
		t.Errorf("the verdict on a former challenge: got %+v, %v", got.Test, err)
	}
	for verdict, want := range map[challenger.Verdict]string{challenger.Going: operator.ChallengeEnded, challenger.Abort: operator.ChallengeAbort} {
		s.d.Verdicts = oneVerdict{9, challenger.Finding{Verdict: verdict}}
		c := w.challenges["digits"]
		c.Ended = &desired.End{At: now}
		w.challenges["digits"] = c
		if got, err = s.Challenge(t.Context(), "digits"); err != nil || got.Test.Verdict != want || got.Needs != challenger.DefaultDevices {
			t.Errorf("ended when it was %s: got %+v, %v", verdict, got, err)
		}
	}
}

func TestChallengeTakesItsRules(t *testing.T) {
	w := newWorld()
	_, err := w.service().SetChallenge(as(t, operator.Operator), "digits", operator.ChallengeCreate{
		Version: "1", Role: operator.Share, Share: 50, Selector: "site=b", Margin: 0.4, Duration: release.Duration(time.Hour), Reason: "compare",
	})
	if c := w.challenges["digits"]; err != nil || c.Margin != 0.4 || time.Duration(c.Duration) != time.Hour {
		t.Errorf("got %+v, %v", c, err)
	}
}
