package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// publisher edits and publishes the signed targets.
type publisher struct {
	app  *app
	api  *client.Client
	ring keyring
	root []byte
	key  *trust.Key // sign with this one alone; nil: those of the folder
}

func (a *app) publisher() (*publisher, error) {
	ring, err := a.keyring()
	if err != nil {
		return nil, err
	}
	root, err := ring.root()
	if err != nil {
		return nil, err
	}
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	return &publisher{app: a, api: c, ring: ring, root: root}, nil
}

// current reads the newest targets from the server and believes them only when
// the publishers' keys, as the operator's own root names them, have signed, and
// when they are no older than what was seen before.
func (p *publisher) current(ctx context.Context) ([]byte, error) {
	if err := p.followRoot(ctx); err != nil {
		return nil, err
	}
	doc, err := p.api.TrustMetadata(ctx, "targets")
	if err != nil {
		return nil, err
	}
	who, err := missing(doc, p.root)
	if err != nil {
		return nil, err
	}
	if who != "" {
		return nil, operator.Errorf(operator.TrustRefused, "the server's targets are not signed by the keys of %s: they lack %s", p.ring.path(rootFile), who).
			WithHint("is this the right server, and is root.json its newest? Sign nothing until that is clear")
	}
	if err := p.noRollback(doc); err != nil {
		return nil, err
	}
	return doc, p.ring.write(targetsFile, doc)
}

// maxRoots bounds how many roots are followed in one go.
const maxRoots = 64

// followRoot brings the operator's own root up to date along its chain: each
// one must be signed by the one before it, so nothing is taken on the server's
// word.
func (p *publisher) followRoot(ctx context.Context) error {
	for range maxRoots {
		head, err := trust.ReadHeader(p.root)
		if err != nil {
			return operator.Errorf(operator.Invalid, "read %s: %w", p.ring.path(rootFile), err)
		}
		next, err := p.api.TrustMetadata(ctx, fmt.Sprintf("root.%d", head.Version+1))
		if operator.CodeOf(err) == operator.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := trust.CheckRoot(p.root, next, time.Now()); err != nil {
			return operator.Errorf(operator.TrustRefused, "the server's root %d: %w", head.Version+1, err).
				WithHint("it was not signed by the holders of the root keys; do nothing until that is clear")
		}
		if err := p.ring.write(rootFile, next); err != nil {
			return err
		}
		p.root = next
		p.app.remark("root of trust followed to version %d", head.Version+1)
	}
	return operator.Errorf(operator.TrustRefused, "the server has more than %d new roots", maxRoots)
}

// noRollback compares a file with the one of the same role that was seen last.
func (p *publisher) noRollback(doc []byte) error {
	now, err := trust.ReadHeader(doc)
	if err != nil {
		return operator.Errorf(operator.TrustRefused, "read the server's targets: %w", err)
	}
	name := now.Name() + ".json"
	if !p.ring.has(name) {
		return nil
	}
	seen, err := readFile(p.ring.path(name), trust.MaxTargets)
	if err != nil {
		return err
	}
	old, err := trust.ReadHeader(seen)
	if err != nil {
		return operator.Errorf(operator.Invalid, "read %s: %w", p.ring.path(name), err)
	}
	if who, err := p.missing(seen); err != nil || who != "" {
		return err // a draft of our own that was never published counts for nothing
	}
	if now.Version < old.Version {
		return operator.Errorf(operator.TrustRefused, "the server shows %s version %d, and version %d was seen before", now.Name(), now.Version, old.Version).
			WithHint("the server was restored from an old copy, or is not the right one; publish nothing until that is clear")
	}
	return nil
}

// missing says whose signatures a file still needs; empty is enough.
func (p *publisher) missing(doc []byte) (string, error) {
	by, err := p.delegator(doc)
	if err != nil {
		return "", err
	}
	return missing(doc, by)
}

// sign signs a file with the keys at hand, as far as they may.
func (p *publisher) sign(doc []byte) ([]byte, error) {
	keys, err := p.keys()
	if err != nil {
		return nil, err
	}
	by, err := p.delegator(doc)
	if err != nil {
		return nil, err
	}
	signed, _, err := signWith(doc, keys, by)
	return signed, err
}

// edit changes the targets with fn, signs and publishes.
func (p *publisher) edit(ctx context.Context, reason string, fn func(targets []byte, expires time.Time) ([]byte, error)) (*operator.Published, error) {
	return p.again(ctx, reason, func(expires time.Time) ([]byte, error) {
		doc, err := p.current(ctx)
		if err != nil {
			return nil, err
		}
		return edited(fn(doc, expires))
	})
}

// editModel changes the targets, or the file of the model's role.
func (p *publisher) editModel(ctx context.Context, model, reason string, fn func(l *listing, expires time.Time) ([]byte, error)) (*operator.Published, error) {
	return p.again(ctx, reason, func(expires time.Time) ([]byte, error) {
		l, err := p.listing(ctx, model)
		if err != nil {
			return nil, err
		}
		return edited(fn(l, expires))
	})
}

// edited gives a refused edit its code.
func edited(doc []byte, err error) ([]byte, error) {
	if _, known := errors.AsType[*operator.Error](err); err == nil || known {
		return doc, err
	}
	return nil, operator.Errorf(operator.Invalid, "%w", err)
}

// again makes a file, signs and publishes it. When somebody else was faster it
// begins again from theirs.
func (p *publisher) again(ctx context.Context, reason string, fn func(expires time.Time) ([]byte, error)) (*operator.Published, error) {
	const tries = 3
	for try := 1; ; try++ {
		next, err := fn(time.Now().Add(trust.DefaultTargetsLifetime))
		if err != nil {
			return nil, err
		}
		if next, err = p.sign(next); err != nil {
			return nil, err
		}
		done, err := p.publish(ctx, next, reason)
		if operator.CodeOf(err) != operator.Stale || try == tries {
			return done, err
		}
	}
}

// publish sends a signed file. One that others have yet to sign is kept beside
// the keys.
func (p *publisher) publish(ctx context.Context, doc []byte, reason string) (*operator.Published, error) {
	head, err := trust.ReadHeader(doc)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "read targets: %w", err)
	}
	name := head.Name() + ".json"
	by, err := p.delegator(doc)
	if err != nil {
		return nil, err
	}
	if who, err := missing(doc, by); err != nil || who != "" {
		if err := p.ring.write(name, doc); err != nil {
			return nil, err
		}
		return nil, errors.Join(err, needSignatures(p.ring.path(name), doc, by))
	}
	done, err := p.api.Publish(ctx, operator.TargetsUpload{Targets: doc, Previous: head.Version - 1, Reason: reason})
	if err != nil {
		return nil, err
	}
	return done, p.ring.write(name, doc)
}

// upload sends the files of a release and its manifest, with progress.
func (p *publisher) upload(ctx context.Context, dir string, m *release.Manifest) error {
	raw, err := m.Encode()
	if err != nil {
		return operator.Errorf(operator.Invalid, "%w", err)
	}
	files := m.Files()
	bar := p.app.bar("uploading "+m.Model+" "+m.Version, m.Size()+int64(len(raw)))
	defer bar.close()
	var done int64
	send := func(d release.Digest, size int64, content io.ReaderAt) error {
		u := &client.Uploader{Store: p.api, Progress: func(total int64) { bar.set(done + total) }}
		err := u.Upload(ctx, d, size, content)
		done += size
		return err
	}
	for _, f := range files {
		if err := withFile(filepath.Join(dir, f.Name), func(r *os.File) error { return send(f.Digest, f.Size, r) }); err != nil {
			return fmt.Errorf("upload %s: %w", f.Name, err)
		}
	}
	if err := send(release.DigestOf(raw), int64(len(raw)), bytes.NewReader(raw)); err != nil {
		return fmt.Errorf("upload the manifest: %w", err)
	}
	return nil
}

func withFile(path string, fn func(*os.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fileError(err)
	}
	defer func() { _ = f.Close() }()
	return fn(f)
}

// hashFile is a file's digest and size.
func hashFile(path string) (release.File, int64, error) {
	file := release.File{Name: filepath.Base(path)}
	err := withFile(path, func(f *os.File) error {
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err != nil {
			return fileError(err)
		}
		file.Size = n
		file.Digest, err = release.DigestFromBytes(h.Sum(nil))
		return err
	})
	return file, file.Size, err
}

// readManifest reads a packed folder's manifest and checks that its files are
// still what it says.
func readManifest(dir string) (*release.Manifest, error) {
	path := filepath.Join(dir, manifestFile)
	raw, err := readFile(path, maxSmallFile)
	if err != nil {
		return nil, err
	}
	m, err := release.Decode(raw)
	if err != nil {
		return nil, operator.Errorf(operator.Invalid, "%s: %w", path, err).
			WithHint(`nobody writes a manifest by hand: pack the folder again with "vedette model pack", and find out who changed it`)
	}
	for _, f := range m.Files() {
		have, _, err := hashFile(filepath.Join(dir, f.Name))
		if err != nil {
			return nil, err
		}
		if have.Digest != f.Digest {
			return nil, operator.Errorf(operator.DigestMismatch, "%s was changed after %s was packed", f.Name, dir).
				WithHint(`pack the folder again with "vedette model pack"`)
		}
	}
	return m, nil
}
