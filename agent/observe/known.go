package observe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vedette-edge/vedette/protocol/release"
)

// tableFile remembers the classes of releases, for labels that arrive after the
// release was replaced, or after a restart.
const tableFile = "releases.json"

// Bounds of the table: a day of labels does not see more releases, and the
// classes of each have bounded names in its manifest.
const (
	maxKnown     = 32
	maxTableFile = 8 << 20
)

// knownRelease is one release that served here.
type knownRelease struct {
	Model   string         `json:"model"`
	Release release.Digest `json:"release"`
	Classes []string       `json:"classes"`
}

// table holds the releases announced most recently, newest last.
type table struct {
	path string

	mu      sync.Mutex // guards entries
	entries []knownRelease
}

// openTable reads the table. A damaged one starts over: it costs late labels
// their match.
func openTable(dir string) (*table, error) {
	t := &table{path: filepath.Join(dir, tableFile)}
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open known releases: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := json.NewDecoder(io.LimitReader(f, maxTableFile)).Decode(&t.entries); err != nil {
		t.entries = nil
	}
	return t, nil
}

// add makes a release the newest one and writes the table down.
func (t *table) add(k knownRelease) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.entries); n > 0 && t.entries[n-1].Release == k.Release {
		return nil
	}
	next := slices.DeleteFunc(slices.Clone(t.entries), func(e knownRelease) bool { return e.Release == k.Release })
	next = append(next, k)
	next = next[max(0, len(next)-maxKnown):]
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode known releases: %w", err)
	}
	if err := replace(t.path, data); err != nil {
		return err
	}
	t.entries = next
	return nil
}

// find returns the release with a tag.
func (t *table) find(tag uint64) (knownRelease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.entries, func(e knownRelease) bool { return tagOf(e.Release) == tag })
	if i < 0 {
		return knownRelease{}, false
	}
	return t.entries[i], true
}

// newest returns the release of a model that was announced last.
func (t *table) newest(model string) (knownRelease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range slices.Backward(t.entries) {
		if e.Model == model {
			return e, true
		}
	}
	return knownRelease{}, false
}

// replace writes a file by temporary file, sync, rename and sync of the folder.
func replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("make temporary file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("replace %s: %w", filepath.Base(path), err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
