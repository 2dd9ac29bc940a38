package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// NextWave is the wave that a person is asked to approve, as it would be if it
// were opened now; nil when none waits for approval. Whom it gets is only
// settled when it opens.
func NextWave(s *State, f *Facts, now time.Time) *PlanWave {
	if s.Header.Status != StatusAwaiting || f == nil {
		return nil
	}
	t := newTurn(s.clone(), f, now)
	return new(t.planWave(s.Header.Wave + 1))
}

// approvalWaits says whom a person approves.
func (t *turn) approvalWaits() []string {
	n := t.Header.Wave + 1
	w := NextWave(t.State, t.facts, t.now)
	if w == nil || len(w.Devices) == 0 {
		return []string{fmt.Sprintf("a person must approve wave %d; no device could be taken into it now", n)}
	}
	return []string{
		fmt.Sprintf("a person must approve wave %d: as planned now it has %s (%s)", n, devices(len(w.Devices)), some(slices.Clone(w.Devices))),
		fmt.Sprintf("its devices by site: %s; by profile: %s", byName(w.Sites, "no site"), byName(w.Profiles, "no profile")),
	}
}

// byName names numbers by what they are of.
func byName(counts map[string]int, none string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		label := name
		if label == "" {
			label = none
		}
		out = append(out, fmt.Sprintf("%s %d", label, counts[name]))
	}
	const few = 10
	if more := len(out) - few; more > 0 {
		out = append(out[:few], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}
