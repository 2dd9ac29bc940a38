package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Incidents is what is wrong, and who is told.
type Incidents interface {
	IncidentBook
	SilenceBook
	Notifier
}

// IncidentBook holds incidents.
type IncidentBook interface {
	Incidents() []incident.Incident
	Incident(id string) (incident.Incident, error)
	Acknowledge(ctx context.Context, now time.Time, id, who, reason string) (incident.Incident, error)
	Resolve(ctx context.Context, now time.Time, id, who, reason string) (incident.Incident, error)
}

// SilenceBook holds silences. SilenceOf names the one that keeps an incident
// quiet, "" for none.
type SilenceBook interface {
	Silences() []incident.Silence
	SilenceOf(i *incident.Incident, now time.Time) string
	Silence(ctx context.Context, now time.Time, who string, c operator.SilenceCreate) (incident.Silence, error)
	Expire(ctx context.Context, now time.Time, id string) error
}

// Notifier tells people.
type Notifier interface {
	Settings() operator.NotifySettings
	SetSettings(ctx context.Context, s operator.NotifySettings) error
	Try(ctx context.Context, now time.Time, name, who string) error
}

func incidentRoutes(b Backend) []route {
	return []route{
		query("incidents", "/incidents", "Incidents: those not resolved first, then the newest.", b.Incidents),
		one("incident", "/incidents/:incident", "One incident with its timeline.", b.Incident),
		command(http.MethodPost, "acknowledgeIncident", "/incidents/:incident/acknowledge", "Say that somebody is at it: nobody is reminded any more.", on(b.AcknowledgeIncident)),
		command(http.MethodPost, "resolveIncident", "/incidents/:incident/resolve", "Close an incident by hand. A cause that still stands opens it again when it is seen next.", on(b.ResolveIncident)),
		read("silences", "/silences", "Silences that hold or ended within a week, newest first.", b.Silences),
		command(http.MethodPost, "createSilence", "/silences", "Keep messages about what matches back for a time.", plain(b.CreateSilence)),
		command(http.MethodPost, "expireSilence", "/silences/:silence/expire", "End a silence now.", silent(b.ExpireSilence)),
		read("notifySettings", "/notify", "Who is told of incidents, without secrets.", b.NotifySettings),
		command(http.MethodPut, "setNotifySettings", "/notify", "Change who is told of incidents. Secrets left empty stay as long as the receiver goes to the same place.",
			plain(b.SetNotifySettings)).as(operator.Admin),
		command(http.MethodPost, "testReceiver", "/notify/:receiver/test", "Send a trial message to one receiver now.", on(b.TestReceiver)),
	}
}

// Incidents lists what is and was wrong.
func (s *Service) Incidents(_ context.Context, q operator.IncidentQuery) (*operator.Page[operator.Incident], error) {
	list := []operator.Incident{}
	now := s.d.Now()
	for _, i := range s.d.Incidents.Incidents() {
		if q.Model != "" && q.Model != i.Cause.Model || q.Kind != "" && q.Kind != i.Cause.Kind || q.Open && !i.Live() {
			continue
		}
		out := s.incident(&i, now)
		out.Timeline = nil
		list = append(list, out)
	}
	return paginate(list, q.Paging, incidentKey)
}

// incidentKey orders open incidents before resolved ones, each newest first.
func incidentKey(i *operator.Incident) string {
	key := newestFirst(i.Opened, i.ID)
	if i.State == string(incident.Resolved) {
		return "1" + key
	}
	return "0" + key
}

func (s *Service) incident(i *incident.Incident, now time.Time) operator.Incident {
	c := &i.Cause
	out := operator.Incident{
		ID: i.ID, Key: c.Key, Kind: c.Kind, Severity: string(c.Severity), State: string(i.State),
		Model: c.Model, Version: c.Version, Cohort: c.Cohort, Device: c.Device, Summary: c.Summary, Detail: c.Detail, Link: c.Link,
		Count: i.Count, Flaps: i.Flaps, Opened: fromMS(i.OpenedMS), Last: fromMS(i.LastMS), Resolved: fromMS(i.ResolvedMS), Owner: i.Owner,
	}
	if i.Live() {
		out.Silence = s.d.Incidents.SilenceOf(i, now)
	}
	for _, e := range i.Timeline {
		out.Timeline = append(out.Timeline, operator.IncidentEntry{At: fromMS(e.AtMS), What: e.What, Who: e.Who, Text: e.Text})
	}
	return out
}

// Incident is one with its timeline.
func (s *Service) Incident(_ context.Context, id string) (*operator.Incident, error) {
	i, err := s.d.Incidents.Incident(id)
	if err != nil {
		return nil, incidentError(err)
	}
	out := s.incident(&i, s.d.Now())
	return &out, nil
}

func incidentError(err error) error {
	switch {
	case errors.Is(err, incident.ErrNotFound):
		return operator.Errorf(operator.NotFound, "%w", err).WithHint(`list them with "vedette incident list --all" or "vedette incident silences"`)
	case errors.Is(err, incident.ErrState):
		return operator.Errorf(operator.Conflict, "%w", err)
	case errors.Is(err, incident.ErrSilence), errors.Is(err, incident.ErrSettings):
		return operator.Errorf(operator.Invalid, "%w", err)
	case err != nil:
		return operator.Errorf(operator.Unavailable, "%w", err)
	}
	return nil
}

// AcknowledgeIncident says that somebody is at it.
func (s *Service) AcknowledgeIncident(ctx context.Context, id string, r operator.Reasoned) (*operator.Incident, error) {
	return s.actOnIncident(ctx, "incident.acknowledged", id, r, s.d.Incidents.Acknowledge)
}

// ResolveIncident closes an incident by hand.
func (s *Service) ResolveIncident(ctx context.Context, id string, r operator.Reasoned) (*operator.Incident, error) {
	return s.actOnIncident(ctx, "incident.resolved", id, r, s.d.Incidents.Resolve)
}

func (s *Service) actOnIncident(ctx context.Context, kind, id string, r operator.Reasoned,
	act func(ctx context.Context, now time.Time, id, who, reason string) (incident.Incident, error),
) (*operator.Incident, error) {
	p, err := commander(ctx, operator.Operator, r.Reason)
	if err != nil {
		return nil, err
	}
	i, err := act(ctx, s.d.Now(), id, p.Name, r.Reason)
	if err != nil {
		return nil, incidentError(err)
	}
	out := s.incident(&i, s.d.Now())
	return &out, s.note(ctx, p.Name, kind, struct {
		ID     string `json:"id"`
		Key    string `json:"key"`
		Reason string `json:"reason"`
	}{i.ID, i.Cause.Key, r.Reason})
}

// Silences lists what keeps messages back, or did lately.
func (s *Service) Silences(context.Context) ([]operator.Silence, error) {
	out := []operator.Silence{}
	for _, x := range s.d.Incidents.Silences() {
		out = append(out, silence(&x, s.d.Now()))
	}
	return out, nil
}

func silence(x *incident.Silence, now time.Time) operator.Silence {
	return operator.Silence{
		ID: x.ID, Model: x.Model, Kind: x.Kind, Cohort: x.Cohort, Device: x.Device, Key: x.Key,
		From: fromMS(x.FromMS), Until: fromMS(x.UntilMS), Who: x.Who, Reason: x.Reason, Active: x.Active(now),
	}
}

// CreateSilence keeps messages back.
func (s *Service) CreateSilence(ctx context.Context, c operator.SilenceCreate) (*operator.Silence, error) {
	p, err := commander(ctx, operator.Operator, c.Reason)
	if err != nil {
		return nil, err
	}
	x, err := s.d.Incidents.Silence(ctx, s.d.Now(), p.Name, c)
	if err != nil {
		return nil, incidentError(err)
	}
	out := silence(&x, s.d.Now())
	return &out, s.note(ctx, p.Name, "silence.created", out)
}

// ExpireSilence ends a silence.
func (s *Service) ExpireSilence(ctx context.Context, id string, r operator.Reasoned) error {
	p, err := commander(ctx, operator.Operator, r.Reason)
	if err != nil {
		return err
	}
	if err := s.d.Incidents.Expire(ctx, s.d.Now(), id); err != nil {
		return incidentError(err)
	}
	return s.note(ctx, p.Name, "silence.expired", struct {
		ID     string `json:"id"`
		Reason string `json:"reason"`
	}{id, r.Reason})
}

// NotifySettings is who is told.
func (s *Service) NotifySettings(context.Context) (*operator.NotifySettings, error) {
	out := s.d.Incidents.Settings()
	if out.Receivers == nil {
		out.Receivers = []operator.Receiver{}
	}
	return &out, nil
}

// SetNotifySettings changes who is told. The ledger holds it without secrets.
func (s *Service) SetNotifySettings(ctx context.Context, n operator.NotifySettings) (*operator.NotifySettings, error) {
	p, err := commander(ctx, operator.Admin, n.Reason)
	if err != nil {
		return nil, err
	}
	if err := s.d.Incidents.SetSettings(ctx, n); err != nil {
		return nil, incidentError(err)
	}
	out := s.d.Incidents.Settings()
	noted := out
	noted.Reason = n.Reason
	return &out, s.note(ctx, p.Name, "notify.settings", noted)
}

// TestReceiver sends a trial message now. That it did not arrive is its result,
// not an error of the command.
func (s *Service) TestReceiver(ctx context.Context, name string, r operator.Reasoned) (*operator.NotifyTest, error) {
	p, err := commander(ctx, operator.Operator, r.Reason)
	if err != nil {
		return nil, err
	}
	known := s.d.Incidents.Settings().Receivers
	if !slices.ContainsFunc(known, func(k operator.Receiver) bool { return k.Name == name }) {
		return nil, operator.Errorf(operator.NotFound, "there is no receiver %.64q", name).WithHint(`see who is told with "vedette notify show"`)
	}
	out := &operator.NotifyTest{Receiver: name, Sent: true}
	if err := s.d.Incidents.Try(ctx, s.d.Now(), name, p.Name); err != nil {
		out.Sent, out.Error = false, fmt.Sprint(err)
	}
	return out, s.note(ctx, p.Name, "notify.test", struct {
		*operator.NotifyTest

		Reason string `json:"reason"`
	}{out, r.Reason})
}
