package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/vedette-edge/vedette/protocol"
)

// MaxDelegations bounds for how many models the targets may delegate: the
// snapshot names every role that there ever was, and must stay small.
const MaxDelegations = 64

const (
	// rolePrefix keeps the names of delegated roles apart from the four of TUF.
	rolePrefix = "model-"
	// roleField is the signed field by which a delegated role's file says whose it
	// is. Without it one key that holds two roles would sign for either at once.
	roleField = "vedette_role"
)

// RoleOf is the name of the delegated role of a model.
func RoleOf(model string) string { return rolePrefix + model }

// ModelOf is the model of a delegated role; not ok for every other role.
func ModelOf(role string) (model string, ok bool) {
	model, ok = strings.CutPrefix(role, rolePrefix)
	return model, ok && protocol.CheckName(model) == nil
}

// Delegation lets a role of its own list releases of one model.
type Delegation struct {
	Model string
	Holders
}

// Role is the name of the delegated role.
func (d Delegation) Role() string { return RoleOf(d.Model) }

// paths is the only pattern that a delegation may have. The names of models
// hold nothing that means something in a pattern.
func (d Delegation) paths() []string { return []string{d.Model + "/*.json"} }

// Delegation is what the targets delegate for a model.
func (t *Targets) Delegation(model string) (Delegation, bool) {
	i := slices.IndexFunc(t.Delegations, func(d Delegation) bool { return d.Model == model })
	if i < 0 {
		return Delegation{}, false
	}
	return t.Delegations[i], true
}

// roleModel reads roleField; without it the file is that of the targets role.
func roleModel(field any) (string, error) {
	if field == nil {
		return "", nil
	}
	role, _ := field.(string)
	model, ok := ModelOf(role)
	if !ok {
		return "", fmt.Errorf("%w: %s is %v", ErrMalformed, roleField, field)
	}
	return model, nil
}

// checkScope holds a delegated role to its one model [P-6.5].
func (t *Targets) checkScope(delegates bool) error {
	if t.Model == "" {
		return nil
	}
	switch {
	case delegates:
		return fmt.Errorf("%w: role %s delegates further", ErrNotDelegated, RoleOf(t.Model))
	case len(t.Floors) > 0:
		return fmt.Errorf("%w: role %s states a floor", ErrNotDelegated, RoleOf(t.Model))
	}
	for _, r := range t.Releases {
		if r.Model != t.Model {
			return fmt.Errorf("%w: role %s lists %s", ErrNotDelegated, RoleOf(t.Model), r.Path())
		}
	}
	return nil
}

// readDelegations reads what this program understands and returns the rest as
// odd: not to follow a delegation only means to accept less.
func readDelegations(d *metadata.Delegations) (list []Delegation, odd []error, err error) {
	if d == nil {
		return nil, nil, nil
	}
	if d.SuccinctRoles != nil || len(d.Roles) > MaxDelegations {
		return nil, nil, fmt.Errorf("%w: %d delegations, at most %d and none by hash bins", ErrMalformed, len(d.Roles), MaxDelegations)
	}
	names := map[string]bool{}
	for i := range d.Roles {
		role := &d.Roles[i]
		if names[role.Name] {
			return nil, nil, fmt.Errorf("%w: role %q is delegated to twice", ErrMalformed, role.Name)
		}
		names[role.Name] = true
		one, err := readDelegation(role, d.Keys)
		if err != nil {
			odd = append(odd, err)
			continue
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b Delegation) int { return strings.Compare(a.Model, b.Model) })
	return list, odd, nil
}

// readDelegation reads one role: terminating, for the targets of the model that
// it is named after and no others [P-6.4].
func readDelegation(role *metadata.DelegatedRole, keys map[string]*metadata.Key) (Delegation, error) {
	model, ok := ModelOf(role.Name)
	d := Delegation{Model: model, Holders: Holders{Threshold: role.Threshold}}
	if !ok || !role.Terminating || len(role.PathHashPrefixes) > 0 || !slices.Equal(role.Paths, d.paths()) {
		return d, fmt.Errorf("%w: delegation to %q for %q: only a terminating role %sNAME for NAME/*.json is known", ErrMalformed, role.Name, role.Paths, rolePrefix)
	}
	for _, id := range role.KeyIDs {
		key, err := publicKeyOf(keys[id])
		if err != nil {
			return d, fmt.Errorf("%w: role %s: %w", ErrMalformed, role.Name, err)
		}
		if key.ID() != id || slices.Contains(d.Keys, key) {
			return d, fmt.Errorf("%w: role %s names key %s as %s, or twice", ErrMalformed, role.Name, key.ID(), id)
		}
		d.Keys = append(d.Keys, key)
	}
	if d.Threshold < 1 || d.Threshold > len(d.Keys) {
		return d, fmt.Errorf("%w: role %s asks for %d signatures of %d keys", ErrMalformed, role.Name, d.Threshold, len(d.Keys))
	}
	return d, nil
}

// writeDelegations is the TUF form of delegations; nil for none.
func writeDelegations(list []Delegation) (*metadata.Delegations, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	for _, d := range list {
		role := metadata.DelegatedRole{Name: d.Role(), Threshold: d.Threshold, Terminating: true, Paths: d.paths(), KeyIDs: []string{}}
		for _, p := range d.Keys {
			key, id, err := p.tuf()
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrEdit, err)
			}
			out.Keys[id] = key
			role.KeyIDs = append(role.KeyIDs, id)
		}
		out.Roles = append(out.Roles, role)
	}
	_, odd, err := readDelegations(out)
	if err == nil && len(odd) > 0 {
		err = odd[0]
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEdit, err)
	}
	return out, nil
}

// Delegate makes the targets version that lets the holders list releases of the
// model, in place of whoever might before. A file that the new holders have not
// signed by their threshold counts no longer.
func Delegate(targets []byte, model string, h Holders, expires time.Time) ([]byte, error) {
	if err := protocol.CheckName(model); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEdit, err)
	}
	if slices.ContainsFunc(h.Keys, PublicKey.IsZero) {
		return nil, fmt.Errorf("%w: role %s has an empty key", ErrEdit, RoleOf(model))
	}
	return editTop(targets, expires, func(s *metadata.TargetsType, now *Targets) (err error) {
		list := append(without(now.Delegations, model), Delegation{Model: model, Holders: h})
		s.Delegations, err = writeDelegations(list)
		return err
	})
}

// Undelegate makes the targets version that takes the model's role away. What
// the role listed is refused from then on, except the releases in keep, which
// the targets list themselves.
func Undelegate(targets []byte, model string, keep []Target, expires time.Time) ([]byte, error) {
	return editTop(targets, expires, func(s *metadata.TargetsType, now *Targets) (err error) {
		if _, ok := now.Delegation(model); !ok {
			return fmt.Errorf("%w: nothing of %s is delegated", ErrEdit, model)
		}
		if s.Delegations, err = writeDelegations(without(now.Delegations, model)); err != nil {
			return err
		}
		for _, t := range keep {
			if t.Model != model {
				return fmt.Errorf("%w: %s is no release of %s", ErrEdit, t.Path(), model)
			}
			if s.Targets[t.Path()], err = t.file(); err != nil {
				return err
			}
		}
		return nil
	})
}

func without(list []Delegation, model string) []Delegation {
	return slices.DeleteFunc(slices.Clone(list), func(d Delegation) bool { return d.Model == model })
}

// NewDelegated is an empty file of a model's role that was not signed yet. It
// carries the given version, 0 before the first: an edit makes the next one.
func NewDelegated(model string, version int64) ([]byte, error) {
	m := metadata.Targets(time.Unix(0, 0).UTC())
	m.Signed.Version = version
	m.Signed.UnrecognizedFields = map[string]any{roleField: RoleOf(model)}
	return encode(m)
}

// Combine is what devices accept: the releases of the targets and of those
// delegated roles whose files verify. Two releases of one model must not share
// a version name or a sequence; the same release may be listed by both.
func Combine(targets *Targets, delegated ...*Targets) (*Targets, error) {
	all := *targets
	all.Releases = slices.Clone(targets.Releases)
	for _, role := range delegated {
		for _, t := range role.Releases {
			if !slices.Contains(all.Releases, t) {
				all.Releases = append(all.Releases, t)
			}
		}
	}
	slices.SortFunc(all.Releases, compareTargets)
	return &all, checkUnique(all.Releases)
}

// VerifyDelegated reports whether enough of the keys that the targets delegate
// to have signed the role's file, and whether it keeps to its model. It looks at
// no version and no expiry.
func VerifyDelegated(targets, doc []byte) (*Targets, error) {
	top, err := parse[metadata.TargetsType](targets, MaxTargets)
	if err != nil {
		return nil, err
	}
	return verifyDelegated(top, doc)
}

// verifyDelegated also serves devices, which skip entries of a kind that they
// do not know.
func verifyDelegated(top *metadata.Metadata[metadata.TargetsType], doc []byte) (*Targets, error) {
	m, err := parse[metadata.TargetsType](doc, MaxDelegated)
	if err != nil {
		return nil, err
	}
	t, _, err := listTargets(m)
	if err != nil {
		return nil, err
	}
	outer, _, err := listTargets(top)
	if err != nil {
		return nil, err
	}
	if _, ok := outer.Delegation(t.Model); !ok || outer.Model != "" {
		return nil, fmt.Errorf("%w: targets version %d name no keys for %q", ErrNotDelegated, outer.Version, RoleOf(t.Model))
	}
	return t, wrap(ErrSignature, guard(func() error { return top.VerifyDelegate(RoleOf(t.Model), m) }))
}

// CheckDelegated is the control plane's check of a delegated role's file that
// is uploaded: signed by the threshold that the targets name, the version after
// the current one (nil before the first), not expired, readable to the last
// entry, and of one model. That versions leave no gap keeps a stolen key from
// using up all numbers.
func CheckDelegated(targets, current, next []byte, now time.Time) (*Targets, error) {
	if _, err := VerifyDelegated(targets, next); err != nil {
		return nil, err
	}
	t, err := ReadTargets(next)
	if err != nil {
		return nil, err
	}
	if now.After(t.Expires) {
		return nil, fmt.Errorf("%w: role %s expired on %v", ErrExpired, RoleOf(t.Model), t.Expires)
	}
	var last int64
	if current != nil {
		old, err := ReadTargets(current)
		if err != nil {
			return nil, err
		}
		if last = old.Version; old.Model != t.Model {
			return nil, fmt.Errorf("%w: %s follows %s", ErrMalformed, RoleOf(t.Model), RoleOf(old.Model))
		}
	}
	if t.Version != last+1 {
		return nil, fmt.Errorf("%w: version of %s is %d, the next one is %d", ErrRollback, RoleOf(t.Model), t.Version, last+1)
	}
	return t, nil
}
