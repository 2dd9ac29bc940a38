package desired

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// A lab trial reaches the lab devices that serve another version, takes the
// place of a challenge there and nowhere else, and leaves it when it ends.
func TestLabTrialIsForTheLab(t *testing.T) {
	l, r := open(t), &radio{}
	d := New(r, l, Config{})
	run(t, d)
	ring, err := l.Append(t.Context(), fleet.Chain("bench"), ledger.Any, fleet.KindLabels, "ann",
		fleet.Noted{Device: "bench", Labels: map[string]string{"ring": "lab"}})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, d, ring, label(t, l, "cam-1", "a"), decide(t, l, v1, "cam-1", "bench"))
	v3 := release.DigestOf([]byte("v3"))
	if _, err := d.SetChallenge(t.Context(), "ann", ChallengeChange{
		Model: "digits", Version: "v3", Release: v3, Role: protocol.RoleShare, Share: 100, Reason: "is it better",
	}); err != nil {
		t.Fatal(err)
	}
	trial, err := d.SetLabTrial(t.Context(), "bob", LabChange{Model: "digits", Version: "v2", Release: v2, Reason: "measure it"})
	if err != nil || trial.Actor != "bob" || trial.Since.IsZero() {
		t.Fatalf("got %+v: %v", trial, err)
	}
	primary, shadow, share := fmt.Sprintf("primary 0 %x", v1[:2]), fmt.Sprintf("shadow 0 %x", v2[:2]), fmt.Sprintf("share 100 %x", v3[:2])
	want := func(device string, all ...string) {
		t.Helper()
		if got := roles(d.wire(d.State(device))); !slices.Equal(got, all) {
			t.Errorf("%s is to be %q, want %q", device, got, all)
		}
	}
	want("bench", primary, shadow)
	want("cam-1", primary, share)
	if g := d.State("bench").Generation; g != trial.Seq {
		t.Errorf("generation %d, want that of the trial, %d", g, trial.Seq)
	}
	// The same ledger gives the same state on another server.
	again := New(&radio{}, l, Config{})
	run(t, again)
	if got := again.State("bench"); fmt.Sprint(got) != fmt.Sprint(d.State("bench")) {
		t.Errorf("read again: %+v, want %+v", got, d.State("bench"))
	}
	// When it becomes the primary version it is no trial any more.
	apply(t, d, decide(t, l, v2, "bench"))
	want("bench", fmt.Sprintf("primary 0 %x", v2[:2]), share)
	apply(t, d, decide(t, l, v1, "bench"))
	want("bench", primary, shadow)
	if _, err := d.SetLabTrial(t.Context(), "bob", LabChange{Model: "digits", Reason: "seen"}); err != nil {
		t.Fatal(err)
	}
	want("bench", primary, share)
	if _, ok := d.LabTrial("digits"); ok {
		t.Error("the trial has not ended")
	}
	if _, err := d.SetLabTrial(t.Context(), "bob", LabChange{Model: "a/b", Release: v2}); !errors.Is(err, ErrChallenge) {
		t.Errorf("a name that is none: %v", err)
	}
}
