package trust

import (
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/vedette-edge/vedette/protocol/release"
)

// CheckRoot is the control plane's check of a root that publishers upload. The
// first root (current is nil) must be signed by its own threshold; the next one
// has the following version and is signed by the current threshold and its own.
// It must not have expired.
func CheckRoot(current, next []byte, now time.Time) (*Root, error) {
	m, err := parseRoot(next)
	if err != nil {
		return nil, err
	}
	if current != nil {
		old, err := parseRoot(current)
		if err != nil {
			return nil, err
		}
		if m.Signed.Version != old.Signed.Version+1 {
			return nil, fmt.Errorf("%w: root version is %d, the next one is %d", ErrRollback, m.Signed.Version, old.Signed.Version+1)
		}
		if err := verifyDoc(old, metadata.ROOT, next); err != nil {
			return nil, fmt.Errorf("by the current root's keys: %w", err)
		}
	}
	if err := verifyDoc(m, metadata.ROOT, next); err != nil {
		return nil, fmt.Errorf("by its own keys: %w", err)
	}
	if m.Signed.IsExpired(now) {
		return nil, fmt.Errorf("%w: root expired on %v", ErrExpired, m.Signed.Expires)
	}
	return ReadRoot(next)
}

// CheckTargets is the control plane's check of a targets file that publishers
// upload: signed by root's threshold, newer than the current one (nil before
// the first), not expired, readable to the last entry, and with no floor below
// the current one.
func CheckTargets(root, current, next []byte, now time.Time) (*Targets, error) {
	r, err := parseRoot(root)
	if err != nil {
		return nil, err
	}
	if err := verifyDoc(r, metadata.TARGETS, next); err != nil {
		return nil, err
	}
	t, err := ReadTargets(next)
	if err != nil {
		return nil, err
	}
	if t.Model != "" {
		return nil, fmt.Errorf("%w: this is the file of role %s", ErrNotDelegated, RoleOf(t.Model))
	}
	if now.After(t.Expires) {
		return nil, fmt.Errorf("%w: targets expired on %v", ErrExpired, t.Expires)
	}
	if err := checkOffline(r, t.Delegations); err != nil {
		return nil, err
	}
	if current == nil {
		return t, nil
	}
	old, err := ReadTargets(current)
	if err != nil {
		return nil, err
	}
	if t.Version <= old.Version {
		return nil, fmt.Errorf("%w: targets version is %d, the server has %d: pull the newest targets and edit those", ErrRollback, t.Version, old.Version)
	}
	for model, floor := range old.Floors {
		if t.Floors[model] < floor {
			return nil, fmt.Errorf("%w: floor of %s falls from %d to %d", ErrRollback, model, floor, t.Floors[model])
		}
	}
	return t, nil
}

// checkOffline refuses to delegate to keys that the control plane holds: whoever
// took it over could then bring releases.
func checkOffline(root *metadata.Metadata[metadata.RootType], list []Delegation) error {
	for _, d := range list {
		for _, key := range d.Keys {
			for _, online := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
				if slices.Contains(root.Signed.Roles[online].KeyIDs, key.ID()) {
					return fmt.Errorf("%w: %s is given to the control plane's %s key", ErrNotDelegated, d.Role(), online)
				}
			}
		}
	}
	return nil
}

// CheckOnline reports whether key may sign the role ("snapshot" or "timestamp")
// under root.
func CheckOnline(root []byte, role string, key PublicKey) error {
	r, err := ReadRoot(root)
	if err != nil {
		return err
	}
	for _, k := range r.Roles[role].Keys {
		if k == key && r.Roles[role].Threshold == 1 {
			return nil
		}
	}
	return fmt.Errorf("%w: root gives %s to another key than this control plane's %s", ErrSignature, role, key)
}

// SignSnapshot says which files of the targets and of delegated roles are the
// newest. A role that was named once must be named ever after, also when it was
// taken away: TUF clients refuse a snapshot in which a name is missing.
func SignSnapshot(key *Key, version int64, files [][]byte, expires time.Time) ([]byte, error) {
	m := metadata.Snapshot(expires.UTC().Truncate(time.Second))
	m.Signed.Version = version
	m.Signed.Meta = map[string]*metadata.MetaFiles{}
	for _, b := range files {
		h, err := ReadHeader(b)
		if err != nil {
			return nil, err
		}
		m.Signed.Meta[h.Name()+".json"] = metaOf(h.Version, b)
	}
	b, err := signOnline(m, key)
	if err == nil && len(b) > MaxOnline {
		err = fmt.Errorf("%w: %d bytes of snapshot, at most %d: too many roles", ErrEdit, len(b), MaxOnline)
	}
	return b, err
}

// SignTimestamp says which snapshot is the newest.
func SignTimestamp(key *Key, version int64, snapshot []byte, expires time.Time) ([]byte, error) {
	h, err := ReadHeader(snapshot)
	if err != nil {
		return nil, err
	}
	m := metadata.Timestamp(expires.UTC().Truncate(time.Second))
	m.Signed.Version = version
	m.Signed.Meta = map[string]*metadata.MetaFiles{"snapshot.json": metaOf(h.Version, snapshot)}
	return signOnline(m, key)
}

func metaOf(version int64, b []byte) *metadata.MetaFiles {
	d := release.DigestOf(b)
	return &metadata.MetaFiles{Version: version, Length: int64(len(b)), Hashes: metadata.Hashes{"sha256": d.Bytes()}}
}

func signOnline[T metadata.Roles](m *metadata.Metadata[T], key *Key) ([]byte, error) {
	if err := addSignatures(m, []*Key{key}); err != nil {
		return nil, err
	}
	return encode(m)
}
