// Package desired derives what every device should be from the decisions in
// the ledger, and tells the devices.
//
// It is a fold: rollout decisions assign releases, settings records change how
// often devices report, label records what they are called. A device's
// generation is the ledger sequence of the newest record that touched it, so
// the same ledger gives the same desired state with the same numbers on any
// server. Telling is level-triggered: a change is published at once to the
// devices concerned, and a device that says hello with another generation gets
// the newest state again. Nothing is queued for devices that are away.
package desired

import (
	"github.com/vedette-edge/vedette/protocol/release"
)

// Publisher sends a message to the broker.
type Publisher interface {
	Publish(subject string, data []byte) error
}

// Chain is where changes of settings are recorded.
const Chain = "settings"

// KindSettings is the ledger kind of a SettingsChange.
const KindSettings = "settings.changed"

// Settings are what devices are asked to keep. Zero fields leave the default,
// or in the settings of one device the fleet's value.
type Settings struct {
	Window   release.Duration `json:"window,omitempty"`   // length of a window
	Report   release.Duration `json:"report,omitempty"`   // longest time between two reports
	Snapshot release.Duration `json:"snapshot,omitempty"` // how often the open window is written down
}

// SettingsChange is the ledger body of a change of settings.
type SettingsChange struct {
	Device   string   `json:"device,omitempty"` // empty for the whole fleet
	Settings Settings `json:"settings"`
	Reason   string   `json:"reason"`
}

// Assignment is one model on one device.
type Assignment struct {
	Model   string         `json:"model"`
	Release release.Digest `json:"release"`
	Seq     uint64         `json:"seq"`               // ledger sequence of the decision
	Rollout string         `json:"rollout,omitempty"` // it belongs to
}

// State is what one device should be.
type State struct {
	Generation  uint64            `json:"generation"` // 0 for nothing asked yet
	Assignments []Assignment      `json:"assignments,omitempty"`
	Settings    Settings          `json:"settings"`
	Labels      map[string]string `json:"labels,omitempty"`
}
