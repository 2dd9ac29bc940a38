package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// onlineKey reads an online key, and makes it at the first start.
func onlineKey(path string) (*trust.Key, error) {
	key, err := trust.ReadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	if key, err = trust.GenerateKey(); err != nil {
		return nil, err
	}
	return key, trust.WriteKey(path, key)
}

// OnlineKeys are the public keys that a root must give the online roles to.
func (r *Registry) OnlineKeys() (snapshot, timestamp trust.PublicKey) {
	return r.snapshot.Public(), r.timestamp.Public()
}

// TrustMetadata is a metadata file, byte for byte. Names are "root", "targets",
// "snapshot" and "timestamp" for the newest, with ".N" for a version; those of
// delegated roles are "model-NAME.newest" and "model-NAME.N".
func (r *Registry) TrustMetadata(name string) ([]byte, error) {
	v := r.current()
	b, ok := v.meta[name]
	if role, newest := strings.CutSuffix(name, ".newest"); newest || !strings.Contains(name, ".") {
		b = v.file(role)
		ok = b != nil
	}
	if !ok {
		return nil, fmt.Errorf("metadata %q: %w", name, ErrNotFound)
	}
	return b, nil
}

// RootDigest is the SHA-256 of the root of that version, as tokens pin it.
func (r *Registry) RootDigest(version int64) (release.Digest, error) {
	b, err := r.TrustMetadata(metaName(roleRoot, version))
	if err != nil {
		return release.Digest{}, err
	}
	return release.DigestOf(b), nil
}

// Trust is the state of the repository, for publishers.
func (r *Registry) Trust() operator.Trust {
	v := r.current()
	t := operator.Trust{Installed: v.head.Root > 0}
	for _, k := range []struct {
		role string
		key  trust.PublicKey
	}{{roleSnapshot, r.snapshot.Public()}, {roleTimestamp, r.timestamp.Public()}} {
		t.OnlineKeys = append(t.OnlineKeys, operator.OnlineKey{Role: k.role, ID: k.key.ID(), Key: k.key.String()})
	}
	t.Root = v.trustFile(roleRoot)
	t.Targets = v.trustFile(roleTargets)
	t.Snapshot = v.trustFile(roleSnapshot)
	t.Timestamp = v.trustFile(roleTimestamp)
	return t
}

// trustFile describes the newest file of a role and who signed it.
func (v *view) trustFile(role string) operator.TrustFile {
	b := v.file(role)
	if b == nil {
		return operator.TrustFile{}
	}
	h, err := trust.ReadHeader(b)
	if err != nil {
		return operator.TrustFile{}
	}
	f := operator.TrustFile{Version: h.Version, Digest: release.DigestOf(b).String(), Expires: h.Expires}
	delegator := v.file(roleRoot)
	if h.Role != "" {
		delegator = v.file(roleTargets)
	}
	signers, err := trust.SignersOf(delegator, b)
	if err != nil {
		return f
	}
	f.Threshold = signers.Threshold
	for _, key := range signers.Signed {
		f.KeyIDs = append(f.KeyIDs, key.ID())
	}
	return f
}

// Signature says who signed the targets that name a release now.
func (r *Registry) Signature(d release.Digest) (operator.Signature, error) {
	ver, err := r.Release(d)
	if err != nil {
		return operator.Signature{}, err
	}
	v := r.current()
	role := v.signer(ver.Target)
	f := v.trustFile(role)
	return operator.Signature{
		Role: role, Targets: f.Version, Threshold: f.Threshold, KeyIDs: f.KeyIDs, Expires: f.Expires,
		Floor: v.targets.Floors[ver.Model], MetadataDigest: f.Digest,
	}, nil
}
