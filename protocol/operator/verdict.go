package operator

import "time"

// Verdicts on a challenger.
const (
	ChallengeGoing     = "going"     // not enough evidence yet
	ChallengeEnded     = "ended"     // it was taken away before the evidence was enough
	ChallengePromote   = "promote"   // no worse than the margin allows
	ChallengeAbort     = "abort"     // worse than what serves
	ChallengeUndecided = "undecided" // the time is over: a human decides
)

// ChallengeTest is what the evidence of a challenge amounts to. Evidence is
// e-values: they may be looked at at any time, and reach 1/β wrongly with a
// chance of at most β.
type ChallengeTest struct {
	Verdict   string             `json:"verdict"`
	Why       string             `json:"why"`     // for people
	Margin    float64            `json:"margin"`  // how much worse it may be at most, as a part of the rate of what serves
	Until     time.Time          `json:"until"`   // then a human is asked
	Devices   int                `json:"devices"` // that have computed anything
	Rows      uint64             `json:"rows"`    // of the challenger, since each device was first seen
	Fine      float64            `json:"fine"`    // evidence that it is no worse than the margin allows: the least of all questions
	FineAt    float64            `json:"fine_at"` // promotes
	Harm      float64            `json:"harm"`    // evidence that it is worse: the mean of the questions that ask for it
	HarmAt    float64            `json:"harm_at"` // aborts
	Questions []ChallengeCompare `json:"questions"`
}

// ChallengeCompare is one thing that is compared.
type ChallengeCompare struct {
	Name        string  `json:"name"` // errors, wrong, disagreement
	Bad         uint64  `json:"bad"`  // rows of the challenger, or labels
	Of          uint64  `json:"of"`
	Rate        float64 `json:"rate"`
	ServingBad  uint64  `json:"serving_bad,omitempty"` // of what serves; none for disagreement
	ServingOf   uint64  `json:"serving_of,omitempty"`
	ServingRate float64 `json:"serving_rate,omitempty"`
	Fine        float64 `json:"fine"`
	Harm        float64 `json:"harm,omitempty"` // 0 where it is not asked: to differ is no harm
	Dispersion  float64 `json:"dispersion"`     // how much more devices differ than chance gives; evidence weighs less by it
}
