// Package fleet knows the devices: what they report of themselves, what
// operators say of them, and whether they are connected.
//
// The reported part is a fold of the hellos and reports in the uplink stream.
// It is level-triggered: a newer report replaces an older one whole, and what
// belongs to an earlier moment of a boot, or to a former boot, is dropped. The
// operator's part (labels, revocation) is kept in a bucket and changed by
// compare-and-set, each change also noted in the ledger. Presence lives in
// memory only: after a start of the server it is unknown until something is
// heard, and nothing but display depends on it.
package fleet

import "errors"

// MaxEvents is how many events are kept of one device.
const MaxEvents = 20

// Limits of labels.
const (
	MaxLabels     = 64
	MaxLabelValue = 63 // bytes
)

// What a change may be told.
var (
	// ErrNotFound says that no such device is known.
	ErrNotFound = errors.New("no such device: list them with `vedette device list`")
	// ErrStale says that the device's labels have changed since they were read.
	ErrStale = errors.New("the device was changed by someone else: read it again and repeat")
	// ErrLabel says that a label's name or value is not well formed.
	ErrLabel = errors.New("labels are names of letters, digits, '-', '_', '.' and '/' with values of up to 63 of letters, digits, '-', '_' and '.'")
)
