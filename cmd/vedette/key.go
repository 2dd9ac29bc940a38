package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

func keyCommand(a *app) *cobra.Command {
	return group("key", "Make and use the publishers' keys", `Publishers hold the root and targets keys; they stay on publishers' machines. The
root key says which keys may do what, targets keys sign releases. The server
holds only the keys that say which statement is the newest.

With one publisher "vedette key init" is all there is to do. In a team each makes
a key with "vedette key new", the public halves go into "vedette key init
--root … --targets …", and files that need several signatures are passed along
and signed with "vedette key sign".`,
		keyInit(a), keyNew(a), keyShow(a), keyChange(a, "add"), keyChange(a, "remove"), keyDelegate(a), keySign(a), keyMerge(a), keyUpload(a), keySampleInit(a))
}

// initFlags are what a new root states.
type initFlags struct {
	root, targets                   []string
	rootThreshold, targetsThreshold int
}

func keyInit(a *app) *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use: "init", Short: "Make a root of trust and install it on a fresh server",
		Long: `Makes private keys (unless public keys of others are given), a root of trust that
names them and the server's online keys, and the first, empty targets; installs
both on the server when enough keys have signed.

Keep the folder safe and keep a copy: whoever loses the root keys loses the
fleet. root.json in it is what enrolment tokens pin.`,
		Example: `  vedette key init
  vedette key init --root ed25519:… --root ed25519:… --root-threshold 2 --targets ed25519:…`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.keyInit(cmd.Context(), f) },
	}
	cmd.Flags().StringArrayVar(&f.root, "root", nil, "public key that may sign roots (repeat; default: a new key)")
	cmd.Flags().StringArrayVar(&f.targets, "targets", nil, "public key that may sign releases (repeat; default: a new key)")
	cmd.Flags().IntVar(&f.rootThreshold, "root-threshold", 1, "how many root keys must sign")
	cmd.Flags().IntVar(&f.targetsThreshold, "targets-threshold", 1, "how many targets keys must sign")
	return cmd
}

func (a *app) keyInit(ctx context.Context, f initFlags) error {
	ring, err := a.keyring()
	if err != nil {
		return err
	}
	if ring.has(rootFile) {
		return operator.Errorf(operator.Conflict, "%s holds a root of trust already", ring.dir).
			WithHint(`"vedette key upload" installs it; name another folder with --keys DIR to make a new one`)
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	plan, err := newPlan(ctx, c, ring, f)
	if err != nil {
		return err
	}
	root, targets, err := trust.Init(plan, time.Now().Add(trust.DefaultTargetsLifetime))
	if err != nil {
		return operator.Errorf(operator.Invalid, "make root of trust: %w", err)
	}
	keys, err := ring.privateKeys()
	if err != nil {
		return err
	}
	if root, _, err = signWith(root, keys, root); err != nil {
		return err
	}
	if targets, _, err = signWith(targets, keys, root); err != nil {
		return err
	}
	if err := errors.Join(ring.write(rootFile, root), ring.write(targetsFile, targets)); err != nil {
		return err
	}
	return a.install(ctx, c, ring)
}

// newPlan asks the server for its online keys and makes those that no one gave.
func newPlan(ctx context.Context, c operator.TrustStore, ring keyring, f initFlags) (trust.Plan, error) {
	plan := trust.Plan{Expires: time.Now().Add(trust.DefaultRootLifetime)}
	state, err := c.Trust(ctx)
	if err != nil {
		return plan, err
	}
	if state.Installed {
		return plan, operator.Errorf(operator.Conflict, "the server has a root of trust already, version %d", state.Root.Version).
			WithHint("copy the folder's root.json from whoever made it")
	}
	for _, k := range state.OnlineKeys {
		key, err := trust.ParsePublicKey(k.Key)
		if err != nil {
			return plan, operator.Errorf(operator.UnknownResponse, "online key of the server: %w", err)
		}
		switch k.Role {
		case "snapshot":
			plan.Snapshot = key
		case "timestamp":
			plan.Timestamp = key
		}
	}
	if plan.Root, err = holders(ring, "root", f.root, f.rootThreshold); err != nil {
		return plan, err
	}
	plan.Targets, err = holders(ring, "targets", f.targets, f.targetsThreshold)
	return plan, err
}

// holders are the given public keys, or a new private key's.
func holders(ring keyring, role string, given []string, threshold int) (trust.Holders, error) {
	h := trust.Holders{Threshold: threshold}
	for _, text := range given {
		key, err := trust.ParsePublicKey(text)
		if err != nil {
			return h, usagef("--%s %s: %w", role, text, err)
		}
		h.Keys = append(h.Keys, key)
	}
	if len(given) > 0 {
		return h, nil
	}
	key, err := ring.ownKey(role)
	if err != nil {
		return h, err
	}
	h.Keys = append(h.Keys, key.Public())
	return h, nil
}

// ownKey is the folder's key of a role, made when it is not there: an init that
// broke off is simply run again.
func (k keyring) ownKey(role string) (*trust.Key, error) {
	if k.has(role + keySuffix) {
		return readKey(k.path(role + keySuffix))
	}
	return k.newKey(role)
}

// install uploads the folder's root and targets where they are complete and
// newer than the server's, and says what is missing otherwise.
func (a *app) install(ctx context.Context, c *client.Client, ring keyring) error {
	root, err := ring.root()
	if err != nil {
		return err
	}
	state, err := c.Trust(ctx)
	if err != nil {
		return err
	}
	if state, err = a.installRoot(ctx, c, ring, root, state); err != nil {
		return err
	}
	if root, err = ring.root(); err != nil {
		return err
	}
	if err := a.installTargets(ctx, c, ring, root, state); err != nil {
		return err
	}
	return a.showRing(ring)
}

func (a *app) installRoot(ctx context.Context, c operator.TrustStore, ring keyring, root []byte, state *operator.Trust) (*operator.Trust, error) {
	next, roots, name := root, [][]byte{root}, rootFile
	if state.Installed {
		if !ring.has(nextRootFile) {
			return state, nil
		}
		var err error
		if next, err = readFile(ring.path(nextRootFile), trust.MaxRoot); err != nil {
			return nil, err
		}
		roots, name = [][]byte{root, next}, nextRootFile
	}
	if err := needSignatures(ring.path(name), next, roots...); err != nil {
		return nil, err
	}
	state, err := c.InstallRoot(ctx, operator.RootUpload{Root: next})
	if err != nil || name == rootFile {
		return state, err
	}
	if err := os.Rename(ring.path(nextRootFile), ring.path(rootFile)); err != nil {
		return nil, fileError(err)
	}
	return state, nil
}

func (a *app) installTargets(ctx context.Context, c operator.TrustStore, ring keyring, root []byte, state *operator.Trust) error {
	if !ring.has(targetsFile) {
		return nil
	}
	targets, err := readFile(ring.path(targetsFile), trust.MaxTargets)
	if err != nil {
		return err
	}
	head, err := trust.ReadHeader(targets)
	if err != nil {
		return operator.Errorf(operator.Invalid, "read %s: %w", ring.path(targetsFile), err)
	}
	if head.Version <= state.Targets.Version {
		return nil
	}
	if err := needSignatures(ring.path(targetsFile), targets, root); err != nil {
		return err
	}
	_, err = c.Publish(ctx, operator.TargetsUpload{Targets: targets, Previous: state.Targets.Version, Reason: "key upload"})
	return err
}

// needSignatures refuses a file that others have yet to sign.
func needSignatures(path string, doc []byte, roots ...[]byte) error {
	who, err := missing(doc, roots...)
	if err != nil {
		return err
	}
	if who == "" {
		return nil
	}
	return operator.Errorf(operator.TrustRefused, "%s is not signed by enough keys yet: it needs %s", path, who).
		WithHint(`send it to their holders, who run "vedette key sign FILE"; then "vedette key merge" if they signed copies, and "vedette key upload"`)
}

func keyNew(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "new NAME", Short: "Make a private key and print its public half",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			ring, err := a.keyring()
			if err != nil {
				return err
			}
			key, err := ring.newKey(given[0])
			if err != nil {
				return err
			}
			a.remark("private key in %s", ring.path(given[0]+keySuffix))
			public := map[string]string{"id": key.Public().ID(), "public": key.Public().String()}
			return a.print(public, func(w io.Writer) { fmt.Fprintln(w, key.Public()) })
		},
	}
}

func keyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the root of trust and the keys of this folder",
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			ring, err := a.keyring()
			if err != nil {
				return err
			}
			return a.showRing(ring)
		},
	}
}

// ringView is what "key show" prints.
type ringView struct {
	Folder  string         `json:"folder"`
	Pin     release.Digest `json:"pin"` // SHA-256 of root.json
	Version int64          `json:"version"`
	Expires time.Time      `json:"expires"`
	Roles   []roleView     `json:"roles"`
	Pending string         `json:"pending,omitempty"` // a next root that waits for signatures
}

type roleView struct {
	Role      string    `json:"role"`
	Threshold int       `json:"threshold"`
	Keys      []keyView `json:"keys"`
}

type keyView struct {
	ID     string `json:"id"`
	Public string `json:"public"`
	File   string `json:"file,omitempty"` // of the private key, when it is here
}

func (a *app) showRing(ring keyring) error {
	view, err := ring.view()
	if err != nil {
		return err
	}
	return a.print(view, func(w io.Writer) {
		facts(w, "folder", view.Folder, "root", fmt.Sprintf("version %d, until %s", view.Version, timeText(view.Expires)), "pin", view.Pin.String(), "pending", view.Pending)
		rows := [][]string{}
		for _, r := range view.Roles {
			for _, k := range r.Keys {
				rows = append(rows, []string{r.Role, fmt.Sprintf("%d of %d", r.Threshold, len(r.Keys)), k.ID[:12], k.File})
			}
		}
		fmt.Fprintln(w)
		grid(w, []string{"role", "needs", "key", "private key here"}, rows)
	})
}

func (k keyring) view() (*ringView, error) {
	raw, err := k.root()
	if err != nil {
		return nil, err
	}
	root, err := trust.ReadRoot(raw)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read %s: %w", k.path(rootFile), err)
	}
	keys, err := k.privateKeys()
	if err != nil {
		return nil, err
	}
	files := map[trust.PublicKey]string{}
	for name, key := range keys {
		files[key.Public()] = name
	}
	view := &ringView{Folder: k.dir, Pin: release.DigestOf(raw), Version: root.Version, Expires: root.Expires}
	for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
		h := root.Roles[role]
		r := roleView{Role: role, Threshold: h.Threshold}
		for _, p := range h.Keys {
			r.Keys = append(r.Keys, keyView{ID: p.ID(), Public: p.String(), File: files[p]})
		}
		view.Roles = append(view.Roles, r)
	}
	if k.has(nextRootFile) {
		view.Pending = nextRootFile + ` waits for "vedette key upload"`
	}
	return view, nil
}

// keyChange is "key add" and "key remove".
func keyChange(a *app, verb string) *cobra.Command {
	var role string
	var threshold int
	short := map[string]string{"add": "Let another key sign", "remove": "Let a key sign no longer"}[verb]
	cmd := &cobra.Command{
		Use: verb + " --role ROLE KEY", Short: short,
		Long: short + `.

Makes the next version of the root, signs it with the keys of this folder, and
installs it when the old and the new keys have signed. KEY is a public key, or
the beginning of its id.`,
		Example: "  vedette key " + verb + " --role targets ed25519:…",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.changeRoot(cmd.Context(), func(p *trust.Plan) error {
				h, err := holdersOf(p, role)
				if err != nil {
					return err
				}
				if threshold > 0 {
					h.Threshold = threshold
				}
				if verb == "add" {
					return addKey(h, given[0])
				}
				return removeKey(h, given[0])
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "targets", "root or targets")
	cmd.Flags().IntVar(&threshold, "threshold", 0, "how many keys of the role must sign from now on (default: as before)")
	return cmd
}

func holdersOf(p *trust.Plan, role string) (*trust.Holders, error) {
	switch role {
	case "root":
		return &p.Root, nil
	case "targets":
		return &p.Targets, nil
	default:
		return nil, usagef("role %q is neither root nor targets", role)
	}
}

func addKey(h *trust.Holders, text string) error {
	key, err := trust.ParsePublicKey(text)
	if err != nil {
		return usagef("%s: %w", text, err)
	}
	if slices.Contains(h.Keys, key) {
		return operator.Errorf(operator.Conflict, "key %s has that role already", shortID(key))
	}
	h.Keys = append(h.Keys, key)
	return nil
}

func removeKey(h *trust.Holders, text string) error {
	before := len(h.Keys)
	h.Keys = slices.DeleteFunc(slices.Clone(h.Keys), func(p trust.PublicKey) bool {
		return p.String() == text || len(text) >= 8 && len(p.ID()) >= len(text) && p.ID()[:len(text)] == text
	})
	switch {
	case len(h.Keys) == before:
		return operator.Errorf(operator.NotFound, "no key %s has that role", text).WithHint(`"vedette key show" lists them`)
	case len(h.Keys) < before-1:
		return operator.Errorf(operator.Invalid, "several keys begin with %s: give more of the id", text)
	case len(h.Keys) < h.Threshold:
		return operator.Errorf(operator.Invalid, "%d keys would be left of which %d must sign", len(h.Keys), h.Threshold).
			WithHint("add a key first, or lower the number with --threshold")
	}
	return nil
}

// changeRoot makes, signs and if possible installs the root that follows.
func (a *app) changeRoot(ctx context.Context, change func(*trust.Plan) error) error {
	ring, err := a.keyring()
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	root, err := ring.root()
	if err != nil {
		return err
	}
	plan, err := trust.PlanOf(root)
	if err != nil {
		return operator.Errorf(operator.Invalid, "read %s: %w", ring.path(rootFile), err)
	}
	if err := change(&plan); err != nil {
		return err
	}
	plan.Expires = time.Now().Add(trust.DefaultRootLifetime)
	next, err := trust.NewRoot(root, plan)
	if err != nil {
		return operator.Errorf(operator.Invalid, "make the next root: %w", err)
	}
	keys, err := ring.privateKeys()
	if err != nil {
		return err
	}
	if next, _, err = signWith(next, keys, root, next); err != nil {
		return err
	}
	if err := ring.write(nextRootFile, next); err != nil {
		return err
	}
	return a.install(ctx, c, ring)
}

func keySign(a *app) *cobra.Command {
	var with string
	cmd := &cobra.Command{
		Use: "sign FILE", Short: "Sign a root or targets file with the keys of this folder",
		Long: `Adds signatures to a root or targets file, in place. It first says what the file
states: read it, because that is what your signature vouches for.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			ring, err := a.keyring()
			if err != nil {
				return err
			}
			keys, err := ring.privateKeys()
			if err == nil && with != "" {
				var key *trust.Key
				key, err = readKey(with)
				keys = map[string]*trust.Key{with: key}
			}
			if err != nil {
				return err
			}
			return a.signFile(ring, given[0], keys)
		},
	}
	cmd.Flags().StringVar(&with, "key", "", "private key to sign with (default: all of the folder that may)")
	return cmd
}

// signFile signs a file in place.
func (a *app) signFile(ring keyring, path string, keys map[string]*trust.Key) error {
	doc, err := readFile(path, trust.MaxTargets)
	if err != nil {
		return err
	}
	roots, err := ring.rootsFor(doc)
	if err != nil {
		return err
	}
	if err := a.describe(path, doc); err != nil {
		return err
	}
	signed, used, err := signWith(doc, keys, roots...)
	if err != nil {
		return err
	}
	if len(used) == 0 {
		return operator.Errorf(operator.Forbidden, "none of these keys may sign %s: %v", path, slices.Sorted(maps.Keys(keys))).
			WithHint(`"vedette key show" lists whose keys may`)
	}
	if err := writeFile(path, signed, 0o644); err != nil {
		return err
	}
	who, err := missing(signed, roots...)
	if err != nil {
		return err
	}
	result := map[string]any{"file": path, "signed_with": used, "complete": who == "", "missing": who}
	return a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "signed with %v\n", used)
		if who != "" {
			fmt.Fprintf(w, "still needed: %s\n", who)
		}
	})
}

// rootsFor are the roots whose keys must sign a file: a root's own too.
func (k keyring) rootsFor(doc []byte) ([][]byte, error) {
	head, err := trust.ReadHeader(doc)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read the file: %w", err)
	}
	if head.Role != "" {
		targets, err := k.seenTargets()
		return [][]byte{targets}, err
	}
	if head.Type != "root" {
		root, err := k.root()
		return [][]byte{root}, err
	}
	if !k.has(rootFile) || head.Version == 1 {
		return [][]byte{doc}, nil
	}
	root, err := k.root()
	return [][]byte{root, doc}, err
}

// describe tells what a file states, before it is signed.
func (a *app) describe(path string, doc []byte) error {
	head, err := trust.ReadHeader(doc)
	if err != nil {
		return operator.Errorf(operator.Invalid, "read %s: %w", path, err)
	}
	a.remark("%s: %s version %d, until %s", path, head.Type, head.Version, timeText(head.Expires))
	if head.Type != "targets" {
		return nil
	}
	t, err := trust.ReadTargets(doc)
	if err != nil {
		return operator.Errorf(operator.Invalid, "read %s: %w", path, err)
	}
	for _, r := range t.Releases {
		a.remark("  %s %s, sequence %d, manifest %s", r.Model, r.Version, r.Sequence, r.Digest)
	}
	for _, model := range slices.Sorted(maps.Keys(t.Floors)) {
		a.remark("  %s: nothing below sequence %d", model, t.Floors[model])
	}
	for _, d := range t.Delegations {
		for _, key := range d.Keys {
			a.remark("  %s: releases may also be signed by key %s (%d of %d needed)", d.Model, key.ID(), d.Threshold, len(d.Keys))
		}
	}
	return nil
}

func keyMerge(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "merge FILE COPY...", Short: "Bring together signatures that were made on copies of a file",
		Args: args(cobra.MinimumNArgs(2)),
		RunE: func(_ *cobra.Command, given []string) error {
			docs := make([][]byte, len(given))
			for i, path := range given {
				var err error
				if docs[i], err = readFile(path, trust.MaxTargets); err != nil {
					return err
				}
			}
			merged, err := trust.Merge(docs...)
			if err != nil {
				return operator.Errorf(operator.Invalid, "merge signatures: %w", err)
			}
			if err := writeFile(given[0], merged, 0o644); err != nil {
				return err
			}
			a.remark("%s now holds the signatures of all copies", given[0])
			return nil
		},
	}
}

func keyUpload(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "upload", Short: "Install a root or targets that now have all signatures",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ring, err := a.keyring()
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.install(cmd.Context(), c, ring)
		},
	}
}
