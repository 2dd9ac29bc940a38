package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Refusals of a publisher's edit.
var (
	// ErrEdit says that an edit of metadata makes no sense; the text says why.
	ErrEdit = errors.New("metadata cannot be edited so")
)

// Lifetimes that Plan suggests. Offline metadata lives long because renewing it
// needs people; a stolen key is answered with a new root, not by waiting.
const (
	DefaultRootLifetime    = 2 * 365 * 24 * time.Hour
	DefaultTargetsLifetime = 365 * 24 * time.Hour
)

// Plan says who holds the roles of a root. Snapshot and Timestamp are the
// control plane's online keys.
type Plan struct {
	Root, Targets       Holders
	Snapshot, Timestamp PublicKey
	Expires             time.Time // of the root
}

// Init makes the first root and an empty first targets file, both unsigned: the
// holders Sign them. The finished root.json is what an operator keeps and what
// enrolment tokens pin, so its bytes must not change afterwards.
func Init(p Plan, targetsExpires time.Time) (root, targets []byte, err error) {
	r := metadata.Root(p.Expires.UTC().Truncate(time.Second))
	if root, err = p.apply(r); err != nil {
		return nil, nil, err
	}
	targets, err = encode(metadata.Targets(targetsExpires.UTC().Truncate(time.Second)))
	return root, targets, err
}

// NewRoot makes the root that follows the given one: other keys, other
// thresholds or a later expiry. It must be signed by the old threshold and by
// the new one.
func NewRoot(root []byte, p Plan) ([]byte, error) {
	old, err := parseRoot(root)
	if err != nil {
		return nil, err
	}
	r := metadata.Root(p.Expires.UTC().Truncate(time.Second))
	r.Signed.Version = old.Signed.Version + 1
	return p.apply(r)
}

// PlanOf is the plan that a root follows, as a starting point for NewRoot.
func PlanOf(root []byte) (Plan, error) {
	r, err := ReadRoot(root)
	if err != nil {
		return Plan{}, err
	}
	return Plan{
		Root: r.Roles[metadata.ROOT], Targets: r.Roles[metadata.TARGETS],
		Snapshot: r.Roles[metadata.SNAPSHOT].Keys[0], Timestamp: r.Roles[metadata.TIMESTAMP].Keys[0],
		Expires: r.Expires,
	}, nil
}

func (p Plan) apply(r *metadata.Metadata[metadata.RootType]) ([]byte, error) {
	roles := map[string]Holders{
		metadata.ROOT: p.Root, metadata.TARGETS: p.Targets,
		metadata.SNAPSHOT: {[]PublicKey{p.Snapshot}, 1}, metadata.TIMESTAMP: {[]PublicKey{p.Timestamp}, 1},
	}
	for _, name := range metadata.TOP_LEVEL_ROLE_NAMES {
		if err := addRole(&r.Signed, name, roles[name]); err != nil {
			return nil, err
		}
	}
	b, err := encode(r)
	if err != nil {
		return nil, err
	}
	_, err = parseRoot(b)
	return b, err
}

func addRole(root *metadata.RootType, name string, h Holders) error {
	if h.Threshold < 1 || h.Threshold > len(h.Keys) {
		return fmt.Errorf("%w: role %s needs %d signatures and has %d keys", ErrEdit, name, h.Threshold, len(h.Keys))
	}
	for _, p := range h.Keys {
		if p.IsZero() {
			return fmt.Errorf("%w: role %s has an empty key", ErrEdit, name)
		}
		key, _, err := p.tuf()
		if err != nil {
			return err
		}
		if err := root.AddKey(key, name); err != nil {
			return fmt.Errorf("%w: %w", ErrEdit, err)
		}
	}
	root.Roles[name].Threshold = h.Threshold
	return nil
}

// AddRelease makes the version of a file, that of the targets or of the model's
// role, that also lists the manifest. others are what further files list. The
// manifest's sequence must be above every other of the model, so that a floor
// can be drawn between any two releases.
func AddRelease(file []byte, m *release.Manifest, expires time.Time, others ...*Targets) ([]byte, error) {
	t, err := TargetOf(m)
	if err != nil {
		return nil, err
	}
	return edit(file, expires, func(s *metadata.TargetsType, now *Targets) error {
		if now.Model != "" && now.Model != t.Model {
			return fmt.Errorf("%w: role %s lists no releases of %s", ErrEdit, RoleOf(now.Model), t.Model)
		}
		for _, listed := range append([]*Targets{now}, others...) {
			if err := listed.takes(t); err != nil {
				return err
			}
		}
		entry, err := t.file()
		if err != nil {
			return err
		}
		s.Targets[t.Path()] = entry
		return nil
	})
}

// takes reports whether t may follow the releases that are listed.
func (t *Targets) takes(next Target) error {
	for _, r := range t.Releases {
		if r.Model == next.Model && r.Version == next.Version {
			return fmt.Errorf("%w: %s %s is released already, as %s", ErrEdit, next.Model, next.Version, r.Digest.Short())
		}
		if r.Model == next.Model && r.Sequence >= next.Sequence {
			return fmt.Errorf("%w: %s has sequence %d (%s), the new release has %d and needs a higher one", ErrEdit, next.Model, r.Sequence, r.Version, next.Sequence)
		}
	}
	if floor := t.Floors[next.Model]; next.Sequence < floor {
		return fmt.Errorf("%w: the floor of %s is %d, above the new release's sequence %d", ErrEdit, next.Model, floor, next.Sequence)
	}
	return nil
}

func (t Target) file() (*metadata.TargetFiles, error) {
	b, err := json.Marshal(custom{Model: t.Model, Version: t.Version, Sequence: t.Sequence})
	if err != nil {
		return nil, fmt.Errorf("encode target: %w", err)
	}
	file := metadata.TargetFile()
	file.Length = t.Length
	file.Hashes["sha256"] = t.Digest.Bytes()
	file.Custom = (*json.RawMessage)(&b)
	file.Path = t.Path()
	return file, nil
}

// RemoveRelease makes the targets version without the release. Devices stop
// accepting it with their next refresh.
func RemoveRelease(targets []byte, model string, d release.Digest, expires time.Time) ([]byte, error) {
	return edit(targets, expires, func(s *metadata.TargetsType, _ *Targets) error {
		path := TargetPath(model, d)
		if _, ok := s.Targets[path]; !ok {
			return fmt.Errorf("%w: %s is not released", ErrEdit, path)
		}
		delete(s.Targets, path)
		return nil
	})
}

// RaiseFloor makes the targets version whose floor of the model is the given
// sequence: everything below is refused by every device that learns of it, also
// offline and also if a later floor is lower. It must not be above the newest
// release, which would leave nothing to run; others are what delegated roles list.
func RaiseFloor(targets []byte, model string, sequence uint64, expires time.Time, others ...*Targets) ([]byte, error) {
	return editTop(targets, expires, func(s *metadata.TargetsType, now *Targets) error {
		if old := now.Floors[model]; sequence <= old {
			return fmt.Errorf("%w: the floor of %s is %d already and can only rise", ErrEdit, model, old)
		}
		left := func(t *Targets) bool {
			return slices.ContainsFunc(t.Releases, func(r Target) bool { return r.Model == model && r.Sequence >= sequence })
		}
		if !left(now) && !slices.ContainsFunc(others, left) {
			return fmt.Errorf("%w: %s has no release with sequence %d or above", ErrEdit, model, sequence)
		}
		now.Floors[model] = sequence
		if s.UnrecognizedFields == nil {
			s.UnrecognizedFields = map[string]any{}
		}
		s.UnrecognizedFields[floorsField] = now.Floors
		return nil
	})
}

// Extend makes a targets version that differs only in its expiry.
func Extend(targets []byte, expires time.Time) ([]byte, error) {
	return edit(targets, expires, func(*metadata.TargetsType, *Targets) error { return nil })
}

// editTop is edit for what the targets role alone may state.
func editTop(targets []byte, expires time.Time, fn func(*metadata.TargetsType, *Targets) error) ([]byte, error) {
	return edit(targets, expires, func(s *metadata.TargetsType, now *Targets) error {
		if now.Model != "" {
			return fmt.Errorf("%w: role %s states releases and nothing else", ErrEdit, RoleOf(now.Model))
		}
		return fn(s, now)
	})
}

// edit applies fn to the file of the targets or of a delegated role, raises its version and drops signatures.
func edit(targets []byte, expires time.Time, fn func(*metadata.TargetsType, *Targets) error) ([]byte, error) {
	m, err := parse[metadata.TargetsType](targets, MaxTargets)
	if err != nil {
		return nil, err
	}
	now, err := readTargets(m)
	if err != nil {
		return nil, err
	}
	if m.Signed.Targets == nil {
		m.Signed.Targets = map[string]*metadata.TargetFiles{}
	}
	if err := fn(&m.Signed, now); err != nil {
		return nil, err
	}
	m.Signed.Version++
	m.Signed.Expires = expires.UTC().Truncate(time.Second)
	m.Signatures = []metadata.Signature{}
	b, err := encode(m)
	if err != nil {
		return nil, err
	}
	limit := MaxTargets
	if now.Model != "" {
		limit = MaxDelegated
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%w: %d bytes of targets, at most %d: remove old releases", ErrEdit, len(b), limit)
	}
	return b, nil
}
