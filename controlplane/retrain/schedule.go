package retrain

import (
	"strings"
	"time"

	"github.com/netresearch/go-cron"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// cronFields are the five that everybody knows. The parser is only asked about
// times in UTC; see nextTime.
var cronFields = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

func checkSchedule(s *operator.RetrainSchedule) error {
	if s == nil {
		return nil
	}
	if strings.Contains(s.Cron, "=") {
		return refused("cron %q: the time zone has a field of its own", s.Cron)
	}
	parsed, err := cronFields.Parse(s.Cron)
	if err != nil {
		return refused("cron %q: %w", s.Cron, err)
	}
	if parsed.Next(time.Unix(0, 0).UTC()).IsZero() {
		return refused("cron %q names no time that ever comes", s.Cron)
	}
	if _, err := zone(s.TimeZone); err != nil {
		return refused("time zone %q is not known: give a name like Europe/Berlin, or nothing for UTC", s.TimeZone)
	}
	return nil
}

// zone finds a time zone by its IANA name; empty is UTC. "Local" would be that
// of whoever asks.
func zone(name string) (*time.Location, error) {
	if name == "Local" {
		name = "?"
	}
	return time.LoadLocation(name)
}

// maxSkips bounds the search behind an hour that comes twice.
const maxSkips = 200

// nextTime is the first time of a valid schedule behind after; zero for never. A
// time on the wall that comes twice when clocks are changed counts once, the
// first time; one that is left out counts at the hour beside it.
func nextTime(s *operator.RetrainSchedule, after time.Time) time.Time {
	parsed, err := cronFields.Parse(s.Cron)
	if err != nil {
		return time.Time{} // cannot be: the policy was checked
	}
	z, err := zone(s.TimeZone)
	if err != nil {
		z = time.UTC
	}
	local := after.In(z)
	_, offset := local.Zone()
	wall := after.UTC().Add(time.Duration(offset) * time.Second)
	for range maxSkips {
		if wall = parsed.Next(wall); wall.IsZero() {
			return time.Time{}
		}
		if at := onWall(wall, z); at.After(after) {
			return at.UTC()
		}
	}
	return time.Time{}
}

// onWall is when a clock on the wall of a zone shows a time, the first time it
// does.
func onWall(wall time.Time, z *time.Location) time.Time {
	at := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, z)
	for _, back := range []time.Duration{30 * time.Minute, time.Hour} { // by as much clocks are changed
		before := at.Add(-back)
		if before.Hour() == at.Hour() && before.Minute() == at.Minute() {
			return before
		}
	}
	return at
}
