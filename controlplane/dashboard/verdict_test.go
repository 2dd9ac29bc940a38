package dashboard

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// challengeTest is evidence that grows.
func (f *fleet) challengeTest() *operator.ChallengeTest {
	return &operator.ChallengeTest{
		Verdict: operator.ChallengeGoing, Why: f.text("the evidence on wrong is 7.9, 20 promotes"), Margin: 0.25, Until: now.Add(12 * 24 * time.Hour),
		Devices: 8, Rows: 48_000, Fine: 7.9, FineAt: 20, Harm: 0.01, HarmAt: 20,
		Questions: []operator.ChallengeCompare{
			{Name: "errors", Of: 48_000, ServingOf: 48_000, Fine: 4100, Harm: 1, Dispersion: 1},
			{Name: "wrong", Bad: 520, Of: 9120, Rate: 0.057, ServingBad: 629, ServingOf: 9120, ServingRate: 0.069, Fine: 7.9, Harm: 0.01, Dispersion: 1.32},
		},
	}
}

func TestEvidenceOfAChallengeIsShown(t *testing.T) {
	h := open(t)
	h.signIn("ada")
	got := h.get("/models/digits")
	for _, want := range []string{"going on", "the evidence on wrong is 7.9", "<b>7.9</b>", "20 promotes", "<b>5.7\u2009%</b>", "6.9\u2009%", "1.32"} {
		if !strings.Contains(got.body, want) {
			t.Errorf("no %q in\n%s", want, got.body)
		}
	}
}

func TestRulesOfAChallengeForm(t *testing.T) {
	var n operator.ChallengeCreate
	if err := testRules(url.Values{"margin": {" 50 % "}, "days": {"3"}}, &n); err != nil || n.Margin != 0.5 || time.Duration(n.Duration) != 72*time.Hour {
		t.Errorf("got %+v, %v", n, err)
	}
	n = operator.ChallengeCreate{}
	if err := testRules(url.Values{"margin": {""}}, &n); err != nil || n.Margin != 0 || n.Duration != 0 {
		t.Errorf("empty: got %+v, %v", n, err)
	}
	for _, bad := range []url.Values{{"margin": {"0"}}, {"margin": {"a bit"}}, {"days": {"0"}}, {"days": {"1.5"}}, {"days": {"1000"}}} {
		if err := testRules(bad, &n); operator.CodeOf(err) != operator.Invalid {
			t.Errorf("%v: got %v, want %s", bad, err, operator.Invalid)
		}
	}
}
