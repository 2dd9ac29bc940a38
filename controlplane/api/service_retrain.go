package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/retrain"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Retrainer asks for retraining.
type Retrainer interface {
	SetPolicy(ctx context.Context, p retrain.Policy) error
	Policies() []retrain.Policy
	RetrainRequests
}

// RetrainRequests are what was asked for.
type RetrainRequests interface {
	Requests(model string) []retrain.Request
	Request(id string) (retrain.Request, error)
	Ask(ctx context.Context, now time.Time, model, who, reason string) (retrain.Request, error)
	Redeliver(ctx context.Context, now time.Time, id string) (retrain.Request, error)
}

func retrainRoutes(b Backend) []route {
	return []route{
		query("retrainEvents", "/retrain-events", "Requests for retraining and their deliveries, newest first.", b.RetrainEvents),
		one("retrainEvent", "/retrain-events/:request", "One request for retraining: evidence, deliveries, the version that answers it.", b.RetrainEvent),
		command(http.MethodPost, "redeliver", "/retrain-events/:request/redeliver", "Try the dead letters of a request again.", on(b.Redeliver)),
		{
			name: "retrainSchema", method: http.MethodGet, path: "/retrain-schema", role: operator.Viewer,
			summary: "JSON schema of the event that asks for retraining.", media: "application/schema+json", handle: serveRetrainSchema,
		},
		one("retrainPolicy", "/models/:model/retrain-policy", "When a model asks for retraining, and whom.", b.RetrainPolicy),
		command(http.MethodPut, "setRetrainPolicy", "/models/:model/retrain-policy", "Change when a model asks for retraining.",
			on(func(ctx context.Context, model string, p operator.RetrainPolicy) (*operator.RetrainPolicy, error) {
				p.Model = model
				return b.SetRetrainPolicy(ctx, p)
			})),
		command(http.MethodPost, "requestRetraining", "/models/:model/retrain", "Ask for retraining now, whatever the policy's conditions are.", on(b.RequestRetraining)),
	}
}

func serveRetrainSchema(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/schema+json", retrain.Schema)
}

// RetrainEvents lists requests for retraining, newest first.
func (s *Service) RetrainEvents(_ context.Context, q operator.RetrainQuery) (*operator.Page[operator.RetrainEvent], error) {
	list := []operator.RetrainEvent{}
	for _, r := range s.d.Retrain.Requests(q.Model) {
		if q.State == "" || q.State == r.State() {
			if !q.Dead || r.Dead() {
				list = append(list, retrainEvent(&r))
			}
		}
	}
	key := func(e *operator.RetrainEvent) string { return newestFirst(e.At, e.ID) }
	slices.SortFunc(list, func(a, b operator.RetrainEvent) int { return cmp.Compare(key(&a), key(&b)) })
	return paginate(list, q.Paging, key)
}

// RetrainEvent is one request.
func (s *Service) RetrainEvent(_ context.Context, id string) (*operator.RetrainEvent, error) {
	r, err := s.d.Retrain.Request(id)
	if err != nil {
		return nil, retrainError(err)
	}
	return new(retrainEvent(&r)), nil
}

func retrainError(err error) error {
	switch {
	case errors.Is(err, retrain.ErrPolicy):
		return operator.Errorf(operator.Invalid, "%w", err)
	case errors.Is(err, retrain.ErrNotFound):
		return operator.Errorf(operator.NotFound, "%w", err).WithHint(`list them with "vedette retrain list"`)
	case errors.Is(err, retrain.ErrAlive):
		return operator.Errorf(operator.Conflict, "%w: every destination has taken it or is still being tried", err)
	}
	return operator.Errorf(operator.Unavailable, "%w", err)
}

func retrainEvent(r *retrain.Request) operator.RetrainEvent {
	out := operator.RetrainEvent{
		ID: r.ID, Model: r.Model, Version: cmp.Or(r.Version, r.Alarm.Version), At: fromMS(r.AtMS), State: r.State(),
		Cause: cmp.Or(r.Cause, string(r.Alarm.Kind)), Condition: r.Condition, Text: cmp.Or(r.Message, r.Alarm.Message), Cohorts: r.Cohorts,
		Alarm: alarm(&r.Alarm), Tag: operator.TagRetrain + "=" + r.ID, Deliveries: []operator.Delivery{},
	}
	if out.Cohorts == nil && r.Alarm.Cohort != "" {
		out.Cohorts = []string{r.Alarm.Cohort}
	}
	for _, d := range r.Deliveries {
		out.Deliveries = append(out.Deliveries, operator.Delivery{
			Target: d.Destination, Done: d.Done, Attempts: d.Attempts, Error: d.Error, Last: fromMS(d.LastMS), Next: fromMS(d.NextMS),
		})
	}
	if a := r.Answer; a != nil {
		out.Answer = &operator.RetrainAnswer{Version: a.Version, Release: a.Release, At: fromMS(a.AtMS), Text: a.Text}
	}
	return out
}

// policy is the one of a model, without secrets; without a policy it asks for
// nothing.
func (s *Service) policy(model string) retrain.Policy {
	for _, p := range s.d.Retrain.Policies() {
		if p.Model == model {
			return retrain.WithoutSecrets(&p) // whoever holds it
		}
	}
	return retrain.Policy{Model: model}
}

// RetrainPolicy is when a model asks for retraining.
func (s *Service) RetrainPolicy(_ context.Context, model string) (*operator.RetrainPolicy, error) {
	if _, err := s.sequences(model); err != nil {
		return nil, err
	}
	return new(s.policy(model)), nil
}

// SetRetrainPolicy changes when a model asks for retraining. An accuracy below
// which it does raises alarms too. The ledger holds the policy without secrets.
func (s *Service) SetRetrainPolicy(ctx context.Context, p operator.RetrainPolicy) (*operator.RetrainPolicy, error) {
	who, err := commander(ctx, operator.Operator, p.Reason)
	if err != nil {
		return nil, err
	}
	if _, err := s.sequences(p.Model); err != nil {
		return nil, err
	}
	if err := s.d.Retrain.SetPolicy(ctx, p); err != nil {
		return nil, retrainError(err)
	}
	s.d.Monitor.SetFloor(p.Model, retrain.Floor(&p))
	s.Changed(operator.EventModel, p.Model)
	held := s.policy(p.Model)
	noted := held
	noted.Reason = p.Reason
	return &held, s.note(ctx, who.Name, "retrain.policy", noted)
}

// RequestRetraining asks because a person says so.
func (s *Service) RequestRetraining(ctx context.Context, model string, why operator.Reasoned) (*operator.RetrainEvent, error) {
	who, err := commander(ctx, operator.Operator, why.Reason)
	if err != nil {
		return nil, err
	}
	if _, err := s.sequences(model); err != nil {
		return nil, err
	}
	r, err := s.d.Retrain.Ask(ctx, s.d.Now(), model, who.Name, why.Reason)
	if err != nil {
		return nil, retrainError(err)
	}
	return s.retrainDone(ctx, who.Name, "retrain.asked", &r, why.Reason)
}

// Redeliver tries dead letters again.
func (s *Service) Redeliver(ctx context.Context, id string, why operator.Reasoned) (*operator.RetrainEvent, error) {
	who, err := commander(ctx, operator.Operator, why.Reason)
	if err != nil {
		return nil, err
	}
	r, err := s.d.Retrain.Redeliver(ctx, s.d.Now(), id)
	if err != nil {
		return nil, retrainError(err)
	}
	return s.retrainDone(ctx, who.Name, "retrain.redelivered", &r, why.Reason)
}

// retrainDone tells of a command about a request.
func (s *Service) retrainDone(ctx context.Context, who, kind string, r *retrain.Request, reason string) (*operator.RetrainEvent, error) {
	s.Changed(operator.EventRetrain, r.ID)
	return new(retrainEvent(r)), s.note(ctx, who, kind, struct {
		ID     string `json:"id"`
		Model  string `json:"model"`
		Reason string `json:"reason"`
	}{r.ID, r.Model, reason})
}
