package trust

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Refresh brings metadata up to date with the server: roots along their chain,
// then timestamp, snapshot and targets (TUF client workflow 5.3 to 5.6), then the
// files of the roles that the targets delegate to for the given models. What
// verified before an error is kept and persisted, so a server cannot make a
// device forget a newer root by failing afterwards. Trouble with a delegated
// role's own file is no error here: Release tells of it when it is asked for a
// release of that model. now must be trusted time.
func (s *Store) Refresh(ctx context.Context, f Fetcher, now time.Time, models ...string) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()

	s.mu.Lock()
	r := &refresh{now: now, models: models, files: s.files, marks: s.marks.clone()}
	s.mu.Unlock()

	r.get = func(name string, limit int64) ([]byte, error) { return fetch(ctx, f, name, limit) }
	err := r.run(s.pin)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = now
	saveErr := s.adopt(r)
	if err != nil {
		return errors.Join(err, saveErr)
	}
	if saveErr != nil {
		return saveErr
	}
	s.fresh = r.expires
	return nil
}

// adopt takes over and persists what a refresh verified. s.mu is held.
func (s *Store) adopt(r *refresh) error {
	// A release may have been accepted while the refresh ran.
	r.marks.Accepted = slices.Clone(s.marks.Accepted)
	r.marks.raise(r.files)
	if r.targets != nil {
		r.marks.prune(&r.known)
	}
	if !sameFiles(s.files, r.files) || !sameMarks(s.marks, r.marks) {
		if err := s.save(r.files, r.marks); err != nil {
			return err
		}
	}
	if r.targets != nil || r.files.targets == nil { // nil: their keys were replaced
		s.known = r.known
	}
	return nil
}

func sameFiles(a, b trusted) bool {
	return slices.EqualFunc(a.roots, b.roots, slices.Equal[[]byte]) &&
		slices.Equal(a.timestamp, b.timestamp) && slices.Equal(a.snapshot, b.snapshot) && slices.Equal(a.targets, b.targets) &&
		maps.EqualFunc(a.delegated, b.delegated, slices.Equal[[]byte])
}

func sameMarks(a, b *marks) bool {
	return a.Root == b.Root && a.Timestamp == b.Timestamp && a.Snapshot == b.Snapshot && a.Targets == b.Targets &&
		maps.Equal(a.Floors, b.Floors) && maps.Equal(a.Delegated, b.Delegated) && maps.EqualFunc(a.Keys, b.Keys, slices.Equal[[]string]) && slices.Equal(a.Accepted, b.Accepted)
}

// raise lifts the versions to those of verified files.
func (m *marks) raise(files trusted) {
	lift := func(mark *int64, doc []byte) {
		if h, err := ReadHeader(doc); doc != nil && err == nil {
			*mark = max(*mark, h.Version)
		}
	}
	if n := len(files.roots); n > 0 {
		lift(&m.Root, files.roots[n-1])
	}
	lift(&m.Timestamp, files.timestamp)
	lift(&m.Snapshot, files.snapshot)
	lift(&m.Targets, files.targets)
	for model, b := range files.delegated {
		mark := m.Delegated[RoleOf(model)]
		lift(&mark, b)
		if m.Delegated == nil {
			m.Delegated = map[string]int64{}
		}
		m.Delegated[RoleOf(model)] = mark
	}
}

// prune lifts the floors and forgets accepted releases that publishers removed
// or that fell below a floor. It forgets none while the file of a role is not
// there that listed releases before: it may list them still.
func (m *marks) prune(k *known) {
	if m.Floors == nil {
		m.Floors = map[string]uint64{}
	}
	for model, floor := range k.targets.Floors {
		m.Floors[model] = max(m.Floors[model], floor)
	}
	listed := slices.Clone(k.targets.Releases)
	for model := range k.roles {
		t := k.delegated[model]
		if t == nil && m.Delegated[RoleOf(model)] > 0 {
			return
		}
		if t != nil {
			listed = append(listed, t.Releases...)
		}
	}
	m.Accepted = slices.DeleteFunc(m.Accepted, func(d release.Digest) bool {
		return !slices.ContainsFunc(listed, func(r Target) bool { return r.Digest == d && r.Sequence >= m.Floors[r.Model] })
	})
}

// refresh is one Refresh under way.
type refresh struct {
	get    func(name string, limit int64) ([]byte, error)
	now    time.Time
	models []string // whose delegated roles are asked for
	files  trusted
	marks  *marks

	tm *trustedmetadata.TrustedMetadata
	known
	expires time.Time
}

func (r *refresh) run(pin release.Digest) error {
	steps := []func() error{
		func() error { return r.pinnedRoot(pin) },
		r.newerRoots, r.timestamp, r.snapshot, r.targetsFile, r.delegatedFiles,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	r.expires = r.tm.Root.Signed.Expires
	for _, t := range []time.Time{r.tm.Timestamp.Signed.Expires, r.tm.Snapshot.Signed.Expires, r.targets.Expires} {
		if t.Before(r.expires) {
			r.expires = t
		}
	}
	return nil
}

// fetch asks the server and marks what went wrong, unless the caller gave up.
func fetch(ctx context.Context, f Fetcher, name string, limit int64) ([]byte, error) {
	b, err := f.Metadata(ctx, name, limit)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, ErrTampered):
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	case err != nil:
		return nil, fmt.Errorf("fetch %s: %w: %w", name, ErrUnavailable, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("fetch %s: %w: over %d bytes", name, ErrTampered, limit)
	}
	return b, nil
}

// pinnedRoot starts at the pinned root, and fetches it when it is not there.
// Its version is not known, so roots are asked for from the first on; those
// before the pinned one are not believed, only skipped.
func (r *refresh) pinnedRoot(pin release.Digest) (err error) {
	for version := 1; len(r.files.roots) == 0; version++ {
		b, err := r.get(fmt.Sprintf("root.%d", version), MaxRoot)
		if errors.Is(err, ErrNotFound) || version > maxNewRoots {
			return fmt.Errorf("%w %s: ask your operator for a new enrolment token if the root keys were made anew", ErrRoot, pin)
		}
		if err != nil {
			return err
		}
		if release.DigestOf(b) == pin {
			r.files.roots = [][]byte{b}
		}
	}
	roots := r.files.roots
	if r.tm, err = startAt(roots[0]); err != nil {
		return err
	}
	r.tm.RefTime = r.now
	for _, b := range roots[1:] {
		if err := updateRoot(r.tm, b); err != nil {
			return fmt.Errorf("stored root: %w", err)
		}
	}
	return nil
}

// newerRoots follows the chain of roots to its end.
func (r *refresh) newerRoots() error {
	r.files.roots = slices.Clip(r.files.roots)
	for range maxNewRoots {
		name := fmt.Sprintf("root.%d", r.tm.Root.Signed.Version+1)
		b, err := r.get(name, MaxRoot)
		if errors.Is(err, ErrNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if err := updateRoot(r.tm, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.files.roots = append(r.files.roots, b)
	}
	if v := r.tm.Root.Signed.Version; v < r.marks.Root {
		return fmt.Errorf("root: %w: the server ends at version %d, %d was seen", ErrRollback, v, r.marks.Root)
	}
	r.forgetRotated()
	return nil
}

// forgetRotated drops marks that were made under keys which publishers have
// replaced since. Whoever stole the old keys could have signed a version so high
// that no later one is accepted. It is safe only when too few of the old keys
// remain to reach the new threshold: then nothing old verifies any more.
func (r *refresh) forgetRotated() {
	root := &r.tm.Root.Signed
	if r.rotated(root, metadata.TIMESTAMP) || r.rotated(root, metadata.SNAPSHOT) {
		r.files.timestamp, r.files.snapshot = nil, nil
		r.marks.Timestamp, r.marks.Snapshot = 0, 0
	}
	if r.rotated(root, metadata.TARGETS) {
		r.files.targets = nil
		r.marks.Targets, r.marks.Floors = 0, nil
	}
	if r.marks.Keys == nil {
		r.marks.Keys = map[string][]string{}
	}
	for name, role := range root.Roles {
		r.marks.Keys[name] = slices.Sorted(slices.Values(role.KeyIDs))
	}
}

func (r *refresh) rotated(root *metadata.RootType, role string) bool {
	return r.replaced(role, root.Roles[role].KeyIDs, root.Roles[role].Threshold)
}

// replaced reports whether too few of the keys remain under which the marks of
// a role were made.
func (r *refresh) replaced(role string, ids []string, threshold int) bool {
	kept := 0
	for _, id := range r.marks.Keys[role] {
		if slices.Contains(ids, id) {
			kept++
		}
	}
	return len(r.marks.Keys[role]) > 0 && kept < threshold
}

func (r *refresh) timestamp() error {
	if r.files.timestamp != nil {
		// An expired one still refuses what is older, so its error does not matter.
		_ = r.updateTimestamp(r.files.timestamp)
	}
	b, err := r.get("timestamp", MaxOnline)
	if err != nil {
		return err
	}
	err = r.updateTimestamp(b)
	if is[*metadata.ErrEqualVersionNumber](err) {
		b, err = r.files.timestamp, nil
	}
	if r.tm.Timestamp == nil {
		return fmt.Errorf("timestamp: %w", err)
	}
	meta := r.tm.Timestamp.Signed.Meta["snapshot.json"]
	switch v := r.tm.Timestamp.Signed.Version; {
	case v < r.marks.Timestamp:
		return fmt.Errorf("timestamp: %w: version %d, %d was seen", ErrRollback, v, r.marks.Timestamp)
	case meta == nil:
		return fmt.Errorf("timestamp: %w: it names no snapshot", ErrMalformed)
	case meta.Version < r.marks.Snapshot:
		return fmt.Errorf("timestamp: %w: it names snapshot version %d, %d was seen", ErrRollback, meta.Version, r.marks.Snapshot)
	case err != nil:
		return fmt.Errorf("timestamp: %w", err)
	case r.tm.Timestamp.Signed.IsExpired(r.now):
		return fmt.Errorf("timestamp: %w on %v", ErrExpired, r.tm.Timestamp.Signed.Expires)
	}
	r.files.timestamp = b
	return nil
}

func (r *refresh) updateTimestamp(b []byte) error {
	if _, err := parse[metadata.TimestampType](b, MaxOnline); err != nil {
		return err
	}
	err := guard(func() error {
		_, err := r.tm.UpdateTimestamp(b)
		return err
	})
	if is[*metadata.ErrEqualVersionNumber](err) {
		return err
	}
	return wrap(ErrMalformed, err)
}

func (r *refresh) snapshot() error {
	want := r.tm.Timestamp.Signed.Meta["snapshot.json"].Version
	if r.files.snapshot != nil && r.updateSnapshot(r.files.snapshot, true) == nil && r.tm.Snapshot.Signed.Version == want {
		return nil
	}
	b, err := r.get(fmt.Sprintf("snapshot.%d", want), MaxOnline)
	if err != nil {
		return err
	}
	if err := r.updateSnapshot(b, false); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	r.files.snapshot = b
	return nil
}

func (r *refresh) updateSnapshot(b []byte, stored bool) error {
	m, err := parse[metadata.SnapshotType](b, MaxOnline)
	if err != nil {
		return err
	}
	meta := m.Signed.Meta["targets.json"]
	if meta == nil {
		return fmt.Errorf("%w: it names no targets", ErrMalformed)
	}
	if meta.Version < r.marks.Targets {
		return fmt.Errorf("%w: it names targets version %d, %d was seen", ErrRollback, meta.Version, r.marks.Targets)
	}
	return wrap(ErrMalformed, guard(func() error {
		_, err := r.tm.UpdateSnapshot(b, stored)
		return err
	}))
}

func (r *refresh) targetsFile() error {
	want := r.tm.Snapshot.Signed.Meta["targets.json"].Version
	if r.files.targets != nil && r.updateTargets(r.files.targets) == nil {
		return nil
	}
	b, err := r.get(fmt.Sprintf("targets.%d", want), MaxTargets)
	if err != nil {
		return err
	}
	if err := r.updateTargets(b); err != nil {
		return fmt.Errorf("targets: %w", err)
	}
	r.files.targets = b
	return nil
}

func (r *refresh) updateTargets(b []byte) error {
	m, err := parse[metadata.TargetsType](b, MaxTargets)
	if err != nil {
		return err
	}
	t, _, err := listTargets(m)
	if err == nil && t.Model != "" {
		err = fmt.Errorf("%w: this is the file of role %s", ErrNotDelegated, RoleOf(t.Model))
	}
	if err != nil {
		return err
	}
	err = guard(func() error {
		_, err := r.tm.UpdateTargets(b)
		return err
	})
	if err != nil {
		return wrap(ErrMalformed, err)
	}
	r.targets = t
	return nil
}
