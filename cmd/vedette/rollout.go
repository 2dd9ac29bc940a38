package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
)

func rolloutCommand(a *app) *cobra.Command {
	commands := []*cobra.Command{
		rolloutSpec(a), rolloutPlan(a), rolloutCreate(a), rolloutList(a), rolloutStatus(a), rolloutExplain(a), rolloutDevices(a),
		rolloutDiff(a), rolloutRevise(a),
	}
	for _, act := range []struct{ name, short string }{
		{operator.ActStart, "Start a rollout that was created"},
		{operator.ActApprove, "Let the next wave open"},
		{operator.ActDeny, "Refuse what waits for approval"},
		{operator.ActPause, "Offer the release to nobody new"},
		{operator.ActResume, "Go on, over a failed gate too"},
		{operator.ActNext, "Close the open wave as it is and open the next"},
		{operator.ActAbort, "End it; devices keep what they have"},
		{operator.ActRollback, "Bring every device back to what it ran before"},
		{operator.ActRetry, "Offer it to failed devices again"},
	} {
		commands = append(commands, rolloutAct(a, act.name, act.short))
	}
	return group("rollout", "Bring a version to the fleet in waves", `A rollout brings one version to the devices that a selector names, wave by wave.
A wave passes when enough of its devices were seen healthy for its soak time and
no gate fails. "spec" prints a spec with every field explained, "plan" says
beforehand what would happen; "explain" says why a rollout, or a device, is where
it is.

Commands that change a rollout need a reason for the ledger. With --wait they
return when the rollout has ended: with 0 if it came to what was asked for, with
3 if it was halted, aborted, reverted or replaced instead.`, commands...)
}

//go:embed rollout_example.yaml
var exampleSpec string

func rolloutSpec(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "spec [ROLLOUT]", Short: "Print a spec with every field explained, or that of a rollout",
		Args: args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return a.printSpec(exampleSpec)
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			spec, err := a.specAt(cmd.Context(), c, given[0])
			if err != nil {
				return err
			}
			text, err := rollout.FormatSpec(spec)
			if err != nil {
				return err
			}
			return a.printSpec(string(text))
		},
	}
}

// printSpec prints a spec in YAML, or as JSON.
func (a *app) printSpec(text string) error {
	if !a.json() {
		_, err := io.WriteString(plain{a.out}, text)
		return err
	}
	spec, err := rollout.ParseSpec([]byte(text))
	if err != nil {
		return err
	}
	return writeJSON(a.out, spec)
}

func rolloutPlan(a *app) *cobra.Command {
	var f specFlags
	cmd := &cobra.Command{
		Use: "plan [MODEL VERSION]", Short: "Say what a rollout would do; changes nothing",
		Long: `Says which devices each wave would get, how long that takes by the presence of the
last 14 days, and what is in the way. It makes no rollout and asks no device.
Devices that another rollout has are planned for as if they were free.`,
		Example: `  vedette rollout plan digits 2 --wave 1 --wave 100% --window "0 22 * * *,6h,device"
  vedette rollout plan -f digits.yaml`,
		Args: args(cobra.MaximumNArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			spec, err := f.spec(cmd, given)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := c.PlanRollout(cmd.Context(), spec)
			if err != nil {
				return err
			}
			return a.print(p, func(w io.Writer) { showPlan(w, p) })
		},
	}
	f.register(cmd)
	return cmd
}

func rolloutCreate(a *app) *cobra.Command {
	var f specFlags
	var reason string
	var start bool
	var until waitFlags
	cmd := &cobra.Command{
		Use: "create [MODEL VERSION] --reason TEXT", Short: "Make a rollout, and start it with --start",
		Example: `  vedette rollout create digits 2 --wave 1 --wave 50% --wave 100% --soak 30m --start --reason "trained with faded images"
  vedette rollout create digits 2 --window "0 22 * * *,6h,device" --max-unavailable site=1 --max-rate 2MB/s --reason "at night"
  vedette rollout create -f digits.yaml --start --wait --reason "nightly training"`,
		Args: args(cobra.MaximumNArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			spec, err := f.spec(cmd, given)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			if reason, err = a.reason(reason, "create a rollout of "+spec.Model+" "+spec.Version); err != nil {
				return err
			}
			r, err := c.CreateRollout(cmd.Context(), operator.RolloutCreate{Spec: spec, Reason: reason, Start: start})
			if err != nil {
				return err
			}
			if until.asked() {
				return a.await(cmd.Context(), c, r.ID, until, operator.RolloutCompleted)
			}
			return a.print(r, func(w io.Writer) { showCreated(w, r) })
		},
	}
	f.register(cmd)
	reasonFlag(cmd, &reason)
	cmd.Flags().BoolVar(&start, "start", false, "start it at once")
	until.register(cmd)
	return cmd
}

func showCreated(w io.Writer, r *operator.Rollout) {
	fmt.Fprintf(w, "%s is %s\n", r.ID, stateText(&r.RolloutSummary))
	if r.State == operator.RolloutDraft {
		fmt.Fprintf(w, "start it with: vedette rollout start %s --reason …\n", r.ID)
	} else {
		fmt.Fprintf(w, "watch it with: vedette rollout status %s --watch\n", r.ID)
	}
}

// actHelp says what becomes of devices and of the rollout.
var actHelp = map[string]string{
	operator.ActStart: `Starts a draft. Its first wave opens at once, or when its time has come, other
rollouts have ended or a person has approved it: it is then running, queued or
awaiting_approval. Devices are asked as budget and windows allow.`,
	operator.ActApprove: `Lets the wave open that waits for approval; "status" names its devices. Devices of
earlier waves keep the version. The rollout is running then.`,
	operator.ActDeny: `Refuses the wave that waits for approval. Devices keep what they have and nobody
new is asked. The rollout is halted: resume, roll back or abort it.`,
	operator.ActPause: `Asks nobody new. Devices under way go on and are watched; those that have the
version keep it. The rollout is paused until it is resumed, and ends at its
decision deadline.`,
	operator.ActResume: `Goes on after a pause or a halt. A gate that fails now is waived as it stands, and
fails again when it gets worse. Devices whose offer was withdrawn are asked
again. The rollout is running then.`,
	operator.ActNext: `Closes the open wave without waiting for its soak time, quorum or evidence.
Devices under way go on and are watched. The next wave opens, without a further
approval; after the last one the rollout is completed. A gate that fails is not
overruled.`,
	operator.ActAbort: `Ends the rollout for good: it is aborted. Devices that have the version keep it,
offers that no device follows yet are withdrawn, and nobody goes back. Use
rollback for that.`,
	operator.ActRollback: `Sends every device that has the version, or is on its way to it, back to what it
ran before, within the budget of going back. The rollout is reverting, and
reverted when all of them were seen off the version.`,
	operator.ActRetry: `Lets devices that failed, went back or refused the version be asked again. Others
are not touched. The state stays as it is: a halted or paused rollout asks them
when it is resumed.`,
}

// actReasons are reasons of examples.
var actReasons = map[string]string{
	operator.ActStart: "nightly training", operator.ActApprove: "the canaries look well", operator.ActDeny: "not before the fair",
	operator.ActPause: "the site link is down", operator.ActResume: "the link is up again", operator.ActNext: "the canaries were watched long enough",
	operator.ActAbort: "wrong version", operator.ActRollback: "customers see wrong labels", operator.ActRetry: "the power supply was at fault",
}

func rolloutAct(a *app, name, short string) *cobra.Command {
	var reason string
	var until waitFlags
	cmd := &cobra.Command{
		Use: name + " ROLLOUT --reason TEXT", Short: short, Long: actHelp[name],
		Example: fmt.Sprintf("  vedette rollout %s digits-2-1 --reason %q", name, actReasons[name]),
		Args:    args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if reason, err = a.reason(reason, name+" "+given[0]); err != nil {
				return err
			}
			r, err := c.ActOnRollout(cmd.Context(), given[0], operator.RolloutAction{Action: name, Reason: reason})
			if err != nil {
				return err
			}
			if until.asked() {
				return a.await(cmd.Context(), c, r.ID, until, outcomeOf(name))
			}
			return a.print(r, func(w io.Writer) { showActed(w, name, r) })
		},
	}
	reasonFlag(cmd, &reason)
	if slices.Contains([]string{operator.ActStart, operator.ActApprove, operator.ActResume, operator.ActNext, operator.ActRetry, operator.ActRollback}, name) {
		until.register(cmd)
	}
	return cmd
}

// outcomeOf is the end that a person who gives the action waits for.
func outcomeOf(action string) operator.RolloutState {
	if action == operator.ActRollback {
		return operator.RolloutReverted
	}
	return operator.RolloutCompleted
}

// showActed says what an action made of a rollout and, where it stands still,
// what it takes to go on.
func showActed(w io.Writer, action string, r *operator.Rollout) {
	fmt.Fprintf(w, "%s is %s\n", r.ID, stateText(&r.RolloutSummary))
	if action == operator.ActRetry && slices.Contains(r.Actions, operator.ActResume) {
		fmt.Fprintf(w, "devices are offered it again once it goes on: vedette rollout resume %s --reason …\n", r.ID)
	}
	switch r.State {
	case operator.RolloutHalted, operator.RolloutPaused, operator.RolloutAwaiting, operator.RolloutQueued:
		fmt.Fprintf(w, "possible now: %s\n", strings.Join(r.Actions, ", "))
	case operator.RolloutDraft, operator.RolloutRunning, operator.RolloutReverting, operator.RolloutCompleted,
		operator.RolloutAborted, operator.RolloutReverted, operator.RolloutReplaced:
	}
}

func stateText(r *operator.RolloutSummary) string {
	if r.Cause == "" {
		return string(r.State)
	}
	return string(r.State) + ": " + r.Cause
}

func rolloutNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	page, err := c.Rollouts(ctx, operator.RolloutQuery{})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(page.Items))
	for i := range page.Items {
		names[i] = page.Items[i].ID
	}
	return names, nil
}

// rolloutStates are what --state may be.
var rolloutStates = []string{
	string(operator.RolloutDraft), string(operator.RolloutQueued), string(operator.RolloutAwaiting), string(operator.RolloutRunning),
	string(operator.RolloutPaused), string(operator.RolloutHalted), string(operator.RolloutReverting), string(operator.RolloutReverted),
	string(operator.RolloutCompleted), string(operator.RolloutAborted), string(operator.RolloutReplaced),
}

func rolloutList(a *app) *cobra.Command {
	var q operator.RolloutQuery
	var state string
	cmd := &cobra.Command{
		Use: "list", Short: "List rollouts, newest first", Example: "  vedette rollout list --active --model digits", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if state != "" && !slices.Contains(rolloutStates, state) {
				return usagef("--state %q: states are %s", state, strings.Join(rolloutStates, ", "))
			}
			q.State = operator.RolloutState(state)
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := pages(func(p operator.Paging) (*operator.Page[operator.RolloutSummary], error) {
				q.Paging = p
				return c.Rollouts(cmd.Context(), q)
			})
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { rolloutTable(w, list) })
		},
	}
	cmd.Flags().StringVar(&q.Model, "model", "", "only this model")
	cmd.Flags().StringVar(&state, "state", "", "only in this state, such as halted")
	cmd.Flags().BoolVar(&q.Active, "active", false, "only those that have not ended")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(rolloutStates, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func rolloutTable(w io.Writer, list []operator.RolloutSummary) {
	if len(list) == 0 {
		none(w, "rollouts")
		return
	}
	rows := [][]string{}
	for i := range list {
		r := &list[i]
		rows = append(rows, []string{r.ID, r.Model + " " + r.Version, string(r.State), fmt.Sprintf("%d/%d", r.Wave, r.Waves), countsText(r.Counts), r.CreatedBy, timeText(r.Created)})
	}
	grid(w, []string{"rollout", "version", "state", "wave", "devices", "by", "created"}, rows)
}

func rolloutStatus(a *app) *cobra.Command {
	var until waitFlags
	cmd := &cobra.Command{
		Use: "status ROLLOUT", Short: "Show the waves, gates and devices of a rollout",
		Long: `Shows a rollout: its waves, what its gates say and on what evidence, and which
devices hold it up. With --watch it follows it until it ends; with --wait it does
so without drawing. Both return 0 when it completes and 3 when it is halted,
aborted, reverted or replaced instead.`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if until.asked() {
				return a.await(cmd.Context(), c, given[0], until, operator.RolloutCompleted)
			}
			r, err := c.Rollout(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { showRollout(w, r) })
		},
	}
	until.register(cmd)
	return cmd
}

func rolloutDevices(a *app) *cobra.Command {
	var q operator.RolloutDeviceQuery
	cmd := &cobra.Command{
		Use: "devices ROLLOUT", Short: "List the devices of a rollout, each with why it is where it is",
		Example: `  vedette rollout devices digits-2-1 --stuck
  vedette rollout devices digits-2-1 --state failed --wave 1`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			list, err := pages(func(p operator.Paging) (*operator.Page[operator.WaveDevice], error) {
				q.Paging = p
				return c.RolloutDevices(cmd.Context(), given[0], q)
			})
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { rolloutDeviceTable(w, list) })
		},
	}
	fs := cmd.Flags()
	fs.IntVar(&q.Wave, "wave", 0, "only of this wave")
	fs.StringVar(&q.State, "state", "", "only in this state, such as failed")
	fs.StringVar(&q.Site, "site", "", "only of this site")
	fs.BoolVar(&q.Stuck, "stuck", false, "only those that hold the rollout up")
	fs.BoolVar(&q.Late, "late", false, "only those that were not heard of in time")
	fs.BoolVar(&q.Control, "control", false, "only the control group")
	return cmd
}

func rolloutExplain(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "explain ROLLOUT [DEVICE]", Short: "Say why a rollout, or a device in it, is where it is",
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if len(given) == 2 {
				d, err := c.RolloutDevice(cmd.Context(), given[0], given[1])
				if err != nil {
					return err
				}
				return a.print(d, func(w io.Writer) { showRolloutDevice(w, d) })
			}
			e, err := c.ExplainRollout(cmd.Context(), given[0])
			if err == nil && all && e.Total > len(e.Decisions) {
				e.Decisions, err = allDecisions(cmd.Context(), c, given[0])
			}
			if err != nil {
				return err
			}
			return a.print(e, func(w io.Writer) { showExplanation(w, e) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "show all decisions, not the newest alone")
	return cmd
}

// allDecisions are those of a rollout, the oldest first.
func allDecisions(ctx context.Context, c *client.Client, id string) ([]operator.Decision, error) {
	list, err := pages(func(p operator.Paging) (*operator.Page[operator.Decision], error) {
		return c.RolloutDecisions(ctx, id, p)
	})
	slices.Reverse(list)
	return list, err
}
