package updater

import (
	"context"
	"errors"
	"fmt"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/protocol/release"
)

// eventFallback tells that a release no longer runs on the execution provider
// that its trial chose.
const eventFallback = "provider_fallback"

// load makes the engine serve r. When that does not work on the execution
// provider that the trial chose (its library was exchanged, its device is gone),
// the release is proven again on the CPU and serves there; the next start asks
// for the provider again.
func (u *Updater) load(ctx context.Context, m *model, r infer.Release) error {
	err := u.cfg.Engine.Activate(ctx, r)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, infer.ErrLoading), errors.Is(err, infer.ErrClosed),
		release.SameProvider(r.Provider, release.CPUProvider):
		return err
	}
	provider := r.Provider
	u.cfg.Log.Warn("release does not load on its execution provider, proving it on the CPU",
		"model", m.String(), "release", r.Digest.Short(), "provider", provider, "error", err)
	if r, err = u.prove(ctx, r, err); err != nil {
		return err
	}
	if err := u.cfg.Engine.Activate(ctx, r); err != nil {
		return err
	}
	u.emit(eventFallback, m.lane, r.Digest, provider+" cannot be used any more, the release serves on the CPU: run `vedette-agent doctor` on the device")
	return nil
}

// prove holds the trial of r on the CPU alone, where its golden vectors have to
// pass again. why is the reason for it.
func (u *Updater) prove(ctx context.Context, r infer.Release, why error) (infer.Release, error) {
	select {
	case u.trials <- struct{}{}:
		defer func() { <-u.trials }()
	case <-ctx.Done():
		return r, fmt.Errorf("%w; no turn to try it on the CPU: %w", why, ctx.Err())
	}
	v, err := u.cfg.Trier.Try(ctx, trial.Candidate{
		Digest: r.Digest, Manifest: r.Manifest, Dir: r.Dir, Providers: []string{release.CPUProvider},
	})
	switch {
	case err != nil:
		return r, fmt.Errorf("%w; it could not be tried on the CPU: %w", why, err)
	case !v.OK:
		return r, fmt.Errorf("%w; on the CPU it is not fit to serve either (%s): %s", why, v.Code, v.Message)
	}
	r.Variant, r.Provider, r.P95 = v.Variant, release.CPUProvider, v.P95
	return r, nil
}
