package agent

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/updater"
	"github.com/vedette-edge/vedette/agent/uplink"
	"github.com/vedette-edge/vedette/protocol/release"
)

// codeIdentity names a damaged identity in the status of the uplink and of
// updates.
const codeIdentity = "identity_damaged"

// unknown is a device whose identity was damaged after it was enrolled. It has
// nobody to talk to, so it serves what it has and counts until somebody enrols
// it again. As updater.Puller it fetches nothing.
type unknown struct{ reason noIdentity }

// Resolve implements updater.Puller.
func (u *unknown) Resolve(context.Context, string, release.Digest) (*release.Manifest, error) {
	return nil, u.reason
}

// Fetch implements updater.Puller.
func (u *unknown) Fetch(context.Context, *release.Manifest, string, func(done, total int64)) error {
	return u.reason
}

// noIdentity is why nothing is fetched. No release is to blame.
type noIdentity struct{ error }

// Code is what package updater asks of an error.
func (noIdentity) Code() string { return codeIdentity }

// Retryable is what package updater asks of an error.
func (noIdentity) Retryable() bool { return true }

// Unwrap returns what is wrong with the identity.
func (e noIdentity) Unwrap() error { return e.error }

// openIdentity reads who the device is. What it serves was verified before and
// does not depend on that, so a damaged identity does not keep it from serving.
func (a *Agent) openIdentity() (err error) {
	a.identity, err = identity.Open(filepath.Join(a.cfg.State, identityDir), identity.Config{Logger: a.log})
	if !errors.Is(err, identity.ErrDamaged) {
		return err
	}
	a.lost = &unknown{noIdentity{err}}
	return nil
}

// withoutIdentity is the puller of a device that can go on without an identity:
// one that has something to serve.
func (a *Agent) withoutIdentity(held *slots.Slots) (updater.Puller, error) {
	serves := func(model string) bool { return !held.Get(model).Active.Empty() }
	if !slices.ContainsFunc(held.Models(), serves) {
		return nil, a.lost.reason
	}
	a.log.Error("device does not know who it is: it serves the models it has, reports nothing and follows no update", "error", a.lost.reason)
	return a.lost, nil
}

// device is the device's id, empty when its identity is damaged.
func (a *Agent) device() string {
	if a.lost != nil {
		return ""
	}
	return a.identity.Device()
}

// link is the state of the uplink.
func (a *Agent) link() uplink.Status {
	if a.lost != nil {
		return uplink.Status{Since: a.boot.Start(), LastError: a.lost.reason.Error(), Code: codeIdentity}
	}
	return a.uplink.Status()
}

// reportSoon asks for a report.
func (a *Agent) reportSoon() {
	if a.lost == nil {
		a.uplink.Nudge()
	}
}

// connect runs the uplink until ctx ends.
func (a *Agent) connect(ctx context.Context) error {
	if a.lost != nil {
		return nil
	}
	return ignoreEnd(ctx, a.uplink.Run(ctx))
}

// renew keeps the certificate good until ctx ends.
func (a *Agent) renew(ctx context.Context) error {
	if a.lost != nil {
		return nil
	}
	return ignoreEnd(ctx, a.identity.Run(ctx))
}
