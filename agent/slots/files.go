package slots

import (
	"iter"
	"path/filepath"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Files are the files of all releases that were verified, with where they lie:
// first those of a model, its challenger's among them, then those of the others.
// They may be damaged since, and gone before they are opened. A release whose
// manifest cannot be read is left out.
func (s *Slots) Files(model string) iter.Seq2[string, release.File] {
	return func(yield func(string, release.File) bool) {
		names := []string{model}
		for _, other := range append(s.Models(), s.beside.Models()...) {
			if other != model {
				names = append(names, other)
			}
		}
		for _, name := range names {
			if !s.filesOf(name, yield) || !s.beside.filesOf(name, yield) {
				return
			}
		}
	}
}

// filesOf reports whether to go on.
func (s *Slots) filesOf(model string, yield func(string, release.File) bool) bool {
	set := s.Get(model)
	for _, slot := range []Slot{set.Active, set.Previous, set.Trial} {
		if slot.Empty() {
			continue
		}
		m, err := s.Manifest(model, slot.Release)
		if err != nil {
			continue
		}
		for _, f := range m.Files() {
			if !yield(filepath.Join(s.Dir(model, slot.Release), f.Digest.String()), f) {
				return false
			}
		}
	}
	return true
}
