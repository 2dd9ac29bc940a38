package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/netresearch/go-cron"
)

const (
	// DeviceZone as the time zone of a window means each device's own.
	DeviceZone = "device"
	// MaxWindow bounds how long one window is open. Who wants longer ones wants
	// none.
	MaxWindow = 7 * 24 * time.Hour

	maxWindows = 20
)

// cronFields are the five that everybody knows: no seconds, no years, no
// shorthands. The parser is only asked about times in UTC; see onWall.
var cronFields = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// window is a WindowSpec that was read.
type window struct {
	begins cron.Schedule
	lasts  time.Duration
	zone   string
}

func (w WindowSpec) parse() (window, error) {
	out := window{lasts: time.Duration(w.Duration), zone: w.TimeZone}
	if strings.Contains(w.Cron, "=") {
		return out, fmt.Errorf("cron %q: the time zone has a field of its own", w.Cron)
	}
	begins, err := cronFields.Parse(w.Cron)
	if err != nil {
		return out, fmt.Errorf("cron %q: %w", w.Cron, err)
	}
	out.begins = begins
	return out, nil
}

func (w WindowSpec) check() error {
	parsed, err := w.parse()
	switch {
	case err != nil:
		return err
	case parsed.begins.Next(time.Unix(0, 0).UTC()).IsZero():
		return fmt.Errorf("cron %q names no time that ever comes", w.Cron)
	case parsed.lasts <= 0 || parsed.lasts > MaxWindow:
		return fmt.Errorf("duration is %v, must be above zero and at most %v", parsed.lasts, MaxWindow)
	}
	if w.TimeZone == DeviceZone {
		return nil
	}
	if _, ok := zone(w.TimeZone); !ok {
		return fmt.Errorf("time zone %q is not known: give a name like Europe/Berlin, %q, or nothing for UTC", w.TimeZone, DeviceZone)
	}
	return nil
}

func (s *Spec) checkWindows() error {
	if len(s.Windows) > maxWindows {
		return refused("has %d windows, at most %d", len(s.Windows), maxWindows)
	}
	for i, w := range s.Windows {
		if err := w.check(); err != nil {
			return refused("window %d: %w", i+1, err)
		}
	}
	return nil
}

// zone finds a time zone by its IANA name; empty is UTC. What it does not know
// is UTC, too. "Local" would be that of whoever asks, so it is not known.
func zone(name string) (z *time.Location, known bool) {
	if name == "Local" {
		return time.UTC, false
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return time.UTC, false
	}
	return z, true
}

// wallClock is what a clock on the wall of a zone shows, written as if the zone
// were UTC.
func wallClock(at time.Time, z *time.Location) time.Time {
	_, offset := at.In(z).Zone()
	return at.UTC().Add(time.Duration(offset) * time.Second)
}

// onWall says whether the window is open when a clock on the wall shows a time,
// and what that clock shows when it may change; zero for never.
//
// So a window from 22:00 for eight hours ends at 06:00, also in the nights in
// which clocks are changed: nothing is offered at an hour that the operator did
// not name. An hour that is left out in spring opens no window; one that comes
// twice in autumn opens it twice.
func (w window) onWall(wall time.Time) (open bool, change time.Time) {
	begin := w.begins.Next(wall.Add(-w.lasts))
	if begin.IsZero() || begin.After(wall) {
		return false, begin
	}
	return true, begin.Add(w.lasts)
}

// maxBoundaries bounds the search for the end of windows that follow each other
// without a gap. What is found until then is early, which does no harm.
const maxBoundaries = 64

// at says whether the window is open in a zone, and until when at least; zero
// for always.
func (w window) at(now time.Time, z *time.Location) (open bool, until time.Time) {
	open, _ = w.onWall(wallClock(now, z))
	at := now
	for range maxBoundaries {
		wall := wallClock(at, z)
		is, change := w.onWall(wall)
		if is != open {
			break
		}
		_, jump := at.In(z).ZoneBounds() // until then the clock on the wall goes as any other
		if change.IsZero() && jump.IsZero() {
			return open, time.Time{}
		}
		step := jump.Sub(at)
		if jump.IsZero() || !change.IsZero() && change.Sub(wall) < step {
			step = change.Sub(wall)
		}
		at = at.Add(step)
	}
	return open, at.UTC()
}

// opening is whether offers may be made, and until when that holds at least;
// zero for always.
type opening struct {
	open  bool
	until time.Time
	known bool // the device's time zone is known, or does not matter
}

// calendar answers for one moment when the windows of a spec are open. There
// are few time zones, so it computes an answer once for each.
type calendar struct {
	now     time.Time
	windows []window
	zones   bool // some window goes by the device's time zone
	answers map[string]opening
}

// calendar reads the windows of a valid spec.
func (s *Spec) calendar(now time.Time) *calendar {
	c := &calendar{now: now, answers: map[string]opening{}}
	for _, spec := range s.Windows {
		w, err := spec.parse()
		if err != nil {
			continue // cannot be: the spec was validated
		}
		c.windows = append(c.windows, w)
		c.zones = c.zones || w.zone == DeviceZone
	}
	return c
}

// in is the answer for devices of one time zone.
func (c *calendar) in(deviceZone string) opening {
	if len(c.windows) == 0 {
		return opening{open: true, known: true}
	}
	if !c.zones {
		deviceZone = ""
	}
	if a, ok := c.answers[deviceZone]; ok {
		return a
	}
	a := c.compute(deviceZone)
	c.answers[deviceZone] = a
	return a
}

func (c *calendar) compute(deviceZone string) opening {
	own, known := zone(deviceZone)
	a := opening{known: !c.zones || known && deviceZone != ""}
	for _, w := range c.windows {
		z := own
		if w.zone != DeviceZone {
			z, _ = zone(w.zone)
		}
		open, until := w.at(c.now, z)
		a.open = a.open || open
		a.until = sooner(a.until, until)
	}
	return a
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// startDue says whether the time to start has come, and when it does.
func (t *turn) startDue() (due bool, wake time.Time) {
	return !t.now.Before(t.Spec.StartAt), t.Spec.StartAt
}
