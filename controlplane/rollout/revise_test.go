package rollout

import (
	"errors"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Of two people who revise the same spec, the second is told of the first.
func TestSecondRevisionOfOneSpec(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	spec := Spec{Model: "m", Version: "1"}.WithDefaults()
	s, f := New("r", "ann", spec, Requirements{}, now), &Facts{Devices: map[string]*DeviceFacts{"cam-1": {Selected: true}}}
	revise := func(from *int, deadline time.Duration) error {
		changed := spec
		changed.Deadline = release.Duration(deadline)
		next, _, err := Step(s, f, now, &Command{Action: Revise, Actor: "ann", Reason: "longer", Spec: &changed, Number: from})
		if err == nil {
			s = next
		}
		return err
	}
	for _, c := range []struct {
		name string
		from *int
		want error
	}{
		{"of the first", new(0), nil},
		{"of the first, too", new(0), ErrStale},
		{"of one that is not there yet", new(2), ErrStale},
		{"of the second", new(1), nil},
		{"of whichever", nil, nil},
	} {
		if err := revise(c.from, DefaultDeadline+time.Duration(s.Header.Revision+1)*time.Hour); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}
