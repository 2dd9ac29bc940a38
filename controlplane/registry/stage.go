package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// ErrStage says that a version cannot be put into that stage.
var ErrStage = errors.New("stage is not possible")

// maxStageLog bounds the history of one version.
const maxStageLog = 100

// SetStage moves a version to a stage. Production is taken from the version
// that had it, which is archived: devices are moved by rollouts, not by this.
func (r *Registry) SetStage(ctx context.Context, actor, model, version string, c operator.StageChange) (Version, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	ver, err := r.Version(model, version)
	if err != nil {
		return Version{}, err
	}
	if err := mayStage(ver, c); err != nil {
		return Version{}, fmt.Errorf("stage of %s %s: %w", model, ver.Version, err)
	}
	if c.Stage == operator.StageProduction {
		if err := r.retire(ctx, actor, ver); err != nil {
			return Version{}, err
		}
	}
	if ver.Stage != c.Stage {
		if err := r.moveTo(ctx, actor, ver, c); err != nil {
			return Version{}, err
		}
		r.cfg.Changed(model)
	}
	return r.Release(ver.Digest)
}

func mayStage(ver Version, c operator.StageChange) error {
	forward := c.Stage == operator.StageStaging || c.Stage == operator.StageProduction
	switch {
	case !c.Stage.Valid():
		return fmt.Errorf("%w: %q is no stage", ErrStage, c.Stage)
	case strings.TrimSpace(c.Reason) == "":
		return fmt.Errorf("%w: say why, for those who read the history", ErrStage)
	case c.Revision != "" && c.Revision != ver.Revision:
		return fmt.Errorf("%w: revision %s, not %s", ErrStale, ver.Revision, c.Revision)
	case forward && ver.Withdrawn:
		return fmt.Errorf("%w: publishers have withdrawn it", ErrStage)
	case forward && ver.BelowFloor:
		return fmt.Errorf("%w: it is below the signed floor, devices refuse it", ErrStage)
	}
	return nil
}

// retire archives the version that is in production now.
func (r *Registry) retire(ctx context.Context, actor string, by Version) error {
	m, err := r.Model(by.Model)
	if err != nil {
		return err
	}
	for _, ver := range m.Versions {
		if ver.Stage != operator.StageProduction || ver.Digest == by.Digest {
			continue
		}
		c := operator.StageChange{Stage: operator.StageArchived, Reason: "replaced by " + by.Version}
		if err := r.moveTo(ctx, actor, ver, c); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) moveTo(ctx context.Context, actor string, ver Version, c operator.StageChange) error {
	change := operator.StageChanged{From: ver.Stage, To: c.Stage, Actor: actor, Reason: c.Reason, At: r.cfg.Now().UTC()}
	ver.Stage = c.Stage
	ver.StageLog = slices.Insert(ver.StageLog, 0, change)
	ver.StageLog = ver.StageLog[:min(len(ver.StageLog), maxStageLog)]
	revision, err := strconv.ParseUint(ver.Revision, 10, 64)
	if err != nil {
		return fmt.Errorf("revision of %s %s: %w", ver.Model, ver.Version, err)
	}
	revision, err = r.put(ctx, ver.record(), revision)
	if err != nil {
		return fmt.Errorf("stage of %s %s: %w", ver.Model, ver.Version, err)
	}
	ver.Revision = strconv.FormatUint(revision, 10)
	next := r.current().clone()
	next.versions[ver.Digest] = ver
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view = next
	return nil
}
