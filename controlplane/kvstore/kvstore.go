// Package kvstore keeps small values by key, each with a revision, so that
// writers can see that somebody else was faster. It knows nothing of what the
// values mean: each package brings its own encoding.
//
// Two implementations behave alike (one test suite runs over both): Open keeps
// a bucket in JetStream, NewMemory in the process for tests of other packages.
package kvstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Limits of a bucket.
const (
	// MaxValue bounds one value in bytes. Larger things are blobs: the broker
	// carries a value in one message.
	MaxValue = 1 << 20
	// MaxKey bounds one key in bytes; the broker allows more, file paths and
	// log lines do not like it.
	MaxKey = 512
	// DefaultTimeout is given to a call whose context has no deadline. Without
	// one the client library would pick 5 s, which a busy disk exceeds.
	DefaultTimeout = 15 * time.Second
)

// What a bucket may answer.
var (
	// ErrNotFound says that the key has no value, or has none any more.
	ErrNotFound = errors.New("key not found")
	// ErrConflict says that the key's revision is not the one the caller knew:
	// read it again and decide again.
	ErrConflict = errors.New("key was changed by someone else")
	// ErrTooLarge says that the value is over MaxValue.
	ErrTooLarge = errors.New("value is too large for a bucket, store it as a blob")
	// ErrDamaged says that the store has lost a value.
	ErrDamaged = errors.New("the bucket is damaged: restore the data directory from a backup; what came after that backup is lost")
	// ErrKey says that a key or prefix is not well formed.
	ErrKey = errors.New("key must be tokens of A-Z a-z 0-9 _ = / -, joined by dots")
)

// Entry is one value with the revision it was written at.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64 // rises with every write to the bucket; never 0
	At       time.Time
}

// Change is one step of a watch.
type Change struct {
	Entry
	// Deleted says that the key is gone; Value is empty.
	Deleted bool
	// Synced marks the end of the values that were there when the watch began.
	// Such a change carries no entry.
	Synced bool
}

// Reader is the reading half of a bucket.
type Reader interface {
	// Get returns the newest value of a key, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// List returns all entries below a prefix in key order. A prefix is whole
	// tokens: "a.b" covers "a.b.c", not "a.b" and not "a.bc"; "" covers all.
	List(ctx context.Context, prefix string) ([]Entry, error)
	// Watch sends the entries below a prefix, then one Synced change, then every
	// change after it. The channel is closed when ctx ends or the watch breaks
	// off: with ctx alive the caller watches again. The caller must keep
	// receiving until then.
	Watch(ctx context.Context, prefix string) (<-chan Change, error)
}

// Writer is the writing half of a bucket. Each method returns the new revision.
type Writer interface {
	// Put sets a value whatever was there.
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	// Create sets a value where none is, or returns ErrConflict.
	Create(ctx context.Context, key string, value []byte) (uint64, error)
	// CompareAndSet sets a value if the key is still at revision, or returns
	// ErrConflict. Revision 0 means that there must be no value, as in Create.
	CompareAndSet(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Delete removes a key. That it was not there is no error.
	Delete(ctx context.Context, key string) error
}

// Bucket is a set of keys with values.
type Bucket interface {
	Reader
	Writer
}

// Key joins parts into a key. What a key cannot hold is escaped, so any text
// may be a part and different parts give different keys.
func Key(parts ...string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = escape(p)
	}
	return strings.Join(out, ".")
}

// Parts undoes Key.
func Parts(key string) ([]string, error) {
	tokens := strings.Split(key, ".")
	for i, t := range tokens {
		p, err := unescape(t)
		if err != nil {
			return nil, fmt.Errorf("%w: %q", err, key)
		}
		tokens[i] = p
	}
	return tokens, nil
}

// escape writes every byte but letters, digits, '-' and '_' as "=hh", and
// nothing at all as "=".
func escape(s string) string {
	if s == "" {
		return "="
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

func unescape(s string) (string, error) {
	if s == "=" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '=' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", ErrKey
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", ErrKey
		}
		b.WriteByte(c[0])
		i += 2
	}
	return b.String(), nil
}

var wellFormed = regexp.MustCompile(`^[-_=/a-zA-Z0-9]+(\.[-_=/a-zA-Z0-9]+)*$`)

func checkKey(key string) error {
	if len(key) > MaxKey || !wellFormed.MatchString(key) {
		return fmt.Errorf("%w: %.80q", ErrKey, key)
	}
	return nil
}

func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return checkKey(prefix)
}

func checkWrite(key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return fmt.Errorf("%w: key %s has %d bytes, at most %d", ErrTooLarge, key, len(value), MaxValue)
	}
	return nil
}

// within gives ctx a deadline if it has none.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}
