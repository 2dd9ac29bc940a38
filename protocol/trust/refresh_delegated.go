package trust

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// delegatedFiles brings the roles that the targets delegate to up to date: all
// of them as far as what is stored goes, those of the models asked for from the
// server. It fails only when the caller gave up [P-6.7].
func (r *refresh) delegatedFiles() error {
	r.delegated, r.roles = map[string]*Targets{}, map[string]roleNews{}
	stored := r.files.delegated
	r.files.delegated = map[string][]byte{} // roles that were taken away are not carried over
	for _, d := range r.targets.Delegations {
		r.forgetReplaced(d)
		r.roles[d.Model] = r.storedRole(d, stored[d.Model])
	}
	for _, d := range r.targets.Delegations {
		if r.roles[d.Model].err == nil || !slices.Contains(r.models, d.Model) {
			continue
		}
		news := r.fetchRole(d)
		if gaveUp(news.err) {
			return news.err
		}
		r.roles[d.Model] = news
	}
	return nil
}

// forgetReplaced drops the mark of a role whose keys publishers have replaced,
// for the reason that forgetRotated gives.
func (r *refresh) forgetReplaced(d Delegation) {
	ids := make([]string, len(d.Keys))
	for i, k := range d.Keys {
		ids[i] = k.ID()
	}
	if r.replaced(d.Role(), ids, d.Threshold) {
		r.marks.Delegated = maps.Clone(r.marks.Delegated)
		delete(r.marks.Delegated, d.Role())
	}
	r.marks.Keys[d.Role()] = slices.Sorted(slices.Values(ids))
}

// storedRole keeps a stored file that the present keys have signed, for releases
// that were accepted from it, and says whether it is the newest one.
func (r *refresh) storedRole(d Delegation, b []byte) roleNews {
	if b != nil {
		if t, err := verifyDelegated(r.tm.Targets[metadata.TARGETS], b); err == nil && t.Model == d.Model {
			r.files.delegated[d.Model], r.delegated[d.Model] = b, t
		} else {
			b = nil
		}
	}
	version, err := r.roleVersion(d)
	switch {
	case err != nil:
		return roleNews{err: err}
	case version == 0: // nobody has used the delegation yet
		return roleNews{}
	case b == nil:
		return roleNews{err: fmt.Errorf("%w: role %s", ErrUnchecked, d.Role())}
	}
	return r.takeRole(d, b)
}

// roleVersion is the version of a role's newest file as the snapshot names it,
// 0 when it names none and there never was one.
func (r *refresh) roleVersion(d Delegation) (int64, error) {
	mark := r.marks.Delegated[d.Role()]
	meta := r.tm.Snapshot.Signed.Meta[d.Role()+".json"]
	switch {
	case meta == nil && mark == 0:
		return 0, nil
	case meta == nil:
		return 0, fmt.Errorf("role %s: %w: the snapshot does not name it, version %d was seen", d.Role(), ErrRollback, mark)
	case meta.Version < mark:
		return 0, fmt.Errorf("role %s: %w: the snapshot names version %d, %d was seen", d.Role(), ErrRollback, meta.Version, mark)
	}
	return meta.Version, nil
}

// fetchRole asks the server for a role's newest file.
func (r *refresh) fetchRole(d Delegation) roleNews {
	version, err := r.roleVersion(d)
	if err != nil {
		return roleNews{err: err}
	}
	b, err := r.get(fmt.Sprintf("%s.%d", d.Role(), version), MaxDelegated)
	if err != nil {
		return roleNews{err: err}
	}
	news := r.takeRole(d, b)
	if news.err == nil {
		r.files.delegated[d.Model] = b
	}
	return news
}

// takeRole believes a role's file when it is the one that the snapshot names,
// the delegated keys have signed it, it has not expired and it keeps to its
// model.
func (r *refresh) takeRole(d Delegation, b []byte) roleNews {
	meta := r.tm.Snapshot.Signed.Meta[d.Role()+".json"]
	if err := wrap(ErrTampered, guard(func() error { return meta.VerifyLengthHashes(b) })); err != nil {
		return roleNews{err: fmt.Errorf("role %s: %w", d.Role(), err)}
	}
	t, err := verifyDelegated(r.tm.Targets[metadata.TARGETS], b)
	if err == nil && t.Model != d.Model {
		err = fmt.Errorf("%w: it is that of %s", ErrNotDelegated, RoleOf(t.Model))
	}
	if err == nil {
		err = wrap(ErrMalformed, guard(func() error {
			_, err := r.tm.UpdateDelegatedTargets(b, d.Role(), metadata.TARGETS)
			return err
		}))
	}
	if err != nil {
		return roleNews{err: fmt.Errorf("role %s: %w", d.Role(), err)}
	}
	r.delegated[d.Model] = t
	return roleNews{expires: t.Expires}
}

// gaveUp reports whether err says that the caller gave up, and not a Fetcher
// that has a patience of its own.
func gaveUp(err error) bool {
	return !errors.Is(err, ErrUnavailable) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}
