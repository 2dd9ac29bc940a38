package updater

import (
	"context"
	"errors"
	"fmt"
	"syscall"

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
	run := ctx
	ctx, cancel := context.WithCancel(run)
	before, restored, done := m.done, m.restored, make(chan struct{})
	m.token++
	m.cancel, m.done = cancel, done
	token := m.token
	u.workers.Go(func() {
		defer close(done)
		defer cancel()
		<-before
		for _, a := range actions {
			if a.Do == update.Activate || a.Do == update.Remove || a.Do == update.Revert {
				<-restored // one at a time loads into a lane
			}
			e, verdict := u.carryOut(ctx, m, token, a)
			if f, ok := e.(update.Failed); ok && f.Code == update.CodeLoadHung && run.Err() == nil {
				u.replace(errors.New(f.Message)) // its time is up, and what follows is journaled
			}
			u.tell(ctx, result{lane: m.lane, token: token, event: e, trial: verdict})
		}
	})
}

// tell hands news to Run, unless nobody wants it any more.
func (u *Updater) tell(ctx context.Context, r result) {
	if (r.event == nil && !r.restored) || ctx.Err() != nil {
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
		if err := m.slots.Discard(m.name); err != nil {
			u.cfg.Log.Warn("staged release not removed", "model", m.String(), "error", err)
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
	case errors.Is(err, infer.ErrLoading):
		return update.CodeLoadHung
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return update.CodeDiskFull
	case errors.Is(err, syscall.EROFS):
		return update.CodeReadOnly
	}
	return otherwise
}

// failed is an error as the machine sees it.
func failed(d release.Digest, err error, otherwise string, retryable bool) update.Failed {
	c := code(err, otherwise)
	return update.Failed{Release: d, Code: c, Message: err.Error(), Retryable: retryable || update.OfDisk(c)}
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
	dir, err := m.slots.Stage(m.name, manifest)
	if err != nil {
		return failed(d, err, update.CodeStorage, true)
	}
	first := int64(-1)
	err = u.cfg.Puller.Fetch(ctx, manifest, dir, func(done, total int64) {
		m.load.done.Store(done)
		m.load.total.Store(total)
		if first < 0 {
			first = done
		} else if done > first { // bytes came over the link: say so once per try
			first = total
			u.tell(ctx, result{lane: m.lane, token: token, event: update.Progress{Release: d}})
		}
	})
	if err != nil {
		return failed(d, err, codeFetch, mayPass(err))
	}
	return update.Fetched{Release: d}
}

func (u *Updater) verify(m *model, d release.Digest) update.Event {
	if err := m.slots.Verify(m.name, d); err != nil {
		return failed(d, err, update.CodeStorage, true)
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
	manifest, err := m.slots.Manifest(m.name, d)
	if err != nil {
		return failed(d, err, update.CodeStorage, true), nil
	}
	v, err := u.cfg.Trier.Try(ctx, trial.Candidate{Digest: d, Manifest: manifest, Dir: m.slots.Dir(m.name, d)})
	if err != nil {
		return failed(d, err, codeTrial, true), nil
	}
	judged := update.Judged{Release: d, OK: v.OK, Code: v.Code, Message: v.Message}
	if !v.OK {
		return judged, v.Report
	}
	if message := u.admit(m.lane, d, v.PeakBytes); message != "" {
		judged.OK, judged.Code, judged.Message = false, trial.CodeMemory, message
		return judged, v.Report
	}
	proven := slots.Slot{Release: d, Variant: v.Variant, P95: v.P95, PeakBytes: v.PeakBytes, Provider: v.Report.GetProvider()}
	if err := m.slots.Prove(m.name, proven); err != nil {
		return failed(d, err, update.CodeStorage, true), v.Report
	}
	return judged, v.Report
}

// admit adds up what is loaded at the moment of the switch: every other release
// that serves or is about to, challengers included, the release being replaced,
// and the new one. It returns what to tell people when that is too much.
func (u *Updater) admit(l lane, d release.Digest, peak uint64) string {
	if u.cfg.MemoryBudget == 0 {
		return ""
	}
	sum := peak + u.slotsOf(l).Get(l.name).Active.PeakBytes
	for _, challenger := range []bool{false, true} {
		for _, name := range u.slotsOf(lane{challenger: challenger}).Models() {
			if other := (lane{name, challenger}); other != l {
				sum += u.takes(other, l, d)
			}
		}
	}
	if sum <= u.cfg.MemoryBudget {
		return ""
	}
	return fmt.Sprintf("all models together would take %d MiB while switching, this device has %d MiB for them: take a model or a challenger off or raise the profile's memory budget", sum>>20, u.cfg.MemoryBudget>>20)
}

// takes is the memory that another lane may need while d moves into lane l and
// after: for what it is about to serve, and for the larger one of what it serves
// and what it may go back to at any time, for nobody asks for admission then. A
// challenger that becomes the primary release is gone by then.
func (u *Updater) takes(other, l lane, d release.Digest) uint64 {
	set := u.slotsOf(other).Get(other.name)
	peak := func(slot slots.Slot) uint64 {
		if other == l.beside() && slot.Release == d {
			return 0
		}
		return slot.PeakBytes
	}
	return peak(set.Trial) + max(peak(set.Active), peak(set.Previous))
}

// activate loads first and writes down second: a release that does not load
// leaves the disk as it is, and the old one never stopped.
func (u *Updater) activate(ctx context.Context, m *model, d release.Digest) update.Event {
	set := m.slots.Get(m.name)
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
	if err := m.slots.Activate(m.name, d); err != nil {
		return failed(d, err, update.CodeStorage, true)
	}
	return update.Activated{Release: d, Order: u.order.Add(1)}
}

func (u *Updater) remove(ctx context.Context, m *model) update.Event {
	if err := u.unserve(ctx, m); err != nil {
		return failed(release.Digest{}, err, codeRemove, true)
	}
	if err := m.slots.Remove(m.name); err != nil {
		return failed(release.Digest{}, err, update.CodeStorage, true)
	}
	return update.Activated{}
}

// revert writes down first and loads second: once bad is known to be bad, no
// start may load it again. An unwritable disk does not keep the old release
// from serving.
func (u *Updater) revert(ctx context.Context, m *model, bad release.Digest) update.Event {
	set, written := m.slots.Revert(m.name, bad)
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
	manifest, err := m.slots.Manifest(m.name, slot.Release)
	if err != nil {
		return err
	}
	if m.challenger && u.cfg.Slots.Get(m.name).Active.Release == slot.Release {
		return nil // it became the primary release meanwhile, and is about to be told to go
	}
	p := u.partOf(m.lane)
	r := infer.Release{
		Role: p.role, Share: p.share, Digest: slot.Release, Manifest: manifest, Variant: slot.Variant,
		Dir: m.slots.Dir(m.name, slot.Release), P95: slot.P95, Provider: slot.Provider,
	}
	if err := u.cfg.OnActive(r); err != nil {
		return &activationError{code: codeBaseline, err: err}
	}
	if err := u.load(ctx, m, r); err != nil {
		return fmt.Errorf("load %s %s: %w", m.name, manifest.Version, err)
	}
	u.set(func() {
		if m.serving != slot.Release {
			m.serving, m.since = slot.Release, u.cfg.Now()
		}
		m.part = p
	})
	u.nudge()
	return nil
}

func (u *Updater) unserve(ctx context.Context, m *model) error {
	stop := u.cfg.Engine.Remove
	if m.challenger {
		stop = u.cfg.Engine.Retire
	}
	if err := stop(ctx, m.name); err != nil {
		return fmt.Errorf("stop serving %s: %w", m.lane, err)
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
