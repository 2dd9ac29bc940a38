package controlplane

import (
	"cmp"
	"slices"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/controlplane/validation"
	"github.com/vedette-edge/vedette/protocol/release"
)

// deployed are the releases of a model that completed rollouts brought to devices
// outside the lab, the last one to begin first.
func (s *Server) deployed(model string) []release.Digest {
	if s.runner == nil {
		return nil // the server is starting
	}
	return deployed(s.runner.List(), model)
}

func deployed(rollouts []runner.View, model string) []release.Digest {
	rollouts = slices.DeleteFunc(rollouts, func(v runner.View) bool {
		st := v.State
		return st.Spec.Model != model || st.Header.Status != rollout.StatusCompleted || validation.InLab(st.Spec.Selector)
	})
	slices.SortStableFunc(rollouts, func(a, b runner.View) int {
		return cmp.Or(b.State.Header.Started.Compare(a.State.Header.Started), cmp.Compare(a.State.ID, b.State.ID))
	})
	out := make([]release.Digest, len(rollouts))
	for i, v := range rollouts {
		out[i] = v.State.Spec.Release
	}
	return out
}
