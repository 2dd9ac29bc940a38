package challenger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Role of a challenger.
type Role string

// Roles: a shadow computes the same rows and answers nobody, a share answers some
// of the calls.
const (
	Shadow Role = "shadow"
	Share  Role = "share"
)

// Decide judges what devices counted since the test began.
func Decide(role Role, rules Rules, counts map[string]Counts, age time.Duration) Finding {
	rules = rules.WithDefaults()
	f := Finding{Verdict: Going, FineAt: 1 / rules.Beta, HarmAt: 1 / rules.Alpha}
	var sum Counts
	for _, c := range counts {
		sum = sum.add(c)
		if c.Challenger.Rows > 0 {
			f.Devices++
		}
	}
	f.Rows = sum.Challenger.Rows
	f.Questions = questions(role, rules, counts, sum)
	f.Fine = f.Questions[0].Fine
	harms := 0.0
	for _, q := range f.Questions {
		f.Fine = min(f.Fine, q.Fine)
		if q.Harm > 0 {
			f.Harm += q.Harm
			harms++
		}
	}
	f.Harm /= harms
	f.decide(rules, age)
	return f
}

func (f *Finding) decide(rules Rules, age time.Duration) {
	enough := f.Devices >= rules.Devices && f.Rows >= rules.Rows
	worst := slices.MaxFunc(f.Questions, func(a, b Question) int { return cmp.Compare(a.Harm, b.Harm) })
	slowest := slices.MinFunc(f.Questions, func(a, b Question) int { return cmp.Compare(a.Fine, b.Fine) })
	switch {
	case f.Harm >= f.HarmAt:
		f.Verdict = Abort
		f.Why = fmt.Sprintf("worse than what serves in %s: %s", worst.Name, worst.rates())
	case enough && f.Fine >= f.FineAt:
		f.Verdict = Promote
		f.Why = fmt.Sprintf("no worse than the margin of %.3g allows, slowest to show in %s: %s", rules.Margin, slowest.Name, slowest.rates())
	case age >= rules.Duration:
		f.Verdict = Undecided
		f.Why = fmt.Sprintf("after %s neither better nor worse is proven; %s: %s", rules.Duration, slowest.Name, slowest.rates())
	case !enough:
		f.Why = fmt.Sprintf("%d rows on %d devices: at least %d on %d are needed", f.Rows, f.Devices, rules.Rows, rules.Devices)
	default:
		f.Why = fmt.Sprintf("the evidence on %s is %.3g, %.3g promotes: %s", slowest.Name, slowest.Fine, f.FineAt, slowest.rates())
	}
}

func (q *Question) rates() string {
	if q.Of == 0 {
		return "nothing counted"
	}
	text := fmt.Sprintf("%.3g%% of %d", 100*q.Rate, q.Of)
	if q.ServingOf > 0 {
		text += fmt.Sprintf(" beside %.3g%% of %d", 100*q.ServingRate, q.ServingOf)
	}
	return text
}

// questions are what can be asked: errors always, wrong predictions once any
// truth came back, and without truths how often a shadow disagreed.
func questions(role Role, rules Rules, counts map[string]Counts, sum Counts) []Question {
	out := []Question{ask(Errors, rules, pairsOf(counts, func(c Counts) pair {
		return pair{armOf(c.Challenger.Failed, c.Challenger.Rows), armOf(c.Serving.Failed, c.Serving.Rows)}
	}))}
	switch {
	case sum.Challenger.Labels+sum.Serving.Labels > 0:
		out = append(out, ask(Wrong, rules, pairsOf(counts, func(c Counts) pair {
			return pair{armOf(c.Challenger.Wrong, c.Challenger.Labels), armOf(c.Serving.Wrong, c.Serving.Labels)}
		})))
	case role == Shadow:
		out = append(out, askDisagreement(rules, pairsOf(counts, func(c Counts) pair {
			return pair{challenger: armOf(c.Disagreed, c.Compared)}
		})))
	}
	return out
}

// pairsOf are the devices in one order: sums of fractions depend on it.
func pairsOf(counts map[string]Counts, of func(Counts) pair) []pair {
	var out []pair
	for _, device := range slices.Sorted(maps.Keys(counts)) {
		if p := of(counts[device]); p.challenger.of > 0 {
			out = append(out, p)
		}
	}
	return out
}

func (q *Question) count(pairs []pair) {
	for _, p := range pairs {
		q.Bad += uint64(p.challenger.bad)
		q.Of += uint64(p.challenger.of)
		q.ServingBad += uint64(p.serving.bad)
		q.ServingOf += uint64(p.serving.of)
	}
	q.Rate = float64(q.Bad) / float64(max(q.Of, 1))
	q.ServingRate = float64(q.ServingBad) / float64(max(q.ServingOf, 1))
}

// ask compares both versions. A challenger is worse when its rate is 1+Margin
// times the other's and beyond what is tolerable: evidence against either is
// evidence against both, so the mean of them is.
func ask(name string, rules Rules, pairs []pair) Question {
	q := Question{Name: name, Fine: 1, Harm: 1, Dispersion: 1}
	if len(pairs) == 0 {
		return q
	}
	q.count(pairs)
	q.Dispersion = dispersion(pairs, ofRatio(pairs))
	worse := 1 + rules.Margin
	relative := eValue(ratioLog(pairs, worse, fineRatios(rules.Margin)), q.Dispersion)
	absolute := eValue(rateLog(pairs, rules.Tolerable, rareRatios), dispersion(pairs, ofRate(pairs)))
	q.Fine = (relative + absolute) / 2
	q.Harm = eValue(ratioLog(pairs, 1, harmRatios), q.Dispersion)
	return q
}

// askDisagreement holds how often a shadow differs against the limit. That it
// differs is no harm: it may be right.
func askDisagreement(rules Rules, pairs []pair) Question {
	q := Question{Name: Disagreement, Fine: 1, Dispersion: 1}
	if len(pairs) == 0 {
		return q
	}
	q.count(pairs)
	q.Dispersion = dispersion(pairs, ofRate(pairs))
	q.Fine = eValue(rateLog(pairs, rules.Disagreement, rareRatios), q.Dispersion)
	return q
}
