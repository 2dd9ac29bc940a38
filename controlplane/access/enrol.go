package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Limits of enrolment tokens.
const (
	DefaultEnrolTTL = 24 * time.Hour
	MaxEnrolTTL     = 365 * 24 * time.Hour
	MaxEnrolUses    = 10_000
)

// What an enrolment may be refused for.
var (
	// ErrTokenUnknown says that there is no such token, or that its secret is
	// another one. Which of the two is not told.
	ErrTokenUnknown = errors.New("enrolment token is not known here: it may be of another control plane; create a new one")
	// ErrTokenExpired says that the token's time is over.
	ErrTokenExpired = errors.New("enrolment token has expired: create a new one")
	// ErrTokenUsed says that the token was used as often as it allows.
	ErrTokenUsed = errors.New("enrolment token was used already: create a new one")
	// ErrTokenRevoked says that an operator took the token back.
	ErrTokenRevoked = errors.New("enrolment token was revoked: create a new one")
	// ErrDeviceExists says that the id belongs to another device.
	ErrDeviceExists = errors.New("device id is taken: choose another, or create a token that may replace the device")
	// ErrNoDevice says that neither the token nor the device names an id.
	ErrNoDevice = errors.New("the token fixes no device id: give one")
)

const enrolPrefix = "e1."

// enrolToken is the server's side of an enrolment token.
type enrolToken struct {
	operator.EnrolToken // Uses is how many are left; Used is kept in Devices

	Hash    []byte `json:"hash"` // of the secret
	Devices []use  `json:"devices,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// use is one device that enrolled by a token. A device whose answer was lost
// asks again with the same key: that is the same use.
type use struct {
	Device string    `json:"device"`
	Key    string    `json:"key"`
	At     time.Time `json:"at"`
}

// public is the record without what only the server may know.
func (t *enrolToken) public() operator.EnrolToken {
	p := t.EnrolToken
	p.Used = nil
	for _, u := range t.Devices {
		p.Used = append(p.Used, u.Device)
	}
	return p
}

// CreateEnrolToken makes a token that lets devices enrol. The secret is told
// once. The maker is the context's principal.
func (a *Authority) CreateEnrolToken(ctx context.Context, c operator.EnrolTokenCreate) (*operator.EnrolSecret, error) {
	ttl := cmp.Or(time.Duration(c.TTL), DefaultEnrolTTL)
	uses := cmp.Or(c.Uses, 1)
	c.DeviceAPI = cmp.Or(c.DeviceAPI, a.cfg.DeviceAPI)
	if len(c.MQTT) == 0 {
		c.MQTT = a.cfg.MQTT
	}
	if err := operator.CheckText("reason", c.Reason); err != nil {
		return nil, err
	}
	if err := checkEnrolToken(&c, ttl, uses); err != nil {
		return nil, operator.Errorf(operator.Invalid, "create enrolment token: %w", err)
	}
	text, id, hash := newSecret(enrolPrefix)
	now := a.ca.now().UTC().Truncate(time.Second)
	t := enrolToken{
		EnrolToken: operator.EnrolToken{
			ID: id, Device: c.Device, Labels: maps.Clone(c.Labels), Uses: uses, Replace: c.Replace,
			Created: now, CreatedBy: actor(ctx), Expires: now.Add(ttl), DeviceAPI: c.DeviceAPI, MQTT: slices.Clone(c.MQTT),
		},
		Hash: hash, Reason: c.Reason,
	}
	if err := a.save(ctx, enrolKey(id), &t, 0); err != nil {
		return nil, storage(err)
	}
	ca := a.ca.SHA256()
	return &operator.EnrolSecret{EnrolToken: t.public(), Secret: text, CASHA256: hex.EncodeToString(ca[:])}, nil
}

func checkEnrolToken(c *operator.EnrolTokenCreate, ttl time.Duration, uses int) error {
	if ttl < time.Minute || ttl > MaxEnrolTTL {
		return fmt.Errorf("lifetime must be 1m to %s", MaxEnrolTTL)
	}
	if uses < 1 || uses > MaxEnrolUses {
		return fmt.Errorf("uses must be 1 to %d", MaxEnrolUses)
	}
	if c.Device != "" {
		if err := protocol.CheckDeviceID(c.Device); err != nil {
			return err
		}
		if uses != 1 {
			return errors.New("a token for one device id can be used once")
		}
	}
	if err := protocol.CheckLabels(c.Labels); err != nil {
		return err
	}
	if err := protocol.CheckDeviceAPI(c.DeviceAPI); err != nil {
		return err
	}
	return protocol.CheckMQTT(c.MQTT)
}

// EnrolTokens returns all tokens without their secrets, newest first.
func (a *Authority) EnrolTokens(ctx context.Context) ([]operator.EnrolToken, error) {
	entries, err := a.bucket.List(ctx, prefixEnrol)
	if err != nil {
		return nil, storage(err)
	}
	out := make([]operator.EnrolToken, 0, len(entries))
	for _, e := range entries {
		var t enrolToken
		if err := json.Unmarshal(e.Value, &t); err != nil {
			return nil, operator.Errorf(operator.Internal, "read enrolment token %s: %w", e.Key, err)
		}
		out = append(out, t.public())
	}
	slices.SortFunc(out, func(x, y operator.EnrolToken) int { return y.Created.Compare(x.Created) })
	return out, nil
}

// RevokeEnrolToken takes a token back. Devices that enrolled by it stay.
func (a *Authority) RevokeEnrolToken(ctx context.Context, id string) error {
	_, err := change(ctx, a, enrolKey(id), func(t *enrolToken) error {
		t.Revoked = true
		return nil
	})
	if errors.Is(err, kvstore.ErrNotFound) {
		return operator.Errorf(operator.NotFound, "there is no enrolment token %.40q", id)
	}
	return storage(err)
}

// Enrolment is what a device is given, and what the fleet should know of it.
type Enrolment struct {
	Device      string
	Certificate []byte // PEM
	CA          []byte // PEM
	MQTT        []string
	Labels      map[string]string // from the token
	Token       string            // id
	By          string            // who made the token
	Replaced    bool              // the id was another device's before
	At          time.Time
}

// Enrol gives a device its first certificate for a token's secret. The same key
// with the same token may ask again.
func (a *Authority) Enrol(ctx context.Context, req protocol.EnrolRequest) (*Enrolment, error) {
	id, secret, ok := splitSecret(enrolPrefix, req.Token)
	if !ok {
		return nil, ErrTokenUnknown
	}
	csr, err := parseCSR([]byte(req.CSR))
	if err != nil {
		return nil, err
	}
	key := keyOf(csr.RawSubjectPublicKeyInfo)
	var name string
	token, err := change(ctx, a, enrolKey(id), func(t *enrolToken) error {
		name, err = a.take(ctx, t, secret, cmp.Or(req.Device, csr.Subject.CommonName), key)
		return err
	})
	if errors.Is(err, kvstore.ErrNotFound) {
		return nil, ErrTokenUnknown
	}
	if err != nil {
		return nil, err
	}
	cert, err := a.ca.issue(name, csr.PublicKey)
	if err != nil {
		return nil, err
	}
	replaced, err := a.register(ctx, &token, name, key, cert)
	if err != nil {
		return nil, err
	}
	return &Enrolment{
		Device: name, Certificate: certPEM(cert), CA: a.ca.PEM(), MQTT: token.MQTT, Labels: token.Labels,
		Token: token.ID, By: token.CreatedBy, Replaced: replaced, At: a.ca.now().UTC(),
	}, nil
}

// take checks a token and uses it up by one, unless this key has used it before.
func (a *Authority) take(ctx context.Context, t *enrolToken, secret, proposed, key string) (name string, err error) {
	if !sameHash(secret, t.Hash) {
		return "", ErrTokenUnknown
	}
	name = cmp.Or(t.Device, proposed)
	if name == "" {
		return "", ErrNoDevice
	}
	if err := protocol.CheckDeviceID(name); err != nil {
		return "", err
	}
	now := a.ca.now().UTC()
	switch {
	case t.Revoked:
		return "", ErrTokenRevoked
	case !now.Before(t.Expires):
		return "", ErrTokenExpired
	case slices.ContainsFunc(t.Devices, func(u use) bool { return u.Device == name && u.Key == key }):
		return name, nil
	case t.Uses <= 0:
		return "", ErrTokenUsed
	}
	// An older server took labels that the fleet refuses: no use is spent on them.
	if err := protocol.CheckLabels(t.Labels); err != nil {
		return "", fmt.Errorf("the token has a label that no device may have, create a new one: %w", err)
	}
	if err := a.mayTake(ctx, t, name, key); err != nil {
		return "", err
	}
	t.Uses--
	t.Devices = append(t.Devices, use{Device: name, Key: key, At: now})
	return name, nil
}

// mayTake refuses an id that is taken before a use is spent on it. Whoever has
// the key of the device is the device.
func (a *Authority) mayTake(ctx context.Context, t *enrolToken, name, key string) error {
	if t.Replace {
		return nil
	}
	if a.Revoked(name) {
		return ErrDeviceExists
	}
	var d device
	_, err := a.load(ctx, deviceKey(name), &d)
	switch {
	case errors.Is(err, kvstore.ErrNotFound):
		return nil
	case err == nil && d.Key != key:
		return ErrDeviceExists
	default:
		return err
	}
}

// register notes the device. When it takes the place of another, the other's
// certificates are refused first.
func (a *Authority) register(ctx context.Context, t *enrolToken, name, key string, cert *x509.Certificate) (replaced bool, err error) {
	for range maxTries {
		var d device
		revision, err := a.load(ctx, deviceKey(name), &d)
		known := err == nil
		if err != nil && !errors.Is(err, kvstore.ErrNotFound) {
			return false, err
		}
		same := known && d.Key == key
		if known && !same && !t.Replace {
			return false, ErrDeviceExists
		}
		replaced = known && !same || a.Revoked(name)
		// A device may be there that the records do not know any more.
		if replaced || t.Replace && !same {
			if err := a.supersede(ctx, &d, name, cert); err != nil {
				return false, err
			}
		}
		if !same {
			d = device{ID: name, Key: key, Enrolled: a.ca.now().UTC(), Token: t.ID}
		}
		d.addSerial(cert)
		if err := a.save(ctx, deviceKey(name), &d, revision); !errors.Is(err, kvstore.ErrConflict) {
			return replaced, err
		}
	}
	return false, fmt.Errorf("register %s: %w", name, kvstore.ErrConflict)
}

// supersede refuses all certificates of the device that had the name, and none
// of the one that gets it.
func (a *Authority) supersede(ctx context.Context, old *device, name string, cert *x509.Certificate) error {
	err := a.revoke(ctx, name, func(r *revocation) {
		r.All, r.Before, r.Serials = false, cert.NotBefore, slices.Clone(old.Serials)
		r.Reason = "replaced by a new enrolment"
	})
	if err != nil || a.cfg.Cut == nil {
		return err
	}
	return a.cfg.Cut(name)
}

func keyOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
