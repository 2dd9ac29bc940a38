package client

import (
	"context"
	"net/http"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// Incidents reads one page of what is and was wrong.
func (c *Client) Incidents(ctx context.Context, q operator.IncidentQuery) (*operator.Page[operator.Incident], error) {
	return get[operator.Page[operator.Incident]](ctx, c, operator.EncodeQuery(q), "incidents")
}

// Incident reads one incident with its timeline.
func (c *Client) Incident(ctx context.Context, id string) (*operator.Incident, error) {
	return get[operator.Incident](ctx, c, nil, "incidents", id)
}

// AcknowledgeIncident says that somebody is at it.
func (c *Client) AcknowledgeIncident(ctx context.Context, id string, r operator.Reasoned) (*operator.Incident, error) {
	return send[operator.Incident](ctx, c, call{method: http.MethodPost, path: path("incidents", id, "acknowledge"), body: r})
}

// ResolveIncident closes an incident by hand.
func (c *Client) ResolveIncident(ctx context.Context, id string, r operator.Reasoned) (*operator.Incident, error) {
	return send[operator.Incident](ctx, c, call{method: http.MethodPost, path: path("incidents", id, "resolve"), body: r})
}

// Silences lists what keeps messages back, or did lately.
func (c *Client) Silences(ctx context.Context) ([]operator.Silence, error) {
	return items[operator.Silence](ctx, c, "silences")
}

// CreateSilence keeps messages about what matches back.
func (c *Client) CreateSilence(ctx context.Context, s operator.SilenceCreate) (*operator.Silence, error) {
	return send[operator.Silence](ctx, c, call{method: http.MethodPost, path: "/silences", body: s})
}

// ExpireSilence ends a silence now.
func (c *Client) ExpireSilence(ctx context.Context, id string, r operator.Reasoned) error {
	return c.do(ctx, call{method: http.MethodPost, path: path("silences", id, "expire"), body: r}, nil)
}

// NotifySettings reads who is told of incidents.
func (c *Client) NotifySettings(ctx context.Context) (*operator.NotifySettings, error) {
	return get[operator.NotifySettings](ctx, c, nil, "notify")
}

// SetNotifySettings changes who is told of incidents.
func (c *Client) SetNotifySettings(ctx context.Context, s operator.NotifySettings) (*operator.NotifySettings, error) {
	return send[operator.NotifySettings](ctx, c, call{method: http.MethodPut, path: "/notify", body: s})
}

// TestReceiver sends a trial message to one receiver.
func (c *Client) TestReceiver(ctx context.Context, name string, r operator.Reasoned) (*operator.NotifyTest, error) {
	return send[operator.NotifyTest](ctx, c, call{method: http.MethodPost, path: path("notify", name, "test"), body: r})
}
