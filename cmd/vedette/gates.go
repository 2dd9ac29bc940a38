package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/operator"
)

//go:embed gates_example.yaml
var gatesExample string

func modelGates(a *app) *cobra.Command {
	return group("gates", "Say what a model's versions must pass before they are rolled out", `Gates are a file that "vedette model gates spec" explains field by field: floors of
metrics, better than the version in production, latency and memory on each
firmware profile, fairness, data and a smoke test.

A version that has not passed is refused at rollout, at stage production and by
promotion; "vedette model validate MODEL VERSION" says why and what to do.`,
		gatesSet(a), gatesShow(a), gatesSpec(a), gatesClear(a))
}

func gatesSet(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "set MODEL FILE --reason TEXT", Short: "Set the gates of a model",
		Example: `  vedette model gates spec > gates.yaml
  vedette model gates set digits gates.yaml --reason "what we agreed with the line"`,
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			text, err := readFile(given[1], maxSmallFile)
			if err != nil {
				return err
			}
			return a.setGates(cmd, given[0], string(text), reason)
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func gatesClear(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "clear MODEL --reason TEXT", Short: "Remove the gates of a model",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error { return a.setGates(cmd, given[0], "", reason) },
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func (a *app) setGates(cmd *cobra.Command, model, text, reason string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	p, err := c.SetGatePolicy(cmd.Context(), model, operator.GatePolicyChange{Text: text, Reason: reason})
	if err != nil {
		return err
	}
	return a.print(p, func(w io.Writer) { showGatePolicy(w, p) })
}

func gatesShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show MODEL", Short: "Show the gates of a model, as they were set",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := c.GatePolicy(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(p, func(w io.Writer) {
				showGatePolicy(w, p)
				if p.Text != "" {
					fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(p.Text))
				}
			})
		},
	}
}

func gatesSpec(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "spec", Short: "Print gates with every field explained", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(a.out, gatesExample)
			return err
		},
	}
}

func showGatePolicy(w io.Writer, p *operator.GatePolicy) {
	if len(p.Gates) == 0 {
		fmt.Fprintf(w, "%s has no gates: every version may be rolled out\n", p.Model)
		return
	}
	facts(w, "model", p.Model, "gates", strings.Join(p.Gates, ", "), "digest", p.Digest.Short(),
		"set", fmt.Sprintf("%s ago by %s: %s", ago(time.Now(), p.At), p.Actor, p.Reason))
}

func modelValidate(a *app) *cobra.Command {
	var f validateFlags
	cmd := &cobra.Command{
		Use:   "validate MODEL VERSION [--watch] [--lab]",
		Short: "Show how a version stands with the gates of its model",
		Long: `Shows each gate with its value, threshold and evidence, and what to do about the
first that stops the version. Exits with 1 while it is not cleared.

--lab has the lab devices (label ring=lab) try the version beside the one that they
serve: they measure latency and memory on their firmware profiles and answer nobody
with it. The trial goes on until another takes its place, the version is rolled out
to them, or --end-lab.`,
		Example: `  vedette model validate digits 2
  vedette model validate digits 2 --lab --watch --reason "measure it"
  vedette model validate digits 2 -o json`,
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error { return a.validate(cmd, &f, given[0], given[1]) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.watch, "watch", false, "show it again when something changes, until it is cleared or no gate lacks evidence")
	fl.BoolVar(&f.lab, "lab", false, "have lab devices try it")
	fl.BoolVar(&f.endLab, "end-lab", false, "have lab devices stop trying")
	fl.StringVar(&f.reason, "reason", "", "why, for the ledger; needed with --lab and --end-lab")
	cmd.MarkFlagsMutuallyExclusive("lab", "end-lab")
	return cmd
}

type validateFlags struct {
	watch, lab, endLab bool
	reason             string
}

// errNotCleared ends with 1 after everything was printed.
func errNotCleared(v *operator.Validation) error {
	e := operator.Errorf(operator.NotCleared, "%s %s is not cleared: %s", v.Model, v.Version, v.Why)
	if v.Next != "" {
		e = e.WithHint("%s", v.Next)
	}
	return e
}

func (a *app) validate(cmd *cobra.Command, f *validateFlags, model, version string) error {
	ctx := cmd.Context()
	c, err := a.connect()
	if err != nil {
		return err
	}
	if f.lab || f.endLab {
		if f.reason, err = a.reason(f.reason, "a lab trial of "+model+" "+version); err != nil {
			return err
		}
		if _, err := c.SetLabTrial(ctx, model, version, operator.LabTrialChange{End: f.endLab, Reason: f.reason}); err != nil {
			return err
		}
	}
	v, err := c.Validation(ctx, model, version)
	if err != nil {
		return err
	}
	if err := a.print(v, func(w io.Writer) { showValidation(w, v) }); err != nil {
		return err
	}
	if f.watch && !settled(v) {
		if v, err = a.watchValidation(cmd, c, v); err != nil {
			return err
		}
	}
	if !v.Cleared {
		return errNotCleared(v)
	}
	return nil
}

// settled says that no gate waits for evidence: time alone changes nothing.
func settled(v *operator.Validation) bool {
	return v.Cleared || !slices.ContainsFunc(v.Gates, func(g operator.GateVerdict) bool { return g.Status == operator.GateMissing })
}

// watcher is what a watch reads.
type watcher interface {
	operator.ValidationReader
	operator.Follower
}

// errSeen ends a watch.
var errSeen = errors.New("seen")

func (a *app) watchValidation(cmd *cobra.Command, c watcher, last *operator.Validation) (*operator.Validation, error) {
	model, version := last.Model, last.Version
	err := c.Follow(cmd.Context(), []string{operator.EventModel, operator.EventDevice}, 0, func(operator.Event) error {
		v, err := c.Validation(cmd.Context(), model, version)
		if err != nil {
			return err
		}
		if gatesLine(v) != gatesLine(last) {
			last = v
			if err := a.print(v, func(w io.Writer) { fmt.Fprintln(w); showValidation(w, v) }); err != nil {
				return err
			}
		}
		if settled(v) {
			return errSeen
		}
		return nil
	})
	if err == errSeen { //nolint:errorlint // it is ours, and comes back as it is
		err = nil
	}
	return last, err
}

// gatesLine is how the gates stand, to see whether something changed.
func gatesLine(v *operator.Validation) string {
	var b strings.Builder
	for i := range v.Gates {
		g := &v.Gates[i]
		fmt.Fprintf(&b, "%s=%s %s %d;", g.Name, g.Status, g.Evidence, len(v.Trials))
	}
	return b.String()
}

func showValidation(w io.Writer, v *operator.Validation) {
	state := "not cleared"
	if v.Cleared {
		state = "cleared"
	}
	lab := ""
	if v.Lab != nil {
		lab = fmt.Sprintf("tries %s on %s", v.Lab.Version, firstOf(strings.Join(v.Lab.Devices, ", "), "no device"))
	}
	facts(w, "version", v.Model+" "+v.Version, "state", state, "why", v.Why, "champion", v.Champion, "lab", lab)
	rows := [][]string{}
	for i := range v.Gates {
		g := &v.Gates[i]
		rows = append(rows, []string{g.Name, string(g.Status), gateValue(g), gateThreshold(g), gateInterval(g), countOr(g.N, "-")})
	}
	if len(rows) > 0 {
		heading(w, "gates")
		grid(w, []string{"gate", "status", "value", "threshold", "interval", "rows"}, rows)
		fmt.Fprintln(w)
	}
	for i := range v.Gates {
		showGate(w, &v.Gates[i])
	}
	if v.Next != "" {
		fmt.Fprintf(w, "next: %s\n", v.Next)
	}
}

// showGate writes the evidence of one gate, and its parts.
func showGate(w io.Writer, g *operator.GateVerdict) {
	fmt.Fprintf(w, "%s: %s\n", g.Name, g.Evidence)
	for i := range g.Parts {
		p := &g.Parts[i]
		value := ""
		if p.Value != nil {
			value = unitText(*p.Value, g.Unit) + ", "
		}
		fmt.Fprintf(w, "  %-8s %s: %s%s\n", p.Status, p.Name, value, p.Text)
	}
	if o := g.Override; o != nil {
		fmt.Fprintf(w, "  let past by %s, %s ago, when it was %s: %s\n", o.Actor, ago(time.Now(), o.At), o.Was, o.Reason)
	}
}

func gateValue(g *operator.GateVerdict) string {
	if g.Value == nil {
		return "-"
	}
	return unitText(*g.Value, g.Unit)
}

func gateThreshold(g *operator.GateVerdict) string {
	if g.Threshold == nil {
		return "-"
	}
	side := "≥ "
	if g.AtMost {
		side = "≤ "
	}
	return side + unitText(*g.Threshold, g.Unit)
}

func gateInterval(g *operator.GateVerdict) string {
	switch {
	case g.Lower != nil && g.Upper != nil:
		return number(*g.Lower) + " to " + number(*g.Upper)
	case g.Lower != nil:
		return "≥ " + number(*g.Lower)
	}
	return "-"
}

// unitText is a value with its unit.
func unitText(v float64, unit string) string {
	switch unit {
	case "bytes":
		return bytesText(int64(v))
	case "":
		return number(v)
	}
	return number(v) + " " + unit
}

func modelOverride(a *app) *cobra.Command {
	var gate, reason string
	cmd := &cobra.Command{
		Use: "override MODEL VERSION --gate NAME --reason TEXT", Short: "Let one version past one gate",
		Long: `Lets a version past a gate that fails, or whose evidence is missing. It needs the
role of a publisher, holds for this version and this gate alone, and is in the
ledger with the reason and with what the gate had found.`,
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			if gate == "" {
				return usagef("name the gate with --gate; `vedette model validate %s %s` lists them", given[0], given[1])
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			v, err := c.OverrideGate(cmd.Context(), given[0], given[1], gate, operator.Reasoned{Reason: reason})
			if err != nil {
				return err
			}
			return a.print(v, func(w io.Writer) { showValidation(w, v) })
		},
	}
	cmd.Flags().StringVar(&gate, "gate", "", "gate to let it past")
	reasonFlag(cmd, &reason)
	return cmd
}
