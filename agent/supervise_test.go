package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
)

// What a service manager is told: when predictions are answered, what the agent
// does, and whether it still lives.
func TestWhatAServiceManagerIsTold(t *testing.T) {
	state := t.TempDir()
	enrol(t, state)
	install(t, state, agenttest.Script{})
	serving := make(chan struct{})
	cfg := config(state)
	cfg.Serving = func() { close(serving) }
	d := launch(t, cfg)
	select {
	case <-serving:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is told that predictions are served")
	}
	if status, answer := d.infer(); len(answer) == 0 || status != 200 {
		t.Errorf("told too early: %d %s", status, answer)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := d.Alive(ctx); err != nil {
		t.Errorf("a healthy agent: %v", err)
	}
	if got, want := d.Summary(), "serving meter v1 as cam-1, not connected"; !strings.HasPrefix(got, want) {
		t.Errorf("summary %q, want %q", got, want)
	}
	if err := d.halt(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Alive(short); !errors.Is(err, ErrNotAlive) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an updater that has ended: %v, want %v", err, ErrNotAlive)
	}
}
