package runner

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/release"
)

// One plan is made at a time: who comes second waits, and may give up.
func TestPlansAreMadeOneAtATime(t *testing.T) {
	h := newHouse(t, "a1")
	h.runner.planning <- struct{}{} // somebody plans
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.runner.Plan(ctx, spec("v2")); !errors.Is(err, context.Canceled) {
		t.Errorf("beside another plan, given up: got %v, want %v", err, context.Canceled)
	}
	<-h.runner.planning
	for _, version := range []string{"v2", "no such version", "v2"} { // what fails makes room, too
		if _, err := h.runner.Plan(t.Context(), spec(version)); (err == nil) != (version == "v2") {
			t.Errorf("plan of %s: %v", version, err)
		}
	}
}

// lines is a log, by message and rollout.
type lines struct {
	slog.Handler

	said []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "rollout" {
			text += " " + a.Value.String()
		}
		return true
	})
	if strings.HasPrefix(text, "rollout not") || strings.HasPrefix(text, "rollout is driven") {
		l.said = append(l.said, text)
	}
	return nil
}

// A rollout that goes on failing says so once, and hides no other's failure.
func TestEachFailureIsLoggedOnce(t *testing.T) {
	log := &lines{}
	r := &Runner{cfg: Config{Logger: slog.New(log)}}
	one, two := failure{rollout: "r-1"}, failure{rollout: "r-2"}
	start := failure{rollout: "r-3", start: true}
	for _, failed := range []map[failure]error{
		{one: errPower}, {one: errPower}, {one: errPower, two: errPower}, {two: errPower, start: errPower}, {}, {one: errPower},
	} {
		r.complain(failed)
	}
	want := []string{
		"rollout not driven r-1", "rollout not driven r-2", "rollout not started r-3", "rollout is driven again r-1",
		"rollout is driven again r-2", "rollout is driven again r-3", "rollout not driven r-1",
	}
	if !slices.Equal(log.said, want) {
		t.Errorf("logged %q, want %q", log.said, want)
	}
}

// The pass tells which rollout cannot be driven while another one is.
func TestAFailingRolloutIsNamed(t *testing.T) {
	h := newHouse(t, "a1", "b1")
	h.stop()
	log, f := &lines{}, &faulty{Ledger: h.ledger}
	h.runner = h.openWith(func(cfg *Config) { cfg.Ledger, cfg.Logger = f, slog.New(log) })
	broken := spec("v2")
	broken.Selector = "site=a"
	id := h.create(broken)
	h.act(id, rollout.Start)
	f.set(func(chain string) error {
		if chain == desired.RolloutChain(id) {
			return errPower
		}
		return nil
	})
	h.alive()
	for range 3 {
		if _, retry := h.runner.Look(t.Context()); retry == 0 {
			t.Error("what failed is not tried again")
		}
	}
	f.set(nil)
	h.runner.Look(t.Context())
	if want := []string{"rollout not driven " + id, "rollout is driven again " + id}; !slices.Equal(log.said, want) {
		t.Errorf("logged %q, want %q", log.said, want)
	}
}

// A completed rollout is judged on: whoever looks sees its gates and what is so
// now, not what was at its last decision.
func TestACompletedRolloutIsSeenLive(t *testing.T) {
	h := newHouse(t, "a1", "b1")
	id := h.create(spec("v2"))
	h.act(id, rollout.Start)
	h.until(id, is(rollout.StatusCompleted))
	h.evidence.mu.Lock()
	h.evidence.found = map[release.Digest]map[string]drift.Evidence{versions["v2"]: {"a1": {Rows: 1000, FailedRows: 1}}}
	h.evidence.mu.Unlock()
	v, err := h.runner.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	var rows uint64
	if n := v.Facts.Devices["a1"].New; n != nil {
		rows = n.Rows
	}
	judged := slices.ContainsFunc(v.Gates, func(g rollout.GateResult) bool { return g.Gate == rollout.Errors })
	if rows != 1000 || !judged {
		t.Errorf("got %d rows of a1 and gates %+v, want 1000 and that of errors", rows, v.Gates)
	}
}

// Who rests is told from the newest completed start of each choice of devices.
func TestNewestCompletedOutlive(t *testing.T) {
	at := func(n int) *rollout.State {
		s := &rollout.State{Spec: rollout.Spec{Model: "digits"}}
		s.Header.Status, s.Header.Started = rollout.StatusCompleted, time.Unix(int64(n), 0)
		return s
	}
	with := func(s *rollout.State, model, selector string, status rollout.Status) *rollout.State {
		s.Spec.Model, s.Spec.Selector, s.Header.Status = model, selector, status
		return s
	}
	r := &Runner{rollouts: map[string]*chain{
		"all":    {state: with(at(5), "digits", "", rollout.StatusCompleted)},
		"site":   {state: with(at(7), "digits", "site=a", rollout.StatusCompleted)},
		"undone": {state: with(at(9), "digits", "", rollout.StatusReverted)},
		"other":  {state: with(at(9), "faces", "", rollout.StatusCompleted)},
	}}
	newest := r.newestCompleted()
	for name, c := range map[string]struct {
		of   *rollout.State
		want bool
	}{
		"older, all":       {with(at(4), "digits", "", rollout.StatusCompleted), true},
		"itself":           {with(at(5), "digits", "", rollout.StatusCompleted), false},
		"all, site newer":  {with(at(6), "digits", "", rollout.StatusCompleted), false},
		"site, between":    {with(at(6), "digits", "site=a", rollout.StatusCompleted), true},
		"another site":     {with(at(6), "digits", "site=b", rollout.StatusCompleted), false},
		"another, older":   {with(at(4), "digits", "site=b", rollout.StatusCompleted), true},
		"running":          {with(at(4), "digits", "", rollout.StatusRunning), false},
		"of another model": {with(at(4), "voices", "", rollout.StatusCompleted), false},
	} {
		if got := newest.outlive(c.of); got != c.want {
			t.Errorf("%s: outlived %v, want %v", name, got, c.want)
		}
	}
}

// A fleet that no record has room for is refused before anything is decided, and
// the operator is told what to do.
func TestADecisionThatIsTooLargeIsRefused(t *testing.T) {
	h := newHouse(t, "a1")
	h.stop()
	f := &faulty{Ledger: h.ledger}
	h.runner = h.openWith(func(cfg *Config) { cfg.Ledger = f })
	id := h.create(spec("v2"))
	f.set(func(string) error { return ledger.ErrTooLarge })
	_, err := h.runner.Act(t.Context(), id, rollout.Command{Action: rollout.Start, Actor: "ada", Reason: "test"})
	if !errors.Is(err, ledger.ErrTooLarge) || !strings.Contains(err.Error(), "narrower selector") {
		t.Errorf("got %v, want ErrTooLarge and what to do", err)
	}
	if v, err := h.runner.Get(id); err != nil || v.State.Header.Status != rollout.StatusDraft {
		t.Errorf("the rollout is %s, %v, want a draft still", v.State.Header.Status, err)
	}
}
