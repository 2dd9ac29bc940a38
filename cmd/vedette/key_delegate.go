package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// delegateFlags say who holds a model's role.
type delegateFlags struct {
	keys      []string
	threshold int
	reason    string
	yes       bool // releases that come back are meant to
}

func keyDelegate(a *app) *cobra.Command {
	var f delegateFlags
	cmd := &cobra.Command{
		Use: "delegate MODEL --key KEY", Short: "Let a CI key sign releases of one model",
		Long: `Signs targets that delegate one model to keys of its own: they list releases of
that model, and can do nothing else. They cannot lower a floor, delegate further,
or touch another model, and publishers can take the role away at any time.

Make the key where CI keeps its secrets ("vedette key new ci > ci.pub") and give
its public half here; the private half never comes to the server. CI then runs
"vedette publish" with the private key and a copy of root.json.

Given again for the same model, the new keys take the place of the old ones: a
file that they have not signed counts no longer, so let CI publish at once.
Agents older than the first version that knows delegations refuse targets that
contain one: update them before the first delegation.

The file that the keys signed last counts again with them: releases that a
revocation withdrew come back. They are named, and --yes says that it is meant.`,
		Example: `  vedette key delegate digits --key ci.pub --reason 'retraining publishes by itself'
  vedette key delegate list
  vedette key delegate revoke digits --keep 4,5 --reason 'the runner was taken over'`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error { return a.delegate(cmd.Context(), given[0], f) },
	}
	cmd.Flags().StringArrayVar(&f.keys, "key", nil, "public key, or a file that holds it (repeat)")
	cmd.Flags().IntVar(&f.threshold, "threshold", 1, "how many of the keys must sign")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "let releases that were withdrawn come back")
	reasonFlag(cmd, &f.reason)
	cmd.AddCommand(delegateList(a), delegateRevoke(a))
	return cmd
}

func (a *app) delegate(ctx context.Context, model string, f delegateFlags) error {
	h := trust.Holders{Threshold: f.threshold}
	for _, text := range f.keys {
		key, err := publicKey(text)
		if err != nil {
			return err
		}
		h.Keys = append(h.Keys, key)
	}
	if len(h.Keys) == 0 {
		return usagef("name the public key that may sign releases of %s with --key", model)
	}
	reason, err := a.reason(f.reason, "delegate "+model)
	if err != nil {
		return err
	}
	p, err := a.publisher()
	if err != nil {
		return err
	}
	if err := p.ownsNoRole(h); err != nil {
		return err
	}
	if _, err := p.edit(ctx, reason, func(targets []byte, expires time.Time) ([]byte, error) {
		next, err := trust.Delegate(targets, model, h, expires)
		if err != nil {
			return nil, err
		}
		return next, p.mayRevive(ctx, targets, next, model, f.yes)
	}); err != nil {
		return err
	}
	return a.showDelegations(ctx, p)
}

// mayRevive refuses a delegation with which releases come back that are not
// accepted now, unless that is meant.
func (p *publisher) mayRevive(ctx context.Context, targets, next []byte, model string, meant bool) error {
	names, err := p.revived(ctx, targets, next, model)
	if err != nil || len(names) == 0 {
		return err
	}
	list := strings.Join(names, ", ")
	if meant {
		p.app.remark("%s: these versions come back, which were withdrawn: %s", model, list)
		return nil
	}
	return operator.Errorf(operator.Conflict, "with this key versions of %s come back that were withdrawn: %s", model, list).
		WithHint(`delegate to a new key ("vedette key new ci"), or give --yes if they are meant to come back`)
}

// revived are the releases that the newest file of the model's role lists and that
// count again with the next targets.
func (p *publisher) revived(ctx context.Context, targets, next []byte, model string) (names []string, err error) {
	doc, err := p.api.TrustMetadata(ctx, trust.RoleOf(model)+".newest")
	if operator.CodeOf(err) == operator.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := trust.VerifyDelegated(targets, doc); err == nil {
		return nil, nil // it counts already
	}
	role, err := trust.VerifyDelegated(next, doc)
	if err != nil {
		return nil, nil //nolint:nilerr // the new keys have not signed it: it goes on counting for nothing
	}
	top, err := trust.ReadTargets(targets)
	if err != nil {
		return nil, operator.Errorf(operator.TrustRefused, "read targets: %w", err)
	}
	for _, t := range role.Releases {
		if !slices.ContainsFunc(top.Releases, func(o trust.Target) bool { return o.Model == t.Model && o.Digest == t.Digest }) {
			names = append(names, t.Version)
		}
	}
	return names, nil
}

// publicKey reads a public key from a text or a file.
func publicKey(text string) (trust.PublicKey, error) {
	key, err := trust.ParsePublicKey(text)
	if err == nil {
		return key, nil
	}
	b, fileErr := readFile(text, maxSmallFile)
	if fileErr != nil {
		return key, usagef("--key %s: it is neither a public key nor a file that can be read: %w", text, fileErr)
	}
	if key, err = trust.ParsePublicKey(string(b)); err != nil {
		return key, usagef("--key %s: %w; give the public half, as \"vedette key new\" prints it", text, err)
	}
	return key, nil
}

// ownsNoRole refuses keys that the root gives a role to: a CI key that can also
// sign roots or targets would not be limited to its model.
func (p *publisher) ownsNoRole(h trust.Holders) error {
	root, err := trust.ReadRoot(p.root)
	if err != nil {
		return operator.Errorf(operator.Invalid, "read %s: %w", p.ring.path(rootFile), err)
	}
	for name, role := range root.Roles {
		for _, key := range h.Keys {
			if slices.Contains(role.Keys, key) {
				return operator.Errorf(operator.Invalid, "key %s holds the role %s already, and must not lie in CI", shortID(key), name).
					WithHint(`make one of its own: "vedette key new ci"`)
			}
		}
	}
	return nil
}

func delegateList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List which models are delegated, and to which keys",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.publisher()
			if err != nil {
				return err
			}
			return a.showDelegations(cmd.Context(), p)
		},
	}
}

// delegationView is one line of "key delegate list".
type delegationView struct {
	Model     string   `json:"model"`
	Threshold int      `json:"threshold"`
	Keys      []string `json:"keys"`
	Version   int64    `json:"version"` // of the role's file; 0 when nothing is published by it
	Releases  []string `json:"releases"`
	Expires   string   `json:"expires,omitempty"`
}

func (a *app) showDelegations(ctx context.Context, p *publisher) error {
	targets, err := p.current(ctx)
	if err != nil {
		return err
	}
	top, err := trust.ReadTargets(targets)
	if err != nil {
		return operator.Errorf(operator.TrustRefused, "read targets: %w", err)
	}
	list := []delegationView{}
	for _, d := range top.Delegations {
		l, err := p.listing(ctx, d.Model)
		if err != nil {
			return err
		}
		list = append(list, newDelegationView(d, l))
	}
	return a.print(list, func(w io.Writer) { delegationTable(w, list) })
}

func newDelegationView(d trust.Delegation, l *listing) delegationView {
	v := delegationView{Model: d.Model, Threshold: d.Threshold, Version: l.byRole.Version, Releases: []string{}}
	for _, key := range d.Keys {
		v.Keys = append(v.Keys, shortID(key))
	}
	for _, r := range l.byRole.Releases {
		v.Releases = append(v.Releases, r.Version)
	}
	if len(l.byRole.Releases) > 0 {
		v.Expires = timeText(l.byRole.Expires)
	}
	return v
}

func delegationTable(w io.Writer, list []delegationView) {
	if len(list) == 0 {
		none(w, "delegations: the targets keys alone sign releases")
		return
	}
	rows := [][]string{}
	for _, v := range list {
		rows = append(rows, []string{v.Model, fmt.Sprintf("%d of %d", v.Threshold, len(v.Keys)), strings.Join(v.Keys, " "), count(v.Version), strings.Join(v.Releases, " "), v.Expires})
	}
	grid(w, []string{"model", "needs", "keys", "file", "releases", "until"}, rows)
}

func delegateRevoke(a *app) *cobra.Command {
	var keep []string
	var reason string
	cmd := &cobra.Command{
		Use: "revoke MODEL [--keep VERSION,…]", Short: "Take a model's role away from its keys",
		Long: `Signs targets without the delegation. Devices that learn of it refuse every
release that only the role listed, also offline; those named with --keep the
targets list themselves from then on, so devices go on running them.`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			why, err := a.reason(reason, "revoke the role of "+given[0])
			if err != nil {
				return err
			}
			return a.revokeRole(cmd.Context(), given[0], keep, why)
		},
	}
	cmd.Flags().StringSliceVar(&keep, "keep", nil, "versions that the targets take over")
	reasonFlag(cmd, &reason)
	return cmd
}

func (a *app) revokeRole(ctx context.Context, model string, keep []string, reason string) error {
	p, err := a.publisher()
	if err != nil {
		return err
	}
	l, err := p.listing(ctx, model)
	if err != nil {
		return err
	}
	kept, err := l.kept(keep)
	if err != nil {
		return err
	}
	done, err := p.edit(ctx, reason, func(targets []byte, expires time.Time) ([]byte, error) {
		return trust.Undelegate(targets, model, kept, expires)
	})
	if err != nil {
		return err
	}
	return a.print(done, func(w io.Writer) {
		fmt.Fprintf(w, "%s is no longer delegated; releases withdrawn: %d\n", model, len(done.Withdrawn))
	})
}

// kept are the named releases of the role.
func (l *listing) kept(names []string) ([]trust.Target, error) {
	var out []trust.Target
	for _, name := range names {
		if l.byRole == nil {
			return nil, operator.Errorf(operator.NotFound, "nothing of %s is delegated", l.model)
		}
		i := slices.IndexFunc(l.byRole.Releases, func(t trust.Target) bool { return t.Version == name })
		if i < 0 {
			return nil, operator.Errorf(operator.NotFound, "the role lists no version %s of %s", name, l.model).
				WithHint(`"vedette key delegate list" shows what it lists`)
		}
		out = append(out, l.byRole.Releases[i])
	}
	return out, nil
}
