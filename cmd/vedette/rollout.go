package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func rolloutCommand(a *app) *cobra.Command {
	commands := []*cobra.Command{rolloutPlan(a), rolloutCreate(a), rolloutList(a), rolloutStatus(a), rolloutExplain(a)}
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
no gate fails. "plan" says beforehand what would happen; "explain" says why it is
where it is.`, commands...)
}

// specFlags describe a rollout.
type specFlags struct {
	file      string
	selector  string
	waves     []string
	soak      time.Duration
	quorum    float64
	lateness  time.Duration
	gates     []string
	noGates   []string
	control   float64
	budget    int
	onFailure string
	approval  bool
	deadline  time.Duration
}

func (f *specFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.file, "file", "f", "", "spec as YAML or JSON; flags given beside it win")
	fs.StringVarP(&f.selector, "selector", "l", "", "label selector (default: all devices)")
	fs.StringArrayVar(&f.waves, "wave", nil, "wave: a count or a percentage of all, e.g. 1 or 50% or \"100%,soak=1h,approval\" (repeat)")
	fs.DurationVar(&f.soak, "soak", 0, "how long devices must be seen healthy, for waves that do not say")
	fs.Float64Var(&f.quorum, "quorum", 0, "share of a wave that must be healthy, for waves that do not say")
	fs.DurationVar(&f.lateness, "lateness", 0, "silence after which a device holds no wave up, for waves that do not say")
	fs.StringArrayVar(&f.gates, "gate", nil, "gate with its limit, e.g. accuracy=0.02 or \"errors=0.01,min=100,hold\" (repeat)")
	fs.StringArrayVar(&f.noGates, "no-gate", nil, "gate to leave out (repeat)")
	fs.Float64Var(&f.control, "control", 0, "share of devices held out until the last wave")
	fs.IntVar(&f.budget, "budget", 0, "devices under way at one time (default: no limit)")
	fs.StringVar(&f.onFailure, "on-failure", "", "pause or revert")
	fs.BoolVar(&f.approval, "approval", false, "a person approves before the first wave")
	fs.DurationVar(&f.deadline, "deadline", 0, "for the whole rollout")
}

// spec joins file, arguments and flags.
func (f *specFlags) spec(cmd *cobra.Command, given []string) (operator.RolloutSpec, error) {
	s, err := f.fromFile()
	if err != nil {
		return s, err
	}
	if len(given) > 0 {
		s.Model = given[0]
	}
	if len(given) > 1 {
		s.Version = given[1]
	}
	if s.Model == "" || s.Version == "" {
		return s, usagef("name MODEL and VERSION, as arguments or in the file")
	}
	s.Selector = firstOf(f.selector, s.Selector)
	s.OnFailure = operator.OnFailure(firstOf(f.onFailure, string(s.OnFailure)))
	s.Approval = s.Approval || f.approval
	if cmd.Flags().Changed("control") {
		s.Control = &f.control
	}
	if cmd.Flags().Changed("budget") {
		s.Budget.InFlight = f.budget
	}
	if f.deadline > 0 {
		s.Deadline = release.Duration(f.deadline)
	}
	if err := f.addWaves(&s, cmd.Flags().Changed("soak")); err != nil {
		return s, err
	}
	return s, f.addGates(&s)
}

// fromFile reads a spec with the server's own parser, so that a misspelt field
// is refused here already.
func (f *specFlags) fromFile() (operator.RolloutSpec, error) {
	var out operator.RolloutSpec
	if f.file == "" {
		return out, nil
	}
	b, err := readFile(f.file, rollout.MaxSpecSize)
	if err != nil {
		return out, err
	}
	parsed, err := rollout.ParseSpec(b)
	if err != nil {
		return out, operator.Errorf(operator.Invalid, "%s: %w", f.file, err)
	}
	if b, err = json.Marshal(parsed); err == nil {
		err = json.Unmarshal(b, &out)
	}
	return out, err
}

func (f *specFlags) addWaves(s *operator.RolloutSpec, soak bool) error {
	if len(f.waves) > 0 {
		s.Waves = nil
	}
	for _, text := range f.waves {
		w, err := parseWave(text)
		if err != nil {
			return usagef("--wave %q: %w", text, err)
		}
		s.Waves = append(s.Waves, w)
	}
	if len(s.Waves) == 0 && (soak || f.quorum > 0 || f.lateness > 0) {
		for _, w := range rollout.DefaultWaves() {
			s.Waves = append(s.Waves, operator.WaveSpec{Name: w.Name, Count: w.Count, Percent: w.Percent})
		}
	}
	for i := range s.Waves {
		w := &s.Waves[i]
		if d := release.Duration(f.soak); w.Soak == nil && soak {
			w.Soak = &d
		}
		if w.Quorum == 0 {
			w.Quorum = f.quorum
		}
		if w.Lateness == 0 {
			w.Lateness = release.Duration(f.lateness)
		}
	}
	return nil
}

// parseWave reads "1", "50%" or "100%,soak=1h,quorum=0.8,approval,name=rest".
func parseWave(text string) (operator.WaveSpec, error) {
	var w operator.WaveSpec
	size, options, _ := strings.Cut(text, ",")
	var err error
	if percent, ok := strings.CutSuffix(size, "%"); ok {
		w.Percent, err = strconv.ParseFloat(percent, 64)
	} else {
		w.Count, err = strconv.Atoi(size)
	}
	if err != nil {
		return w, fmt.Errorf("begin with a count or a percentage: %w", err)
	}
	return w, eachOption(options, func(key, value string) (err error) {
		switch key {
		case "name":
			w.Name = value
		case "approval":
			w.Approval = true
		case "soak":
			w.Soak = new(release.Duration)
			err = w.Soak.UnmarshalText([]byte(value))
		case "lateness":
			err = w.Lateness.UnmarshalText([]byte(value))
		case "quorum":
			w.Quorum, err = strconv.ParseFloat(value, 64)
		default:
			err = fmt.Errorf("%q is not known: soak, quorum, lateness, approval, name are", key)
		}
		return err
	})
}

// eachOption calls fn for each "key=value" or "key" of a list with commas.
func eachOption(text string, fn func(key, value string) error) error {
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (f *specFlags) addGates(s *operator.RolloutSpec) error {
	set := func(g operator.GateSpec) {
		s.Gates = slices.DeleteFunc(s.Gates, func(old operator.GateSpec) bool { return old.Kind == g.Kind })
		s.Gates = append(s.Gates, g)
	}
	for _, text := range f.gates {
		g, err := parseGate(text)
		if err != nil {
			return usagef("--gate %q: %w", text, err)
		}
		set(g)
	}
	for _, kind := range f.noGates {
		if !slices.Contains(rollout.Kinds(), rollout.GateKind(kind)) {
			return usagef("--no-gate %q: gates are %v", kind, rollout.Kinds())
		}
		set(operator.GateSpec{Kind: kind, Off: true})
	}
	return nil
}

// parseGate reads "accuracy=0.02" or "errors=0.01,min=100,hold".
func parseGate(text string) (operator.GateSpec, error) {
	first, options, _ := strings.Cut(text, ",")
	kind, limit, given := strings.Cut(first, "=")
	g := operator.GateSpec{Kind: kind}
	if !slices.Contains(rollout.Kinds(), rollout.GateKind(kind)) {
		return g, fmt.Errorf("gates are %v", rollout.Kinds())
	}
	if given {
		v, err := strconv.ParseFloat(limit, 64)
		if err != nil {
			return g, fmt.Errorf("limit: %w", err)
		}
		g.Limit = &v
	}
	return g, eachOption(options, func(key, value string) (err error) {
		switch key {
		case "min":
			g.Min, err = strconv.ParseUint(value, 10, 64)
		case "hold", "pass":
			g.Inconclusive = key
		default:
			err = fmt.Errorf("%q is not known: min, hold and pass are", key)
		}
		return err
	})
}

func rolloutPlan(a *app) *cobra.Command {
	var f specFlags
	cmd := &cobra.Command{
		Use: "plan [MODEL VERSION]", Short: "Say what a rollout would do; changes nothing",
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

func showPlan(w io.Writer, p *operator.Plan) {
	facts(w, "version", p.Spec.Model+" "+p.Spec.Version, "release", p.Release.Short(), "devices", count(p.Devices),
		"download", bytesText(p.Bytes)+" at most, all devices together", "takes", p.Expected.String()+" at least",
		"held out", strings.Join(p.Control, " "), "run it already", strings.Join(p.Already, " "))
	rows := [][]string{}
	for _, v := range p.Waves {
		approval := ""
		if v.Approval {
			approval = "approval"
		}
		rows = append(rows, []string{count(v.Number), v.Name, count(len(v.Devices)), countsText(v.Sites), v.Expected.String(), approval, strings.Join(v.Devices, " ")})
	}
	fmt.Fprintln(w)
	grid(w, []string{"wave", "name", "devices", "sites", "takes", "", "order"}, rows)
	for _, v := range p.Waves {
		for _, d := range v.Detectable {
			fmt.Fprintf(w, "wave %d, %s: %s\n", v.Number, d.Kind, d.Text)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.Refused)) {
		fmt.Fprintf(w, "! %s cannot run it: %s\n", id, p.Refused[id])
	}
	for _, id := range slices.Sorted(maps.Keys(p.Held)) {
		fmt.Fprintf(w, "! %s is in rollout %s\n", id, p.Held[id])
	}
	for _, text := range p.Warnings {
		fmt.Fprintln(w, "!", text)
	}
}

func rolloutCreate(a *app) *cobra.Command {
	var f specFlags
	var reason string
	var start, watch bool
	cmd := &cobra.Command{
		Use: "create [MODEL VERSION] --reason TEXT", Short: "Make a rollout, and start it with --start",
		Example: `  vedette rollout create digits 2 --wave 1 --wave 50% --wave 100% --soak 30m --start --reason "trained with faded images"`,
		Args:    args(cobra.MaximumNArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			spec, err := f.spec(cmd, given)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := c.CreateRollout(cmd.Context(), operator.RolloutCreate{Spec: spec, Reason: reason, Start: start})
			if err != nil {
				return err
			}
			if watch {
				return a.watch(cmd.Context(), c, r.ID)
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "%s is %s\n", r.ID, r.State)
				if r.State == operator.RolloutDraft {
					fmt.Fprintf(w, "start it with: vedette rollout start %s --reason …\n", r.ID)
				} else {
					fmt.Fprintf(w, "watch it with: vedette rollout status %s --watch\n", r.ID)
				}
			})
		},
	}
	f.register(cmd)
	reasonFlag(cmd, &reason)
	cmd.Flags().BoolVar(&start, "start", false, "start it at once")
	cmd.Flags().BoolVar(&watch, "watch", false, "watch it until it ends")
	return cmd
}

func rolloutAct(a *app, name, short string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: name + " ROLLOUT --reason TEXT", Short: short,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := c.ActOnRollout(cmd.Context(), given[0], operator.RolloutAction{Action: name, Reason: reason})
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { showActed(w, name, r) })
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

// showActed says what an action made of a rollout and, where it stands still,
// what it takes to go on.
func showActed(w io.Writer, action string, r *operator.Rollout) {
	fmt.Fprintf(w, "%s is %s\n", r.ID, stateText(&r.RolloutSummary))
	if action == operator.ActRetry && slices.Contains(r.Actions, operator.ActResume) {
		fmt.Fprintf(w, "devices are offered it again once it goes on: vedette rollout resume %s --reason …\n", r.ID)
	}
	switch r.State {
	case operator.RolloutHalted, operator.RolloutPaused, operator.RolloutAwaiting:
		fmt.Fprintf(w, "possible now: %s\n", strings.Join(r.Actions, ", "))
	case operator.RolloutDraft, operator.RolloutRunning, operator.RolloutReverting, operator.RolloutCompleted, operator.RolloutAborted, operator.RolloutReverted:
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

func rolloutList(a *app) *cobra.Command {
	var q operator.RolloutQuery
	cmd := &cobra.Command{
		Use: "list", Short: "List rollouts, newest first", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	cmd.Flags().BoolVar(&q.Active, "active", false, "only those that have not ended")
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
	var watch bool
	cmd := &cobra.Command{
		Use: "status ROLLOUT", Short: "Show the waves, devices and gates of a rollout",
		Long: `Shows a rollout. With --watch it follows it until it completes, and fails when it
is halted, aborted or reverted instead.`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if watch {
				return a.watch(cmd.Context(), c, given[0])
			}
			r, err := c.Rollout(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { showRollout(w, r) })
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "follow it until it ends")
	return cmd
}

func showRollout(w io.Writer, r *operator.Rollout) {
	facts(w, "rollout", r.ID, "version", r.Model+" "+r.Version, "release", r.Release.Short(), "state", stateText(&r.RolloutSummary),
		"since", timeText(r.Since), "devices", countsText(r.Counts), "held out", strings.Join(r.Control, " "),
		"possible", strings.Join(r.Actions, " "))
	fmt.Fprintln(w)
	rows := [][]string{}
	for i := range r.WaveList {
		v := &r.WaveList[i]
		rows = append(rows, []string{count(v.Number), v.Name, v.State, fmt.Sprintf("%d of %d", v.Counts["healthy"], len(v.Devices)), countsText(v.Counts), timeText(v.SoakEnds), v.Cause})
	}
	grid(w, []string{"wave", "name", "state", "healthy", "devices", "soaks until", "cause"}, rows)
	showGates(w, r.Gates)
	for i := range r.WaveList {
		for _, d := range r.WaveList[i].Devices {
			if d.Code != "" || d.Message != "" {
				fmt.Fprintf(w, "! %s %s: %s\n", d.Device, d.State, firstOf(strings.TrimSpace(d.Code+" "+d.Message), d.Code))
			}
		}
	}
}

func showGates(w io.Writer, gates []operator.Gate) {
	if len(gates) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows := [][]string{}
	for _, g := range gates {
		rows = append(rows, []string{g.Kind, g.Result, number(g.Value), number(g.Limit), fmt.Sprintf("%s/%s", number(g.Numerator), number(g.Denominator)), g.Text})
	}
	grid(w, []string{"gate", "result", "value", "limit", "of", "why"}, rows)
}

func rolloutExplain(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "explain ROLLOUT", Short: "Say why a rollout is where it is, and show every decision",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, rolloutNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			e, err := c.ExplainRollout(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return a.print(e, func(w io.Writer) { showExplanation(w, e) })
		},
	}
}

func showExplanation(w io.Writer, e *operator.Explanation) {
	fmt.Fprintln(w, e.Summary)
	for _, text := range e.Waiting {
		fmt.Fprintln(w, " -", text)
	}
	showGates(w, e.Gates)
	heading(w, "decisions")
	for _, d := range e.Decisions {
		fmt.Fprintf(w, "%s  #%d  %s  %s\n", timeText(d.At), d.Seq, d.Actor, decisionText(&d))
		for _, c := range d.Changes {
			fmt.Fprintf(w, "      %s\n", changeText(&c))
		}
		if len(d.Changes) == 0 && d.Action == "" {
			fmt.Fprintf(w, "      %s\n", d.Text)
		}
	}
}

func decisionText(d *operator.Decision) string {
	text := firstOf(d.Action, strings.TrimPrefix(d.Kind, "rollout."))
	if d.Reason != "" {
		text += fmt.Sprintf(" (%s)", d.Reason)
	}
	return text
}

func changeText(c *operator.Change) string {
	subject := c.Subject
	if c.Subject == rollout.SubjectWave {
		subject = "wave " + count(c.Wave)
	}
	if len(c.Devices) > 0 {
		subject = strings.Join(c.Devices, " ")
	}
	return fmt.Sprintf("%s %s: %s", subject, c.To, c.Why)
}
