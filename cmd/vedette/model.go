package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

func modelCommand(a *app) *cobra.Command {
	return group("model", "Sign and publish models, and see where they run", `A model version is a folder that "vedette-agent profile" wrote: the graph, its
schema, the baseline of its training data and golden vectors.

"vedette model push" packs, signs, uploads and publishes it. To sign elsewhere,
or with several keys, do it in steps: "pack" here, "vedette key sign
FOLDER/targets.json" there, "push" here.`,
		modelPush(a), modelPack(a), modelPull(a), modelList(a), modelShow(a), modelPromotion(a), modelLineage(a), modelStage(a), modelGates(a), modelEvaluate(a), modelValidate(a), modelOverride(a), modelHistory(a), modelChallenge(a), modelVerify(a), modelFloor(a), modelRemove(a))
}

func modelPack(a *app) *cobra.Command {
	var f versionFlags
	cmd := &cobra.Command{
		Use: "pack FOLDER --model NAME --version NAME", Short: "Make the manifest of a version, and the targets to be signed",
		Long: `Checks that graph, schema, baseline and golden vectors fit each other, and writes
manifest.json and targets.json into the folder. targets.json lists all releases
that publishers have signed and the new one; it carries no signature yet.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			p, err := a.publisher()
			if err != nil {
				return err
			}
			m, err := p.pack(cmd.Context(), given[0], f)
			if err != nil {
				return err
			}
			return a.packed(m, "packed; sign it with: vedette key sign "+filepath.Join(given[0], targetsFile))
		},
	}
	f.register(cmd)
	return cmd
}

// packed prints what a folder became.
func (a *app) packed(m *release.Manifest, done string) error {
	d, err := m.Digest()
	if err != nil {
		return operator.Errorf(operator.Invalid, "%w", err)
	}
	result := struct {
		operator.ReleaseRef

		Sequence uint64 `json:"sequence"`
		Size     int64  `json:"size"`
	}{operator.ReleaseRef{Model: m.Model, Version: m.Version, Release: d}, m.Sequence, m.Size()}
	return a.print(result, func(w io.Writer) {
		facts(w, "model", m.Model, "version", m.Version, "sequence", count(m.Sequence), "release", d.String(), "size", bytesText(m.Size()))
		fmt.Fprintln(w, done)
	})
}

// pack writes manifest and unsigned targets into a folder.
func (p *publisher) pack(ctx context.Context, dir string, f versionFlags) (*release.Manifest, error) {
	if f.model == "" || f.version == "" {
		return nil, usagef("give the names with --model and --version")
	}
	if err := p.app.gather(dir, f.graphs); err != nil {
		return nil, err
	}
	content, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	l, err := p.listing(ctx, f.model)
	if err != nil {
		return nil, err
	}
	m, err := content.manifest(f, l.releases(), time.Now())
	if err != nil {
		return nil, err
	}
	role, err := p.mayOnlyDelegate(l)
	if err != nil {
		return nil, err
	}
	next, err := l.add(m, role)
	if err != nil {
		return nil, operator.Errorf(operator.Conflict, "%w", err).WithHint("choose another --version, and a --sequence above all others")
	}
	raw, err := m.Encode()
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "%w", err)
	}
	return m, errors.Join(writeFile(filepath.Join(dir, manifestFile), raw, 0o644), writeFile(filepath.Join(dir, targetsFile), next, 0o644))
}

func modelPush(a *app) *cobra.Command {
	var f versionFlags
	var stage string
	cmd := &cobra.Command{
		Use: "push FOLDER [--model NAME --version NAME]", Short: "Pack, sign, upload and publish a version",
		Long: `Publishes the version in a folder. A folder that was packed is pushed as it is:
its targets.json is signed with the keys of this machine if it needs that. With
--model and --version the folder is packed first.

An upload that breaks off continues where it stopped when push is run again.`,
		Example: `  vedette model push digits-1 --graph digits.onnx --model digits --version 1 --author ann --metric accuracy=0.98`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if stage != "" && !operator.Stage(stage).Valid() {
				return usagef("stage %q is none of none, staging, production, archived", stage)
			}
			p, err := a.publisher()
			if err != nil {
				return err
			}
			m, err := p.push(cmd.Context(), given[0], f)
			if err != nil {
				return err
			}
			if stage != "" {
				change := operator.StageChange{Stage: operator.Stage(stage), Reason: "pushed with --stage"}
				if _, err := p.api.SetStage(cmd.Context(), m.Model, m.Version, change); err != nil {
					return err
				}
			}
			return a.packed(m, fmt.Sprintf("published; roll it out with: vedette rollout create %s %s --start --reason …", m.Model, m.Version))
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&stage, "stage", "", "stage of the new version: staging, production")
	return cmd
}

// push publishes a folder. Files go first: targets never name what is not there.
func (p *publisher) push(ctx context.Context, dir string, f versionFlags) (*release.Manifest, error) {
	const tries = 3
	for try := 1; ; try++ {
		m, err := p.prepare(ctx, dir, f)
		if err != nil {
			return nil, err
		}
		if err := p.upload(ctx, dir, m); err != nil {
			return nil, err
		}
		err = p.pushTargets(ctx, dir, m)
		if err == nil || operator.CodeOf(err) != operator.Stale || f.version == "" || try == tries {
			return m, err
		}
	}
}

// prepare packs a folder, or reads what was packed.
func (p *publisher) prepare(ctx context.Context, dir string, f versionFlags) (*release.Manifest, error) {
	if f.version != "" || f.model != "" {
		return p.pack(ctx, dir, f)
	}
	m, err := readManifest(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, usagef("%s is not packed yet: give --model and --version", dir)
	}
	return m, err
}

func (p *publisher) pushTargets(ctx context.Context, dir string, m *release.Manifest) error {
	path := filepath.Join(dir, targetsFile)
	doc, err := readFile(path, trust.MaxTargets)
	if err != nil {
		return err
	}
	if doc, err = p.sign(doc); err != nil {
		return err
	}
	if err := writeFile(path, doc, 0o644); err != nil {
		return err
	}
	by, err := p.delegator(doc)
	if err != nil {
		return err
	}
	if err := needSignatures(path, doc, by); err != nil {
		return err
	}
	_, err = p.publish(ctx, doc, "push "+m.Model+" "+m.Version)
	if e, ok := errors.AsType[*operator.Error](err); ok && e.Code == operator.Stale {
		return e.WithHint("others published meanwhile: run \"vedette model pack\" again, and have it signed again")
	}
	return err
}

func modelList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list [MODEL]", Short: "List models, or the versions of one",
		Args: args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.complete(0, modelNames),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if len(given) == 1 {
				m, err := c.Model(cmd.Context(), given[0])
				if err != nil {
					return err
				}
				return a.print(m, func(w io.Writer) { versionTable(w, m.List) })
			}
			models, err := c.Models(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(models, func(w io.Writer) { modelTable(w, models) })
		},
	}
}

func modelTable(w io.Writer, models []operator.Model) {
	if len(models) == 0 {
		none(w, "models yet")
		return
	}
	rows := [][]string{}
	for _, m := range models {
		latest := ""
		if m.Latest != nil {
			latest = m.Latest.Version
		}
		rows = append(rows, []string{m.Name, count(m.Versions), latest, m.Production, count(m.Floor), count(m.Devices), count(m.Alarms)})
	}
	grid(w, []string{"model", "versions", "latest", "production", "floor", "devices", "alarms"}, rows)
}

func versionTable(w io.Writer, versions []operator.Version) {
	if len(versions) == 0 {
		none(w, "versions")
		return
	}
	rows := [][]string{}
	for _, v := range versions {
		mark := ""
		switch {
		case v.Withdrawn:
			mark = "withdrawn"
		case v.BelowFloor:
			mark = "below floor"
		}
		rows = append(rows, []string{
			v.Version, count(v.Sequence), string(v.Stage), bytesText(v.Size), count(v.Running.Active), count(v.Running.Desired),
			count(v.Running.Failed), v.Release.Short(), timeText(v.Published), mark,
		})
	}
	grid(w, []string{"version", "seq", "stage", "size", "active", "desired", "failed", "release", "published", ""}, rows)
}

func modelShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show MODEL [VERSION]", Short: "Show a version: manifest, signature, where it runs",
		Long: "Shows one version, by default the newest.",
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			name, err := versionOrLatest(cmd.Context(), c, given)
			if err != nil {
				return err
			}
			v, err := c.Version(cmd.Context(), given[0], name)
			if err != nil {
				return err
			}
			return a.print(v, func(w io.Writer) { showVersion(w, v) })
		},
	}
}

func versionOrLatest(ctx context.Context, c operator.ModelReader, given []string) (string, error) {
	if len(given) > 1 {
		return given[1], nil
	}
	m, err := c.Model(ctx, given[0])
	if err != nil {
		return "", err
	}
	if m.Latest == nil {
		return "", operator.Errorf(operator.NotFound, "model %s has no versions", given[0])
	}
	return m.Latest.Version, nil
}

func showVersion(w io.Writer, v *operator.VersionDetail) {
	facts(w,
		"model", v.Model, "version", v.Version.Version, "release", v.Release.String(), "sequence", count(v.Sequence), "stage", string(v.Stage),
		"size", bytesText(v.Size), "created", timeText(v.Created), "published", timeText(v.Published),
		"signed by", fmt.Sprintf("%d of %d needed, targets version %d, until %s", len(v.Signature.KeyIDs), v.Signature.Threshold, v.Signature.Targets, timeText(v.Signature.Expires)),
		"floor", count(v.Signature.Floor), "running on", fmt.Sprintf("%d devices (%d asked, %d failed)", v.Running.Active, v.Running.Desired, v.Running.Failed),
		"devices", strings.Join(v.Running.Devices, " "))
	m := v.Manifest
	if m == nil {
		return
	}
	lineage(w, &m.Lineage)
	heading(w, "schema")
	rows := [][]string{}
	for _, side := range []struct {
		name string
		list []release.Tensor
	}{{"input", m.Schema.Inputs}, {"output", m.Schema.Outputs}} {
		for _, t := range side.list {
			rows = append(rows, []string{side.name, t.Name, t.Datatype, fmt.Sprint(t.Shape), count(len(t.Features))})
		}
	}
	grid(w, []string{"side", "tensor", "type", "shape", "features"}, rows)
	heading(w, "files")
	rows = nil
	for _, f := range m.Files() {
		rows = append(rows, []string{f.Name, bytesText(f.Size), f.Digest.Short()})
	}
	grid(w, []string{"file", "size", "sha-256"}, rows)
}

func lineage(w io.Writer, l *release.Lineage) {
	metrics := map[string]string{}
	for k, v := range l.Metrics {
		metrics[k] = number(v)
	}
	parent := ""
	if l.Parent != nil {
		parent = l.Parent.Short()
	}
	facts(w, "author", l.Author, "run", l.Run, "data version", l.DataVersion, "commit", l.Commit, "parent", parent, "metrics", labelText(metrics))
}

func modelStage(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "stage MODEL VERSION STAGE --reason TEXT", Short: "Move a version to none, staging, production or archived",
		Args: args(cobra.ExactArgs(3)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			v, err := c.SetStage(cmd.Context(), given[0], given[1], operator.StageChange{Stage: operator.Stage(given[2]), Reason: reason})
			if err != nil {
				return err
			}
			return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "%s %s is in stage %s\n", v.Model, v.Version, v.Stage) })
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

// reasonFlag is on every command that changes the fleet.
func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, for the ledger")
}

func modelFloor(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "floor MODEL VERSION|SEQUENCE", Short: "Let no device run anything older, for good",
		Long: `Raises the model's floor to the given version and signs that. Devices refuse
everything below from then on, also offline and also when asked to go back.`,
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.editModel(cmd.Context(), given[0], reason, func(l *listing, expires time.Time) ([]byte, error) {
				sequence, err := l.sequence(given[1])
				if err != nil {
					return nil, err
				}
				return trust.RaiseFloor(l.targets, given[0], sequence, expires, l.others(false)...)
			})
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func modelRemove(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "remove MODEL VERSION", Short: "Withdraw a version: devices accept it no longer",
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.editModel(cmd.Context(), given[0], reason, func(l *listing, expires time.Time) ([]byte, error) {
				v, role, err := l.find(given[1])
				if err != nil {
					return nil, err
				}
				return trust.RemoveRelease(l.file(role), given[0], v.Release, expires)
			})
		},
	}
	reasonFlag(cmd, &reason)
	return cmd
}

// editModel signs and publishes a change of what is listed of a model.
func (a *app) editModel(ctx context.Context, model, reason string, fn func(l *listing, expires time.Time) ([]byte, error)) error {
	p, err := a.publisher()
	if err != nil {
		return err
	}
	done, err := p.editModel(ctx, model, reason, fn)
	if err != nil {
		return err
	}
	return a.print(done, func(w io.Writer) { fmt.Fprintf(w, "published %s version %d\n", done.Role, done.Targets) })
}

// sequence is that of a signed version, or the number itself.
func (l *listing) sequence(name string) (uint64, error) {
	v, _, err := l.find(name)
	if err == nil {
		return v.Sequence, nil
	}
	if n, bad := strconv.ParseUint(name, 10, 64); bad == nil {
		return n, nil
	}
	return 0, err
}

func modelVerify(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "verify MODEL [VERSION]", Short: "Check signatures as a device would, with this machine's own root",
		Long: `Fetches the server's metadata and checks it with the root.json of this machine,
by the same rules as a device: signatures, versions, expiry, floor. Then compares
the manifest that the server shows with the one that was signed.`,
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error { return a.verify(cmd.Context(), given) },
	}
}

func (a *app) verify(ctx context.Context, given []string) error {
	ring, err := a.keyring()
	if err != nil {
		return err
	}
	pin, err := ring.pin()
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	name, err := versionOrLatest(ctx, c, given)
	if err != nil {
		return err
	}
	v, err := c.Version(ctx, given[0], name)
	if err != nil {
		return err
	}
	target, err := asDevice(ctx, c, pin, v)
	if err != nil {
		return err
	}
	return a.print(target, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s (sequence %d) is signed and may run: manifest %s\n", target.Model, target.Version, target.Sequence, target.Digest)
	})
}

// asDevice verifies a version with a device's own code and an empty memory.
func asDevice(ctx context.Context, c operator.TrustStore, pin release.Digest, v *operator.VersionDetail) (trust.Target, error) {
	var none trust.Target
	dir, err := os.MkdirTemp("", "vedette-verify-")
	if err != nil {
		return none, fileError(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, err := trust.Open(dir, pin)
	if err != nil {
		return none, fileError(err)
	}
	if err := store.Refresh(ctx, fetcher{c}, time.Now(), v.Model); err != nil {
		return none, operator.Errorf(operator.TrustRefused, "the server's metadata: %w", err)
	}
	target, err := store.Release(v.Model, v.Release)
	if err != nil {
		return none, operator.Errorf(operator.TrustRefused, "%s %s: %w", v.Model, v.Version.Version, err)
	}
	shown, err := v.Manifest.Digest()
	if err != nil || shown != target.Digest {
		return none, operator.Errorf(operator.TrustRefused, "the server shows another manifest than the one that was signed: %s, signed %s", shown, target.Digest)
	}
	return target, nil
}

// fetcher reads metadata as a device does, over the operator API.
type fetcher struct{ operator.TrustStore }

// Metadata reads one file.
func (f fetcher) Metadata(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := f.TrustMetadata(ctx, name)
	if operator.CodeOf(err) == operator.NotFound {
		return nil, fmt.Errorf("%w: %s", trust.ErrNotFound, name)
	}
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes", trust.ErrMalformed, name, len(b))
	}
	return b, err
}

func modelNames(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	models, err := c.Models(ctx)
	names := make([]string, len(models))
	for i, m := range models {
		names[i] = m.Name
	}
	return names, err
}

func versionNames(ctx context.Context, c *client.Client, given []string) ([]string, error) {
	m, err := c.Model(ctx, given[0])
	if err != nil {
		return nil, err
	}
	names := make([]string, len(m.List))
	for i, v := range m.List {
		names[i] = v.Version
	}
	return names, nil
}

// completeVersion offers models first and then versions.
func (a *app) completeVersion() cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(given) == 0 {
			return a.complete(0, modelNames)(cmd, given, typed)
		}
		return a.complete(1, versionNames)(cmd, given, typed)
	}
}
