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
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Slot is one release in its place. The zero Slot is empty.
type Slot struct {
	Release release.Digest `json:"release"`
	// Variant, P95 and PeakBytes are what the trial chose and measured.
	Variant   string        `json:"variant,omitempty"`
	P95       time.Duration `json:"p95,omitempty"`
	PeakBytes uint64        `json:"peak_bytes,omitempty"`
}

// Empty reports whether the slot holds no release.
func (s Slot) Empty() bool { return s.Release.IsZero() }

// Set is the slots of one model.
type Set struct {
	Staged   Slot `json:"staged"`   // being fetched, not verified
	Trial    Slot `json:"trial"`    // verified, not yet serving
	Active   Slot `json:"active"`   // serves
	Previous Slot `json:"previous"` // served before; kept to go back to
}
