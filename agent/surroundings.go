package agent

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/agent/host"
	"github.com/vedette-edge/vedette/protocol"
)

// lookEvery is how often link and power are looked at. A rollout may wait for
// them, so a change should be known soon; a look reads a few small files.
const lookEvery = 15 * time.Second

// batteryStep is the change of the battery, in percent, that is worth a report
// of its own. Every other report says the battery, too.
const batteryStep = 5

// surroundings are what of a device may keep an update waiting.
type surroundings struct {
	metered, power string // as in a report
	battery        int    // percent
}

func (a *Agent) surroundings() surroundings {
	supply := host.Power()
	s := surroundings{power: supply.Power, battery: supply.Percent}
	switch a.cfg.Metered {
	case protocol.MeteredYes, protocol.MeteredNo:
		s.metered = a.cfg.Metered
	default:
		s.metered = host.Metered()
	}
	return s
}

// apart says whether the control plane should hear of the change at once.
func (s surroundings) apart(told surroundings) bool {
	moved := s.battery - told.battery
	return s.metered != told.metered || s.power != told.power || moved >= batteryStep || -moved >= batteryStep
}

// watch calls report when link or power, as now sees them, differ from what was
// told last.
func (a *Agent) watch(ctx context.Context, now func() surroundings, report func()) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if told := a.told.Load(); told != nil && now().apart(*told) {
				report()
			}
		case <-ctx.Done():
			return
		}
	}
}
