package ingest

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
)

// What keeps reports from being most of the stream: a device sends one every
// minute, and hardly any of a settled fleet says anything new.
const (
	// quietEvery is the longest time between two reports stored of a device: every
	// hour of its presence is told by two of them.
	quietEvery = 30 * time.Minute
	// settledAfter is how long a release must have been active before reports of it
	// are quiet: whoever waits for a device to become healthy sees every one.
	settledAfterMS = 3_600_000
	idleState      = "idle"
)

// told is the last report stored of a device.
type told struct {
	report *protocol.Report // lasting
	at     time.Time
}

// hear takes in what was stored.
func (t *told) hear(a *protocol.Accepted) {
	if r := a.GetReport(); r != nil {
		t.report, t.at = lasting(r), time.UnixMilli(a.GetReceivedMs())
	}
}

// repeats says that a report of a settled device tells nothing that the one
// stored before did not, but how much memory and time has passed.
func (t *told) repeats(r *protocol.Report, now time.Time) bool {
	age := now.Sub(t.at)
	return t.report != nil && age >= 0 && age < quietEvery && settled(r) && proto.Equal(t.report, lasting(r))
}

func settled(r *protocol.Report) bool {
	for _, m := range r.GetModels() {
		for _, s := range []*protocol.ModelState{m, m.GetChallenger().GetState()} {
			if s != nil && (s.GetState() != idleState || s.GetWaiting() != "" || s.GetActiveForMs() < settledAfterMS) {
				return false
			}
		}
	}
	return true
}

// lasting is a report without what changes by itself.
func lasting(r *protocol.Report) *protocol.Report {
	out := proto.CloneOf(r)
	out.DiskFreeBytes, out.OutboxBytes, out.OutboxPending, out.OutboxSent, out.RssBytes, out.BatteryPercent = 0, 0, 0, 0, 0, 0
	for _, m := range out.GetModels() {
		m.StateForMs, m.ActiveForMs = 0, 0
		if s := m.GetChallenger().GetState(); s != nil {
			s.StateForMs, s.ActiveForMs = 0, 0
		}
	}
	return out
}
