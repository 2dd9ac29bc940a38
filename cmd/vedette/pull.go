package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func modelPull(a *app) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "pull MODEL [VERSION]", Short: "Download a version as the folder it was packed from",
		Long: `Downloads the graphs, schema, baseline, golden vectors and manifest of a version,
by default the newest, to a folder like the one that was pushed: "vedette-agent
evaluate" and "vedette model push" take it. Needs role scientist.

Nothing is taken on the server's word: the manifest must be one that publishers
have signed, by the root.json of this machine, and every file what the manifest
says. A download that broke off continues.`,
		Example: `  vedette model pull digits 2 --to digits-2/
  vedette-agent evaluate digits-2/ --rows heldout.csv --truth digit`,
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: a.completeVersion(),
		RunE: func(cmd *cobra.Command, given []string) error {
			p, err := a.publisher()
			if err != nil {
				return err
			}
			name, err := versionOrLatest(cmd.Context(), p.api, given)
			if err != nil {
				return err
			}
			if to == "" {
				to = given[0] + "-" + name
			}
			m, err := p.pull(cmd.Context(), given[0], name, to)
			if err != nil {
				return err
			}
			return a.packed(m, "pulled to "+to)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "folder to write to (default: MODEL-VERSION here)")
	_ = cmd.MarkFlagDirname("to") // the flag exists
	return cmd
}

// pull brings the folder of a signed version here. Files that are there already
// are not fetched again.
func (p *publisher) pull(ctx context.Context, model, name, dir string) (*release.Manifest, error) {
	m, raw, err := p.signedManifest(ctx, model, name)
	if err != nil {
		return nil, err
	}
	if err := onlyOf(dir, release.DigestOf(raw)); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fileError(err)
	}
	for _, f := range m.Files() {
		path := filepath.Join(dir, f.Name)
		if have, _, err := hashFile(path); err == nil && have.Digest == f.Digest {
			continue
		}
		if err := p.api.DownloadRelease(ctx, model, release.DigestOf(raw).String(), f, path); err != nil {
			return nil, err
		}
	}
	schema, err := json.MarshalIndent(m.Schema, "", "  ") // a part of the manifest, and a file of a folder that is to be packed
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "encode schema: %w", err)
	}
	return m, errors.Join(
		writeFile(filepath.Join(dir, schemaFile), append(schema, '\n'), 0o644), writeFile(filepath.Join(dir, manifestFile), raw, 0o644))
}

// signedManifest is the manifest of a version that publishers have signed.
func (p *publisher) signedManifest(ctx context.Context, model, name string) (*release.Manifest, []byte, error) {
	l, err := p.listing(ctx, model)
	if err != nil {
		return nil, nil, err
	}
	signed, _, err := l.find(name)
	if err != nil {
		return nil, nil, err
	}
	v, err := p.api.Version(ctx, model, signed.Release.String())
	if err != nil {
		return nil, nil, err
	}
	if v.Manifest == nil {
		return nil, nil, operator.Errorf(operator.NotFound, "the server cannot read the manifest of %s %s", model, name)
	}
	raw, err := v.Manifest.Encode()
	if err != nil || release.DigestOf(raw) != signed.Release {
		return nil, nil, operator.Errorf(operator.TrustRefused, "the server shows another manifest of %s %s than the one that was signed (%s)", model, name, signed.Release.Short())
	}
	m, err := release.Decode(raw) // as a device reads it, names of files checked
	if err != nil {
		return nil, nil, operator.Errorf(operator.TrustRefused, "manifest of %s %s: %w", model, name, err)
	}
	return m, raw, nil
}

// onlyOf refuses a folder that holds another version: two versions' files
// together would be neither.
func onlyOf(dir string, d release.Digest) error {
	path := filepath.Join(dir, manifestFile)
	have, _, err := hashFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && have.Digest != d {
		err = usagef("%s holds another version already; name another folder with --to", dir)
	}
	return err
}
