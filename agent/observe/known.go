package observe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
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
	// Challenger says that the release ran beside another one when it was
	// announced last.
	Challenger bool `json:"challenger,omitempty"`
}

// table holds the releases announced most recently, newest last.
type table struct {
	path string

	mu      sync.Mutex // guards what follows
	entries []knownRelease
	unsaved bool // the disk did not take the newest
}

// openTable reads the table. One that cannot be read starts over: it costs late
// labels their match.
func openTable(dir string, log *slog.Logger) *table {
	t := &table{path: filepath.Join(dir, tableFile)}
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t
	}
	if err == nil {
		defer func() { _ = f.Close() }()
		err = json.NewDecoder(io.LimitReader(f, maxTableFile)).Decode(&t.entries)
	}
	if err != nil {
		t.entries = nil
		log.Warn("releases of before are not known: late labels of theirs find no match", "error", err)
	}
	return t
}

// add makes a release the newest one and writes the table down. On an error it
// is known until the next start only.
func (t *table) add(k knownRelease) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.entries); n > 0 && !t.unsaved && t.entries[n-1].Release == k.Release && t.entries[n-1].Challenger == k.Challenger {
		return nil
	}
	next := slices.DeleteFunc(slices.Clone(t.entries), func(e knownRelease) bool { return e.Release == k.Release })
	next = append(next, k)
	t.entries = next[max(0, len(next)-maxKnown):]
	err := t.save()
	t.unsaved = err != nil
	return err
}

// save writes the table down. The caller holds mu.
func (t *table) save() error {
	data, err := json.Marshal(t.entries)
	if err != nil {
		return fmt.Errorf("encode known releases: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(t.path), 0o700); err != nil {
		return fmt.Errorf("make folder of known releases: %w", err)
	}
	if err := atomicfile.Write(t.path, data); err != nil {
		return fmt.Errorf("write known releases: %w", err)
	}
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

// newest returns the release of a model that was announced last and is no
// challenger: a label for a prediction nobody knows counts against that one.
func (t *table) newest(model string) (knownRelease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range slices.Backward(t.entries) {
		if e.Model == model && !e.Challenger {
			return e, true
		}
	}
	return knownRelease{}, false
}
