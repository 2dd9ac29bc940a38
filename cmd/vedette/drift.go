package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func driftCommand(a *app) *cobra.Command {
	return group("drift", "See whether the world has left the training data", `Devices count what their models see and say; the server compares that with the
training data. A device apart from its cohort has a faulty sensor; a cohort apart
from training means that the world has changed, and may ask for retraining.`,
		driftShow(a), driftQuality(a), driftHistory(a), driftAlarms(a), driftPolicy(a), driftEvents(a))
}

func driftShow(a *app) *cobra.Command {
	var version string
	var level levelFlags
	cmd := &cobra.Command{
		Use: "show MODEL", Short: "Show how far devices, cohorts, sites, versions or the fleet are from training",
		Long: `Without --by it lists cohorts with their devices. --by shows one level, with
accuracy and calibration: device, cohort, site, version or fleet. A group of a level
is shown with the histograms of its features, those furthest from training first.

What counts is a PSI above the threshold that chance does not explain: p is the
larger p-value of two tests, and Benjamini–Hochberg takes care of many features.
js, ks and l-inf are for reading: the Jensen–Shannon distance, the bounds that bins
give of the Kolmogorov–Smirnov distance, the largest change of one bin.`,
		Example: `  vedette drift show digits --by version
  vedette drift show digits --by site --group b
  vedette drift show digits --by device --group cam-a2 --features 20`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if level.by != "" || cmd.Flags().Changed("group") {
				level.version, level.one = version, cmd.Flags().Changed("group")
				return level.show(cmd.Context(), a, c, given[0])
			}
			d, err := c.Drift(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			if version != "" {
				d.Releases = slices.DeleteFunc(d.Releases, func(r operator.DriftRelease) bool {
					return r.Version != version && r.Release.String() != version
				})
			}
			return a.print(d, func(w io.Writer) { showDrift(w, d) })
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&version, "version", "", "only this version")
	fs.StringVar(&level.by, "by", "", "level: "+strings.Join(operator.Levels(), ", "))
	fs.StringVar(&level.group, "group", "", "one group of the level, e.g. a site")
	fs.IntVar(&level.features, "features", 8, "how many features of a group to show")
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(operator.Levels(), cobra.ShellCompDirectiveNoFileComp)) // of a flag that is there
	return cmd
}

func showDrift(w io.Writer, d *operator.Drift) {
	if len(d.Releases) == 0 {
		none(w, "evidence yet: no device has reported a window of "+d.Model)
		return
	}
	fmt.Fprintf(w, "%s, cohorts by %s; a PSI counts above %s and above its noise\n", d.Model, d.CohortBy, number(d.Threshold))
	for i := range d.Releases {
		r := &d.Releases[i]
		heading(w, "version "+firstOf(r.Version, r.Release.Short()))
		rows := [][]string{}
		for j := range r.Cohorts {
			c := &r.Cohorts[j]
			rows = append(rows, []string{firstOf(c.Cohort, "(none)"), "", string(c.Verdict), count(c.Rows), number(c.MaxPSI), worst(c.Cells), accuracyText(&c.Accuracy)})
			for k := range c.Devices {
				v := &c.Devices[k]
				rows = append(rows, []string{"", v.Device, string(v.Verdict), count(v.Rows), number(v.MaxPSI), worst(v.Cells), ""})
			}
		}
		grid(w, []string{d.CohortBy, "device", "verdict", "rows", "max psi", "furthest apart", "accuracy"}, rows)
		for j := range r.Cohorts {
			if c := &r.Cohorts[j]; c.Verdict == operator.VerdictInsufficient && c.Text != "" {
				fmt.Fprintf(w, "%s: %s\n", firstOf(c.Cohort, "(none)"), c.Text)
			}
		}
	}
}

// worst names the features that are furthest apart.
func worst(cells []operator.DriftCell) string {
	apart := slices.DeleteFunc(slices.Clone(cells), func(c operator.DriftCell) bool { return !c.Apart && !c.CohortApart })
	slices.SortFunc(apart, func(a, b operator.DriftCell) int { return cmp.Compare(b.PSI, a.PSI) })
	const most = 3
	names := []string{}
	for i, c := range apart {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(apart)-most))
			break
		}
		names = append(names, c.Feature+" "+number(c.PSI))
	}
	return strings.Join(names, ", ")
}

func accuracyText(a *operator.Accuracy) string {
	if a.Labels == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f%% (%.1f–%.1f, %d labels)", 100*a.Accuracy, 100*a.Lower, 100*a.Upper, a.Labels)
}

func driftQuality(a *app) *cobra.Command {
	var q operator.QualityQuery
	var since time.Duration
	cmd := &cobra.Command{
		Use: "quality MODEL", Short: "Show accuracy and drift over time",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			q.Model = given[0]
			if since > 0 {
				q.Since = time.Now().Add(-since).UTC().Truncate(time.Second)
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			quality, err := c.Quality(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(quality, func(w io.Writer) { showQuality(w, quality) })
		},
	}
	cmd.Flags().StringVar(&q.Version, "version", "", "only this version")
	cmd.Flags().StringVar(&q.Cohort, "cohort", "", "only this cohort, e.g. a site")
	cmd.Flags().DurationVar(&since, "since", time.Hour, "how far back")
	return cmd
}

func showQuality(w io.Writer, q *operator.Quality) {
	rows := [][]string{}
	for i := range q.Series {
		s := &q.Series[i]
		for _, p := range s.Points {
			rows = append(rows, []string{timeText(p.At), firstOf(s.Version, s.Release.Short()), s.Cohort, count(p.Rows), count(p.Labels), optional(p.Accuracy), optional(p.PSI), optional(p.Confidence), optional(p.Brier)})
		}
	}
	if len(rows) == 0 {
		none(w, "windows in that time")
		return
	}
	grid(w, []string{"time", "version", "cohort", "rows", "labels", "accuracy", "psi", "confidence", "brier"}, rows)
}

func optional(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *v)
}

func driftAlarms(a *app) *cobra.Command {
	var q operator.AlarmQuery
	var all bool
	cmd := &cobra.Command{
		Use: "alarms", Short: "List alarms that stand, newest first", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Open = !all
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := pages(func(p operator.Paging) (*operator.Page[operator.Alarm], error) {
				q.Paging = p
				return c.Alarms(cmd.Context(), q)
			})
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { alarmTable(w, list) })
		},
	}
	cmd.Flags().StringVar(&q.Model, "model", "", "only this model")
	cmd.Flags().BoolVar(&all, "all", false, "cleared ones too")
	return cmd
}

func alarmTable(w io.Writer, list []operator.Alarm) {
	if len(list) == 0 {
		none(w, "alarms")
		return
	}
	rows := [][]string{}
	for i := range list {
		m := &list[i]
		state := "stands"
		if !m.Cleared.IsZero() {
			state = "cleared: " + m.Reason
		}
		rows = append(rows, []string{timeText(m.Raised), m.Kind, m.Model + " " + m.Version, m.Cohort, m.Device, state, m.Text})
	}
	grid(w, []string{"raised", "kind", "version", "cohort", "device", "state", "what"}, rows)
}

// policyFlags are changes of a retrain policy.
type policyFlags struct {
	policy   operator.RetrainPolicy
	cooldown time.Duration
}

func driftPolicy(a *app) *cobra.Command {
	var f policyFlags
	cmd := &cobra.Command{
		Use: "policy MODEL", Short: "Show or change when a model asks for retraining, and whom",
		Long: `Without flags it shows the policy. Flags that are given replace what was there.
The request is a CloudEvent (JSON, structured mode), sent by POST. Conditions,
schedules and several destinations are in a file: see "vedette retrain policy".`,
		Example: `  vedette drift policy digits --on-drift --accuracy-floor 0.9 --webhook https://ci.example.org/retrain --reason "first policy"`,
		Args:    args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := c.RetrainPolicy(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			if f.apply(cmd, p) {
				if p, err = c.SetRetrainPolicy(cmd.Context(), *p); err != nil {
					return err
				}
			}
			return a.print(p, func(w io.Writer) { showPolicy(w, p) })
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.policy.OnDrift, "on-drift", false, "ask when a cohort drifts")
	fs.Float64Var(&f.policy.AccuracyFloor, "accuracy-floor", 0, "ask when accuracy is proven below this; 0 for never")
	fs.DurationVar(&f.cooldown, "cooldown", 0, "least time between two requests (default 24h)")
	fs.StringArrayVar(&f.policy.Webhooks, "webhook", nil, "URL that gets the request (repeat)")
	fs.StringVar(&f.policy.Subject, "subject", "", "NATS subject that gets the request")
	fs.StringVar(&f.policy.Secret, "secret", "", "key that signs webhooks (HMAC-SHA256 in X-Vedette-Signature)")
	fs.StringVar(&f.policy.Reason, "reason", "", "why, for the ledger")
	return cmd
}

// apply puts the given flags into a policy and says whether there were any.
func (f *policyFlags) apply(cmd *cobra.Command, p *operator.RetrainPolicy) (changed bool) {
	for flag, set := range map[string]func(){
		"on-drift":       func() { p.OnDrift = f.policy.OnDrift },
		"accuracy-floor": func() { p.AccuracyFloor = f.policy.AccuracyFloor },
		"cooldown":       func() { p.Cooldown = release.Duration(f.cooldown) },
		"webhook":        func() { p.Webhooks = f.policy.Webhooks },
		"subject":        func() { p.Subject = f.policy.Subject },
		"secret":         func() { p.Secret = f.policy.Secret },
	} {
		if cmd.Flags().Changed(flag) {
			changed = true
			set()
		}
	}
	p.Reason = f.policy.Reason
	return changed
}

func showPolicy(w io.Writer, p *operator.RetrainPolicy) {
	floor := ""
	if p.AccuracyFloor > 0 {
		floor = number(p.AccuracyFloor)
	}
	facts(w, "model", p.Model, "on drift", strconv.FormatBool(p.OnDrift), "accuracy floor", floor, "cooldown", p.Cooldown.String(),
		"webhooks", strings.Join(p.Webhooks, " "), "subject", p.Subject)
}

// driftEvents is the list of requests at the place where people look first.
func driftEvents(a *app) *cobra.Command {
	cmd := retrainList(a)
	cmd.Use, cmd.Short = "events", `List requests for retraining, as "vedette retrain list" does`
	return cmd
}
