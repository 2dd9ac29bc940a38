package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// A device that does not get on with an update says why.
func TestDeviceThatWaits(t *testing.T) {
	d := operator.Device{ID: "cam-a1", Models: []operator.DeviceModel{
		{Model: "digits", State: "downloading", DoneBytes: 1, TotalBytes: 4, Waiting: "18 MiB are free; free some"},
		{Model: "meter", State: "trialing"},
	}}
	if got, want := states(&d), "downloading 25.0%, waits, trialing"; got != want {
		t.Errorf("states %q, want %q", got, want)
	}
	var out bytes.Buffer
	showDevice(&out, &operator.DeviceDetail{Device: d}, time.Now())
	if got, want := out.String(), "digits waits: 18 MiB are free; free some\n"; !strings.Contains(got, want) || strings.Contains(got, "meter waits") {
		t.Errorf("shown is %q, want %q alone in it", got, want)
	}
}

func TestDeviceTellsWhatAnUpdateMayWaitFor(t *testing.T) {
	for _, c := range []struct {
		device operator.Device
		want   []string
	}{
		{operator.Device{Metered: "yes", Power: "battery", Battery: 71, Facts: operator.Facts{TimeZone: "Europe/Berlin"}}, []string{"link           metered\n", "power          battery, charged to 71%\n", "time zone      Europe/Berlin\n"}},
		{operator.Device{Metered: "no", Power: "mains"}, []string{"link           not metered\n", "power          mains\n"}},
		{operator.Device{}, []string{"link           not known whether metered\n", "power          not known\n"}},
	} {
		var out bytes.Buffer
		showDevice(&out, &operator.DeviceDetail{Device: c.device}, time.Now())
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%+v: shown is\n%s\nwant %q in it", c.device, out.String(), want)
			}
		}
	}
}
