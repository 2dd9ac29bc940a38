package rollout

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWindows(t *testing.T) {
	nightly := WindowSpec{Cron: "0 22 * * *", Duration: release.Duration(8 * time.Hour), TimeZone: "Europe/Berlin"}
	early := WindowSpec{Cron: "30 1 * * *", Duration: release.Duration(time.Hour), TimeZone: "Europe/Berlin"}
	skipped := WindowSpec{Cron: "0 2 * * *", Duration: release.Duration(time.Hour), TimeZone: "Europe/Berlin"}
	for name, c := range map[string]struct {
		spec  WindowSpec
		now   string
		open  bool
		until string // "" for always
	}{
		"before it":       {nightly, "2026-11-23T20:59:59Z", false, "2026-11-23T21:00:00Z"},
		"at its begin":    {nightly, "2026-11-23T21:00:00Z", true, "2026-11-24T05:00:00Z"},
		"in its midst":    {nightly, "2026-11-24T02:00:00.5Z", true, "2026-11-24T05:00:00Z"},
		"at its end":      {nightly, "2026-11-24T05:00:00Z", false, "2026-11-24T21:00:00Z"},
		"summer time":     {nightly, "2026-07-01T19:59:00Z", false, "2026-07-01T20:00:00Z"},
		"spring: shorter": {nightly, "2026-03-28T21:00:00Z", true, "2026-03-29T04:00:00Z"}, // 22:00 to 06:00 in seven hours
		"spring: next":    {nightly, "2026-03-29T04:00:00Z", false, "2026-03-29T20:00:00Z"},
		"autumn: longer":  {nightly, "2026-10-24T20:00:00Z", true, "2026-10-25T05:00:00Z"}, // in nine hours
		// 01:30 to 02:30 ends at the jump from 02:00 to 03:00.
		"spring: cut short": {early, "2026-03-29T00:45:00Z", true, "2026-03-29T01:00:00Z"},
		// The hour from 02:00 does not come that night.
		"spring: left out": {skipped, "2026-03-28T12:00:00Z", false, "2026-03-30T00:00:00Z"},
		// 02:00 to 03:00 comes twice without a gap: two hours.
		"autumn: twice": {skipped, "2026-10-25T00:00:00Z", true, "2026-10-25T02:00:00Z"},
		// 01:30 to 02:30, then 02:00 to 02:30 again.
		"autumn: before the clocks change": {early, "2026-10-25T00:20:00Z", true, "2026-10-25T00:30:00Z"},
		"autumn: between":                  {early, "2026-10-25T00:30:00Z", false, "2026-10-25T01:00:00Z"},
		"autumn: once more":                {early, "2026-10-25T01:00:00Z", true, "2026-10-25T01:30:00Z"},
		"weekdays": {
			WindowSpec{Cron: "0 8 * * mon-fri", Duration: release.Duration(4 * time.Hour)},
			"2026-11-27T12:00:00Z", false, "2026-11-30T08:00:00Z",
		},
		"windows that touch": {
			WindowSpec{Cron: "0 0,4,8 * * *", Duration: release.Duration(4 * time.Hour)},
			"2026-11-23T01:00:00Z", true, "2026-11-23T12:00:00Z",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := c.spec.parse()
			if err != nil {
				t.Fatal(err)
			}
			z, known := zone(c.spec.TimeZone)
			if !known {
				t.Fatalf("time zone %q is not known", c.spec.TimeZone)
			}
			open, until := w.at(at(t, c.now), z)
			if open != c.open || !until.Equal(at(t, c.until)) {
				t.Errorf("open %t until %v, want %t until %s", open, until, c.open, c.until)
			}
		})
	}
}

// Minute by minute over both changes of the clocks, a window is open exactly
// when the clock on the wall is inside it.
func TestWindowIsWhatTheClockShows(t *testing.T) {
	spec := WindowSpec{Cron: "30 1 * * *", Duration: release.Duration(100 * time.Minute), TimeZone: "America/New_York"}
	w, err := spec.parse()
	if err != nil {
		t.Fatal(err)
	}
	z, _ := zone(spec.TimeZone)
	for _, day := range []string{"2026-03-08T00:00:00Z", "2026-11-01T00:00:00Z"} {
		begin := at(t, day)
		open, until := w.at(begin, z)
		for now := begin; now.Before(begin.Add(36 * time.Hour)); now = now.Add(time.Minute) {
			hour, minute, _ := now.In(z).Clock()
			want := hour*60+minute >= 90 && hour*60+minute < 190
			if now.Equal(until) {
				open = !open
				_, until = w.at(now, z)
			}
			if is, _ := w.at(now, z); is != want || open != want {
				t.Fatalf("at %v: open %t, by its boundaries %t, want %t", now.In(z), is, open, want)
			}
		}
	}
}

func TestCalendarOfSeveralWindowsAndZones(t *testing.T) {
	spec := Spec{Windows: []WindowSpec{
		{Cron: "0 3 * * *", Duration: release.Duration(time.Hour), TimeZone: DeviceZone},
		{Cron: "0 12 * * sun", Duration: release.Duration(time.Hour)},
	}}
	c := spec.calendar(at(t, "2026-11-23T18:30:00Z")) // 03:30 of Tuesday in Tokyo
	for _, x := range []struct {
		zone, until string
		open, known bool
	}{
		{"Asia/Tokyo", "2026-11-23T19:00:00Z", true, true},
		{"Europe/Berlin", "2026-11-24T02:00:00Z", false, true},
		{"", "2026-11-24T03:00:00Z", false, false},
		{"Mars/Olympus", "2026-11-24T03:00:00Z", false, false},
		{"Local", "2026-11-24T03:00:00Z", false, false},
	} {
		want := opening{open: x.open, until: at(t, x.until), known: x.known}
		if got := c.in(x.zone); got != want {
			t.Errorf("in %q: got %+v, want %+v", x.zone, got, want)
		}
	}
	if got := (&Spec{}).calendar(begin).in(""); !got.open || !got.until.IsZero() {
		t.Errorf("without windows: got %+v, want always open", got)
	}
}

func TestWindowsThatMakeNoSense(t *testing.T) {
	hour := release.Duration(time.Hour)
	for name, c := range map[string]struct {
		spec WindowSpec
		want string
	}{
		"no cron":         {WindowSpec{Duration: hour}, "cron"},
		"six fields":      {WindowSpec{Cron: "0 0 2 * * *", Duration: hour}, "cron"},
		"shorthand":       {WindowSpec{Cron: "@daily", Duration: hour}, "cron"},
		"zone in cron":    {WindowSpec{Cron: "TZ=Asia/Tokyo 0 2 * * *", Duration: hour}, "field of its own"},
		"never":           {WindowSpec{Cron: "0 2 30 2 *", Duration: hour}, "ever comes"},
		"no duration":     {WindowSpec{Cron: "0 2 * * *"}, "duration"},
		"too long":        {WindowSpec{Cron: "0 2 * * *", Duration: 200 * hour}, "at most"},
		"unknown zone":    {WindowSpec{Cron: "0 2 * * *", Duration: hour, TimeZone: "Europe/Atlantis"}, "Europe/Atlantis"},
		"the server's":    {WindowSpec{Cron: "0 2 * * *", Duration: hour, TimeZone: "Local"}, "Local"},
		"outside a range": {WindowSpec{Cron: "0 25 * * *", Duration: hour}, "cron"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Spec{Model: "m", Version: "v", Windows: []WindowSpec{c.spec}}.WithDefaults()
			if err := s.checkWindows(); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %v that names %q", err, ErrSpec, c.want)
			}
		})
	}
}
