package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// listing is what is signed about a model now: the targets, and the file of the
// model's delegated role where there is one. Both were verified.
type listing struct {
	model   string
	targets []byte
	top     *trust.Targets
	// role is the newest file of the model's role. One that the present keys have
	// not signed counts for nothing: then it is empty and goes on from its version.
	// Nil when nothing is delegated.
	role   []byte
	byRole *trust.Targets // nil when role is
}

// listing reads what is signed about a model from the server, and believes what
// the operator's own root leads to.
func (p *publisher) listing(ctx context.Context, model string) (*listing, error) {
	targets, err := p.current(ctx)
	if err != nil {
		return nil, err
	}
	l := &listing{model: model, targets: targets}
	if l.top, err = trust.ReadTargets(targets); err != nil {
		return nil, operator.Errorf(operator.TrustRefused, "read targets: %w", err)
	}
	if _, ok := l.top.Delegation(model); !ok {
		return l, nil
	}
	if l.role, err = p.currentRole(ctx, l); err != nil {
		return nil, err
	}
	if l.byRole, err = trust.ReadTargets(l.role); err != nil {
		return nil, operator.Errorf(operator.TrustRefused, "read %s: %w", trust.RoleOf(model), err)
	}
	return l, nil
}

// currentRole is the newest file of the model's role.
func (p *publisher) currentRole(ctx context.Context, l *listing) ([]byte, error) {
	name := trust.RoleOf(l.model)
	doc, err := p.api.TrustMetadata(ctx, name+".newest")
	if operator.CodeOf(err) == operator.NotFound {
		return trust.NewDelegated(l.model, 0)
	}
	if err != nil {
		return nil, err
	}
	if _, err := trust.VerifyDelegated(l.targets, doc); err != nil {
		head, bad := trust.ReadHeader(doc)
		if bad != nil || head.Role != name {
			return nil, operator.Errorf(operator.TrustRefused, "the server's %s: %w", name, err)
		}
		p.app.remark("%s version %d is not signed by the keys that the targets name now: it counts for nothing, a new one begins", name, head.Version)
		return trust.NewDelegated(l.model, head.Version)
	}
	if err := p.noRollback(doc); err != nil {
		return nil, err
	}
	return doc, p.ring.write(name+".json", doc)
}

// others are the files that list releases of the model beside the given one.
func (l *listing) others(role bool) []*trust.Targets {
	if role {
		return []*trust.Targets{l.top}
	}
	if l.byRole == nil {
		return nil
	}
	return []*trust.Targets{l.byRole}
}

// file is the targets, or the file of the model's role.
func (l *listing) file(role bool) []byte {
	if role {
		return l.role
	}
	return l.targets
}

// releases are the model's releases in both.
func (l *listing) releases() []operator.Version {
	list := releasesOf(l.top, l.model)
	if l.byRole != nil {
		list = append(list, releasesOf(l.byRole, l.model)...)
	}
	return list
}

func (l *listing) add(m *release.Manifest, role bool) ([]byte, error) {
	return trust.AddRelease(l.file(role), m, time.Now().Add(trust.DefaultTargetsLifetime), l.others(role)...)
}

// releasesOf lists the versions of a model that a file names.
func releasesOf(t *trust.Targets, model string) []operator.Version {
	var list []operator.Version
	for _, r := range t.Releases {
		if r.Model == model {
			list = append(list, operator.Version{Model: r.Model, Version: r.Version, Release: r.Digest, Sequence: r.Sequence})
		}
	}
	return list
}

// find is a signed version by its name or digest, and whether the model's role
// is what lists it.
func (l *listing) find(name string) (v operator.Version, role bool, err error) {
	is := func(v operator.Version) bool { return v.Version == name || v.Release.String() == name }
	list := l.releases()
	i := slices.IndexFunc(list, is)
	if i < 0 {
		return v, false, operator.Errorf(operator.NotFound, "the signed targets name no version %s of %s", name, l.model)
	}
	return list[i], !slices.ContainsFunc(releasesOf(l.top, l.model), is), nil
}

// mayOnlyDelegate says whether the keys at hand can sign for the model's role
// and not for the targets: that is CI.
func (p *publisher) mayOnlyDelegate(l *listing) (bool, error) {
	keys, err := p.keys()
	if err != nil || l.byRole == nil {
		return false, err
	}
	root, err := trust.ReadRoot(p.root)
	if err != nil {
		return false, operator.Errorf(operator.Invalid, "read %s: %w", p.ring.path(rootFile), err)
	}
	d, _ := l.top.Delegation(l.model)
	holds := func(h trust.Holders) bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(keys)), func(k *trust.Key) bool { return slices.Contains(h.Keys, k.Public()) })
	}
	return holds(d.Holders) && !holds(root.Roles["targets"]), nil
}

// keys are the private keys at hand: the one given, or those of the folder.
func (p *publisher) keys() (map[string]*trust.Key, error) {
	if p.key != nil {
		return map[string]*trust.Key{"--key": p.key}, nil
	}
	return p.ring.privateKeys()
}

// delegator is the file that names the keys for a document: the root, or the
// targets for a delegated role.
func (p *publisher) delegator(doc []byte) ([]byte, error) {
	head, err := trust.ReadHeader(doc)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read targets: %w", err)
	}
	if head.Role == "" {
		return p.root, nil
	}
	return p.ring.seenTargets()
}

// seenTargets are the newest targets that this folder has seen and verified.
func (k keyring) seenTargets() ([]byte, error) {
	return readFile(k.path(targetsFile), trust.MaxTargets)
}
