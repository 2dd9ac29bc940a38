package access

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// device is what is kept of one: enough to know that its id is taken and which
// certificates to refuse when somebody takes it over.
type device struct {
	ID       string    `json:"id"`
	Key      string    `json:"key"`     // SHA-256 of the newest public key, hex
	Serials  []string  `json:"serials"` // newest last
	Enrolled time.Time `json:"enrolled"`
	Renewed  time.Time `json:"renewed,omitzero"`
	Token    string    `json:"token"` // id of the enrolment token
}

// maxSerials bounds the serials kept of one device. A device has one certificate
// in use and at most a few that it got and lost to a power cut.
const maxSerials = 8

func (d *device) addSerial(cert *x509.Certificate) {
	d.Serials = append(d.Serials, serialOf(cert))
	if over := len(d.Serials) - maxSerials; over > 0 {
		d.Serials = slices.Delete(d.Serials, 0, over)
	}
}

func serialOf(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// revocation says which certificates of a device are refused.
type revocation struct {
	Device  string    `json:"device"`
	All     bool      `json:"all,omitempty"`     // every one
	Before  time.Time `json:"before,omitzero"`   // those that begin before this: the device was replaced
	Serials []string  `json:"serials,omitempty"` // these
	At      time.Time `json:"at"`
	By      string    `json:"by,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

func (r *revocation) covers(cert *x509.Certificate) bool {
	return r.All || cert.NotBefore.Before(r.Before) || slices.Contains(r.Serials, serialOf(cert))
}

// Admit returns ErrRevoked if a certificate of the CA is refused. A device of
// which nothing is known is admitted: the CA has signed for it, and the records
// may have been restored from before it enrolled.
func (a *Authority) Admit(id string, cert *x509.Certificate) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if r, ok := a.revoked[id]; ok && r.covers(cert) {
		return ErrRevoked
	}
	return nil
}

// RevokeDevice refuses all certificates of a device from now on and closes its
// connections. It comes back only by a new enrolment with a token that may
// replace it.
func (a *Authority) RevokeDevice(ctx context.Context, id, reason string) error {
	if err := protocol.CheckDeviceID(id); err != nil {
		return operator.Errorf(operator.Invalid, "revoke device: %w", err)
	}
	err := a.revoke(ctx, id, func(r *revocation) { r.All, r.Reason = true, reason })
	if err != nil {
		return storage(err)
	}
	if a.cfg.Cut == nil {
		return nil
	}
	if err := a.cfg.Cut(id); err != nil {
		return operator.Errorf(operator.Internal, "device %s is revoked, but its connection could not be closed: %w", id, err)
	}
	return nil
}

// Revoked says whether all certificates of a device are refused.
func (a *Authority) Revoked(id string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.revoked[id].All
}

// revoke changes the revocation record of a device, in the bucket and then in
// memory, so that the next check sees it.
func (a *Authority) revoke(ctx context.Context, id string, fn func(*revocation)) error {
	key := revokedKey(id)
	for range maxTries {
		var r revocation
		revision, err := a.load(ctx, key, &r)
		if err != nil && !errors.Is(err, kvstore.ErrNotFound) {
			return err
		}
		r.Device, r.At, r.By = id, a.ca.now().UTC(), actor(ctx)
		fn(&r)
		err = a.save(ctx, key, &r, revision)
		if errors.Is(err, kvstore.ErrConflict) {
			continue
		}
		if err == nil {
			a.setRevoked(id, r)
		}
		return err
	}
	return fmt.Errorf("change %s: %w", key, kvstore.ErrConflict)
}

func (a *Authority) setRevoked(id string, r revocation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked[id] = r
}

// watch loads all revocations and follows them in the background.
func (a *Authority) watch(ctx context.Context) error {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stop = stop
	changes, err := a.bucket.Watch(watching, prefixRevoked)
	if err != nil {
		stop()
		return fmt.Errorf("watch revocations: %w", err)
	}
	for c := range changes {
		if c.Synced {
			go a.follow(watching, changes)
			return nil
		}
		a.apply(c)
	}
	stop()
	return errors.New("watch revocations: broken off before the first were read")
}

// follow applies changes until ctx ends. A watch that breaks off is begun again;
// what is known stays in force meanwhile.
func (a *Authority) follow(ctx context.Context, changes <-chan kvstore.Change) {
	defer close(a.done)
	for {
		for c := range changes {
			if !c.Synced {
				a.apply(c)
			}
		}
		a.again(ctx, &changes)
		if ctx.Err() != nil {
			return
		}
	}
}

// again begins a new watch, as often as it takes.
func (a *Authority) again(ctx context.Context, changes *<-chan kvstore.Change) {
	pause := time.NewTicker(time.Second)
	defer pause.Stop()
	for ctx.Err() == nil {
		fresh, err := a.bucket.Watch(ctx, prefixRevoked)
		if err == nil {
			*changes = fresh
			return
		}
		a.cfg.Logger.Error("revocations not watched", slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

func (a *Authority) apply(c kvstore.Change) {
	parts, err := kvstore.Parts(c.Key)
	if err != nil || len(parts) != 2 {
		a.cfg.Logger.Error("revocation has an unknown key", slog.String("key", c.Key))
		return
	}
	var r revocation
	if !c.Deleted {
		if err := json.Unmarshal(c.Value, &r); err != nil {
			// Rather one device too few than a revoked one that comes in.
			r = revocation{Device: parts[1], All: true}
			a.cfg.Logger.Error("revocation cannot be read", slog.String("device", parts[1]), slog.Any("error", err))
		}
	}
	a.setRevoked(parts[1], r)
}

// Renew issues the next certificate to a device that holds cert, which must be
// verified by VerifyDevice; it may have expired.
func (a *Authority) Renew(ctx context.Context, id string, cert *x509.Certificate, csr []byte) (*x509.Certificate, error) {
	if err := a.Admit(id, cert); err != nil {
		return nil, err
	}
	request, err := parseCSR(csr)
	if err != nil {
		return nil, err
	}
	next, err := a.ca.issue(id, request.PublicKey)
	if err != nil {
		return nil, err
	}
	_, err = change(ctx, a, deviceKey(id), func(d *device) error {
		d.Renewed, d.Key = a.ca.now().UTC(), keyOf(request.RawSubjectPublicKeyInfo)
		d.addSerial(next)
		return nil
	})
	if errors.Is(err, kvstore.ErrNotFound) {
		a.cfg.Logger.Warn("device without a record renewed its certificate", slog.String("device", id))
		d := device{ID: id, Key: keyOf(request.RawSubjectPublicKeyInfo), Enrolled: a.ca.now().UTC()}
		d.addSerial(next)
		err = a.save(ctx, deviceKey(id), &d, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("record renewal of %s: %w", id, err)
	}
	return next, nil
}
