package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol"
)

// Ledger kinds of what operators do to devices; the body of each is a Noted.
const (
	KindEnrolled = "device.enrolled"
	KindLabels   = "device.labels"
	KindRevoked  = "device.revoked"
	KindRestored = "device.restored"
	KindRemoved  = "device.removed"
)

// Chain is a device's chain in the ledger.
func Chain(device string) string { return "device." + device }

// Noted is the ledger's record of a change. Labels are all that the device has
// after it.
type Noted struct {
	Device string            `json:"device"`
	Labels map[string]string `json:"labels"`
	Reason string            `json:"reason,omitempty"`
}

// operators is what the bucket keeps of one device.
type operators struct {
	Labels   map[string]string `json:"labels,omitempty"`
	Enrolled time.Time         `json:"enrolled,omitzero"`
	Revoked  *Mark             `json:"revoked,omitempty"`
}

// take brings an entry of the bucket into memory, unless memory is newer.
func (f *Fleet) take(b kvstore.Entry) error {
	var o operators
	if err := json.Unmarshal(b.Value, &o); err != nil {
		return fmt.Errorf("read device %s: %w", b.Key, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entryOf(b.Key)
	if b.Revision <= e.device.Revision {
		return nil
	}
	e.device.setOperators(&Device{Labels: o.Labels, Revision: b.Revision, Enrolled: o.Enrolled, Revoked: o.Revoked})
	f.tell(b.Key)
	return nil
}

// Run follows changes that other servers make, until ctx ends. It returns nil.
func (f *Fleet) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		changes, err := f.bucket.Watch(ctx, "")
		if err != nil {
			return fmt.Errorf("watch devices: %w", err)
		}
		for c := range changes {
			f.follow(c)
		}
	}
	return nil
}

func (f *Fleet) follow(c kvstore.Change) {
	switch {
	case c.Synced:
	case c.Deleted:
		f.drop(c.Key, c.Revision)
	default:
		if err := f.take(c.Entry); err != nil {
			f.cfg.Logger.Error("device not readable", slog.String("device", c.Key), slog.Any("error", err))
		}
	}
}

// Enrolled takes in that a device has a certificate, with the labels its token
// gave it. A device that enrols again keeps the labels the token says nothing
// of, and is no longer revoked.
func (f *Fleet) Enrolled(ctx context.Context, device string, labels map[string]string) error {
	if err := protocol.CheckDeviceID(device); err != nil {
		return err
	}
	return f.change(ctx, device, KindEnrolled, "enrolment", "", func(o *operators, _ uint64) error {
		o.Enrolled, o.Revoked = moment(f.cfg.Now()), nil
		return o.label(LabelChange{Set: labels})
	})
}

// LabelChange sets and removes labels. Revision, when it is not 0, must be the
// device's.
type LabelChange struct {
	Set      map[string]string
	Remove   []string
	Revision uint64
}

// SetLabels changes a device's labels. ErrStale says that the revision is not
// the device's any more.
func (f *Fleet) SetLabels(ctx context.Context, device string, c LabelChange, actor, reason string) error {
	if err := f.known(device); err != nil {
		return err
	}
	return f.change(ctx, device, KindLabels, actor, reason, func(o *operators, revision uint64) error {
		if c.Revision != 0 && c.Revision != revision {
			return fmt.Errorf("label device %s: %w", device, ErrStale)
		}
		return o.label(c)
	})
}

// Revoke marks a device as not to be believed and not to be offered anything.
// Its connection and certificate are access' business.
func (f *Fleet) Revoke(ctx context.Context, device, actor, reason string) error {
	if err := f.known(device); err != nil {
		return err
	}
	return f.change(ctx, device, KindRevoked, actor, reason, func(o *operators, _ uint64) error {
		o.Revoked = &Mark{At: moment(f.cfg.Now()), Actor: actor, Reason: reason}
		return nil
	})
}

// Restore takes a revocation back.
func (f *Fleet) Restore(ctx context.Context, device, actor, reason string) error {
	if err := f.known(device); err != nil {
		return err
	}
	return f.change(ctx, device, KindRestored, actor, reason, func(o *operators, _ uint64) error {
		o.Revoked = nil
		return nil
	})
}

// Remove forgets a device. One that is still alive comes back with its next
// message, without labels: revoke it first.
func (f *Fleet) Remove(ctx context.Context, device, actor, reason string) error {
	if err := f.known(device); err != nil {
		return err
	}
	if err := f.bucket.Delete(ctx, device); err != nil {
		return fmt.Errorf("remove device %s: %w", device, err)
	}
	f.drop(device, math.MaxUint64)
	return f.note(ctx, KindRemoved, actor, Noted{Device: device, Reason: reason})
}

// drop forgets a device, unless it was written again after that revision.
func (f *Fleet) drop(device string, revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.devices[device]; ok && e.device.Revision <= revision {
		delete(f.devices, device)
		f.dirty[device] = true
		f.tell(device)
	}
}

func (f *Fleet) known(device string) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if _, ok := f.devices[device]; !ok {
		return fmt.Errorf("device %q: %w", device, ErrNotFound)
	}
	return nil
}

// change rewrites the operators' part of a device by compare-and-set, then
// notes it. Between the two a crash can lose the note, never the change; the
// same command again writes it.
func (f *Fleet) change(ctx context.Context, device, kind, actor, reason string, edit func(o *operators, revision uint64) error) error {
	for {
		o, err := f.rewrite(ctx, device, edit)
		if errors.Is(err, kvstore.ErrConflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		return f.note(ctx, kind, actor, Noted{Device: device, Labels: o.Labels, Reason: reason})
	}
}

func (f *Fleet) rewrite(ctx context.Context, device string, edit func(o *operators, revision uint64) error) (operators, error) {
	var o operators
	was, err := f.bucket.Get(ctx, device)
	switch {
	case errors.Is(err, kvstore.ErrNotFound):
	case err != nil:
		return o, fmt.Errorf("read device %s: %w", device, err)
	default:
		if err := json.Unmarshal(was.Value, &o); err != nil {
			return o, fmt.Errorf("read device %s: %w", device, err)
		}
	}
	if err := edit(&o, was.Revision); err != nil {
		return o, err
	}
	value, err := json.Marshal(o)
	if err != nil {
		return o, fmt.Errorf("encode device %s: %w", device, err)
	}
	revision, err := f.bucket.CompareAndSet(ctx, device, value, was.Revision)
	if err != nil {
		return o, fmt.Errorf("write device %s: %w", device, err)
	}
	return o, f.take(kvstore.Entry{Key: device, Value: value, Revision: revision})
}

func (f *Fleet) note(ctx context.Context, kind, actor string, n Noted) error {
	if f.cfg.Journal == nil {
		return nil
	}
	if _, err := f.cfg.Journal.Append(ctx, Chain(n.Device), ledger.Any, kind, actor, n); err != nil {
		return fmt.Errorf("device %s was changed but the ledger has no note of it, repeat the command: %w", n.Device, err)
	}
	return nil
}

func (o *operators) label(c LabelChange) error {
	if err := protocol.CheckLabels(c.Set); err != nil {
		return err
	}
	labels := maps.Clone(o.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, name := range c.Remove {
		delete(labels, name)
	}
	maps.Copy(labels, c.Set)
	if len(labels) > protocol.MaxLabels {
		return fmt.Errorf("%w: there would be %d", protocol.ErrLabel, len(labels))
	}
	o.Labels = labels
	return nil
}
