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
