package registry

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/trust"
)

// take verifies an uploaded file and makes it the newest of its role in v. It
// returns the role.
func (v *view) take(file []byte, previous int64, now time.Time) (role string, err error) {
	h, err := trust.ReadHeader(file)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrRefused, err)
	}
	role = h.Name()
	model, delegated := trust.ModelOf(role)
	last := v.head.Targets
	if delegated {
		last = v.head.Delegated[model]
		_, err = trust.CheckDelegated(v.file(roleTargets), v.file(role), file, now)
	} else {
		_, err = trust.CheckTargets(v.file(roleRoot), v.file(roleTargets), file, now)
	}
	if err != nil {
		return role, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if previous != last {
		return role, fmt.Errorf("%w: made from %s version %d, the newest is %d", ErrStale, role, previous, last)
	}
	v.meta[metaName(role, h.Version)] = file
	if delegated {
		v.setDelegated(model, h.Version)
	} else {
		v.head.Targets = h.Version
	}
	if err := v.list(); err != nil {
		return role, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return role, nil
}

func (v *view) setDelegated(model string, version int64) {
	if v.head.Delegated == nil {
		v.head.Delegated = map[string]int64{}
	}
	v.head.Delegated[model] = version
}

// list works out which releases devices accept: those of the targets and those
// of each role whose file is signed by the keys that the targets name now.
func (v *view) list() error {
	file := v.file(roleTargets)
	if file == nil {
		return nil
	}
	top, err := trust.ReadTargets(file)
	if err != nil {
		return err
	}
	var delegated []*trust.Targets
	for _, d := range top.Delegations {
		if role := v.file(d.Role()); role != nil {
			if t, err := trust.VerifyDelegated(file, role); err == nil {
				delegated = append(delegated, t)
			}
		}
	}
	v.targets, err = trust.Combine(top, delegated...)
	return err
}

// named are the files that a snapshot names.
func (v *view) named() [][]byte {
	files := [][]byte{v.file(roleTargets)}
	for _, model := range slices.Sorted(maps.Keys(v.head.Delegated)) {
		files = append(files, v.file(trust.RoleOf(model)))
	}
	return files
}

// signer is the role whose signature a release rests on now: the targets, or
// the delegated role of its model.
func (v *view) signer(t trust.Target) string {
	top, err := trust.ReadTargets(v.file(roleTargets))
	if err != nil || slices.Contains(top.Releases, t) {
		return roleTargets
	}
	return trust.RoleOf(t.Model)
}
