package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Supervision by systemd (sd_notify(3)), where it started this process with
// Type=notify. A process that replaced itself keeps its id and with it the
// right to notify.
const (
	// statusEvery is how often the summary is told, at least: `systemctl status`
	// should not be long behind.
	statusEvery = 10 * time.Second
	// signsPerTimeout is how many signs of life fit into the watchdog's time:
	// one that comes late costs nothing.
	signsPerTimeout = 3
)

// supervised is what a service manager looks after. agent.Agent is one.
type supervised interface {
	Alive(ctx context.Context) error
	Summary() string
}

// supervisor tells systemd how the agent is.
type supervisor struct {
	device  supervised
	every   time.Duration
	log     *slog.Logger
	notify  func(state string)
	serving chan struct{} // has a value when predictions are answered
}

// newSupervisor returns nil where nobody supervises this process.
func newSupervisor(log *slog.Logger) *supervisor {
	if supervised, err := daemon.SdNotify(false, "STATUS=starting"); err != nil || !supervised {
		return nil
	}
	s := &supervisor{every: statusEvery, log: log, serving: make(chan struct{}, 1)}
	s.notify = func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Warn("cannot tell systemd how the agent is", "error", err)
		}
	}
	if timeout, err := daemon.SdWatchdogEnabled(false); err != nil {
		log.Warn("watchdog is not understood and not served", "error", err)
	} else if timeout > 0 {
		s.every = min(timeout/signsPerTimeout, statusEvery)
	}
	return s
}

// onServing is what calls back when predictions are answered.
func (s *supervisor) onServing() func() {
	if s == nil {
		return nil
	}
	return func() { s.serving <- struct{}{} }
}

// watch gives signs of life until stop is called, as long as the device lives:
// when it does not, systemd kills and restarts it.
func (s *supervisor) watch(ctx context.Context, device supervised) (stop func()) {
	if s == nil {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	s.device = device
	go func() {
		defer close(ended)
		s.run(ctx, over)
	}()
	return func() {
		close(over)
		<-ended
	}
}

// run tells systemd that the agent stops only if it was told to: a process that
// replaces itself would otherwise be waited for and killed.
func (s *supervisor) run(ctx context.Context, over <-chan struct{}) {
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	for {
		select {
		case <-s.serving:
			s.notify(daemon.SdNotifyReady + "\nSTATUS=" + s.device.Summary())
		case <-ticker.C:
			s.sign(ctx)
		case <-ctx.Done():
			s.notify(daemon.SdNotifyStopping + "\nSTATUS=stopping")
			return
		case <-over:
			return
		}
	}
}

// sign gives one sign of life, or says why there is none.
func (s *supervisor) sign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.every)
	defer cancel()
	if err := s.device.Alive(ctx); err != nil {
		s.log.Error("no sign of life for the watchdog", "error", err)
		s.notify("STATUS=" + err.Error())
		return
	}
	s.notify(daemon.SdNotifyWatchdog + "\nSTATUS=" + s.device.Summary())
}
