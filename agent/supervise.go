package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// ErrNotAlive says that a stage does not come round any more.
var ErrNotAlive = errors.New("the agent is stuck")

// Alive returns nil when the engine and the updater answer before ctx ends: as
// long as they do, the agent is worth keeping. The stages that reach outside
// are not asked, because a dead link or a slow server is no reason to start anew.
func (a *Agent) Alive(ctx context.Context) error {
	engine := make(chan struct{})
	go func() { // ends with the engine's lock, or with a process that is lost
		a.engine.Status()
		close(engine)
	}()
	select {
	case <-engine:
	case <-ctx.Done():
		return fmt.Errorf("%w: the engine does not answer: %w", ErrNotAlive, ctx.Err())
	}
	if err := a.updater.Alive(ctx); err != nil {
		return fmt.Errorf("%w: the updater does not answer: %w", ErrNotAlive, err)
	}
	return nil
}

// Summary is one line about the agent, for a service manager.
func (a *Agent) Summary() string {
	serving, link := "no model assigned", "not connected"
	switch models := a.engine.Status(); len(models) {
	case 0:
	case 1:
		serving = "serving " + models[0].Model + " " + models[0].Version
	default:
		serving = fmt.Sprintf("serving %d models", len(models))
	}
	if a.link().Connected {
		link = "connected"
	}
	line := fmt.Sprintf("%s as %s, %s", serving, cmp.Or(a.device(), "a device whose identity is damaged"), link)
	if s := a.outbox.Stats(); s.Pending+s.Sent > 0 && link != "connected" {
		line += fmt.Sprintf(", %d records wait", s.Pending+s.Sent)
	}
	return line
}
