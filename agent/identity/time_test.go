package identity

import (
	"crypto/tls"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/link"
)

// wall is a device's clock that somebody else sets.
type wall struct{ ahead time.Duration }

func (w *wall) Now() time.Time { return time.Now().Add(w.ahead) }

const decade = 10 * 365 * 24 * time.Hour

// A clock that jumps by ten years while the agent runs changes nothing once the
// control plane has told the time: certificates, metadata and renewal go by what
// was told, carried on by the monotonic clock.
func TestClockThatJumpsWhileRunning(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		told := time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)
		w := &wall{ahead: time.Until(told)} // the bubble begins in 2000
		c := openClock(dir, Config{Now: w.Now}.withDefaults(), told.Add(3*decade))
		c.Trust(told.UnixMilli())
		right := w.ahead
		for _, jump := range []time.Duration{decade, -decade, maxAhead + time.Hour, -time.Hour, 0, decade} {
			w.ahead = right + jump
			before := time.Now()
			time.Sleep(time.Hour)
			want := told.Add(time.Since(before))
			told = want
			for name, got := range map[string]time.Time{"now": c.Now(), "for a connection": c.ForConnection()} {
				if !got.Equal(want) {
					t.Errorf("jump of %v: %s it is %v, want %v", jump, name, got, want)
				}
			}
		}
		// A device that has slept: its monotonic clock stood still, its own did not.
		w.ahead = right + 7*24*time.Hour
		if got, want := c.Now(), told.Add(7*24*time.Hour); !got.Equal(want) {
			t.Errorf("after a week asleep it is %v, want %v", got, want)
		}
	})
}

// Whatever a device without a clock, or with a wrong one, believes at its start:
// it enrols, connects, renews and takes the server's time; and again after a
// restart that nobody has told the time yet.
func TestStartsWithAWrongClock(t *testing.T) {
	for name, ahead := range map[string]time.Duration{
		"right": 0, "first boot in 1970": time.Until(time.Unix(0, 0)),
		"ten years late": -decade, "ten years early": decade - 48*time.Hour, "beyond the CA": 3 * decade,
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newPlane(t), t.TempDir()
			cfg := Config{Now: (&wall{ahead: ahead}).Now}
			i, err := Enrol(t.Context(), dir, p.token(), Options{Config: cfg})
			if err != nil {
				t.Fatal(err)
			}
			near := func(when string) {
				t.Helper()
				if off := time.Until(i.Now()); off < -time.Minute || off > time.Minute {
					t.Errorf("%s it is %v by the device", when, i.Now())
				}
			}
			near("after enrolment")
			if err := i.Renew(t.Context()); err != nil {
				t.Errorf("renew: %v", err)
			}
			if i, err = Open(dir, cfg); err != nil {
				t.Fatal(err)
			}
			for tries := 1; ; tries++ {
				conn, err := tls.Dial("tcp", "127.0.0.1:"+p.port(), i.TLS())
				if err == nil {
					conn.Close()
					break
				}
				if err = link.Explain(err); !errors.Is(err, link.ErrExpired) || tries == 2 {
					t.Fatalf("try %d after a restart: %v", tries, err)
				}
			}
			i.TrustedTime(time.Now().UnixMilli())
			near("after the first answer")
		})
	}
}
