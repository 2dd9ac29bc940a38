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
	view := a.newView()
	ticker := time.NewTicker(refresh)
	defer ticker.Stop()
	for {
		r, err := c.Rollout(ctx, id)
		if err != nil {
			return err
		}
		if err := view(r); err != nil {
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

// newView is how a watch shows each state it sees.
func (a *app) newView() func(*operator.Rollout) error {
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
func (a *app) jsonView() func(*operator.Rollout) error {
	last := ""
	return func(r *operator.Rollout) error {
		now := changeKey(r)
		if now == last {
			return nil
		}
		last = now
		return writeLine(a.out, r.RolloutSummary)
	}
}

func (a *app) lineView() func(*operator.Rollout) error {
	last := ""
	return func(r *operator.Rollout) error {
		now := changeKey(r)
		if now == last {
			return nil
		}
		last = now
		_, err := fmt.Fprintf(plain{a.out}, "%s  %s  wave %d/%d  %s\n", time.Now().Format(time.TimeOnly), r.State, r.Wave, r.Waves, countsText(r.Counts))
		return err
	}
}

// changeKey is what a line of a watch tells.
func changeKey(r *operator.Rollout) string {
	return fmt.Sprintf("%s %d %s", r.State, r.Wave, countsText(r.Counts))
}

// barView draws one bar a wave, in place.
func (a *app) barView() func(*operator.Rollout) error {
	lines := 0
	return func(r *operator.Rollout) error {
		var b strings.Builder
		if lines > 0 {
			fmt.Fprint(&b, text.CursorUp.Sprintn(lines), text.EraseLine.Sprint())
		}
		drawn := drawWaves(r)
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
