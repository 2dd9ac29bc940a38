package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// refresh is how often a watch looks even when nothing is told: times pass, and
// gates count rows that are no change of a rollout.
const refresh = 5 * time.Second

// patience is how long a watch sees no change before it says what is waited for:
// the second look then finds none, 10 s after the change.
const patience = 2*refresh - refresh/2

// errDone ends a watch.
var errDone = errors.New("done")

// watch follows a rollout until it ends. On a terminal it draws the waves as
// bars; elsewhere it prints a line for every change, and JSON lines with -o json.
func (a *app) watch(ctx context.Context, c *client.Client, id string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, followed := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		defer close(followed)
		followed <- c.Follow(ctx, []string{operator.EventRollout, operator.EventDevice}, 0, func(operator.Event) error {
			select {
			case changed <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	err := a.watchUntil(ctx, c, id, changed, followed)
	cancel()
	for range followed { // until the follower has ended
	}
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

func (a *app) watchUntil(ctx context.Context, c *client.Client, id string, changed <-chan struct{}, followed <-chan error) error {
	view, still := a.newView(), stillness{}
	ticker := time.NewTicker(refresh)
	defer ticker.Stop()
	for {
		r, err := c.Rollout(ctx, id)
		if err != nil {
			return err
		}
		waiting, err := still.waiting(r, time.Now(), func() (*operator.Explanation, error) { return c.ExplainRollout(ctx, id) })
		if err != nil {
			return err
		}
		if err := view(r, waiting); err != nil {
			return err
		}
		if err := ended(r); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-followed:
			return err
		case <-changed:
		case <-ticker.C:
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

// ended says how a watch ends: errDone for success, an error that says what to
// do for a rollout that goes no further by itself, nil while it goes on.
func ended(r *operator.Rollout) error {
	switch r.State {
	case operator.RolloutCompleted:
		return errDone
	case operator.RolloutHalted, operator.RolloutAborted, operator.RolloutReverted:
		return operator.Errorf(operator.Conflict, "%s is %s", r.ID, stateText(&r.RolloutSummary)).
			WithHint(`"vedette rollout explain %s" says why; possible now: %s`, r.ID, strings.Join(r.Actions, ", "))
	case operator.RolloutDraft:
		return operator.Errorf(operator.Conflict, "%s has not been started", r.ID).WithHint("vedette rollout start %s --reason …", r.ID)
	case operator.RolloutAwaiting, operator.RolloutRunning, operator.RolloutPaused, operator.RolloutReverting:
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
			fmt.Fprintf(&b, "%s  %s  wave %d/%d  %s\n", time.Now().Format(time.TimeOnly), r.State, r.Wave, r.Waves, countsText(r.Counts))
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
	return fmt.Sprintf("%s %d %s", r.State, r.Wave, countsText(r.Counts))
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

const barWidth = 30

// drawWaves draws a rollout in lines.
func drawWaves(r *operator.Rollout) []string {
	lines := []string{fmt.Sprintf("%s  %s %s  %s", r.ID, r.Model, r.Version, colour(string(r.State)).Sprint(visible(stateText(&r.RolloutSummary))))}
	for i := range r.WaveList {
		w := &r.WaveList[i]
		total := max(len(w.Devices), w.Planned)
		lines = append(lines, fmt.Sprintf("  wave %d  %s  %-8s %s", w.Number, drawBar(w.Counts, total), w.State, countsText(w.Counts)))
	}
	for _, g := range r.Gates {
		if g.Result != "pass" {
			lines = append(lines, fmt.Sprintf("  gate %-9s %s  %s", g.Kind, colour(g.Result).Sprint(g.Result), visible(g.Text)))
		}
	}
	return lines
}

// drawBar fills a bar with healthy devices, those under way and failed ones.
func drawBar(counts map[string]int, total int) string {
	if total == 0 {
		return strings.Repeat("·", barWidth)
	}
	healthy := counts["healthy"]
	bad := counts["failed"] + counts["reverted"] + counts["refused"]
	busy := counts["offered"] + counts["downloading"] + counts["verifying"] + counts["trialing"] + counts["active"]
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
	case "halted", "aborted", "reverting", "reverted", "fail", "failed":
		return text.FgRed
	case "paused", "awaiting_approval", "inconclusive", "unproven", "waived":
		return text.FgYellow
	default:
		return text.FgCyan
	}
}
