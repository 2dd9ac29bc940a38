package api

import (
	"time"

	"github.com/vedette-edge/vedette/controlplane/challenger"
	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Verdicts says what the evidence of a challenge amounts to.
type Verdicts interface {
	Finding(model string, decision uint64) (f challenger.Finding, ok bool)
}

// challengeTest is nil before the first look.
func (s *Service) challengeTest(c *desired.Challenge) *operator.ChallengeTest {
	if s.d.Verdicts == nil {
		return nil
	}
	f, ok := s.d.Verdicts.Finding(c.Model, c.Seq)
	if !ok {
		return nil
	}
	rules := challenger.RulesOf(c)
	out := &operator.ChallengeTest{
		Verdict: string(f.Verdict), Why: f.Why, Margin: rules.Margin, Until: c.Since.Add(rules.Duration).UTC().Truncate(time.Second),
		Devices: f.Devices, Rows: f.Rows, Fine: f.Fine, FineAt: f.FineAt, Harm: f.Harm, HarmAt: f.HarmAt, Questions: []operator.ChallengeCompare{},
	}
	if c.Ended != nil && f.Verdict == challenger.Going {
		out.Verdict = operator.ChallengeEnded
	}
	for _, q := range f.Questions {
		out.Questions = append(out.Questions, operator.ChallengeCompare{
			Name: q.Name, Bad: q.Bad, Of: q.Of, Rate: q.Rate, ServingBad: q.ServingBad, ServingOf: q.ServingOf, ServingRate: q.ServingRate,
			Fine: q.Fine, Harm: q.Harm, Dispersion: q.Dispersion,
		})
	}
	return out
}
