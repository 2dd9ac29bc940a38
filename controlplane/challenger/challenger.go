// Package challenger decides by evidence whether a version that runs beside the
// one that serves may take its place: promote, abort, or keep going, and after a
// time limit undecided, which leaves it to a human. No data never promotes.
//
// What is compared is failed rows and, where truths came back, wrong
// predictions; of a shadow without truths, how often it disagreed. All tests are
// e-processes: evidence at fair odds, valid however often it is looked at
// (Ville 1939; notes of Howard et al. 2021). Promotion needs evidence against
// "the challenger is worse by the margin or more" on every question; harm needs
// it against "the challenger is no worse" on all of them together.
//
// A device is compared with itself: both versions met the same calls, or the
// same rows, so what a device's place does to it cancels out. What is left
// between devices (calls of one key always meet one version) makes evidence
// weigh less: the logarithm is divided by how much more the devices differ than
// chance alone would have them (the dispersion of McCullagh and Nelder 1989),
// which can only make both errors rarer.
//
// Evidence depends on sums alone, so it may come late and in any order, and a
// checkpoint is the sums at which each device began. Decide is pure; time is an
// argument. Judge gathers, remembers and acts.
package challenger

import (
	"cmp"
	"time"
)

// Defaults of Rules, with the reasons.
const (
	// DefaultMargin is how much worse, as a part of the rate of what serves, a
	// challenger may be at most: at an error rate of 1% a quarter takes about ten
	// thousand rows to tell.
	DefaultMargin = 0.25
	// DefaultAlpha and DefaultBeta are the chances of a wrong abort and of a wrong
	// promotion.
	DefaultAlpha = 0.05
	DefaultBeta  = 0.05
	// DefaultTolerable is a rate of failed or wrong rows that is no reason against
	// anybody, whatever the other version has: without it two versions that never
	// fail could not be told apart for ever.
	DefaultTolerable = 0.001
	// DefaultDisagreement is how often a shadow without truths may differ.
	DefaultDisagreement = 0.05
	// DefaultDevices is how many devices must have taken part: one device's luck
	// says nothing of the others'.
	DefaultDevices = 3
	// DefaultRows is how many rows the challenger must have computed.
	DefaultRows = 500
	// DefaultDuration is after what time a human is asked.
	DefaultDuration = 14 * 24 * time.Hour
)

// Rules of a test. Zero fields take the defaults.
type Rules struct {
	Margin       float64       `json:"margin"`       // the challenger's rate may be 1+Margin times the other's
	Alpha        float64       `json:"alpha"`        // chance to abort one that is no worse
	Beta         float64       `json:"beta"`         // chance to promote one that is worse by the margin
	Tolerable    float64       `json:"tolerable"`    // rate that is no reason against a version
	Disagreement float64       `json:"disagreement"` // of a shadow without truths
	Devices      int           `json:"devices"`      // at least
	Rows         uint64        `json:"rows"`         // of the challenger, at least
	Duration     time.Duration `json:"duration"`     // then a human is asked
}

// WithDefaults fills in what is zero.
func (r Rules) WithDefaults() Rules {
	r.Margin = cmp.Or(r.Margin, DefaultMargin)
	r.Alpha, r.Beta = cmp.Or(r.Alpha, DefaultAlpha), cmp.Or(r.Beta, DefaultBeta)
	r.Tolerable = cmp.Or(r.Tolerable, DefaultTolerable)
	r.Disagreement = cmp.Or(r.Disagreement, DefaultDisagreement)
	r.Devices = cmp.Or(r.Devices, DefaultDevices)
	r.Rows = cmp.Or(r.Rows, DefaultRows)
	r.Duration = cmp.Or(r.Duration, DefaultDuration)
	return r
}

// Sums are what one version counted on one device.
type Sums struct {
	Rows   uint64 `json:"rows"`   // tried
	Failed uint64 `json:"failed"` // of those
	Labels uint64 `json:"labels"`
	Wrong  uint64 `json:"wrong"` // of those
}

// since is what came after; counts that a restored server has lost count as none.
func (s Sums) since(o Sums) Sums {
	return Sums{less(s.Rows, o.Rows), less(s.Failed, o.Failed), less(s.Labels, o.Labels), less(s.Wrong, o.Wrong)}
}

func less(a, b uint64) uint64 { return a - min(a, b) }

func (s Sums) add(o Sums) Sums {
	return Sums{s.Rows + o.Rows, s.Failed + o.Failed, s.Labels + o.Labels, s.Wrong + o.Wrong}
}

// Counts are a challenger and what serves beside it on one device.
type Counts struct {
	Challenger Sums   `json:"challenger"`
	Serving    Sums   `json:"serving"`
	Compared   uint64 `json:"compared,omitempty"`  // rows of a shadow that both computed
	Disagreed  uint64 `json:"disagreed,omitempty"` // of those
}

func (c Counts) since(o Counts) Counts {
	return Counts{
		c.Challenger.since(o.Challenger), c.Serving.since(o.Serving), less(c.Compared, o.Compared), less(c.Disagreed, o.Disagreed),
	}
}

func (c Counts) add(o Counts) Counts {
	return Counts{c.Challenger.add(o.Challenger), c.Serving.add(o.Serving), c.Compared + o.Compared, c.Disagreed + o.Disagreed}
}

// Verdict is what the evidence amounts to.
type Verdict string

// Verdicts. All but Going are final.
const (
	Going     Verdict = "going"     // not enough evidence yet
	Promote   Verdict = "promote"   // no worse than the margin allows
	Abort     Verdict = "abort"     // worse than what serves
	Undecided Verdict = "undecided" // the time is over: a human decides
)

// Question is one thing that is compared.
type Question struct {
	Name        string  `json:"name"` // errors, wrong, disagreement
	Bad         uint64  `json:"bad"`  // of the challenger
	Of          uint64  `json:"of"`
	ServingBad  uint64  `json:"serving_bad"` // of what serves; none for disagreement
	ServingOf   uint64  `json:"serving_of"`
	Fine        float64 `json:"fine"`       // e-value against "worse by the margin or more"
	Harm        float64 `json:"harm"`       // e-value against "no worse"; 0 where it is not asked
	Dispersion  float64 `json:"dispersion"` // of the devices; 1 is what chance alone gives
	Rate        float64 `json:"rate"`
	ServingRate float64 `json:"serving_rate"`
}

// Names of questions.
const (
	Errors       = "errors"
	Wrong        = "wrong"
	Disagreement = "disagreement"
)

// Finding is a verdict with what it rests on.
type Finding struct {
	Verdict   Verdict    `json:"verdict"`
	Why       string     `json:"why"` // for people
	Devices   int        `json:"devices"`
	Rows      uint64     `json:"rows"` // of the challenger
	Questions []Question `json:"questions"`
	Fine      float64    `json:"fine"`    // the least of all questions
	FineAt    float64    `json:"fine_at"` // promotes
	Harm      float64    `json:"harm"`    // the mean of the questions that ask for it
	HarmAt    float64    `json:"harm_at"` // aborts
}
