package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

func modelChallenge(a *app) *cobra.Command {
	var f challengeFlags
	cmd := &cobra.Command{
		Use:   "challenge MODEL VERSION {--shadow | --share PERCENT} --reason TEXT",
		Short: "Run a version beside the one that devices serve, and see how they compare",
		Long: `Puts a second version of a model on devices that serve another one. It passes
the same checks as any version (signature, floor, golden vectors, memory), and if
it fails, hangs or crashes it is taken away and the serving version goes on.

With --shadow it computes the same calls as the serving version, all or a share
of them, and answers nobody: agreement and latency are measured on the same rows.
With --share alone it answers that share of the calls. Calls are split by the key
in the request (parameter "key", header Vedette-Key), else by the prediction id:
the same key is always answered by the same version, and a call that the
challenger cannot answer is answered by the serving version. A version that
answers calls must have passed its model's gates, except on lab devices alone.

A test goes on with it: once it is proven to be no worse than --margin allows, in
errors and, where truths come back, in wrong predictions, it is proposed for
promotion; once it is proven to be worse it is taken away and people are told;
after --for a human is asked. Without data nothing is promoted. See "show".

A model has one challenge at a time; a new one takes its place. Devices that
enrol later, or are given labels that match, take part from then on.`,
		Example: `  vedette model challenge digits 2 --shadow --reason "is it better at night"
  vedette model challenge digits 2 --share 10% --selector site=b --margin 25% --for 7d --reason "one in ten at site b"
  vedette model challenge show digits
  vedette model challenge end digits --reason "seen enough"`,
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			n, err := f.create(given[1])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			done, err := c.SetChallenge(cmd.Context(), given[0], n)
			if err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) {
				showChallenge(w, done)
				if done.Devices < done.Needs {
					fmt.Fprintf(w, "%d devices are to run it, and the test needs %d: with fewer it proposes nothing. Choose more, or name one with --device\n", done.Devices, done.Needs)
				}
				fmt.Fprintf(w, "watch it with: vedette model challenge show %s\n", done.Model)
			})
		},
	}
	f.register(cmd)
	cmd.AddCommand(challengeList(a), challengeShow(a), challengeEnd(a))
	return cmd
}

// challengeFlags are what a challenge is made of.
type challengeFlags struct {
	shadow                  bool
	share, selector, device string
	reason                  string
	test                    testFlags
}

func (f *challengeFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.shadow, "shadow", false, "compute the same calls, answer nobody")
	flags.StringVar(&f.share, "share", "", "share of the calls, for example 10%; with --shadow of those computed, else of those answered")
	flags.StringVarP(&f.selector, "selector", "l", "", "only devices whose labels match, for example site=b")
	flags.StringVar(&f.device, "device", "", "only this device")
	f.test.register(flags)
	cmd.MarkFlagsMutuallyExclusive("selector", "device")
	reasonFlag(cmd, &f.reason)
}

func (f *challengeFlags) create(version string) (operator.ChallengeCreate, error) {
	n := operator.ChallengeCreate{Version: version, Role: operator.Share, Selector: f.selector, Device: f.device, Reason: f.reason}
	if f.shadow {
		n.Role = operator.Shadow
	}
	if err := f.test.apply(&n); err != nil {
		return n, err
	}
	if f.share == "" {
		if !f.shadow {
			return n, usagef("say --shadow, or with --share which share of the calls the version is to answer")
		}
		return n, nil
	}
	var err error
	n.Share, err = parseShare(f.share)
	return n, err
}

// parseShare reads a percentage as parts per thousand.
func parseShare(text string) (int, error) {
	percent, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	perMille := math.Round(percent * 10)
	if err != nil || !(perMille >= 1 && perMille <= protocol.MaxShare) || math.Abs(perMille-percent*10) > 1e-9 {
		return 0, usagef("share %q is no percentage from 0.1%% to 100%%, in steps of 0.1%%", text)
	}
	return int(perMille), nil
}

func challengeList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the versions that run beside others now", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := c.Challenges(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { showChallenges(w, list) })
		},
	}
}

func showChallenges(w io.Writer, list []operator.Challenge) {
	if len(list) == 0 {
		none(w, "version runs beside another one")
		return
	}
	rows := [][]string{}
	for i := range list {
		c := &list[i]
		rows = append(rows, []string{
			c.Model, c.Version, roleText(c.Role, c.Share), whereText(c), fmt.Sprintf("%d of %d", c.Running, c.Devices),
			count(c.Evidence.Rows), agreementText(&c.Evidence), ago(time.Now(), c.Since),
		})
	}
	grid(w, []string{"model", "challenger", "part", "where", "running", "rows", "agreement", "since"}, rows)
}

func challengeShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show MODEL", Short: "Show how a model's challenger compares: agreement, latency, accuracy, by device",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			d, err := c.Challenge(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(d, func(w io.Writer) {
				showChallenge(w, &d.Challenge)
				showChallengeDevices(w, d)
			})
		},
	}
}

func challengeEnd(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "end MODEL --reason TEXT", Short: "Take a model's challenger away",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			done, err := c.EndChallenge(cmd.Context(), given[0], operator.Reasoned{Reason: reason})
			if err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) { showChallenge(w, done) })
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func showChallenge(w io.Writer, c *operator.Challenge) {
	ended := ""
	if e := c.Ended; e != nil {
		ended = fmt.Sprintf("%s ago by %s: %s", ago(time.Now(), e.At), e.Actor, e.Reason)
	}
	facts(w, "model", c.Model, "challenger", c.Version, "part", roleText(c.Role, c.Share), "where", whereText(c),
		"since", fmt.Sprintf("%s ago by %s: %s", ago(time.Now(), c.Since), c.Actor, c.Reason), "ended", ended,
		"devices", fmt.Sprintf("%d of %d run it", c.Running, c.Devices))
	if e := &c.Evidence; e.Rows+e.FailedRows+e.Skipped > 0 {
		heading(w, "beside the serving version")
		showVersus(w, e)
	}
	if c.Test != nil {
		showChallengeTest(w, c.Test)
	}
}

func showVersus(w io.Writer, e *operator.Versus) {
	agreement, skipped, worst := "", "", ""
	if e.Agreement != nil {
		agreement = fmt.Sprintf("%s of %s rows", agreementText(e), count(e.Compared))
		worst = number(e.Worst)
	}
	if e.Skipped > 0 {
		skipped = count(e.Skipped) + ", for want of time"
	}
	facts(w, "rows", count(e.Rows), "failed", nonZero(e.FailedRows), "skipped", skipped, "agreement", agreement, "worst difference", worst,
		"latency p50", latencyPair(e.P50US, e.PrimaryP50US), "latency p95", latencyPair(e.P95US, e.PrimaryP95US),
		"accuracy", accuracyOf(e.Accuracy, e.Labels), "serving accuracy", accuracyOf(e.PrimaryAccuracy, e.PrimaryLabels))
}

func showChallengeDevices(w io.Writer, d *operator.ChallengeDetail) {
	if len(d.List) == 0 {
		none(w, "device is to run it")
		return
	}
	heading(w, "devices")
	rows := [][]string{}
	for i := range d.List {
		x := &d.List[i]
		rows = append(rows, []string{
			x.Device, firstOf(x.Site, "-"), refText(x.Primary), challengerState(x), count(x.Evidence.Rows), agreementText(&x.Evidence),
			count(x.Evidence.Skipped), latencyPair(x.Evidence.P95US, x.Evidence.PrimaryP95US),
		})
	}
	grid(w, []string{"device", "site", "serves", "challenger", "rows", "agreement", "skipped", "p95"}, rows)
	for i := range d.List {
		x := &d.List[i]
		switch {
		case x.Waiting != "":
			fmt.Fprintf(w, "%s waits: %s\n", x.Device, x.Waiting)
		case gaveUp(x):
			fmt.Fprintf(w, "%s: %s (%s): %s\n", x.Device, x.Outcome.Result, x.Outcome.Code, x.Outcome.Message)
		}
	}
}

// challengerState is what has become of the challenger on a device.
func challengerState(x *operator.ChallengeDevice) string {
	switch {
	case x.Running:
		return "runs"
	case gaveUp(x) && (x.State == "" || x.State == "idle"): // not tried again at present
		return x.Outcome.Result
	}
	return firstOf(x.State, "not heard of")
}

func gaveUp(x *operator.ChallengeDevice) bool {
	return !x.Running && x.Outcome != nil && x.Outcome.Code != ""
}

// roleText is what a challenger takes part in.
func roleText(role string, perMille int) string {
	percent := strconv.FormatFloat(float64(perMille)/10, 'f', -1, 64) + "%"
	switch {
	case role == operator.Share:
		return "answers " + percent
	case perMille == 0 || perMille == protocol.MaxShare:
		return "shadow of all"
	}
	return "shadow of " + percent
}

func whereText(c *operator.Challenge) string {
	return firstOf(firstOf(c.Device, c.Selector), "all")
}

func agreementText(e *operator.Versus) string {
	if e.Agreement == nil {
		return "-"
	}
	return proportionText(e.Agreement)
}

func proportionText(p *operator.Proportion) string {
	return fmt.Sprintf("%.2f%% (%.2f to %.2f)", 100*p.Share, 100*p.Lower, 100*p.Upper)
}

func accuracyOf(p *operator.Proportion, labels uint64) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%s of %s labels", proportionText(p), count(labels))
}

// latencyPair is the challenger's latency and the serving version's.
func latencyPair(us, primary uint64) string {
	switch {
	case us == 0:
		return "-"
	case primary == 0:
		return microsText(us)
	}
	return fmt.Sprintf("%s, serving version %s", microsText(us), microsText(primary))
}

func microsText(us uint64) string {
	return (time.Duration(us) * time.Microsecond).String() //nolint:gosec // of one call
}

func nonZero(n uint64) string {
	if n == 0 {
		return ""
	}
	return count(n)
}
