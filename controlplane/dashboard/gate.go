package dashboard

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// gateView is one gate with pictures of what it rests on.
type gateView struct {
	operator.Gate

	Measure  string    // what it looks at, in words
	Compares bool      // it compares devices and answers with e-values
	Tracks   []track   // of a gate that compares
	Tens     []float64 // where powers of ten are on their scale
	Against  *against  // of a gate that counts; nil when nothing was counted
	Then     string    // what follows from the result
}

// track is an e-value on a logarithmic scale that begins at 1.
type track struct {
	Name  string  // harm, fine, control
	Text  string  // what the value is evidence for
	X     float64 // end of the bar, 0 to 100
	Mark  float64 // where it decides, 0 for nowhere
	Value string
	At    string // value from which on it decides
	Does  string // what happens from there on
	Over  bool   // it has decided
}

// against is a value beside its limit, on a scale that begins at 0.
type against struct {
	X, Mark float64 // 0 to 100
	Over    bool
}

// gateMeasures say what gates look at.
var gateMeasures = map[string]string{
	"golden":   "devices that compute other golden outputs",
	"install":  "devices that did not get there",
	"crash":    "devices that fell back after serving it",
	"errors":   "rise of failed rows",
	"latency":  "rise of the 95th percentile",
	"drift":    "PSI of the predicted classes",
	"shadow":   "rows answered otherwise in shadow",
	"accuracy": "fall of accuracy",
}

// gateViews shows gates; of those whose spec is known, what an open question
// means.
func gateViews(gates []operator.Gate, spec *operator.RolloutSpec) []gateView {
	out := make([]gateView, 0, len(gates))
	for _, g := range gates {
		v := gateView{Gate: g, Measure: gateMeasures[g.Kind], Compares: g.Alpha > 0, Then: follows(&g, spec)}
		if v.Compares {
			v.Tracks, v.Tens = tracksOf(&g, spec)
		} else if g.Denominator > 0 {
			v.Against = againstLimit(&g)
		}
		out = append(out, v)
	}
	return out
}

// follows says what comes of a gate's answer.
func follows(g *operator.Gate, spec *operator.RolloutSpec) string {
	switch g.Result {
	case "fail":
		if spec.OnFailure == operator.OnFailureRevert {
			return "Every device goes back."
		}
		return "The rollout halts until a person decides."
	case "inconclusive":
		for _, s := range spec.Gates {
			if s.Kind == g.Kind && s.Inconclusive == "pass" {
				return "Without an answer the wave passes after its soak, and this is kept as unproven."
			}
		}
		return "Without an answer the wave waits."
	case "unproven":
		return "The wave passed without an answer."
	case "waived":
		return "A person went on over it. It is judged again when it gets worse."
	}
	return ""
}

// scaleRoom is how far a scale goes on behind the value that decides, in
// logarithms of it.
const scaleRoom = 1.15

// tracksOf draws the e-values of a gate that compares: harm stops at one
// divided by the gate's part of the spec's alpha, fine passes at one divided by
// the whole, and the control group excuses harm that it shows too.
func tracksOf(g *operator.Gate, spec *operator.RolloutSpec) (tracks []track, tens []float64) {
	stops := 1 / g.Alpha
	passes := stops
	if spec.Alpha != nil && *spec.Alpha > 0 {
		passes = 1 / *spec.Alpha
	}
	room := math.Log(max(stops, passes, 2)) * scaleRoom
	at := func(e float64) float64 { return 100 * min(1, max(0, math.Log(max(e, 1))/room)) }
	add := func(name, text, does string, e, from float64) {
		tracks = append(tracks, track{Name: name, Text: text, X: at(e), Mark: at(from), Value: formatE(e), At: formatE(from), Does: does, Over: e >= from})
	}
	add("harm", "that it is worse", "stops", g.EHarm, stops)
	add("fine", "that it is no worse", "passes", g.EFine, passes)
	if g.EControl > 0 {
		add("control", "that the control group got worse too", "excuses", g.EControl, stops)
	}
	for e := 10.0; e < max(stops, passes); e *= 10 {
		tens = append(tens, at(e))
	}
	return tracks, tens
}

// againstLimit draws a share beside the largest that is still good.
func againstLimit(g *operator.Gate) *against {
	most := max(2*g.Limit, 1.15*g.Value, 0.01)
	return &against{X: 100 * g.Value / most, Mark: 100 * g.Limit / most, Over: g.Value > g.Limit}
}

// formatE shows an e-value with two digits; large ones by their power of ten.
func formatE(e float64) string {
	switch {
	case e >= 1e5:
		power := int(math.Floor(math.Log10(e)))
		lead := strconv.FormatFloat(e/math.Pow10(power), 'f', 1, 64)
		return strings.TrimSuffix(lead, ".0") + "\u00b710" + superscript(power)
	case e >= 1000:
		return formatCount(int(math.Round(e)))
	case e >= 10:
		return fmt.Sprintf("%.0f", e)
	default:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", e), ".0")
	}
}

func superscript(n int) string {
	return strings.Map(func(r rune) rune { return []rune("⁰¹²³⁴⁵⁶⁷⁸⁹")[r-'0'] }, strconv.Itoa(n))
}

// gateValue is a value of a gate in the unit of its limit: a share, except for
// drift.
func gateValue(g operator.Gate, v float64) string {
	if g.Kind == "drift" || g.Unit != "" {
		return strings.TrimSpace(formatNumber(v) + " " + g.Unit)
	}
	return formatNumber(100*v) + "\u2009%"
}
