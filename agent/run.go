package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedette-edge/vedette/agent/host"
	"github.com/vedette-edge/vedette/agent/updater"
)

// How long a clean stop may take.
const (
	stopServing = 5 * time.Second
	// lastWords is for the windows that the stop itself has closed. What does
	// not get out by then is sent after the next start.
	lastWords   = 3 * time.Second
	stopRuntime = 5 * time.Second
)

// trimAfter is how long nothing has started or changed before its memory is
// given back: the watch of a new release has seen its first calls by then.
const trimAfter = 10 * time.Second

// errCounting says that the observer has ended while requests were served.
var errCounting = errors.New("predictions are no longer counted")

// Run serves and reports until ctx ends, a stage fails, or a call hangs
// (ErrRestart). It stops in the order in which evidence flows: first requests,
// then windows, last the uplink.
func (a *Agent) Run(ctx context.Context) error {
	a.log.Info("agent started", "device", a.device(), "boot", a.boot.Count, "unclean", a.boot.Unclean, "version", a.cfg.Version)
	// The uplink outlives ctx by its last words; everything else ends with it.
	linkCtx, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	link := &errgroup.Group{}
	link.Go(func() error { return a.connect(linkCtx) })

	err := a.work(ctx)
	a.awaitEmpty(lastWords)
	hangUp()
	err = errors.Join(err, link.Wait())
	if errors.Is(err, ErrRestart) {
		return err // a hung call never comes back: there is nothing to wait for
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopRuntime)
	defer cancel()
	if closeErr := a.engine.Close(closing); closeErr != nil {
		return errors.Join(err, closeErr) // a call hangs: the next start has to know
	}
	// A stage that failed is no crash: everything counted is in the outbox, and
	// no model is to blame for, say, a port that is taken.
	ended := a.boot.End()
	if ended != nil {
		a.log.Error("stop is not written down, the next start may count it as a crash", "error", ended)
	}
	a.log.Info("agent stopped", "failed", err != nil)
	return errors.Join(err, ended)
}

// work runs the stages that end with ctx, and returns when all windows are in
// the outbox.
func (a *Agent) work(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	counting, stopCounting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCounting()
	var countErr error // read after counted
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		countErr = ignoreEnd(counting, a.count(counting))
	}()

	group.Go(func() error { return a.update(ctx) })
	group.Go(func() error { return a.renew(ctx) })
	group.Go(func() error { return a.takeTruths(ctx) })
	group.Go(func() error { return a.serveUntil(ctx) })
	group.Go(func() error { a.nudge(ctx); return nil })
	group.Go(func() error { a.watch(ctx, a.surroundings, a.reportSoon); return nil })
	group.Go(func() error {
		select {
		case err := <-a.hung:
			return err
		case <-counted:
			return errCounting
		case <-ctx.Done():
			return nil
		}
	})
	err := group.Wait()
	stopCounting()
	<-counted
	return errors.Join(err, countErr)
}

// count closes windows and samples until ctx ends, and once more then.
func (a *Agent) count(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.observer.Run(ctx) })
	group.Go(func() error { return a.sampler.Run(ctx) })
	return group.Wait()
}

// takeTruths fetches truths while the device has an identity to fetch them with.
func (a *Agent) takeTruths(ctx context.Context) error {
	if a.truths == nil {
		return nil
	}
	return a.truths.Run(ctx)
}

// update keeps the models as desired. A load that hangs asks for the process to
// be replaced, as a call does.
func (a *Agent) update(ctx context.Context) error {
	err := ignoreEnd(ctx, a.updater.Run(ctx))
	if errors.Is(err, updater.ErrStuck) {
		return errors.Join(ErrRestart, err)
	}
	return err
}

// serveUntil listens when what was active before serves again, so that a
// client's first call finds a model.
func (a *Agent) serveUntil(ctx context.Context) error {
	select {
	case <-a.updater.Loaded():
	case <-ctx.Done():
		return nil
	}
	if err := a.server.Start(ctx); err != nil {
		return err
	}
	a.log.Info("predictions are served", a.addresses()...)
	if a.cfg.Serving != nil {
		a.cfg.Serving()
	}
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopServing)
	defer cancel()
	return a.server.Stop(stopping)
}

// addresses are where predictions are served, for the log.
func (a *Agent) addresses() (attrs []any) {
	for _, at := range []struct {
		key  string
		addr net.Addr
	}{{"address", a.server.Addr()}, {"grpc_address", a.server.GRPCAddr()}} {
		if at.addr != nil {
			attrs = append(attrs, at.key, at.addr.String())
		}
	}
	for _, at := range [][2]string{{"socket", a.cfg.Socket}, {"grpc_socket", a.cfg.GRPCSocket}} {
		if at[1] != "" {
			attrs = append(attrs, at[0], at[1])
		}
	}
	return attrs
}

// nudge reports changes at once, and takes over the settings that came with one:
// only then it is known that they are not those of an older desired state.
//
// When all has been quiet for a while, it gives memory back.
func (a *Agent) nudge(ctx context.Context) {
	applied := a.updater.Held()
	quiet := time.NewTimer(trimAfter)
	defer quiet.Stop()
	for {
		select {
		case <-a.updater.Changed():
			quiet.Reset(trimAfter)
			if held := a.updater.Held(); held != applied {
				a.applySettings(held.GetSettings())
				applied = held
			}
			a.reportSoon()
		case <-quiet.C:
			if err := host.Trim(); err != nil {
				a.log.Warn("memory of the start is not given back", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// awaitEmpty gives a connected uplink the time to hand in what is left. It asks
// again and again, because the outbox's signal is the uplink's alone: taken from
// here, what the stop has closed would not be sent.
func (a *Agent) awaitEmpty(most time.Duration) {
	timeout, again := time.NewTimer(most), time.NewTicker(20*time.Millisecond)
	defer timeout.Stop()
	defer again.Stop()
	for {
		s := a.outbox.Stats()
		if s.Open+s.Pending+s.Sent == 0 || !a.link().Connected {
			return
		}
		select {
		case <-again.C:
		case <-timeout.C:
			return
		}
	}
}

// ignoreEnd drops the error that a stage returns because it was told to stop.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// dialWith connects with the TLS configuration of the moment.
func dialWith(dialer *net.Dialer, config func() *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		secure := tls.Dialer{NetDialer: dialer, Config: config()}
		return secure.DialContext(ctx, network, addr)
	}
}
