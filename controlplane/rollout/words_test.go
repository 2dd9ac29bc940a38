package rollout

import (
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// bound are the words of a script for what a spec bounds; false for others.
func (s *script) bound(spec *Spec, key, value string) bool {
	s.t.Helper()
	switch key {
	case "per_minute":
		spec.Budget.PerMinute = int(s.number(value))
	case "bytes_per_second":
		spec.Budget.BytesPerSecond = int64(s.number(value))
	case "unavailable": // LABEL:COUNT or LABEL:SHARE%
		spec.Budget.Unavailable = append(spec.Budget.Unavailable, s.unavailableBy(value))
	case "revert": // devices under way at one time on the way back
		spec.Revert.InFlight = int(s.number(value))
	case "revert_per_minute":
		spec.Revert.PerMinute = int(s.number(value))
	case "revert_unavailable":
		spec.Revert.Unavailable = append(spec.Revert.Unavailable, s.unavailableBy(value))
	case "window": // CRON with _ for blanks, DURATION, ZONE, with ; between
		part := strings.Split(value, ";")
		spec.Windows = append(spec.Windows, WindowSpec{
			Cron: strings.ReplaceAll(part[0], "_", " "), Duration: release.Duration(s.duration(part[1])), TimeZone: part[2],
		})
	case "require": // unmetered, mains or the least percentage of battery, with commas between
		for word := range strings.SplitSeq(value, ",") {
			s.requires(&spec.Require, word)
		}
	case "lateness":
		for i := range spec.Waves {
			spec.Waves[i].Lateness = release.Duration(s.duration(value))
		}
	case "wave_deadline":
		for i := range spec.Waves {
			spec.Waves[i].Deadline = release.Duration(s.duration(value))
		}
	case "evidence": // DEVICES:INFERENCES:HOURS, of every wave
		part := strings.Split(value, ":")
		for i := range spec.Waves {
			spec.Waves[i].Evidence = EvidenceSpec{Devices: int(s.number(part[0])), Inferences: uint64(s.number(part[1])), Hours: s.number(part[2])}
		}
	default:
		return false
	}
	return true
}

func (s *script) unavailableBy(value string) Unavailable {
	s.t.Helper()
	label, most, _ := strings.Cut(value, ":")
	if percent, ok := strings.CutSuffix(most, "%"); ok {
		return Unavailable{Label: label, Percent: s.number(percent)}
	}
	return Unavailable{Label: label, Max: int(s.number(most))}
}

func (s *script) requires(r *Require, word string) {
	s.t.Helper()
	switch word {
	case "unmetered":
		r.Unmetered = true
	case "mains":
		r.Mains = true
	default:
		r.Battery = int(s.number(word))
	}
}

// surroundings are the words for what surrounds a device; false for others.
func (s *script) surroundings(f *DeviceFacts, key, value string) bool {
	s.t.Helper()
	switch key {
	case "generation": // that it acts on, and that its outcomes answer
		f.Generation = uint64(s.number(value))
		f.Outcomes = slices.Clone(f.Outcomes)
		for i := range f.Outcomes {
			f.Outcomes[i].Generation = f.Generation
		}
	case "zone":
		f.TimeZone = value
	case "metered":
		f.Metered = value
	case "power":
		f.Power = value
	case "battery":
		f.Battery = int(s.number(value))
	case "bytes":
		f.Bytes = int64(s.number(value))
	case "group": // LABEL:VALUE
		label, of, _ := strings.Cut(value, ":")
		f.Groups = map[string]string{label: of}
	default:
		return false
	}
	return true
}

// wake lets the time pass to the moment at which the engine wants to look again
// by itself, as the runner does.
func (s *script) wake() {
	s.t.Helper()
	next := s.state.Wake(s.now)
	if next.IsZero() {
		s.printf("nothing to wake for")
		return
	}
	if !next.After(s.now) {
		s.t.Fatalf("wakes at %v, which is not after %v", next, s.now)
	}
	s.printf("%s passes", next.Sub(s.now).Round(time.Millisecond))
	s.now = next
	s.show(s.step(nil))
}

// told shows what desired state says to devices, whatever they are recorded as.
func (s *script) told(ids []string) {
	for _, id := range s.named(ids) {
		s.printf("%s is told to run %s", id, nameOf(s.facts.device(id).Assigned))
	}
}

// nameOf is what scripts call a release.
func nameOf(r release.Digest) string {
	return map[release.Digest]string{v1: "v1", v2: "v2", {}: "nothing"}[r]
}

// gone lets the fleet forget devices.
func (s *script) gone(ids []string) {
	for _, id := range ids {
		s.facts = s.facts.Apply(FactsPatch{Gone: []string{id}})
	}
}
