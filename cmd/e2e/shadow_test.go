package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// A rollout with a shadow phase, with the real programs and models. A version
// that sees images differently is stopped while every answer is still the old
// one's; one that agrees goes on and answers.
func TestShadowPhase(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.settings()
	v1 := p.published("1")
	p.published("2")
	p.vedette("model", "push", p.path("digits-1"), "--model", "digits", "--version", "3").ok()
	c := p.enrolled("cam-s", p.path("cam-s"), "--label", "site=s")
	c.boot()
	first := p.rollOut("1")
	c.serves(40*time.Second, v1)
	p.ends(first, operator.RolloutCompleted)
	d := &duel{camera: c, offline: map[string][]string{"1": p.scored("1")}, answered: map[string]uint64{}}
	d.images = p.images()[1:]

	bad := p.inShadow("2")
	stopped := d.until(bad, operator.RolloutHalted)
	if !strings.Contains(stopped.Cause, "gate shadow failed") {
		t.Errorf("it was stopped because %q, want the gate of the shadow", stopped.Cause)
	}
	if versions := len(d.answered); versions != 1 || d.answered["1"] == 0 {
		t.Errorf("meanwhile answered rows by version are %v, want version 1 alone", d.answered)
	}
	p.eventually(20*time.Second, "the shadow to be gone", func() error {
		st, err := d.status()
		if err == nil && len(st.Challengers) > 0 {
			err = fmt.Errorf("challengers are %+v", st.Challengers)
		}
		return err
	})
	p.vedette("rollout", "abort", bad, "--reason", "it sees other digits").ok()

	good := p.inShadow("3")
	d.until(good, operator.RolloutCompleted)
	if d.answered["3"] == 0 || d.answered["2"] != 0 {
		t.Errorf("answered rows by version are %v, want version 3 after version 1", d.answered)
	}
	p.vedette("ledger", "verify").ok()
}

// inShadow starts a rollout of a version with a shadow phase.
func (p *plant) inShadow(version string) (id string) {
	p.t.Helper()
	soak := release.Duration(time.Second)
	ro, err := p.client.CreateRollout(p.t.Context(), operator.RolloutCreate{
		Spec: operator.RolloutSpec{
			Model: "digits", Version: version, Shadow: &operator.ShadowSpec{Rows: 300},
			Waves: []operator.WaveSpec{{Percent: 100, Soak: &soak, Quorum: 1}},
			Gates: []operator.GateSpec{{Kind: "errors", Inconclusive: "pass"}},
		},
		Reason: "test", Start: true,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return ro.ID
}

// until has images read until a rollout is in a state. Every answer must be what
// version 1 says offline, which version 3 says as well.
func (d *duel) until(rollout string, want operator.RolloutState) (ro *operator.Rollout) {
	d.t.Helper()
	const size = 32
	calls := 0
	d.eventually(40*time.Second, "the rollout to be "+string(want), func() error {
		from := calls * size % len(d.images)
		calls++
		_, classes := d.ask(rollout+"-"+strconv.Itoa(calls), "", d.images[from:from+size]...)
		for i, class := range classes {
			if offline := d.offline["1"][from+i]; strconv.FormatInt(class, 10) != offline {
				return stop{fmt.Errorf("image %d is answered with %d, version 1 says %s", from+i, class, offline)}
			}
		}
		var err error
		if ro, err = d.client.Rollout(d.t.Context(), rollout); err != nil {
			return errors.Join(err, d.agent.died())
		}
		ends := []operator.RolloutState{operator.RolloutHalted, operator.RolloutCompleted, operator.RolloutAborted}
		switch {
		case ro.State == want:
			return nil
		case slices.Contains(ends, ro.State):
			return stop{fmt.Errorf("it is %s: %s", ro.State, ro.Cause)}
		}
		return fmt.Errorf("it is %s", ro.State)
	})
	return ro
}
