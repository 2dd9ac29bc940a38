package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Header is what all metadata has in common.
type Header struct {
	Type    string    `json:"_type"`        // root, targets, snapshot, timestamp
	Role    string    `json:"vedette_role"` // of a delegated role's targets; empty otherwise
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

// Name is the name of the role whose file it is.
func (h Header) Name() string {
	if h.Role != "" {
		return h.Role
	}
	return h.Type
}

// ReadHeader reads type, version and expiry without verifying anything.
func ReadHeader(b []byte) (Header, error) {
	if len(b) > MaxTargets {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	var doc struct {
		Signed Header `json:"signed"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !slices.Contains(metadata.TOP_LEVEL_ROLE_NAMES[:], doc.Signed.Type) {
		return Header{}, fmt.Errorf("%w: type %q", ErrMalformed, doc.Signed.Type)
	}
	if _, ok := ModelOf(doc.Signed.Role); doc.Signed.Role != "" && (!ok || doc.Signed.Type != metadata.TARGETS) {
		return Header{}, fmt.Errorf("%w: %s of role %q", ErrMalformed, doc.Signed.Type, doc.Signed.Role)
	}
	return doc.Signed, nil
}

// guard turns a panic into ErrMalformed. go-tuf v2.4.2 dereferences entries
// that hostile JSON can make null, before it looks at any signature.
func guard(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrMalformed, r)
		}
	}()
	return fn()
}

// parse reads metadata of one type without verifying its signatures.
func parse[T metadata.Roles](b []byte, limit int) (*metadata.Metadata[T], error) {
	if len(b) > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(b), limit)
	}
	m := &metadata.Metadata[T]{}
	err := guard(func() error {
		_, err := m.FromBytes(b)
		return err
	})
	if err != nil {
		return nil, wrap(ErrMalformed, err)
	}
	return m, nil
}

// encode writes metadata for people to read: signatures cover the canonical
// form of its content, so the layout is free.
func encode[T metadata.Roles](m *metadata.Metadata[T]) ([]byte, error) {
	b, err := m.ToBytes(true)
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	return append(b, '\n'), nil
}

// Holders are the keys of one role and how many of them must sign.
type Holders struct {
	Keys      []PublicKey
	Threshold int
}

// Root is what a root file states: who holds which role.
type Root struct {
	Version int64
	Expires time.Time
	Roles   map[string]Holders // root, targets, snapshot, timestamp
}

// ReadRoot reads a root file without verifying its signatures. All four roles
// must be there, with Ed25519 keys and a threshold they can reach.
func ReadRoot(b []byte) (*Root, error) {
	m, err := parseRoot(b)
	if err != nil {
		return nil, err
	}
	root := &Root{Version: m.Signed.Version, Expires: m.Signed.Expires, Roles: map[string]Holders{}}
	for name, role := range m.Signed.Roles {
		h := Holders{Threshold: role.Threshold}
		for _, id := range role.KeyIDs {
			key, err := publicKeyOf(m.Signed.Keys[id])
			if err != nil {
				return nil, err
			}
			h.Keys = append(h.Keys, key)
		}
		root.Roles[name] = h
	}
	return root, nil
}

// parseRoot is parse with the checks that keep go-tuf's verification total.
func parseRoot(b []byte) (*metadata.Metadata[metadata.RootType], error) {
	m, err := parse[metadata.RootType](b, MaxRoot)
	if err != nil {
		return nil, err
	}
	for id, key := range m.Signed.Keys {
		p, err := publicKeyOf(key)
		if err != nil {
			return nil, wrap(ErrMalformed, err)
		}
		if p.ID() != id {
			return nil, fmt.Errorf("%w: root names key %s as %s", ErrMalformed, p.ID(), id)
		}
	}
	for _, name := range metadata.TOP_LEVEL_ROLE_NAMES {
		if err := checkRole(&m.Signed, name); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func checkRole(root *metadata.RootType, name string) error {
	role := root.Roles[name]
	if role == nil {
		return fmt.Errorf("%w: root has no role %s", ErrMalformed, name)
	}
	ids := slices.Compact(slices.Sorted(slices.Values(role.KeyIDs)))
	if len(ids) != len(role.KeyIDs) || role.Threshold < 1 || role.Threshold > len(ids) {
		return fmt.Errorf("%w: role %s asks for %d signatures of %d keys", ErrMalformed, name, role.Threshold, len(ids))
	}
	for _, id := range ids {
		if root.Keys[id] == nil {
			return fmt.Errorf("%w: role %s names key %s, which root does not have", ErrMalformed, name, id)
		}
	}
	return nil
}

// wrap marks err with the reason to refuse that it stands for, or with other
// when go-tuf has no reason of its own.
func wrap(other, err error) error {
	reason := other
	switch {
	case err == nil:
		return nil
	case is[*metadata.ErrExpiredMetadata](err):
		reason = ErrExpired
	case is[*metadata.ErrBadVersionNumber](err):
		reason = ErrRollback
	case is[*metadata.ErrUnsignedMetadata](err):
		reason = ErrSignature
	case is[*metadata.ErrLengthOrHashMismatch](err):
		reason = ErrTampered
	}
	if errors.Is(err, reason) {
		return err
	}
	return fmt.Errorf("%w: %w", reason, err)
}

// is reports whether a T is in err's chain. go-tuf's own Is methods also match
// parent kinds, which would blur the reasons.
func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
