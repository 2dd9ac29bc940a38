package agent

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/outbox"
	profiles "github.com/vedette-edge/vedette/firmware-profiles"
)

// ErrProfile says that the configuration names a firmware profile that there is
// not.
var ErrProfile = errors.New("no such firmware profile")

// share is what the agent takes of its device: by the configuration, else by
// the device's firmware profile, else by the defaults of each stage.
type share struct {
	profile     string   // name, empty for none
	concurrency int      // runs at once per model, 0 for the engine's default
	memory      uint64   // bytes of all models together, 0 for no bound
	outbox      int      // bytes, 0 for the outbox's default
	providers   []string // execution providers to try, in order
}

// shareOf works out the share of a device with that many processors and bytes of
// memory. found is the profile that the device matches, nil for none.
func shareOf(cfg *Config, found *profiles.Profile, cpus int, memory uint64) (share, error) {
	offered := cfg.Runtime.Info().Providers
	p, err := named(cfg.Profile, found)
	if err != nil {
		return share{}, err
	}
	s := share{concurrency: cfg.Calls.Concurrency, memory: cfg.MemoryBudget, outbox: cfg.OutboxBytes}
	if p == nil {
		s.providers = infer.Candidates(offered, nil)
		return s, nil
	}
	s.profile, s.providers = p.Name, infer.Candidates(offered, p.Providers())
	s.concurrency = cmp.Or(s.concurrency, min(p.Concurrency(cpus), infer.MaxConcurrency))
	s.memory = cmp.Or(s.memory, p.ModelMemory(memory))
	s.outbox = cmp.Or(s.outbox, p.Limits.OutboxMiB<<20)
	return s, nil
}

// named is the profile that the configuration names, else the one found.
func named(name string, found *profiles.Profile) (*profiles.Profile, error) {
	if name == "" || found != nil && found.Name == name {
		return found, nil
	}
	all, err := profiles.All()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i := range all {
		if names[i] = all[i].Name; names[i] == name {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("%w: %q; there are %s", ErrProfile, name, strings.Join(names, ", "))
}

// modelBytes is how much of an outbox of total bytes one model may fill: a fifth,
// as of the default.
func modelBytes(total int) int {
	return total / (outbox.DefaultTotalBytes / outbox.DefaultModelBytes)
}
