package api

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// routes is every operation of the API. The OpenAPI document lists the same,
// and a test compares them.
func routes(s *Server) []route {
	b := s.cfg.Backend
	all := [][]route{serverRoutes(s, b), deviceRoutes(s, b), modelRoutes(s, b), challengeRoutes(b), rolloutRoutes(b), driftRoutes(b), truthRoutes(b), sampleRoutes(b), trendRoutes(b), runRoutes(b), retrainRoutes(b), incidentRoutes(b), validationRoutes(b), promotionRoutes(b), adminRoutes(s, b)}
	var flat []route
	for _, part := range all {
		flat = append(flat, part...)
	}
	return flat
}

func serverRoutes(s *Server, b Backend) []route {
	return []route{
		{
			name: "openapi", method: http.MethodGet, path: "/openapi.yaml", summary: "This document.",
			media: "application/yaml", handle: serveOpenAPI,
		},
		read("server", "/server", "What the control plane is, who asks, and how full it is.", b.Server),
		read("overview", "/overview", "The fleet at a glance.", b.Overview),
		read("settings", "/settings", "What is asked of all devices.", b.Settings),
		command(http.MethodPut, "setSettings", "/settings", "Change what is asked of all devices.", plain(b.SetSettings)),
		s.eventRoute(b),
	}
}

func deviceRoutes(s *Server, b Backend) []route {
	return []route{
		query("devices", "/devices", "Devices of the fleet.", b.Devices),
		one("device", "/devices/:device", "Everything about one device.", b.Device),
		command(http.MethodPatch, "setLabels", "/devices/:device/labels", "Set and remove labels of a device.",
			func(c echo.Context, body operator.LabelChange) (*operator.Device, error) {
				body.Revision = revisionOf(c)
				return on(b.SetLabels)(c, body)
			}).withRevision(),
		command(http.MethodPost, "revokeDevice", "/devices/:device/revoke", "Refuse a device's certificate from now on and cut its connection.",
			silent(b.RevokeDevice)).as(operator.Admin),
		s.tapRoute(b),
		query("totals", "/totals", "What devices counted for each release, and what is known to be lost.", b.Totals),
	}
}

func modelRoutes(s *Server, b Backend) []route {
	return []route{
		read("models", "/models", "Models of the registry.", b.Models),
		one("model", "/models/:model", "One model with its versions.", b.Model),
		version("version", "/models/:model/versions/:version", "One version: manifest, signature, where it runs.", b.Version),
		s.releaseFileRoute(b),
		stageRoute(b),
		uploadStatus(b),
		s.uploadChunk(b),
		read("trust", "/trust", "State of the TUF repository and the server's online keys.", b.Trust),
		trustMetadata(b),
		command(http.MethodPut, "installRoot", "/trust/root", "Install a root of trust, or the next one of the chain.",
			plain(b.InstallRoot)).as(operator.Admin),
		command(http.MethodPost, "publish", "/trust/targets", "Publish signed targets; what they name must have been uploaded.",
			plain(b.Publish)).as(operator.Publisher).upTo(operator.MaxTargetsBody),
	}
}

func challengeRoutes(b Backend) []route {
	return []route{
		read("challenges", "/challenges", "Versions that run beside the primary ones now.", b.Challenges),
		one("challenge", "/models/:model/challenge", "The newest challenge of a model: devices, agreement, latency.", b.Challenge),
		command(http.MethodPut, "setChallenge", "/models/:model/challenge", "Run a version beside the primary one, in place of the present challenger.",
			on(b.SetChallenge)),
		command(http.MethodPost, "endChallenge", "/models/:model/challenge/end", "Take the challenger of a model away.", on(b.EndChallenge)),
	}
}

func rolloutRoutes(b Backend) []route {
	return []route{
		query("rollouts", "/rollouts", "Rollouts, newest first.", b.Rollouts),
		one("rollout", "/rollouts/:rollout", "One rollout: waves, gates, timeline.", b.Rollout),
		of("rolloutDevices", "/rollouts/:rollout/devices", "Devices of a rollout, each with why it is where it is.", b.RolloutDevices),
		rolloutDevice(b),
		of("rolloutDecisions", "/rollouts/:rollout/decisions", "What was decided about a rollout, newest first.", b.RolloutDecisions),
		one("explainRollout", "/rollouts/:rollout/explain", "Why a rollout is where it is and what it waits for.", b.ExplainRollout),
		command(http.MethodPost, "planRollout", "/rollouts/plan", "What a rollout would do. Changes nothing.",
			plain(b.PlanRollout)).as(operator.Viewer),
		command(http.MethodPost, "createRollout", "/rollouts", "Make a rollout.", plain(b.CreateRollout)),
		command(http.MethodPost, "actOnRollout", "/rollouts/:rollout/actions", "Start, pause, resume, abort … a rollout.", on(b.ActOnRollout)),
	}
}

func driftRoutes(b Backend) []route {
	return append(levelRoutes(b),
		one("drift", "/models/:model/drift", "Cohorts × devices × features against training.", b.Drift),
		quality(b),
		query("alarms", "/alarms", "Alarms, newest first.", b.Alarms),
	)
}

func adminRoutes(s *Server, b Backend) []route {
	return []route{
		query("ledger", "/ledger", "Records of every decision and command, newest first.", b.Ledger),
		s.exportRoute(b),
		read("enrolTokens", "/enrol-tokens", "Enrolment tokens, without secrets.", b.EnrolTokens),
		command(http.MethodPost, "createEnrolToken", "/enrol-tokens", "Make an enrolment token. The secret is shown once.", plain(b.CreateEnrolToken)),
		revoke("revokeEnrolToken", "/enrol-tokens/:token", "Revoke an enrolment token.", b.RevokeEnrolToken),
		read("tokens", "/tokens", "Operator tokens, without secrets.", b.Tokens),
		command(http.MethodPost, "createToken", "/tokens", "Make an operator token. The secret is shown once.", plain(b.CreateToken)).as(operator.Admin),
		revoke("revokeToken", "/tokens/:token", "Revoke an operator token.", b.RevokeToken).as(operator.Admin),
	}
}

// revoke is DELETE of one subject.
func revoke(name, path, summary string, fn func(context.Context, string) error) route {
	return command(http.MethodDelete, name, path, summary,
		silent(func(ctx context.Context, subject string, _ none) error { return fn(ctx, subject) }))
}

// version is GET of one version of a model.
func version[R any](name, path, summary string, fn func(context.Context, string, string) (R, error)) route {
	return route{
		name: name, method: http.MethodGet, path: path, role: operator.Viewer, summary: summary, reply: typeOf[R](),
		handle: func(c echo.Context) error {
			model, version, err := versionOf(c)
			if err != nil {
				return err
			}
			return reply(c)(fn(c.Request().Context(), model, version))
		},
	}
}

func versionOf(c echo.Context) (model, version string, err error) {
	if model, err = param(c, "model"); err != nil {
		return "", "", err
	}
	version, err = param(c, "version")
	return model, version, err
}

func rolloutDevice(b Backend) route {
	return route{
		name: "rolloutDevice", method: http.MethodGet, path: "/rollouts/:rollout/devices/:device", role: operator.Viewer,
		summary: "Where a device is in a rollout, and why.", reply: typeOf[*operator.WaveDevice](),
		handle: func(c echo.Context) error {
			id, err := param(c, "rollout")
			if err != nil {
				return err
			}
			device, err := param(c, "device")
			if err != nil {
				return err
			}
			return reply(c)(b.RolloutDevice(c.Request().Context(), id, device))
		},
	}
}

func stageRoute(b Backend) route {
	return command(http.MethodPut, "setStage", "/models/:model/versions/:version/stage", "Move a version to a stage.",
		func(c echo.Context, body operator.StageChange) (*operator.Version, error) {
			model, version, err := versionOf(c)
			if err != nil {
				return nil, err
			}
			body.Revision = revisionOf(c)
			return b.SetStage(c.Request().Context(), model, version, body)
		}).as(operator.Publisher).withRevision()
}

func quality(b Backend) route {
	r := query("quality", "/models/:model/quality", "Accuracy, drift and rows over time.", b.Quality)
	r.handle = func(c echo.Context) error {
		q := operator.QualityQuery{}
		if err := operator.DecodeQuery(c.QueryParams(), &q); err != nil {
			return err
		}
		model, err := param(c, "model")
		if err != nil {
			return err
		}
		q.Model = model
		return reply(c)(b.Quality(c.Request().Context(), q))
	}
	return r
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func serveOpenAPI(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/yaml", openAPI)
}
