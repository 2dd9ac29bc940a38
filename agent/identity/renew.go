package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

// When to renew and how patiently.
const (
	// renewShare of a certificate's life is over when it is renewed; the rest is
	// for a device that is offline just then.
	renewShare = 2.0 / 3
	// renewSpread of its life is how far devices that enrolled together drift
	// apart.
	renewSpread = 1.0 / 20
	// look is how often the loop looks at the time again: a device's clock may
	// be set in the meantime.
	look     = time.Hour
	retryMin = time.Minute
	retryMax = time.Hour
)

// Renew gets a new certificate for a new key, vouched for by the one held, which
// may have expired less than 180 days ago. After an error the old one stays.
func (i *Identity) Renew(ctx context.Context) error {
	held := i.now()
	key, err := pendingKey(i.dir)
	if err != nil {
		return err
	}
	csr, err := makeCSR(key, held.Device)
	if err != nil {
		return err
	}
	answer, err := post(ctx, client(i.cfg.Timeout, i.dial), held.DeviceAPI+protocol.RenewPath, protocol.RenewRequest{CSR: csr})
	if err != nil {
		return fmt.Errorf("renew certificate at %s: %w", held.DeviceAPI, err)
	}
	if answer.Device != held.Device {
		return fmt.Errorf("renew certificate at %s: %w: it is of %q", held.DeviceAPI, ErrAnswer, answer.Device)
	}
	next, err := held.certified(answer, key)
	if err != nil {
		return fmt.Errorf("renew certificate at %s: %w", held.DeviceAPI, err)
	}
	if err := writeState(i.dir, next); err != nil {
		return err
	}
	i.mu.Lock()
	i.state = next
	i.mu.Unlock()
	i.TrustedTime(answer.ServerMS)
	return nil
}

func (i *Identity) dial(ctx context.Context, network, address string) (net.Conn, error) {
	// The limit is the dialler's own: a request that has given up leaves it alone.
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: i.cfg.Timeout}, Config: i.TLS()}
	return d.DialContext(ctx, network, address)
}

// Run renews the certificate in time until ctx ends, and returns ctx's error.
// Failures are retried with full jitter and never end it.
func (i *Identity) Run(ctx context.Context) error {
	failures := 0
	due := i.due()
	for {
		wait := min(due.Sub(i.Now()), look)
		if failures > 0 {
			wait = backoff(failures)
		}
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		if i.Now().Before(due) {
			continue
		}
		if err := i.Renew(ctx); err != nil {
			failures++
			i.report(ctx, failures, err)
			continue
		}
		if failures > 0 {
			i.cfg.Logger.Info("certificate renewed after failures", slog.Int("failures", failures))
		}
		failures, due = 0, i.due()
		i.cfg.Logger.Info("certificate renewed", slog.Time("until", i.Expires()))
	}
}

// report tells of the first failure, and of each after the certificate's end.
func (i *Identity) report(ctx context.Context, failures int, err error) {
	if ctx.Err() != nil {
		return
	}
	expired := i.Now().After(i.Expires())
	if failures == 1 || expired || errors.Is(err, ErrRevoked) && failures%10 == 0 {
		i.cfg.Logger.Warn("certificate not renewed", slog.Time("until", i.Expires()),
			slog.Bool("expired", expired), slog.Any("error", err))
	}
}

// due is when this certificate should be renewed, another moment on every device.
func (i *Identity) due() time.Time {
	leaf := i.now().pair.Leaf
	life := float64(leaf.NotAfter.Sub(leaf.NotBefore))
	share := renewShare + renewSpread*(rand.Float64()-0.5) //nolint:gosec // spreads load, hides nothing
	return leaf.NotBefore.Add(time.Duration(life * share))
}

func backoff(failures int) time.Duration {
	limit := min(retryMin<<min(failures-1, 10), retryMax)
	return retryMin/2 + time.Duration(rand.Int64N(int64(limit))) //nolint:gosec // spreads load, hides nothing
}
