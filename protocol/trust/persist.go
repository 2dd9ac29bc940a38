package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// On disk a store is a folder with numbered sets. A set is written whole under
// another name, synced, and renamed, so a power cut leaves the one before or the
// new one. The set before stays as a spare: a file that flash has damaged is
// taken from there, or fetched again. Layout of set.00000017:
//
//	root.1.json …      the chain of roots from the pinned one on
//	timestamp.json  snapshot.json  targets.json  model-NAME.json …
//	marks.json         the highest versions and floors seen
//
// No metadata is believed because it lies there: it is verified again from the
// pin at every start.
const (
	setPrefix     = "set."
	tempPrefix    = "unfinished."
	marksFile     = "marks.json"
	timestampFile = "timestamp.json"
	snapshotFile  = "snapshot.json"
	targetsFile   = "targets.json"
	maxMarks      = 1 << 20
	spareSets     = 2
)

// marksFormat is the version of marks.json. History:
//
//	1  2026-11-23  first
const marksFormat = 1

// marks are the highest of everything that was ever verified. They outlive the
// files they were read from, and refuse to go back when those are lost.
type marks struct {
	Format    int               `json:"format"`
	Root      int64             `json:"root"`
	Timestamp int64             `json:"timestamp"`
	Snapshot  int64             `json:"snapshot"`
	Targets   int64             `json:"targets"`
	Delegated map[string]int64  `json:"delegated,omitempty"` // by role
	Floors    map[string]uint64 `json:"floors,omitempty"`
	// Keys are the key ids of each role under which the marks were made.
	Keys map[string][]string `json:"keys,omitempty"`
	// Accepted are the releases that Release has answered while metadata was
	// fresh; a device may return to them offline.
	Accepted []release.Digest `json:"accepted,omitempty"`
}

// sealedMarks guard marks against damage that is still JSON.
type sealedMarks struct {
	Sum   release.Digest  `json:"sum"` // of Marks
	Marks json.RawMessage `json:"marks"`
}

func (m *marks) clone() *marks {
	c := *m
	c.Floors = maps.Clone(m.Floors)
	c.Delegated = maps.Clone(m.Delegated)
	c.Keys = maps.Clone(m.Keys)
	c.Accepted = slices.Clone(m.Accepted)
	return &c
}

func encodeMarks(m *marks) ([]byte, error) {
	m.Format = marksFormat
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode marks: %w", err)
	}
	return json.Marshal(sealedMarks{Sum: release.DigestOf(b), Marks: b})
}

func decodeMarks(b []byte) (*marks, bool) {
	var sealed sealedMarks
	var m marks
	if json.Unmarshal(b, &sealed) != nil || release.DigestOf(sealed.Marks) != sealed.Sum {
		return nil, false
	}
	if json.Unmarshal(sealed.Marks, &m) != nil || m.Format != marksFormat {
		return nil, false
	}
	return &m, true
}

// setFolder is one set on disk.
type setFolder string

// read returns a file's bytes, or nil when it is missing, unreadable, empty or
// over the limit: all of these mean that it has to be fetched again.
func (s setFolder) read(name string, limit int64) []byte {
	f, err := os.Open(filepath.Join(string(s), name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil || int64(len(b)) > limit {
		return nil
	}
	return b
}

// listSets names the sets in dir, newest first, and removes unfinished ones.
func listSets(dir string) (numbers []uint64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list trust sets: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("remove unfinished trust set: %w", err)
			}
		}
		digits, ok := strings.CutPrefix(e.Name(), setPrefix)
		if n, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && e.IsDir() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	slices.Reverse(numbers)
	return numbers, nil
}

func setPath(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%08d", setPrefix, n))
}

// writeSet writes files as set n and removes the sets that are no longer spare.
func writeSet(dir string, n uint64, files map[string][]byte) error {
	temp := filepath.Join(dir, fmt.Sprintf("%s%08d", tempPrefix, n))
	if err := os.RemoveAll(temp); err != nil {
		return fmt.Errorf("write trust set: %w", err)
	}
	if err := os.Mkdir(temp, 0o700); err != nil {
		return fmt.Errorf("write trust set: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeSynced(filepath.Join(temp, name), files[name]); err != nil {
			return fmt.Errorf("write trust set: %w", err)
		}
	}
	if err := atomicfile.SyncDir(temp); err != nil {
		return fmt.Errorf("write trust set: %w", err)
	}
	if err := atomicfile.Rename(temp, setPath(dir, n)); err != nil {
		return fmt.Errorf("write trust set: %w", err)
	}
	return removeOldSets(dir)
}

func removeOldSets(dir string) error {
	numbers, err := listSets(dir)
	if err != nil {
		return err
	}
	for _, n := range numbers[min(spareSets, len(numbers)):] {
		if err := os.RemoveAll(setPath(dir, n)); err != nil {
			return fmt.Errorf("remove old trust set: %w", err)
		}
	}
	return nil
}

// writeSynced writes a file that only its owner can read, and syncs it.
func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(b))
	return errors.Join(err, f.Sync(), f.Close())
}
