package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/protocol"
)

func TestChangedSurroundingsAreReportedSoon(t *testing.T) {
	mains := surroundings{metered: protocol.MeteredNo, power: protocol.PowerMains, battery: 80}
	for _, c := range []struct {
		name   string
		told   *surroundings
		now    surroundings
		report bool
	}{
		{"nothing was told yet", nil, mains, false},
		{"the same", &mains, mains, false},
		{"unplugged", &mains, surroundings{protocol.MeteredNo, protocol.PowerBattery, 80}, true},
		{"on a mobile link", &mains, surroundings{protocol.MeteredYes, protocol.PowerMains, 80}, true},
		{"a little less battery", &mains, surroundings{protocol.MeteredNo, protocol.PowerMains, 76}, false},
		{"much less battery", &mains, surroundings{protocol.MeteredNo, protocol.PowerMains, 75}, true},
		{"much more battery", &mains, surroundings{protocol.MeteredNo, protocol.PowerMains, 85}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &Agent{}
			a.told.Store(c.told)
			ctx, cancel := context.WithCancel(t.Context())
			reports := 0
			done := make(chan struct{})
			go func() {
				defer close(done)
				a.watch(ctx, func() surroundings { return c.now }, func() { reports++; a.told.Store(&c.now) })
			}()
			time.Sleep(10*lookEvery + time.Second) // simulated
			cancel()
			<-done
			want := 0
			if c.report {
				want = 1
			}
			if reports != want {
				t.Errorf("%s: %d reports, want %d", c.name, reports, want)
			}
		})
	}
}

func TestConfiguredLinkIsReported(t *testing.T) {
	for _, metered := range []string{protocol.MeteredYes, protocol.MeteredNo} {
		a := &Agent{cfg: Config{Metered: metered}}
		if got := a.surroundings().metered; got != metered {
			t.Errorf("got %q, want %q", got, metered)
		}
	}
}
