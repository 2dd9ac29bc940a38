package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

const publishPrefix = "publish/"

// maxFailures bounds the versions looked at: the newest.
const maxFailures = 200

// publishFailures makes incidents of versions that could not be published, until
// they are, or their problem is gone.
func (s *Server) publishFailures(ctx context.Context, now time.Time) error {
	found, _, err := s.tracking.SearchVersions(tracking.Search{
		Filter: "tags.`" + operator.TagProblem + "` LIKE '%'", OrderBy: []string{"last_updated_timestamp DESC"}, Max: maxFailures,
	})
	if err != nil {
		return fmt.Errorf("look for versions that could not be published: %w", err)
	}
	standing := map[string]bool{}
	var errs []error
	for i := range found {
		v := &found[i]
		if v.Tags[operator.TagProblem] == "" || v.Tags[operator.TagRelease] != "" {
			continue
		}
		c := publishCause(v)
		standing[c.Key] = true
		held, ok := s.incidents.Newest(c.Key)
		if ok && (held.Live() && held.Cause.Detail == c.Detail || byHandSince(&held, time.UnixMilli(v.UpdatedMS))) {
			continue
		}
		errs = append(errs, s.incidents.Raise(ctx, now, c))
	}
	for _, i := range s.incidents.Incidents() {
		if i.Live() && strings.HasPrefix(i.Cause.Key, publishPrefix) && !standing[i.Cause.Key] {
			errs = append(errs, s.incidents.Clear(ctx, now, i.Cause.Key, "the version has no problem any more"))
		}
	}
	return errors.Join(errs...)
}

func publishCause(v *tracking.ModelVersion) incident.Cause {
	version := strconv.Itoa(v.Version)
	c := incident.Cause{
		Key: publishPrefix + v.Name + "/" + version, Kind: incident.PublishFailed, Severity: incident.Warning, Model: v.Name, Version: version,
		Summary: fmt.Sprintf("registered version %s of %s could not be published", version, v.Name), Detail: v.Tags[operator.TagProblem],
	}
	if v.Run != "" { // a model without a release has no page of its own
		c.Link = "/runs/" + url.PathEscape(v.Run)
	}
	return c
}
