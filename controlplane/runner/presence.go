package runner

import (
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// presence is that of the fleet, as plans want it.
type presence struct{ fleet Fleet }

// Heard implements rollout.Presence.
func (p presence) Heard(device string, now time.Time) rollout.Hours {
	bits, known := p.fleet.Heard(device, now)
	return rollout.Hours{Bits: bits, Known: known}
}
