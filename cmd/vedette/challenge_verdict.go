package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// testFlags are the rules of the test that a challenger goes through.
type testFlags struct{ margin, lasts string }

func (f *testFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.margin, "margin", "", "how much worse it may be at most, as a part of the rate of what serves (default 25%)")
	flags.StringVar(&f.lasts, "for", "", "after what time a human is asked, for example 3d (default 14d)")
}

func (f *testFlags) apply(n *operator.ChallengeCreate) error {
	if f.margin != "" {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(f.margin, "%"), 64)
		if err != nil || !(percent > 0 && percent <= 1000) {
			return usagef("--margin %q is no percentage above 0 and up to 1000%%", f.margin)
		}
		n.Margin = percent / 100
	}
	if f.lasts != "" {
		d, err := parseSpan(f.lasts)
		if err != nil {
			return usagef("--for: %w", err)
		}
		n.Duration = release.Duration(d)
	}
	return nil
}

// showChallengeTest prints what the evidence amounts to.
func showChallengeTest(w io.Writer, t *operator.ChallengeTest) {
	heading(w, "evidence")
	facts(w, "verdict", t.Verdict, "because", t.Why, "no worse", evidence(t.Fine, t.FineAt, "promotes"), "worse", evidence(t.Harm, t.HarmAt, "aborts"),
		"margin", percentText(t.Margin), "rows", fmt.Sprintf("%d on %d devices", t.Rows, t.Devices), "until", timeText(t.Until))
	rows := [][]string{}
	for i := range t.Questions {
		q := &t.Questions[i]
		serving, harm := "-", "-"
		if q.ServingOf > 0 {
			serving = fmt.Sprintf("%s of %d", percentText(q.ServingRate), q.ServingOf)
		}
		if q.Harm > 0 {
			harm = number(q.Harm)
		}
		rows = append(rows, []string{q.Name, fmt.Sprintf("%s of %d", percentText(q.Rate), q.Of), serving, number(q.Fine), harm, number(q.Dispersion)})
	}
	grid(w, []string{"question", "challenger", "serves", "no worse", "worse", "dispersion"}, rows)
}

func evidence(e, at float64, does string) string {
	return fmt.Sprintf("%s, %s %s", number(e), number(at), does)
}

func percentText(share float64) string { return number(100*share) + "%" }
