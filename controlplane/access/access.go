// Package access decides who is who: devices by certificate, people and
// programs by token.
//
// Parties and keys:
//   - The device CA (ECDSA P-256, ten years) is made at the first start and kept
//     in a file of its own. It signs device certificates and the server's own
//     certificates. Devices pin it by the SHA-256 in their enrolment token.
//   - A device makes its own key and never gives it away. Its certificate (90
//     days) has the device id as common name; it is renewed with the old one.
//   - An enrolment token lets a device, or several, get their first certificate.
//     The server keeps a hash of its secret and what it allows.
//   - An operator token opens the operator API with one role. The server keeps a
//     hash of its secret.
//
// Secrets are 256 random bits, so a plain hash protects them. What was revoked
// is kept in a bucket and watched, so that every check is a look into memory.
package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Config of an Authority. CA, Dir and Bucket are required.
type Config struct {
	CA *CA
	// Dir is where the first admin token is put.
	Dir string
	// Bucket keeps tokens, devices and revocations, and nothing else.
	Bucket kvstore.Bucket
	// DeviceAPI and MQTT are the URLs that go into tokens that name none.
	DeviceAPI string
	MQTT      []string
	// Cut is called with each device that is revoked, to close its connections;
	// nil: nobody is connected.
	Cut func(device string) error
	// Logger takes what nobody else is told; nil is none.
	Logger *slog.Logger
}

// Authority issues and checks certificates and tokens.
type Authority struct {
	cfg    Config
	bucket kvstore.Bucket
	ca     *CA

	mu      sync.RWMutex
	revoked map[string]revocation // guarded by mu: by device id

	stop context.CancelFunc
	done chan struct{} // closed when the watch of revocations has ended
}

// Open makes an admin token if there is no operator token yet, and begins to
// watch revocations. Close ends that.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Authority{cfg: cfg, bucket: cfg.Bucket, ca: cfg.CA, revoked: map[string]revocation{}, done: make(chan struct{})}
	if err := a.firstAdmin(ctx); err != nil {
		return nil, err
	}
	if err := a.watch(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// Close ends the watch of revocations.
func (a *Authority) Close() {
	a.stop()
	<-a.done
}

// Keys of the bucket.
func enrolKey(id string) string       { return kvstore.Key("enrol", id) }
func tokenKey(id string) string       { return kvstore.Key("token", id) }
func deviceKey(device string) string  { return kvstore.Key("device", device) }
func revokedKey(device string) string { return kvstore.Key(prefixRevoked, device) }

const (
	prefixEnrol   = "enrol"
	prefixToken   = "token"
	prefixRevoked = "revoked"
)

// secretSize is in bytes; idSize too. Ids are public and need only be distinct.
const (
	secretSize = 32
	idSize     = 6
)

// newSecret makes a token's text, "<prefix><id>.<secret>", and the hash to keep.
func newSecret(prefix string) (text, id string, hash []byte) {
	var b [secretSize + idSize]byte
	_, _ = rand.Read(b[:]) // never fails
	id = hex.EncodeToString(b[:idSize])
	secret := base64.RawURLEncoding.EncodeToString(b[idSize:])
	return prefix + id + "." + secret, id, hashSecret(secret)
}

// splitSecret takes a token's text apart. It says nothing about its truth.
func splitSecret(prefix, text string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(text) > 128 {
		return "", "", false
	}
	id, secret, ok = strings.Cut(rest, ".")
	if _, err := hex.DecodeString(id); err != nil || len(id) != 2*idSize {
		return "", "", false
	}
	return id, secret, ok
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

func sameHash(secret string, hash []byte) bool {
	return subtle.ConstantTimeCompare(hashSecret(secret), hash) == 1
}

// load reads a JSON record of the bucket into v.
func (a *Authority) load(ctx context.Context, key string, v any) (revision uint64, err error) {
	e, err := a.bucket.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(e.Value, v); err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	return e.Revision, nil
}

// save writes v if the record is still at revision; 0 creates it.
func (a *Authority) save(ctx context.Context, key string, v any, revision uint64) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	_, err = a.bucket.CompareAndSet(ctx, key, data, revision)
	return err
}

// maxTries bounds repeated compare-and-set of one record: more losers in a row
// than this means something is wrong.
const maxTries = 20

// change reads a record, lets fn change it, and writes it back if nobody was
// faster, else again.
func change[T any](ctx context.Context, a *Authority, key string, fn func(*T) error) (T, error) {
	for range maxTries {
		var v T
		revision, err := a.load(ctx, key, &v)
		if err != nil {
			return v, err
		}
		if err := fn(&v); err != nil {
			return v, err
		}
		if err := a.save(ctx, key, &v, revision); !errors.Is(err, kvstore.ErrConflict) {
			return v, err
		}
	}
	var none T
	return none, fmt.Errorf("change %s: %w", key, kvstore.ErrConflict)
}

// actor is who makes a call, for the records.
func actor(ctx context.Context) string {
	if p, ok := operator.PrincipalOf(ctx); ok {
		return p.Name
	}
	return ""
}

// storage turns an error of the bucket into one for the API.
func storage(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*operator.Error](err); ok {
		return err
	}
	return operator.Errorf(operator.Unavailable, "access records: %w", err)
}
