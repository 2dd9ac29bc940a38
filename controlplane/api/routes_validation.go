package api

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/protocol/operator"
)

func validationRoutes(b Backend) []route {
	return []route{
		one("gatePolicy", "/models/:model/gates", "The gates that versions of a model have to pass.", b.GatePolicy),
		command(http.MethodPut, "setGatePolicy", "/models/:model/gates", "Set the gates of a model. An empty text removes them.",
			on(b.SetGatePolicy)).as(operator.Publisher),
		of("history", "/models/:model/history", "What was in production, where, when, by whom and why.", b.History),
		version("validation", "/models/:model/versions/:version/gates", "How a version stands with the gates: value, threshold, evidence.", b.Validation),
		ofVersion(http.MethodPost, "addEvidence", "/models/:model/versions/:version/evidence", "Bring an evaluation or data reports for the gates of a version.",
			b.AddEvidence).as(operator.Publisher),
		overrideRoute(b),
		ofVersion(http.MethodPut, "setLabTrial", "/models/:model/versions/:version/lab", "Have lab devices try a version, or stop.", b.SetLabTrial),
	}
}

// ofVersion is a command about one version of a model.
func ofVersion[B, R any](method, name, path, summary string, fn func(ctx context.Context, model, version string, body B) (R, error)) route {
	return command(method, name, path, summary, func(c echo.Context, body B) (R, error) {
		var none R
		model, version, err := versionOf(c)
		if err != nil {
			return none, err
		}
		return fn(c.Request().Context(), model, version, body)
	})
}

func overrideRoute(b Backend) route {
	return command(http.MethodPost, "overrideGate", "/models/:model/versions/:version/gates/:gate/override", "Let a version past one gate.",
		func(c echo.Context, body operator.Reasoned) (*operator.Validation, error) {
			model, version, err := versionOf(c)
			if err != nil {
				return nil, err
			}
			gate, err := param(c, "gate")
			if err != nil {
				return nil, err
			}
			return b.OverrideGate(c.Request().Context(), model, version, gate, body)
		}).as(operator.Publisher)
}
