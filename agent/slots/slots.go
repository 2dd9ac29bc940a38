// Package slots keeps the releases of each model on disk: the one being staged,
// the one on trial, the active one and the one before it.
//
// A model's folder holds one folder per release, named by the release's digest
// and laid out as package pull leaves it, and slots.json, which says which
// release has which slot. slots.json is the only truth: it is replaced whole
// (temporary file, sync, rename, sync of the folder), so every change of slots
// is one step that a power cut either keeps or undoes. Moving folders instead
// would need two renames for one switch, and an instant with no active model
// between them. A folder whose name ends in ".part" holds bytes that nobody has
// verified; folders that no slot names are removed at open.
package slots

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Format is the version of slots.json. History:
//
//	1  2026-11-23  first
const Format = 1

// Folder is where the models lie below the root of the file system.
const Folder = "models"

// ChallengerFolder is where the challengers' releases lie, laid out as Folder
// is: one folder per model.
const ChallengerFolder = "challengers"

const (
	recordName = "slots.json"
	part       = ".part"  // unverified
	maxRecord  = 64 << 10 // bytes of slots.json; a real one has under 2,000
)

// ErrEmpty says that the slot asked for holds no such release.
var ErrEmpty = errors.New("no such release in the slot")

// errFormat says that another version of the agent wrote the record.
var errFormat = errors.New("slots.json has format")

// Slot is one release in its place. The zero Slot is empty.
type Slot struct {
	Release release.Digest `json:"release"`
	// Variant, P95 and PeakBytes are what the trial chose and measured.
	Variant   string        `json:"variant,omitempty"`
	P95       time.Duration `json:"p95,omitempty"`
	PeakBytes uint64        `json:"peak_bytes,omitempty"`
	Provider  string        `json:"provider,omitempty"`
}

// Empty reports whether the slot holds no release.
func (s Slot) Empty() bool { return s.Release.IsZero() }

// Set is the slots of one model.
type Set struct {
	Format   int  `json:"format"`
	Staged   Slot `json:"staged"`   // being fetched, not verified
	Trial    Slot `json:"trial"`    // verified, not yet serving
	Active   Slot `json:"active"`   // serves
	Previous Slot `json:"previous"` // served before; kept to go back to
}

// verified says whether a slot that only verified releases reach holds d.
func (s Set) verified(d release.Digest) bool {
	return !d.IsZero() && (s.Trial.Release == d || s.Active.Release == d || s.Previous.Release == d)
}

// Slots is the models' folder of one device.
type Slots struct {
	fsys   FS
	base   string
	root   string // Folder or ChallengerFolder
	beside *Slots // the other one of these two; files are linked from there

	mu   sync.Mutex     // guards sets and all changes below root, but for what the caller of Stage writes
	sets map[string]Set // by model
	lost []string       // models whose record could not be read at open
}

// Open reads the slots below Folder and ChallengerFolder of fsys and removes
// what no slot names. base is the path by which the rest of the process knows
// the root of fsys.
func Open(fsys FS, base string) (*Slots, error) {
	models := &Slots{fsys: fsys, base: base, root: Folder, sets: map[string]Set{}}
	challengers := &Slots{fsys: fsys, base: base, root: ChallengerFolder, sets: map[string]Set{}}
	models.beside, challengers.beside = challengers, models
	for _, s := range []*Slots{models, challengers} {
		if err := s.open(); err != nil {
			return nil, err
		}
	}
	return models, nil
}

// Challengers are the slots of the releases that run beside the active ones of
// the same models. They keep no previous release: a challenger that fails is
// taken away, and nothing takes its place.
func (s *Slots) Challengers() *Slots {
	if s.root == ChallengerFolder {
		return s
	}
	return s.beside
}

// open reads what is there. A disk that is full or read-only does not keep a
// device from serving: the folder is made when a release is staged.
func (s *Slots) open() error {
	made := s.mkdir(s.root)
	entries, err := fs.ReadDir(s.fsys, s.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list %s: %w", s.root, errors.Join(err, made))
	}
	for _, e := range entries {
		if protocol.CheckName(e.Name()) != nil || !e.IsDir() {
			continue // not ours, and never written to
		}
		if err := s.load(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// load reads one model. A record that cannot be read leaves the model without
// slots but keeps its folders: Adopt may still find a whole release there.
func (s *Slots) load(model string) error {
	var set Set
	raw, err := ReadRecord(s.fsys, path.Join(s.root, model, recordName), maxRecord)
	if err == nil {
		err = decodeSet(raw, &set)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, errFormat):
		return fmt.Errorf("load slots of %s: %w", model, err)
	case err != nil: // damaged, or the disk does not give it out
		s.lost = append(s.lost, model)
		s.sets[model] = Set{}
		return nil //nolint:nilerr // a model without slots is better than no agent
	}
	s.sets[model] = set
	s.sweep(model)
	return nil
}

func decodeSet(raw []byte, set *Set) error {
	if err := json.Unmarshal(raw, set); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if set.Format != Format {
		return fmt.Errorf("%w %d, this agent reads %d: use an agent at least as new as the one that wrote it", errFormat, set.Format, Format)
	}
	return nil
}

// Models lists the models that have slots.
func (s *Slots) Models() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.sets))
}

// Lost lists the models whose record was unreadable at open.
func (s *Slots) Lost() []string { return slices.Clone(s.lost) }

// Get returns the slots of a model, all empty for an unknown one.
func (s *Slots) Get(model string) Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sets[model]
}

// Dir is where the verified files of a release lie, as the rest of the process
// names it.
func (s *Slots) Dir(model string, d release.Digest) string {
	return filepath.Join(s.base, s.root, model, d.String())
}

func (s *Slots) folder(model string, d release.Digest) string {
	return path.Join(s.root, model, d.String())
}

// Manifest reads the manifest of a verified release and checks its digest.
func (s *Slots) Manifest(model string, d release.Digest) (*release.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sets[model].verified(d) {
		return nil, fmt.Errorf("read manifest of %s %s: %w", model, d.Short(), ErrEmpty)
	}
	return readManifest(s.fsys, s.folder(model, d), d)
}

// Check reads a verified release back. The error wraps ErrDamaged when the disk
// no longer holds what was signed.
func (s *Slots) Check(model string, d release.Digest) error {
	if !s.Get(model).verified(d) { // not locked: to read a large release takes minutes
		return fmt.Errorf("check %s %s: %w", model, d.Short(), ErrEmpty)
	}
	_, err := check(s.fsys, s.folder(model, d), d)
	return err
}
