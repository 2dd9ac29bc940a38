package controlplane

import (
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/release"
)

// What counts as deployed went to the fleet and stayed there.
func TestDeployed(t *testing.T) {
	var list []runner.View
	made := func(model, version string, status rollout.Status, selector string, started int) release.Digest {
		st := &rollout.State{ID: model + version}
		st.Spec = rollout.Spec{Model: model, Version: version, Selector: selector, Release: release.DigestOf([]byte(model + version))}
		st.Header.Status, st.Header.Started = status, time.Unix(int64(started), 0)
		list = append(list, runner.View{State: st})
		return st.Spec.Release
	}
	made("digits", "4", rollout.StatusHalted, "", 5)
	made("digits", "3", rollout.StatusCompleted, "ring=lab", 4)
	made("letters", "1", rollout.StatusCompleted, "", 3)
	first := made("digits", "1", rollout.StatusCompleted, "", 1)
	second := made("digits", "2", rollout.StatusCompleted, "site=a", 2)
	got := deployed(list, "digits")
	if len(got) != 2 || got[0] != second || got[1] != first {
		t.Errorf("got %v, want %v and %v", got, second, first)
	}
}
