package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

const (
	// refresh is how often a watch looks even when nothing is told: times pass,
	// and gates count rows that are no change of a rollout.
	refresh = 5 * time.Second
	// leastGap is between two looks however much is told: a large rollout moves
	// several times a second, and nobody reads faster.
	leastGap = time.Second
)

// patience is how long a watch sees no change before it says what is waited for:
// the second look then finds none, 10 s after the change.
const patience = 2*refresh - refresh/2

// errDone ends a watch.
var errDone = errors.New("done")

// waitFlags say whether and how a command waits for the end of a rollout.
type waitFlags struct {
	watch, wait bool
	timeout     time.Duration
}

func (u *waitFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVarP(&u.watch, "watch", "w", false, "follow it until it ends")
	fs.BoolVar(&u.wait, "wait", false, "return when it has ended: 0 for success, 3 for any other end")
	fs.DurationVar(&u.timeout, "timeout", 0, "wait no longer than this (default: as long as it takes)")
}

func (u *waitFlags) asked() bool { return u.watch || u.wait }

// await follows a rollout until it ends, and fails when the end is not the one
// that is wanted.
func (a *app) await(ctx context.Context, c *client.Client, id string, u waitFlags, want operator.RolloutState) error {
	if u.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, u.timeout)
		defer cancel()
	}
	show := a.newView()
	if !u.watch {
		show = a.endView(want)
	}
	err := a.follow(ctx, c, id, func(r *operator.Rollout, waiting []string) error {
		if err := show(r, waiting); err != nil {
			return err
		}
		return ended(r, want)
	})
	switch {
	case errors.Is(err, errDone):
		return nil
	case u.timeout > 0 && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return operator.Errorf(operator.Unavailable, "%s has not ended within %s", id, u.timeout).
			WithHint("it goes on without being watched: vedette rollout status %s --watch", id)
	default:
		return err
	}
}

// follow shows a rollout whenever it has moved, until show returns an error.
func (a *app) follow(ctx context.Context, c *client.Client, id string, show view) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, followed := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		defer close(followed)
		followed <- c.Follow(ctx, []string{operator.EventRollout}, 0, func(e operator.Event) error {
			if e.Subject != "" && e.Subject != id {
				return nil
			}
			select {
			case changed <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	err := watchUntil(ctx, c, id, show, changed, followed)
	cancel()
	for range followed { // until the follower has ended
	}
	return err
}

func watchUntil(ctx context.Context, c *client.Client, id string, show view, changed <-chan struct{}, followed <-chan error) error {
	still := stillness{}
	for {
		r, err := c.Rollout(ctx, id)
		if err != nil {
			return err
		}
		waiting, err := still.waiting(r, time.Now(), func() (*operator.Explanation, error) { return c.ExplainRollout(ctx, id) })
		if err != nil {
			return err
		}
		if err := show(r, waiting); err != nil {
			return err
		}
		if err := pauseBetween(ctx, changed, followed); err != nil {
			return err
		}
	}
}

// pauseBetween waits for the moment of the next look: leastGap from now at the
// earliest, refresh at the latest.
func pauseBetween(ctx context.Context, changed <-chan struct{}, followed <-chan error) error {
	soonest, latest := time.NewTimer(leastGap), time.NewTimer(refresh)
	defer soonest.Stop()
	defer latest.Stop()
	var told <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-followed:
			return err
		case <-soonest.C:
			told = changed // from now on
		case <-told:
			return nil
		case <-latest.C:
			return nil
		}
	}
}

// stillness tells what a rollout waits for while it does not change.
type stillness struct {
	key   string    // of what was seen last
	since time.Time // it was seen first, or explained
	lines []string
}

// waiting are the lines to show with r, none while it has changed lately.
func (s *stillness) waiting(r *operator.Rollout, now time.Time, explain func() (*operator.Explanation, error)) ([]string, error) {
	if key := changeKey(r); key != s.key {
		*s = stillness{key: key, since: now}
		return nil, nil
	}
	if now.Sub(s.since) >= patience {
		e, err := explain()
		if err != nil {
			return nil, err
		}
		s.since, s.lines = now, e.Waiting
	}
	return s.lines, nil
}

// ended says how a watch ends: errDone for the end that is wanted, an error that
// says what to do for a rollout that goes no further by itself, nil while it
// goes on.
func ended(r *operator.Rollout, want operator.RolloutState) error {
	switch {
	case r.State == want:
		return errDone
	case r.State == operator.RolloutDraft:
		return operator.Errorf(operator.NotNow, "%s has not been started", r.ID).WithHint("vedette rollout start %s --reason …", r.ID)
	case r.State == operator.RolloutHalted, r.State.Ended():
		return &outcomeError{operator.Errorf(operator.Conflict, "%s is %s", r.ID, stateText(&r.RolloutSummary)).
			WithHint(`"vedette rollout explain %s" says why; possible now: %s`, r.ID, firstOf(strings.Join(r.Actions, ", "), "nothing"))}
	}
	return nil
}

// view shows a state of a rollout, and what it waits for if that is known.
type view func(r *operator.Rollout, waiting []string) error

// newView is how a watch shows each state it sees.
func (a *app) newView() view {
	switch {
	case a.json():
		return a.jsonView()
	case a.drawn(a.out):
		return a.barView()
	default:
		return a.lineView()
	}
}

// endView shows nothing but the end that is wanted.
func (a *app) endView(want operator.RolloutState) view {
	return func(r *operator.Rollout, _ []string) error {
		if r.State != want {
			return nil
		}
		return a.print(r.RolloutSummary, func(w io.Writer) { fmt.Fprintf(w, "%s is %s\n", r.ID, stateText(&r.RolloutSummary)) })
	}
}

// jsonView prints a summary for every change.
func (a *app) jsonView() view {
	last := ""
	return func(r *operator.Rollout, _ []string) error {
		now := changeKey(r)
		if now == last {
			return nil
		}
		last = now
		return writeLine(a.out, r.RolloutSummary)
	}
}

// lineView prints a line for every change, and what is waited for.
func (a *app) lineView() view {
	last, told := "", ""
	return func(r *operator.Rollout, waiting []string) error {
		var b strings.Builder
		if now := changeKey(r); now != last {
			last, told = now, ""
			fmt.Fprintf(&b, "%s  %s  wave %d/%d  %s\n", time.Now().Format(time.TimeOnly), r.State, r.Wave, r.Waves, countsText(r.Counts)+answersText(r.Gates))
		}
		if now := strings.Join(waiting, "\n"); now != told {
			told = now
			for _, l := range waiting {
				fmt.Fprintln(&b, "  -", l)
			}
		}
		_, err := io.WriteString(plain{a.out}, b.String())
		return err
	}
}

// changeKey is what a line of a watch tells.
func changeKey(r *operator.Rollout) string {
	return fmt.Sprintf("%s %d %s", r.State, r.Wave, countsText(r.Counts)+answersText(r.Gates))
}

// answersText names the gates that do not simply pass or wait.
func answersText(gates []operator.Gate) string {
	var out strings.Builder
	for _, g := range gates {
		if g.Result != "pass" && g.Result != "inconclusive" && g.Result != "" {
			fmt.Fprintf(&out, "  gate %s: %s", g.Kind, g.Result)
		}
	}
	return out.String()
}

// barView draws one bar a wave, in place.
func (a *app) barView() view {
	lines := 0
	return func(r *operator.Rollout, waiting []string) error {
		var b strings.Builder
		if lines > 0 {
			fmt.Fprint(&b, text.CursorUp.Sprintn(lines), text.EraseLine.Sprint())
		}
		drawn := drawWaves(r)
		for _, l := range waiting {
			drawn = append(drawn, "  - "+visible(l))
		}
		width, height := a.screen()
		drawn = fitted(drawn, width, height)
		for len(drawn) < lines { // what was drawn further down is erased
			drawn = append(drawn, "")
		}
		for _, l := range drawn {
			fmt.Fprint(&b, text.EraseLine.Sprint(), l, "\n")
		}
		lines = len(drawn)
		_, err := io.WriteString(a.out, b.String())
		return err
	}
}

// screen is the size of the terminal in characters; zeros when there is none.
func (a *app) screen() (width, height int) {
	if f, ok := a.out.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			return w, h
		}
	}
	return 0, 0
}

// fitted cuts a drawing to the terminal: what is wrapped or scrolled away cannot
// be drawn over.
func fitted(lines []string, width, height int) []string {
	if most := height - 1; height > 2 && len(lines) > most {
		lines = append(lines[:most-1:most-1], fmt.Sprintf("  … %d more lines", len(lines)-most+1))
	}
	for i := range lines {
		if width > 0 {
			lines[i] = text.Snip(lines[i], width, "…")
		}
	}
	return lines
}

const barWidth = 30

// drawWaves draws a rollout in lines.
func drawWaves(r *operator.Rollout) []string {
	lines := []string{fmt.Sprintf("%s  %s %s  %s", r.ID, r.Model, r.Version, colour(string(r.State)).Sprint(visible(stateText(&r.RolloutSummary))))}
	for i := range r.WaveList {
		w := &r.WaveList[i]
		line := fmt.Sprintf("  wave %d  %s  %-8s %s", w.Number, drawBar(w.Counts, max(waveSize(w), w.Planned)), w.State, countsText(w.Counts))
		if needs := needsText(w); needs != "" {
			line += "  (" + needs + ")"
		}
		lines = append(lines, line)
	}
	for i := range r.Gates {
		if g := &r.Gates[i]; g.Result != "pass" {
			lines = append(lines, fmt.Sprintf("  gate %-9s %s  %s", g.Kind, colour(g.Result).Sprint(g.Result), visible(gateText(g))))
		}
	}
	now := time.Now()
	for i := range r.Stuck[:min(len(r.Stuck), fewStuck)] {
		lines = append(lines, "  waits for "+visible(stuckText(&r.Stuck[i], now)))
	}
	if more := r.StuckTotal - min(len(r.Stuck), fewStuck); more > 0 {
		lines = append(lines, fmt.Sprintf("  and for %d more devices", more))
	}
	return lines
}

// gateText is what a gate says and on what evidence.
func gateText(g *operator.Gate) string {
	if e := evidenceText(g); e != "" && g.Text != "" {
		return g.Text + " (" + e + ")"
	}
	return firstOf(g.Text, evidenceText(g))
}

// drawBar fills a bar with healthy devices, those under way and failed ones.
func drawBar(counts map[string]int, total int) string {
	if total == 0 {
		return strings.Repeat("·", barWidth)
	}
	healthy := counts["healthy"]
	bad := counts["failed"] + counts["reverted"] + counts["refused"]
	busy := counts["shadowing"] + counts["offered"] + counts["downloading"] + counts["verifying"] + counts["trialing"] + counts["active"]
	cells := func(n int) int { return n * barWidth / total }
	rest := barWidth - cells(healthy) - cells(busy) - cells(bad)
	return text.FgGreen.Sprint(strings.Repeat("█", cells(healthy))) + text.FgCyan.Sprint(strings.Repeat("▒", cells(busy))) +
		text.FgRed.Sprint(strings.Repeat("█", cells(bad))) + strings.Repeat("·", max(rest, 0))
}

// colour is that of a state or a gate's result.
func colour(state string) text.Color {
	switch state {
	case "completed", "pass", "passed":
		return text.FgGreen
	case "halted", "aborted", "replaced", "reverting", "reverted", "fail", "failed":
		return text.FgRed
	case "paused", "queued", "awaiting_approval", "inconclusive", "unproven", "waived":
		return text.FgYellow
	default:
		return text.FgCyan
	}
}
