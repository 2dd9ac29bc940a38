package desired

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// roles are what a device was told last, as role, share and whose decision.
func roles(d *protocol.Desired) (out []string) {
	for _, a := range d.GetAssignments() {
		out = append(out, fmt.Sprintf("%s %d %x", a.GetRole(), a.GetShare(), a.GetRelease()[:2]))
	}
	return out
}

func label(t *testing.T, l *ledger.Ledger, device, site string) ledger.Record {
	t.Helper()
	rec, err := l.Append(t.Context(), fleet.Chain(device), ledger.Any, fleet.KindLabels, "ann",
		fleet.Noted{Device: device, Labels: map[string]string{"site": site}})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// A challenger is told to the devices that have the model and match, also when
// they come to match later, until it is ended or has become the primary release.
func TestChallengeFollowsLabels(t *testing.T) {
	l, r := open(t), &radio{}
	d := New(r, l, Config{})
	run(t, d)
	apply(t, d, label(t, l, "cam-1", "a"), label(t, l, "cam-2", "b"), label(t, l, "cam-3", "b"), decide(t, l, v1, "cam-1", "cam-2"))
	r.take()
	c := ChallengeChange{Model: "digits", Version: "v2", Release: v2, Role: protocol.RoleShare, Share: 300, Match: "site=b", Reason: "is it better"}
	got, err := d.SetChallenge(t.Context(), "ann", c)
	if err != nil || got.Actor != "ann" || got.Seq == 0 || got.Since.IsZero() || got.Ended != nil {
		t.Fatalf("got %+v: %v", got, err)
	}
	primary, share := fmt.Sprintf("primary 0 %x", v1[:2]), fmt.Sprintf("share 300 %x", v2[:2])
	want := func(device string, roles ...string) {
		t.Helper()
		var told []string
		s := d.State(device)
		for _, a := range d.wire(s).GetAssignments() {
			told = append(told, fmt.Sprintf("%s %d %x", a.GetRole(), a.GetShare(), a.GetRelease()[:2]))
		}
		if !slices.Equal(told, roles) {
			t.Errorf("%s is to be %q, want %q", device, told, roles)
		}
		if s.Challengers != nil && s.Generation < got.Seq {
			t.Errorf("%s: generation %d is older than the challenge", device, s.Generation)
		}
	}
	if told := roles(r.newest(t)); !slices.Equal(told, []string{primary, share}) { // cam-2 is told after cam-1
		t.Errorf("told %q", told)
	}
	want("cam-1", primary)
	want("cam-2", primary, share)
	want("cam-3")
	apply(t, d, label(t, l, "cam-1", "b"), decide(t, l, v1, "cam-3"))
	want("cam-1", primary, share)
	want("cam-3", primary, share)
	apply(t, d, decide(t, l, v2, "cam-3"))
	want("cam-3", fmt.Sprintf("primary 0 %x", v2[:2]))

	// The same ledger gives the same desired state on another server.
	twin := New(&radio{}, l, Config{})
	run(t, twin)
	for _, device := range []string{"cam-1", "cam-2", "cam-3"} {
		if a, b := d.State(device), twin.State(device); a.Generation != b.Generation || len(a.Challengers) != len(b.Challengers) {
			t.Errorf("%s: %+v here, %+v there", device, a, b)
		}
	}
	before := d.State("cam-1").Generation
	ended, err := d.SetChallenge(t.Context(), "bob", ChallengeChange{Model: "digits", Reason: "it is not"})
	if err != nil || ended.Ended == nil || ended.Ended.Actor != "bob" || ended.Version != "v2" {
		t.Fatalf("ended %+v: %v", ended, err)
	}
	want("cam-1", primary)
	if s := d.State("cam-1"); s.Generation <= before {
		t.Errorf("generation %d after the end, %d before", s.Generation, before)
	}
}

// besides appends a decision of a rollout to run a release beside what the
// devices have.
func besides(t *testing.T, l *ledger.Ledger, assign ...rollout.Assigned) ledger.Record {
	t.Helper()
	rec, err := l.Append(t.Context(), RolloutChain("digits-v2-1"), ledger.Any, "rollout.step", "engine",
		map[string]any{"decision": rollout.Decision{Assign: assign}})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// A rollout's shadow runs in the place of the model's challenge until a newer
// decision about the device comes: the one that lets it answer, or the one
// that takes it away.
func TestShadowOfARollout(t *testing.T) {
	l, r := open(t), &radio{}
	d := New(r, l, Config{})
	run(t, d)
	v3 := release.DigestOf([]byte("v3"))
	apply(t, d, decide(t, l, v1, "cam-1", "cam-2"))
	if _, err := d.SetChallenge(t.Context(), "ann", ChallengeChange{Model: "digits", Release: v3, Role: protocol.RoleShare, Share: 100, Reason: "try"}); err != nil {
		t.Fatal(err)
	}
	last := map[string]uint64{}
	want := func(device string, roles ...string) {
		t.Helper()
		var told []string
		s := d.State(device)
		for _, a := range d.wire(s).GetAssignments() {
			told = append(told, fmt.Sprintf("%s %d %x", a.GetRole(), a.GetShare(), a.GetRelease()[:2]))
		}
		if !slices.Equal(told, roles) {
			t.Errorf("%s is to be %q, want %q", device, told, roles)
		}
		if s.Generation <= last[device] {
			t.Errorf("%s: generation %d after %d", device, s.Generation, last[device])
		}
		last[device] = s.Generation
	}
	old, challenge := fmt.Sprintf("primary 0 %x", v1[:2]), fmt.Sprintf("share 100 %x", v3[:2])
	want("cam-1", old, challenge)
	want("cam-2", old, challenge)

	both := []string{"cam-1", "cam-2"}
	shadow := rollout.Assigned{Model: "digits", Release: v2, Devices: both, Role: protocol.RoleShadow, Share: 500}
	first := besides(t, l, shadow)
	apply(t, d, first, first)
	want("cam-1", old, fmt.Sprintf("shadow 500 %x", v2[:2]))
	want("cam-2", old, fmt.Sprintf("shadow 500 %x", v2[:2]))
	if c := d.State("cam-1").Challengers[0]; c.Rollout != "digits-v2-1" || c.Seq != first.Seq {
		t.Errorf("shadow is of rollout %q by decision %d, want digits-v2-1 by %d", c.Rollout, c.Seq, first.Seq)
	}

	apply(t, d, decide(t, l, v2, "cam-1"), decide(t, l, v1, "cam-2"), first) // the old record again changes nothing
	want("cam-1", fmt.Sprintf("primary 0 %x", v2[:2]), challenge)
	want("cam-2", old, challenge)

	// A device that was assigned nothing yet is told in one record what stays and
	// what comes beside it.
	pinned := besides(t, l, rollout.Assigned{Model: "digits", Release: v1, Devices: []string{"cam-3"}},
		rollout.Assigned{Model: "digits", Release: v2, Devices: []string{"cam-3"}, Role: protocol.RoleShadow})
	r.take()
	apply(t, d, pinned)
	want("cam-3", old, fmt.Sprintf("shadow 0 %x", v2[:2]))
	sent := r.take()
	for deadline := time.Now().Add(5 * time.Second); len(sent) == 0 && time.Now().Before(deadline); {
		runtime.Gosched() // the ledger was faster than Apply and is telling
		sent = r.take()
	}
	if len(sent) != 1 {
		t.Errorf("one decision was told as %q", sent)
	}

	// On another server the records come in the order of the ledger alone.
	twin := New(&radio{}, l, Config{})
	run(t, twin)
	for _, device := range []string{"cam-1", "cam-2", "cam-3"} {
		if a, b := d.State(device), twin.State(device); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %+v here, %+v there", device, a, b)
		}
	}
}

func TestChallengeRefused(t *testing.T) {
	d := New(&radio{}, open(t), Config{})
	good := ChallengeChange{Model: "digits", Release: v2, Role: protocol.RoleShadow}
	for name, change := range map[string]func(*ChallengeChange){
		"model":               func(c *ChallengeChange) { c.Model = "no such/name" },
		"role":                func(c *ChallengeChange) { c.Role = "primary" },
		"share of nothing":    func(c *ChallengeChange) { c.Role = protocol.RoleShare },
		"more than all":       func(c *ChallengeChange) { c.Share = 1001 },
		"selector":            func(c *ChallengeChange) { c.Match = "site in" },
		"device and selector": func(c *ChallengeChange) { c.Device, c.Match = "cam-1", "site=b" },
	} {
		c := good
		change(&c)
		if _, err := d.SetChallenge(t.Context(), "ann", c); !errors.Is(err, ErrChallenge) {
			t.Errorf("%s: got %v, want ErrChallenge", name, err)
		}
	}
	if got := d.Challenges(); got != nil {
		t.Errorf("recorded %v", got)
	}
}
