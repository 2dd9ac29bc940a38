package slots

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Stage makes room for a release and returns the folder to fetch it into. Files
// it shares with a release already here are there from the start, as links. The
// same release staged again goes on with what is there; any other one staged or
// on trial is given up.
func (s *Slots) Stage(model string, m *release.Manifest) (dir string, err error) {
	d, err := m.Digest()
	if err != nil {
		return "", fmt.Errorf("stage: %w", err)
	}
	if err := protocol.CheckName(model); err != nil {
		return "", fmt.Errorf("stage: %w", err)
	}
	other := s.beside.Get(model) // before s is locked: the other one may be staging too
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{s.root, path.Join(s.root, model)} {
		if err := s.mkdir(name); err != nil {
			return "", fmt.Errorf("make folder of %s: %w", model, err)
		}
	}
	set := s.sets[model]
	set.Staged, set.Trial = Slot{Release: d}, Slot{}
	if err := s.put(model, set); err != nil {
		return "", err
	}
	name := s.folder(model, d) + part
	if !s.sets[model].verified(d) {
		s.unpromote(model, d)
	}
	if err := s.mkdir(name); err != nil {
		return "", fmt.Errorf("make staging folder: %w", err)
	}
	s.share(model, m, name, other)
	return filepath.Join(s.base, filepath.FromSlash(name)), nil
}

// unpromote takes the verified name back from a folder that was renamed just
// before a power cut: it is fetched and verified again, at the cost of reading.
func (s *Slots) unpromote(model string, d release.Digest) {
	if s.fsys.Rename(s.folder(model, d), s.folder(model, d)+part) != nil {
		_ = s.fsys.RemoveAll(s.folder(model, d)) // promote does it again, and minds
	}
}

// share links files that a verified release here has too, also one of the other
// slots: a challenger that becomes the primary release is not fetched again. A
// file that cannot be linked is fetched instead, so errors are of no interest.
func (s *Slots) share(model string, m *release.Manifest, into string, other Set) {
	mine := s.sets[model]
	var from []string
	for _, d := range []release.Digest{mine.Active.Release, mine.Previous.Release} {
		if !d.IsZero() {
			from = append(from, s.folder(model, d))
		}
	}
	for _, d := range []release.Digest{other.Active.Release, other.Previous.Release, other.Trial.Release} {
		if !d.IsZero() {
			from = append(from, s.beside.folder(model, d))
		}
	}
	for _, f := range m.Files() {
		for _, dir := range from {
			if s.fsys.Link(path.Join(dir, f.Digest.String()), path.Join(into, f.Digest.String())) == nil {
				break
			}
		}
	}
}

// Verify reads the staged release back from disk, makes it durable and puts it
// on trial. An error that wraps ErrDamaged says that files were wrong; they have
// been removed, so that fetching again brings them anew.
func (s *Slots) Verify(model string, d release.Digest) error {
	if s.Get(model).Trial.Release == d && !d.IsZero() {
		return nil
	}
	if err := s.readBack(model, d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[model]
	if set.Staged.Release != d {
		return fmt.Errorf("verify %s %s: %w", model, d.Short(), ErrEmpty)
	}
	if err := s.promote(model, d); err != nil {
		return err
	}
	set.Trial, set.Staged = Slot{Release: d}, Slot{}
	return s.put(model, set)
}

// readBack checks what is staged and makes it durable. Nothing is locked
// meanwhile, for with a large release it takes minutes.
func (s *Slots) readBack(model string, d release.Digest) error {
	if s.Get(model).Staged.Release != d || d.IsZero() {
		return fmt.Errorf("verify %s %s: %w", model, d.Short(), ErrEmpty)
	}
	staged := s.folder(model, d) + part
	bad, err := check(s.fsys, staged, d)
	if err != nil {
		for _, name := range bad {
			err = errors.Join(err, s.fsys.RemoveAll(path.Join(staged, name)))
		}
		return err
	}
	if err := syncAll(s.fsys, staged); err != nil {
		return fmt.Errorf("sync %s: %w", d.Short(), err)
	}
	return nil
}

// promote gives a checked folder its verified name.
func (s *Slots) promote(model string, d release.Digest) error {
	name := s.folder(model, d)
	if s.sets[model].verified(d) { // going back to what is here: keep the folder in use
		if _, err := check(s.fsys, name, d); err == nil {
			return s.fsys.RemoveAll(name + part)
		}
	}
	if err := s.fsys.RemoveAll(name); err != nil {
		return fmt.Errorf("clear %s: %w", d.Short(), err)
	}
	if err := s.fsys.Rename(name+part, name); err != nil {
		return fmt.Errorf("name %s as verified: %w", d.Short(), err)
	}
	if err := s.fsys.Sync(path.Dir(name)); err != nil {
		return fmt.Errorf("sync folder of %s: %w", model, err)
	}
	return nil
}

// Prove notes what the trial chose and measured for the release on trial.
func (s *Slots) Prove(model string, slot Slot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[model]
	if slot.Empty() || set.Trial.Release != slot.Release {
		return fmt.Errorf("note trial of %s %s: %w", model, slot.Release.Short(), ErrEmpty)
	}
	set.Trial = slot
	return s.put(model, set)
}

// Activate moves the release on trial to active, and what was active to
// previous. Doing it again changes nothing.
func (s *Slots) Activate(model string, d release.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[model]
	if set.Active.Release == d && !d.IsZero() {
		return nil
	}
	if set.Trial.Release != d || d.IsZero() {
		return fmt.Errorf("activate %s %s: %w", model, d.Short(), ErrEmpty)
	}
	set.Previous, set.Active, set.Trial = set.Active, set.Trial, Slot{}
	if s.root == ChallengerFolder {
		set.Previous = Slot{}
	}
	return s.put(model, set)
}

// Revert leaves bad: nothing stays staged or on trial, and if bad was active,
// the previous release is active again, or none. It returns the slots after it.
func (s *Slots) Revert(model string, bad release.Digest) (Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[model]
	if set.Active.Release == bad {
		set.Active, set.Previous = set.Previous, Slot{}
	}
	set.Staged, set.Trial = Slot{}, Slot{}
	err := s.put(model, set)
	return s.sets[model], err
}

// Discard gives up what is staged or on trial.
func (s *Slots) Discard(model string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, ok := s.sets[model]
	if !ok {
		return nil
	}
	set.Staged, set.Trial = Slot{}, Slot{}
	return s.put(model, set)
}

// Remove forgets a model and all its releases.
func (s *Slots) Remove(model string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sets[model]; !ok {
		return nil
	}
	if err := s.put(model, Set{}); err != nil {
		return err
	}
	delete(s.sets, model)
	_ = s.fsys.RemoveAll(path.Join(s.root, model)) // an empty record may stay behind
	return nil
}

// Adopt makes a release active that lies whole in a model's folder although the
// record that said so was lost.
func (s *Slots) Adopt(model string, to Slot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to.Empty() || !s.sets[model].Active.Empty() {
		return fmt.Errorf("adopt %s %s: %w", model, to.Release.Short(), ErrEmpty)
	}
	if _, err := check(s.fsys, s.folder(model, to.Release), to.Release); err != nil {
		return fmt.Errorf("adopt %s: %w", model, err)
	}
	return s.put(model, Set{Active: to})
}

// put makes a set the model's, in one step, and removes what it no longer names.
func (s *Slots) put(model string, set Set) error {
	old := s.sets[model]
	set.Format = Format
	if set != old {
		raw, err := json.MarshalIndent(set, "", "  ")
		if err != nil {
			return fmt.Errorf("encode slots of %s: %w", model, err)
		}
		if err := WriteRecord(s.fsys, path.Join(s.root, model, recordName), append(raw, '\n')); err != nil {
			return err
		}
		s.sets[model] = set
	}
	s.sweep(model)
	return nil
}

// sweep removes from a model's folder what its set does not name. The disk
// holds at most three releases of a model: the active one, the one before it
// and the one to come. What cannot be removed now is removed at the next change
// or open; nothing depends on it.
func (s *Slots) sweep(model string) {
	set := s.sets[model]
	entries, err := fs.ReadDir(s.fsys, path.Join(s.root, model))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !keeps(set, e.Name()) {
			_ = s.fsys.RemoveAll(path.Join(s.root, model, e.Name()))
		}
	}
}

// keeps says whether a set needs the entry of that name. The verified name of
// the staged release is kept too: a power cut came between rename and record.
func keeps(set Set, name string) bool {
	if name == recordName {
		return true
	}
	d, err := release.ParseDigest(strings.TrimSuffix(name, part))
	if err != nil {
		return false
	}
	return set.Staged.Release == d || (set.verified(d) && !strings.HasSuffix(name, part))
}

// mkdir makes a folder that is there after a power cut. The parent is synced
// also when the folder exists: it may have been made just before one.
func (s *Slots) mkdir(name string) error {
	if err := s.fsys.Mkdir(name); err != nil {
		return err
	}
	return s.fsys.Sync(path.Dir(name))
}
