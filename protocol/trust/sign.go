package trust

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Sign adds one signature per key to a metadata file and returns it. A key that
// signed before replaces its signature. Holders of different keys may pass one
// file along, or sign their own copies and Merge them.
func Sign(doc []byte, keys ...*Key) ([]byte, error) {
	h, err := ReadHeader(doc)
	if err != nil {
		return nil, err
	}
	switch h.Type {
	case metadata.ROOT:
		return signAs[metadata.RootType](doc, keys)
	case metadata.TARGETS:
		return signAs[metadata.TargetsType](doc, keys)
	default:
		return nil, fmt.Errorf("%w: %s is signed by the control plane", ErrEdit, h.Type)
	}
}

func signAs[T metadata.Roles](doc []byte, keys []*Key) ([]byte, error) {
	m, err := parse[T](doc, MaxTargets)
	if err != nil {
		return nil, err
	}
	if err := addSignatures(m, keys); err != nil {
		return nil, err
	}
	return encode(m)
}

func addSignatures[T metadata.Roles](m *metadata.Metadata[T], keys []*Key) error {
	for _, k := range keys {
		id := k.Public().ID()
		m.Signatures = slices.DeleteFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
		signer, err := k.signer()
		if err != nil {
			return fmt.Errorf("sign metadata: %w", err)
		}
		if _, err := m.Sign(signer); err != nil {
			return fmt.Errorf("sign metadata: %w", err)
		}
	}
	return nil
}

// Merge unites the signatures of copies of one file that were signed in
// different places. The copies must not differ in anything else.
func Merge(docs ...[]byte) ([]byte, error) {
	if len(docs) == 0 {
		return nil, fmt.Errorf("%w: nothing to merge", ErrEdit)
	}
	h, err := ReadHeader(docs[0])
	if err != nil {
		return nil, err
	}
	switch h.Type {
	case metadata.ROOT:
		return mergeAs[metadata.RootType](docs)
	case metadata.TARGETS:
		return mergeAs[metadata.TargetsType](docs)
	default:
		return nil, fmt.Errorf("%w: %s is signed by the control plane", ErrEdit, h.Type)
	}
}

func mergeAs[T metadata.Roles](docs [][]byte) ([]byte, error) {
	var merged *metadata.Metadata[T]
	var content []byte
	for i, doc := range docs {
		m, err := parse[T](doc, MaxTargets)
		if err != nil {
			return nil, err
		}
		signed, err := json.Marshal(m.Signed)
		if err != nil {
			return nil, fmt.Errorf("encode metadata: %w", err)
		}
		if merged == nil {
			merged, content = m, signed
			continue
		}
		if !bytes.Equal(signed, content) {
			return nil, fmt.Errorf("%w: copy %d states something else than the first", ErrEdit, i+1)
		}
		for _, s := range m.Signatures {
			if !slices.ContainsFunc(merged.Signatures, func(o metadata.Signature) bool { return o.KeyID == s.KeyID }) {
				merged.Signatures = append(merged.Signatures, s)
			}
		}
	}
	return encode(merged)
}

// Signers tells which of a role's keys signed a file validly and which have not
// yet, so that a publisher sees whose turn it is.
type Signers struct {
	Role      string
	Threshold int
	Signed    []PublicKey
	Missing   []PublicKey
}

// Enough reports whether the threshold is reached.
func (s Signers) Enough() bool { return len(s.Signed) >= s.Threshold }

// SignersOf checks the signatures of a root or targets file against the keys
// that the delegator names for its role: a root, or targets for the file of a
// delegated role. A root that follows another must satisfy both: call it once
// with the old root and once with itself.
func SignersOf(delegator, doc []byte) (Signers, error) {
	h, err := ReadHeader(doc)
	if err != nil {
		return Signers{}, err
	}
	role, err := holdersOf(delegator, h.Name())
	if err != nil {
		return Signers{}, err
	}
	s := Signers{Role: h.Name(), Threshold: role.Threshold}
	for _, key := range role.Keys {
		ok, err := signedBy(h.Type, doc, key)
		if err != nil {
			return Signers{}, err
		}
		if ok {
			s.Signed = append(s.Signed, key)
		} else {
			s.Missing = append(s.Missing, key)
		}
	}
	return s, nil
}

// holdersOf are the keys that a root or a targets file names for a role.
func holdersOf(delegator []byte, role string) (Holders, error) {
	model, delegated := ModelOf(role)
	if !delegated {
		r, err := ReadRoot(delegator)
		if err != nil {
			return Holders{}, err
		}
		return r.Roles[role], nil
	}
	t, err := ReadTargets(delegator)
	if err != nil {
		return Holders{}, err
	}
	d, ok := t.Delegation(model)
	if !ok {
		return Holders{}, fmt.Errorf("%w: targets version %d name no keys for %s", ErrNotDelegated, t.Version, role)
	}
	return d.Holders, nil
}

// signedBy asks go-tuf about one key: a root that knows only this key, with
// threshold one.
func signedBy(role string, doc []byte, key PublicKey) (bool, error) {
	only := metadata.Root()
	if err := addRole(&only.Signed, role, Holders{[]PublicKey{key}, 1}); err != nil {
		return false, err
	}
	err := verifyDoc(only, role, doc)
	if err != nil && !is[*metadata.ErrUnsignedMetadata](err) {
		return false, err
	}
	return err == nil, nil
}

// verifyDoc verifies a file of the given role against root.
func verifyDoc(root *metadata.Metadata[metadata.RootType], role string, doc []byte) error {
	var m any
	var err error
	switch role {
	case metadata.ROOT:
		m, err = parse[metadata.RootType](doc, MaxRoot)
	case metadata.TARGETS:
		m, err = parse[metadata.TargetsType](doc, MaxTargets)
	case metadata.SNAPSHOT:
		m, err = parse[metadata.SnapshotType](doc, MaxOnline)
	case metadata.TIMESTAMP:
		m, err = parse[metadata.TimestampType](doc, MaxOnline)
	default:
		err = fmt.Errorf("%w: role %q", ErrMalformed, role)
	}
	if err != nil {
		return err
	}
	return wrap(ErrSignature, guard(func() error { return root.VerifyDelegate(role, m) }))
}
