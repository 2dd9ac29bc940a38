package updater

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Codes of what can go wrong in the work itself. An error that brings a code of
// its own keeps it.
const (
	codeResolve  = "resolve_failed"
	codeFetch    = "fetch_failed"
	codeStorage  = "storage_failed"
	codeTrial    = "trial_failed"
	codeBaseline = "baseline_unreadable"
	codeActivate = "activate_failed"
	codeRemove   = "remove_failed"
)

// perform starts a worker for a step's actions. The one before it is told to
// stop and waited for, so a model never has two at work.
func (u *Updater) perform(ctx context.Context, m *model, actions []update.Action) {
	if len(actions) == 0 {
		return
	}
	m.cancel()
	ctx, cancel := context.WithCancel(ctx)
	before, done := m.done, make(chan struct{})
	m.token++
	m.cancel, m.done = cancel, done
	token := m.token
	u.workers.Go(func() {
		defer close(done)
		defer cancel()
		<-before
		for _, a := range actions {
			e, verdict := u.carryOut(ctx, m, token, a)
			u.tell(ctx, result{model: m.name, token: token, event: e, trial: verdict})
		}
	})
}

// tell hands news to Run, unless nobody wants it any more.
func (u *Updater) tell(ctx context.Context, r result) {
	if r.event == nil || ctx.Err() != nil {
		return
	}
	select {
	case u.results <- r:
	case <-ctx.Done():
	}
}

// carryOut does one action and says how it ended.
func (u *Updater) carryOut(ctx context.Context, m *model, token uint64, a update.Action) (update.Event, *protocol.Trial) {
	switch a.Do {
	case update.Stop:
	case update.Discard:
		if err := u.cfg.Slots.Discard(m.name); err != nil {
			u.cfg.Log.Warn("staged release not removed", "model", m.name, "error", err)
		}
	case update.Resolve:
		return u.resolve(ctx, m, a.Release), nil
	case update.Fetch:
		return u.fetch(ctx, m, token, a.Release), nil
	case update.Verify:
		return u.verify(m, a.Release), nil
	case update.Trial:
		return u.try(ctx, m, a.Release)
	case update.Activate:
		return u.activate(ctx, m, a.Release), nil
	case update.Remove:
		return u.remove(ctx, m), nil
	case update.Revert:
		return u.revert(ctx, m, a.Release), nil
	}
	return nil, nil
}

// code is the stable reason of an error.
func code(err error, otherwise string) string {
	var coded interface{ Code() string }
	switch {
	case errors.As(err, &coded):
		return coded.Code()
	case errors.Is(err, slots.ErrDamaged), errors.Is(err, slots.ErrEmpty):
		return update.CodeDamaged
	}
	return otherwise
}

// failed is an error as the machine sees it.
func failed(d release.Digest, err error, otherwise string, retryable bool) update.Failed {
	return update.Failed{Release: d, Code: code(err, otherwise), Message: err.Error(), Retryable: retryable}
}

// mayPass says whether a puller's error is worth another try.
func mayPass(err error) bool {
	var r interface{ Retryable() bool }
	return errors.As(err, &r) && r.Retryable()
}

func (u *Updater) resolve(ctx context.Context, m *model, d release.Digest) update.Event {
	manifest, err := u.cfg.Puller.Resolve(ctx, m.name, d)
	if err != nil {
		return failed(d, err, codeResolve, mayPass(err))
	}
	if manifest.Model != m.name {
		return failed(d, fmt.Errorf("release %s is of model %q", d.Short(), manifest.Model), "wrong_model", false)
	}
	m.manifest.Store(manifest)
	m.load.done.Store(0)
	m.load.total.Store(manifest.Size())
	return update.Resolved{Release: d}
}

// resolved is the manifest from resolving, or, after a restart, asked for again.
func (u *Updater) resolved(ctx context.Context, m *model, d release.Digest) (*release.Manifest, error) {
	if manifest := m.manifest.Load(); manifest != nil {
		if have, err := manifest.Digest(); err == nil && have == d {
			return manifest, nil
		}
	}
	return u.cfg.Puller.Resolve(ctx, m.name, d)
}

func (u *Updater) fetch(ctx context.Context, m *model, token uint64, d release.Digest) update.Event {
	manifest, err := u.resolved(ctx, m, d)
	if err != nil {
		return failed(d, err, codeResolve, mayPass(err))
	}
	dir, err := u.cfg.Slots.Stage(m.name, manifest)
	if err != nil {
		return failed(d, err, codeStorage, true)
	}
	first := int64(-1)
	err = u.cfg.Puller.Fetch(ctx, manifest, dir, func(done, total int64) {
		m.load.done.Store(done)
		m.load.total.Store(total)
		if first < 0 {
			first = done
		} else if done > first { // bytes came over the link: say so once per try
			first = total
			u.tell(ctx, result{model: m.name, token: token, event: update.Progress{Release: d}})
		}
	})
	if err != nil {
		return failed(d, err, codeFetch, mayPass(err))
	}
	return update.Fetched{Release: d}
}

func (u *Updater) verify(m *model, d release.Digest) update.Event {
	if err := u.cfg.Slots.Verify(m.name, d); err != nil {
		return failed(d, err, codeStorage, true)
	}
	return update.Verified{Release: d}
}

// try holds the trial, and admits the release only if all models together stay
// within the memory that the device has for them.
func (u *Updater) try(ctx context.Context, m *model, d release.Digest) (update.Event, *protocol.Trial) {
	select {
	case u.trials <- struct{}{}:
		defer func() { <-u.trials }()
	case <-ctx.Done():
		return nil, nil
	}
	manifest, err := u.cfg.Slots.Manifest(m.name, d)
	if err != nil {
		return failed(d, err, codeStorage, true), nil
	}
	v, err := u.cfg.Trier.Try(ctx, trial.Candidate{Digest: d, Manifest: manifest, Dir: u.cfg.Slots.Dir(m.name, d)})
	if err != nil {
		return failed(d, err, codeTrial, true), nil
	}
	judged := update.Judged{Release: d, OK: v.OK, Code: v.Code, Message: v.Message}
	if !v.OK {
		return judged, v.Report
	}
	if message := u.admit(m.name, v.PeakBytes); message != "" {
		judged.OK, judged.Code, judged.Message = false, trial.CodeMemory, message
		return judged, v.Report
	}
	proven := slots.Slot{Release: d, Variant: v.Variant, P95: v.P95, PeakBytes: v.PeakBytes, Provider: v.Report.GetProvider()}
	if err := u.cfg.Slots.Prove(m.name, proven); err != nil {
		return failed(d, err, codeStorage, true), v.Report
	}
	return judged, v.Report
}

// admit adds up what is loaded at the moment of the switch: every other model
// that serves or is about to, the release being replaced, and the new one. It
// returns what to tell people when that is too much.
func (u *Updater) admit(name string, peak uint64) string {
	if u.cfg.MemoryBudget == 0 {
		return ""
	}
	sum := peak + u.cfg.Slots.Get(name).Active.PeakBytes
	for _, other := range u.cfg.Slots.Models() {
		if other != name {
			set := u.cfg.Slots.Get(other)
			sum += set.Active.PeakBytes + set.Trial.PeakBytes
		}
	}
	if sum <= u.cfg.MemoryBudget {
		return ""
	}
	return fmt.Sprintf("all models together would take %d MiB while switching, this device has %d MiB for them: take a model off or raise the profile's memory budget", sum>>20, u.cfg.MemoryBudget>>20)
}

// activate loads first and writes down second: a release that does not load
// leaves the disk as it is, and the old one never stopped.
func (u *Updater) activate(ctx context.Context, m *model, d release.Digest) update.Event {
	set := u.cfg.Slots.Get(m.name)
	slot := set.Trial
	if set.Active.Release == d { // the power went after the slots had changed
		slot = set.Active
	}
	if slot.Release != d {
		return failed(d, fmt.Errorf("activate %s: %w", d.Short(), slots.ErrEmpty), codeActivate, false)
	}
	if err := u.serve(ctx, m, slot); err != nil {
		return failed(d, err, codeActivate, false)
	}
	if err := u.cfg.Slots.Activate(m.name, d); err != nil {
		return failed(d, err, codeStorage, false)
	}
	return update.Activated{Release: d, Order: u.order.Add(1)}
}

func (u *Updater) remove(ctx context.Context, m *model) update.Event {
	if err := u.unserve(ctx, m); err != nil {
		return failed(release.Digest{}, err, codeRemove, true)
	}
	if err := u.cfg.Slots.Remove(m.name); err != nil {
		return failed(release.Digest{}, err, codeStorage, true)
	}
	return update.Activated{}
}

// revert writes down first and loads second: once bad is known to be bad, no
// start may load it again. An unwritable disk does not keep the old release
// from serving.
func (u *Updater) revert(ctx context.Context, m *model, bad release.Digest) update.Event {
	set, written := u.cfg.Slots.Revert(m.name, bad)
	to := set.Active
	if to.Release == bad { // not written
		to = set.Previous
	}
	var served error
	switch {
	case to.Empty():
		served = u.unserve(ctx, m)
	case m.serving != to.Release:
		served = u.serve(ctx, m, to)
	}
	if err := errors.Join(written, served); err != nil {
		return failed(bad, err, update.CodeRevertFailed, true)
	}
	return update.Reverted{Release: bad, Active: set.Active.Release, Previous: set.Previous.Release}
}

// serve makes the engine answer with a verified release.
func (u *Updater) serve(ctx context.Context, m *model, slot slots.Slot) error {
	manifest, err := u.cfg.Slots.Manifest(m.name, slot.Release)
	if err != nil {
		return err
	}
	r := infer.Release{
		Digest: slot.Release, Manifest: manifest, Variant: slot.Variant,
		Dir: u.cfg.Slots.Dir(m.name, slot.Release), P95: slot.P95,
	}
	if err := u.cfg.OnActive(r); err != nil {
		return &activationError{code: codeBaseline, err: err}
	}
	if err := u.cfg.Engine.Activate(ctx, r); err != nil {
		return fmt.Errorf("load %s %s: %w", m.name, manifest.Version, err)
	}
	u.set(func() { m.serving, m.since = slot.Release, time.Now() })
	u.nudge()
	return nil
}

func (u *Updater) unserve(ctx context.Context, m *model) error {
	if err := u.cfg.Engine.Remove(ctx, m.name); err != nil {
		return fmt.Errorf("stop serving %s: %w", m.name, err)
	}
	u.set(func() { m.serving = release.Digest{} })
	u.nudge()
	return nil
}

// activationError gives an error its stable code.
type activationError struct {
	code string
	err  error
}

func (e *activationError) Error() string { return e.err.Error() }
func (e *activationError) Unwrap() error { return e.err }
func (e *activationError) Code() string  { return e.code }
