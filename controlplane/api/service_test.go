package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// Every command refuses who may not give it, wants a reason where it changes
// the fleet, does one thing, and leaves word of it.
func TestCommands(t *testing.T) {
	d := release.DigestOf(nil)
	for name, c := range map[string]struct {
		role   operator.Role
		reason bool
		does   string
		note   string // kind in the ledger; empty where the package behind notes it
		call   func(ctx context.Context, s *Service, reason string) error
	}{
		"labels": {operator.Operator, true, "labels cam-a1 by ann: why", "", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.SetLabels(ctx, "cam-a1", operator.LabelChange{Reason: reason, Revision: "7"})
			return err
		}},
		"revoke device": {operator.Admin, true, "revoke cam-a1,mark cam-a1 by ann", "", func(ctx context.Context, s *Service, reason string) error {
			return s.RevokeDevice(ctx, "cam-a1", operator.Reasoned{Reason: reason})
		}},
		"stage": {operator.Publisher, true, "stage digits 1 by ann", "model.stage", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.SetStage(ctx, "digits", "1", operator.StageChange{Stage: operator.StageStaging, Reason: reason})
			return err
		}},
		"root": {operator.Admin, false, "root by ann", "trust.root", func(ctx context.Context, s *Service, _ string) error {
			_, err := s.InstallRoot(ctx, operator.RootUpload{})
			return err
		}},
		"publish": {operator.Publisher, false, "targets by ann", "trust.targets", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.Publish(ctx, operator.TargetsUpload{Reason: reason})
			return err
		}},
		"blob status": {operator.Publisher, false, "status", "", func(ctx context.Context, s *Service, _ string) error {
			_, err := s.BlobStatus(ctx, d)
			return err
		}},
		"chunk": {operator.Publisher, false, "chunk", "", func(ctx context.Context, s *Service, _ string) error {
			_, err := s.UploadChunk(ctx, d, 9, 7, nil)
			return err
		}},
		"challenge": {operator.Operator, true, "challenge digits by ann", "", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.SetChallenge(ctx, "digits", operator.ChallengeCreate{Version: "1", Role: operator.Shadow, Reason: reason})
			return err
		}},
		"create rollout": {operator.Operator, true, "create digits by ann: why", "", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.CreateRollout(ctx, operator.RolloutCreate{Spec: operator.RolloutSpec{Model: "digits"}, Reason: reason})
			return err
		}},
		"create and start": {operator.Operator, true, "create digits by ann: why,start digits-2-1 by ann", "", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.CreateRollout(ctx, operator.RolloutCreate{Spec: operator.RolloutSpec{Model: "digits"}, Reason: reason, Start: true})
			return err
		}},
		"pause": {operator.Operator, true, "pause digits-2-1 by ann", "", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.ActOnRollout(ctx, "digits-2-1", operator.RolloutAction{Action: operator.ActPause, Reason: reason})
			return err
		}},
		"policy": {operator.Operator, true, "policy digits", "retrain.policy", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.SetRetrainPolicy(ctx, operator.RetrainPolicy{Model: "digits", AccuracyFloor: 0.9, Reason: reason})
			return err
		}},
		"settings": {operator.Operator, true, "settings by ann", "", func(ctx context.Context, s *Service, reason string) error {
			_, err := s.SetSettings(ctx, operator.Settings{Reason: reason})
			return err
		}},
		"enrol token": {operator.Operator, false, "enrol token", "enrol_token.created", func(ctx context.Context, s *Service, _ string) error {
			_, err := s.CreateEnrolToken(ctx, operator.EnrolTokenCreate{})
			return err
		}},
		"revoke enrol token": {operator.Operator, false, "revoke enrol token", "enrol_token.revoked", func(ctx context.Context, s *Service, _ string) error {
			return s.RevokeEnrolToken(ctx, "x")
		}},
		"token": {operator.Admin, false, "token", "token.created", func(ctx context.Context, s *Service, _ string) error {
			_, err := s.CreateToken(ctx, operator.TokenCreate{})
			return err
		}},
		"revoke token": {operator.Admin, false, "revoke token", "token.revoked", func(ctx context.Context, s *Service, _ string) error {
			return s.RevokeToken(ctx, "x")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.rollouts = []runner.View{view("digits-2-1", rollout.StatusRunning)}
			s := w.service()
			if got := operator.CodeOf(c.call(t.Context(), s, "why")); got != operator.Unauthorized {
				t.Errorf("nobody: got %q, want unauthorized", got)
			}
			lesser := map[operator.Role]operator.Role{operator.Operator: operator.Viewer, operator.Publisher: operator.Operator, operator.Admin: operator.Publisher}[c.role]
			if got := operator.CodeOf(c.call(as(t, lesser), s, "why")); got != operator.Forbidden {
				t.Errorf("%s: got %q, want forbidden", lesser, got)
			}
			if got := operator.CodeOf(c.call(as(t, c.role), s, " ")); c.reason && got != operator.ReasonRequired {
				t.Errorf("without a reason: got %q, want reason_required", got)
			}
			if got := operator.CodeOf(c.call(as(t, c.role), s, strings.Repeat("x", operator.MaxReason+1))); c.reason && got != operator.Invalid {
				t.Errorf("with a novel as reason: got %q, want invalid", got)
			}
			if got := operator.CodeOf(c.call(as(t, c.role), s, "\x1b[31mred\x1b[2J")); c.reason && got != operator.Invalid {
				t.Errorf("with a reason that a terminal would obey: got %q, want invalid", got)
			}
			w.done, w.notes = nil, nil
			if err := c.call(as(t, c.role), s, "why"); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(w.done, ","); got != c.does {
				t.Errorf("did %q, want %q", got, c.does)
			}
			if len(w.notes) > 0 != (c.note != "") || c.note != "" && (w.notes[0].Kind != c.note || w.notes[0].Actor != "ann" || w.notes[0].Chain != ledger.ChainOperator) {
				t.Errorf("noted %+v, want kind %q by ann", w.notes, c.note)
			}
			w.refuse = errors.New("broken")
			if err := c.call(as(t, c.role), s, "why"); !errors.Is(err, w.refuse) {
				t.Errorf("got %v, want what the package behind said", err)
			}
		})
	}
}

func TestCommandsOnWhatIsNot(t *testing.T) {
	s := newWorld().service()
	ctx := as(t, operator.Admin)
	for name, err := range map[string]error{
		"revoke": s.RevokeDevice(ctx, "cam-x", operator.Reasoned{Reason: "x"}),
		"policy": errOf(s.SetRetrainPolicy(ctx, operator.RetrainPolicy{Model: "beer", Reason: "x"})),
		"tap":    s.Tap(ctx, "cam-x", nil),
		"device": errOf(s.Device(ctx, "cam-x")),
		"model":  errOf(s.Model(ctx, "beer")),
		"drift":  errOf(s.Drift(ctx, "beer")),
		"roll":   errOf(s.Rollout(ctx, "none")),
		"why":    errOf(s.ExplainRollout(ctx, "none")),
		"vers":   errOf(s.Version(ctx, "digits", "9")),
	} {
		if got := operator.CodeOf(err); got != operator.NotFound {
			t.Errorf("%s: got %q (%v), want not_found", name, got, err)
		}
	}
	if _, err := s.ActOnRollout(ctx, "x", operator.RolloutAction{Action: "explode", Reason: "x"}); operator.CodeOf(err) != operator.Invalid {
		t.Errorf("unknown action: got %v", err)
	}
	if _, err := s.SetLabels(ctx, "cam-a1", operator.LabelChange{Reason: "x", Revision: "abc"}); operator.CodeOf(err) != operator.Invalid {
		t.Errorf("malformed revision: got %v", err)
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestErrorsOfPackagesGetCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want operator.Code
	}{
		{registryError(registry.ErrNotFound), operator.NotFound},
		{registryError(registry.ErrNoRoot), operator.NoRoot},
		{registryError(registry.ErrStale), operator.Stale},
		{registryError(errors.Join(registry.ErrRefused, trust.ErrRollback)), operator.Stale},
		{registryError(errors.Join(registry.ErrRefused, trust.ErrSignature)), operator.TrustRefused},
		{registryError(registry.ErrMissingBlob), operator.BlobMissing},
		{registryError(registry.ErrRelease), operator.Invalid},
		{registryError(io.EOF), operator.Internal},
		{rolloutError(rollout.ErrNotNow), operator.NotNow},
		{rolloutError(rollout.ErrHeld), operator.Held},
		{rolloutError(rollout.ErrNobody), operator.NoDevices},
		{rolloutError(rollout.ErrSpec), operator.Invalid},
		{rolloutError(rollout.ErrStale), operator.Stale},
		{rolloutError(rollout.ErrReason), operator.ReasonRequired},
		{rolloutError(runner.ErrNotFound), operator.NotFound},
		{rolloutError(registry.ErrNotFound), operator.NotFound},
		{fleetError(fleet.ErrStale), operator.Stale},
		{fleetError(protocol.ErrLabel), operator.Invalid},
		{blobError(artifact.ErrOffset, artifact.Upload{Offset: 3}), operator.OffsetMismatch},
		{blobError(artifact.ErrDigest, artifact.Upload{}), operator.DigestMismatch},
		{blobError(artifact.ErrTooLarge, artifact.Upload{}), operator.TooLarge},
		{blobError(artifact.ErrFull, artifact.Upload{}), operator.StorageFull},
		{blobError(artifact.ErrBusy, artifact.Upload{}), operator.Unavailable},
		{registryError(nil), ""},
		{rolloutError(nil), ""},
		{fleetError(nil), ""},
	} {
		if got := operator.CodeOf(c.err); got != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
	}
}
