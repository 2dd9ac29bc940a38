package mlflow

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Blobs keeps bytes by their content. It must be the artifacts' own: what no
// path names any more is removed from it.
type Blobs interface {
	BlobReader
	BlobWriter
}

// BlobReader reads blobs.
type BlobReader interface {
	Has(d release.Digest) bool
	Open(ctx context.Context, d release.Digest) (io.ReadSeekCloser, int64, error)
	Digests() []release.Digest
}

// BlobWriter makes and removes blobs.
type BlobWriter interface {
	Put(ctx context.Context, r io.Reader) (release.Digest, int64, error)
	Remove(ctx context.Context, d release.Digest) error
}

// Files are the artifacts: paths, each naming a blob. A path is one record of a
// bucket, so replacing a file is one write and readers see the old one or the
// new one.
type Files struct {
	blobs  Blobs
	bucket kvstore.Bucket

	mu   sync.Mutex
	refs map[release.Digest]int // guarded by mu: how many paths name a blob
}

// File is one artifact.
type File struct {
	Path    string         `json:"path"`
	Digest  release.Digest `json:"digest"`
	Size    int64          `json:"size"` // bytes
	AddedMS int64          `json:"added_ms"`
}

// OpenFiles reads which blobs are in use and removes the others: an upload that
// a crash cut off between its blob and its path leaves one.
func OpenFiles(ctx context.Context, blobs Blobs, bucket kvstore.Bucket) (*Files, error) {
	f := &Files{blobs: blobs, bucket: bucket, refs: map[release.Digest]int{}}
	entries, err := bucket.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	for _, e := range entries {
		file, err := parseFile(e)
		if err != nil {
			return nil, err
		}
		f.refs[file.Digest]++
	}
	for _, d := range blobs.Digests() {
		if f.refs[d] == 0 {
			if err := blobs.Remove(ctx, d); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func parseFile(e kvstore.Entry) (File, error) {
	var f File
	if err := json.Unmarshal(e.Value, &f); err != nil {
		return f, fmt.Errorf("read artifact %s: %w", e.Key, err)
	}
	return f, nil
}

// Keys: artifacts of one run or logged model share a prefix, so that listing
// one reads no other.
func fileKey(path string) string {
	sum := sha256.Sum256([]byte(path))
	return kvstore.Key(append(place(path), hex.EncodeToString(sum[:16]))...)
}

// place is experiment and run, or experiment and logged model, of a path. Long
// names are shortened by their hash: a key has bounds, a path has others.
func place(path string) []string {
	parts := strings.SplitN(path, "/", 4)
	second := ""
	switch {
	case len(parts) > 3 && parts[1] == "models":
		second = "models/" + parts[2]
	case len(parts) > 2:
		second = parts[1]
	}
	return []string{short(parts[0]), short(second)}
}

func short(part string) string {
	const most = 80
	if len(part) <= most {
		return part
	}
	sum := sha256.Sum256([]byte(part))
	return part[:16] + "+" + hex.EncodeToString(sum[:])
}

// Put stores what r gives under a path, in place of what was there.
func (f *Files) Put(ctx context.Context, path string, r io.Reader) (File, error) {
	d, size, err := f.blobs.Put(ctx, r)
	if err != nil {
		return File{}, err
	}
	file := File{Path: path, Digest: d, Size: size, AddedMS: time.Now().UnixMilli()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.blobs.Has(d) { // the last path with the same content was removed meanwhile
		return File{}, operator.Errorf(operator.Unavailable, "the artifact was removed while it was stored: log it again")
	}
	old, err := f.at(ctx, path)
	if err != nil && !errors.Is(err, kvstore.ErrNotFound) {
		return File{}, err
	}
	value, err := json.Marshal(file)
	if err != nil {
		return File{}, fmt.Errorf("encode artifact: %w", err)
	}
	if _, err := f.bucket.Put(ctx, fileKey(path), value); err != nil {
		return File{}, fmt.Errorf("write artifact: %w", err)
	}
	f.refs[d]++
	if old.Path != "" {
		return file, f.release(ctx, old.Digest)
	}
	return file, nil
}

// release takes one name off a blob; f.mu is held.
func (f *Files) release(ctx context.Context, d release.Digest) error {
	if f.refs[d]--; f.refs[d] > 0 {
		return nil
	}
	delete(f.refs, d)
	return f.blobs.Remove(ctx, d)
}

func (f *Files) at(ctx context.Context, path string) (File, error) {
	e, err := f.bucket.Get(ctx, fileKey(path))
	if err != nil {
		return File{}, err
	}
	return parseFile(e)
}

// Stat finds one artifact.
func (f *Files) Stat(ctx context.Context, path string) (File, error) {
	file, err := f.at(ctx, path)
	if errors.Is(err, kvstore.ErrNotFound) {
		return File{}, refuse(tracking.NotFound, "No such artifact: '%s'", path)
	}
	return file, err
}

// Open opens one artifact; the caller closes it.
func (f *Files) Open(ctx context.Context, path string) (io.ReadSeekCloser, File, error) {
	file, err := f.Stat(ctx, path)
	if err != nil {
		return nil, file, err
	}
	content, _, err := f.blobs.Open(ctx, file.Digest)
	return content, file, err
}

// Below lists all artifacts below a directory, sorted by path.
func (f *Files) Below(ctx context.Context, dir string) ([]File, error) {
	entries, err := f.bucket.List(ctx, prefixOf(dir))
	if err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	var out []File
	for _, e := range entries {
		file, err := parseFile(e)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(file.Path, dir+"/") {
			out = append(out, file)
		}
	}
	slices.SortFunc(out, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}

// prefixOf is the part that the keys of all files below a directory share.
func prefixOf(dir string) string {
	parts := strings.SplitN(dir, "/", 4)
	if len(parts) == 1 || len(parts) == 2 && parts[1] == "models" {
		return kvstore.Key(short(parts[0]))
	}
	return kvstore.Key(place(dir + "/x/x")[:2]...)
}

// Listed is one entry of a directory.
type Listed struct {
	Name string // without the directory
	Dir  bool
	Size int64 // bytes, of a file
}

// List lists a directory. One that holds nothing is empty: artifacts have no
// directories of their own.
func (f *Files) List(ctx context.Context, dir string) ([]Listed, error) {
	files, err := f.Below(ctx, dir)
	if err != nil {
		return nil, err
	}
	var out []Listed
	for _, file := range files {
		name, _, deeper := strings.Cut(strings.TrimPrefix(file.Path, dir+"/"), "/")
		if n := len(out); n > 0 && out[n-1].Name == name {
			continue
		}
		l := Listed{Name: name, Dir: deeper}
		if !deeper {
			l.Size = file.Size
		}
		out = append(out, l)
	}
	return out, nil
}

// Remove removes an artifact, or all below a directory, and tells how many.
func (f *Files) Remove(ctx context.Context, path string) (int, error) {
	all, err := f.Below(ctx, path)
	if err != nil {
		return 0, err
	}
	if file, err := f.at(ctx, path); err == nil {
		all = append(all, file)
	} else if !errors.Is(err, kvstore.ErrNotFound) {
		return 0, err
	}
	for i, file := range all {
		if err := f.remove(ctx, file.Path); err != nil {
			return i, err
		}
	}
	return len(all), nil
}

func (f *Files) remove(ctx context.Context, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := f.at(ctx, path) // again: it may have been replaced
	if errors.Is(err, kvstore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.bucket.Delete(ctx, fileKey(path)); err != nil {
		return fmt.Errorf("remove artifact: %w", err)
	}
	return f.release(ctx, file.Digest)
}
