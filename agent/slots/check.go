package slots

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/vedette-edge/vedette/protocol/release"
)

// readManifest reads the manifest in a release's folder; only the one whose
// digest is d will do.
func readManifest(fsys fs.FS, dir string, d release.Digest) (*release.Manifest, error) {
	raw, err := readFile(fsys, path.Join(dir, release.ManifestName), release.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the manifest is missing", ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	if release.DigestOf(raw) != d {
		return nil, fmt.Errorf("%w: the manifest has another digest", ErrDamaged)
	}
	return release.Decode(raw)
}

// check reads a whole release. It names the files in dir that are wrong; the
// error then wraps ErrDamaged.
func check(fsys fs.FS, dir string, d release.Digest) (bad []string, err error) {
	m, err := readManifest(fsys, dir, d)
	if err != nil {
		return []string{release.ManifestName}, fmt.Errorf("check release %s: %w", d.Short(), err)
	}
	for _, f := range m.Files() {
		if err := checkFile(fsys, path.Join(dir, f.Digest.String()), f); err != nil {
			return []string{f.Digest.String()}, fmt.Errorf("check release %s: %w", d.Short(), err)
		}
	}
	return nil, nil
}

func checkFile(fsys fs.FS, name string, want release.File) error {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: file %s is missing", ErrDamaged, want.Name)
	}
	if err != nil {
		return fmt.Errorf("open file %s: %w", want.Name, err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, want.Size+1))
	if err != nil {
		return fmt.Errorf("read file %s: %w", want.Name, err)
	}
	if n != want.Size || release.Digest(h.Sum(nil)) != want.Digest {
		return fmt.Errorf("%w: file %s is not what was signed", ErrDamaged, want.Name)
	}
	return nil
}

// syncAll makes a folder of files durable.
func syncAll(fsys FS, dir string) error {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := fsys.Sync(path.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return fsys.Sync(dir)
}
