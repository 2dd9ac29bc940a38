package dashboard

import (
	"context"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// incidentsShown bounds how many resolved incidents the page lists.
const incidentsShown = 100

// incidentsView is what is wrong, what was, and who is told.
type incidentsView struct {
	Open     []operator.Incident
	Past     []operator.Incident
	Silences []operator.Silence // that hold
	Settings *operator.NotifySettings
}

func (s *Server) incidents(ctx context.Context, r *request) (string, *page, error) {
	q := operator.IncidentQuery{Model: r.URL.Query().Get("model"), Kind: r.URL.Query().Get("kind"), Paging: operator.Paging{Limit: incidentsShown}}
	found, err := s.cfg.Service.Incidents(ctx, q)
	if err != nil {
		return "", nil, err
	}
	v := incidentsView{}
	for _, i := range found.Items {
		if i.State == "resolved" {
			v.Past = append(v.Past, i)
		} else {
			v.Open = append(v.Open, i)
		}
	}
	silences, err := s.cfg.Service.Silences(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, x := range silences {
		if x.Active {
			v.Silences = append(v.Silences, x)
		}
	}
	if v.Settings, err = s.cfg.Service.NotifySettings(ctx); err != nil {
		return "", nil, err
	}
	return "incidents", &page{Title: "Incidents", Section: "incidents", Live: "#open,#silences,#past", Kinds: operator.EventIncident, Data: v}, nil
}

func (s *Server) incident(ctx context.Context, r *request) (string, *page, error) {
	i, err := s.cfg.Service.Incident(ctx, r.PathValue("incident"))
	if err != nil {
		return "", nil, err
	}
	return "incident", &page{Title: i.Summary, Section: "incidents", Live: "#incident", Kinds: operator.EventIncident, Data: i}, nil
}

// openIncidents is the number beside the navigation. The page itself is worth
// more than it.
func (s *Server) openIncidents(ctx context.Context) int {
	open, err := s.cfg.Service.Incidents(ctx, operator.IncidentQuery{Open: true, Paging: operator.Paging{Limit: 1}})
	if err != nil {
		return 0
	}
	return open.Total
}

// way is how a receiver is told.
func way(r operator.Receiver) string {
	switch {
	case r.Webhook != nil:
		return "webhook " + r.Webhook.URL
	case r.Email != nil:
		return "mail by " + r.Email.Server
	case r.Slack != nil:
		return "chat"
	}
	return ""
}

// incidentCommands are those of incidents, silences and requests for retraining.
func incidentCommands() map[string]command {
	return map[string]command{
		"/incidents/{incident}/acknowledge": {role: operator.Operator, form: acknowledgeForm, run: func(ctx context.Context, s Service, r *request) error {
			_, err := s.AcknowledgeIncident(ctx, r.PathValue("incident"), operator.Reasoned{Reason: reasonOf(r)})
			return err
		}},
		"/incidents/{incident}/resolve": {role: operator.Operator, form: resolveForm, run: func(ctx context.Context, s Service, r *request) error {
			_, err := s.ResolveIncident(ctx, r.PathValue("incident"), operator.Reasoned{Reason: reasonOf(r)})
			return err
		}},
		"/incidents/{incident}/silence": {role: operator.Operator, form: silenceForm, run: silence},
		"/silences/{silence}/expire": {role: operator.Operator, form: expireForm, run: func(ctx context.Context, s Service, r *request) error {
			return s.ExpireSilence(ctx, r.PathValue("silence"), operator.Reasoned{Reason: reasonOf(r)})
		}},
		"/retraining/{request}/redeliver": {role: operator.Operator, form: redeliverForm, run: func(ctx context.Context, s Service, r *request) error {
			_, err := s.Redeliver(ctx, r.PathValue("request"), operator.Reasoned{Reason: reasonOf(r)})
			return err
		}},
	}
}

// formOf is a form about one incident.
func formOf(ctx context.Context, s Service, r *request, f form) (*form, error) {
	i, err := s.Incident(ctx, r.PathValue("incident"))
	if err != nil {
		return nil, err
	}
	f.Points, f.Back = []string{i.Summary}, "/incidents/"+queryPath(i.ID)
	return &f, nil
}

func acknowledgeForm(ctx context.Context, s Service, r *request) (*form, error) {
	return formOf(ctx, s, r, form{
		Title: "Acknowledge the incident", Button: "Acknowledge",
		Text: "Says that you are at it: nobody is reminded any more. It is over when its cause is, or when somebody resolves it.",
	})
}

func resolveForm(ctx context.Context, s Service, r *request) (*form, error) {
	return formOf(ctx, s, r, form{
		Title: "Resolve the incident", Button: "Resolve",
		Text: "Closes the incident. A cause that still stands opens it again when it is seen next: silence it instead.",
	})
}

// silenceTimes are what the form offers.
var silenceTimes = []string{"1h", "4h", "8h", "24h", "72h", "168h"}

func silenceForm(ctx context.Context, s Service, r *request) (*form, error) {
	return formOf(ctx, s, r, form{
		Title: "Silence the cause", Button: "Silence",
		Text:   "Keeps messages about this cause back. The incident stays on this page; who is told hears of it when the silence ends, if it still stands.",
		Fields: []field{{Name: "for", Label: "For", Value: "4h", Options: silenceTimes}},
	})
}

func silence(ctx context.Context, s Service, r *request) error {
	i, err := s.Incident(ctx, r.PathValue("incident"))
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(r.PostForm.Get("for"))
	if err != nil {
		return operator.Errorf(operator.Invalid, "%.32q is no duration such as 4h", r.PostForm.Get("for"))
	}
	_, err = s.CreateSilence(ctx, operator.SilenceCreate{Key: i.Key, For: release.Duration(d), Reason: reasonOf(r)})
	return err
}

func expireForm(_ context.Context, _ Service, r *request) (*form, error) {
	return &form{
		Title: "End silence " + r.PathValue("silence"), Button: "End it now", Back: "/incidents",
		Text: "Who is told hears at once of what it kept back and still stands.",
	}, nil
}
