package dashboard

import (
	"context"
	"fmt"
	"strings"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// retrainingView is when models ask for retraining, and what came of it.
type retrainingView struct {
	Policies []policyView
	Requests []operator.RetrainEvent
	Dead     []deadLetter
	More     int // requests not shown
}

// policyView is one model's policy in words.
type policyView struct {
	*operator.RetrainPolicy

	Asks []string
	To   []string
}

// deadLetter is one delivery that was given up.
type deadLetter struct {
	Request operator.RetrainEvent
	operator.Delivery
}

const requestsShown = 50

func (s *Server) retraining(ctx context.Context, r *request) (string, *page, error) {
	models, err := s.cfg.Service.Models(ctx)
	if err != nil {
		return "", nil, err
	}
	v := retrainingView{}
	for _, m := range models {
		p, err := s.cfg.Service.RetrainPolicy(ctx, m.Name)
		if err != nil {
			return "", nil, err
		}
		v.Policies = append(v.Policies, policyView{p, asksOf(p), goesTo(p)})
	}
	found, err := s.cfg.Service.RetrainEvents(ctx, operator.RetrainQuery{Model: r.URL.Query().Get("model"), Paging: operator.Paging{Limit: requestsShown}})
	if err != nil {
		return "", nil, err
	}
	v.Requests, v.More = found.Items, found.Total-len(found.Items)
	if v.Dead, err = s.deadLetters(ctx); err != nil {
		return "", nil, err
	}
	return "retraining", &page{Title: "Retraining", Section: "retraining", Live: "#dead,#requests", Kinds: operator.EventRetrain, Data: v}, nil
}

func (s *Server) deadLetters(ctx context.Context) ([]deadLetter, error) {
	found, err := s.cfg.Service.RetrainEvents(ctx, operator.RetrainQuery{Dead: true, Paging: operator.Paging{Limit: requestsShown}})
	if err != nil {
		return nil, err
	}
	var out []deadLetter
	for _, e := range found.Items {
		for _, d := range e.Deliveries {
			if !d.Done && d.Next.IsZero() {
				out = append(out, deadLetter{e, d})
			}
		}
	}
	return out, nil
}

// asksOf says in words when a policy asks.
func asksOf(p *operator.RetrainPolicy) []string {
	var out []string
	if p.OnDrift {
		out = append(out, "when a cohort drifts")
	}
	if p.AccuracyFloor > 0 {
		out = append(out, "when accuracy is proven below "+formatNumber(p.AccuracyFloor))
	}
	for i := range p.When {
		out = append(out, conditionText(&p.When[i]))
	}
	if p.Schedule != nil {
		zone := p.Schedule.TimeZone
		if zone == "" {
			zone = "UTC"
		}
		out = append(out, "by the clock: "+p.Schedule.Cron+", "+zone)
	}
	return out
}

// conditionText is one condition in words.
func conditionText(w *operator.RetrainWhen) string {
	level := w.Level
	if level == "" {
		level = operator.LevelCohort
	}
	var text string
	switch {
	case w.Accuracy != nil:
		text = fmt.Sprintf("accuracy of a %s below %s", level, formatNumber(w.Accuracy.Below))
		if w.Accuracy.Proof == "point" {
			text += " by its estimate"
		} else {
			text += ", proven"
		}
	case w.Prediction != nil:
		text = "predictions of a " + level + driftText(w.Prediction)
	case w.Drift != nil:
		text = "inputs of a " + level + driftText(w.Drift)
	}
	if w.Groups > 1 {
		text += fmt.Sprintf(", of %d at once", w.Groups)
	}
	if w.Devices > 0 {
		text += fmt.Sprintf(", on %d devices", w.Devices)
	}
	if w.Share > 0 {
		text += fmt.Sprintf(", on %s of its devices", formatPercentOf(w.Share))
	}
	if w.For > 0 {
		text += ", for " + shortDuration(w.For.String())
	}
	return w.Name + ": " + text
}

func driftText(d *operator.DriftWhen) string {
	if d.Above == 0 {
		return " drift"
	}
	measure := strings.ToUpper(d.Measure)
	if measure == "" {
		measure = "PSI"
	}
	text := fmt.Sprintf(" with %s above %s", measure, formatNumber(d.Above))
	if d.Features > 1 {
		text += fmt.Sprintf(" in %d features", d.Features)
	}
	if len(d.Of) > 0 {
		text += " of " + strings.Join(d.Of[:min(3, len(d.Of))], ", ")
		if len(d.Of) > 3 {
			text += " …"
		}
	}
	return text
}

func formatPercentOf(share float64) string { return formatNumber(100*share) + "%" }

// goesTo is whom a policy asks.
func goesTo(p *operator.RetrainPolicy) []string {
	out := append([]string{}, p.Webhooks...)
	for _, d := range p.Destinations {
		out = append(out, d.URL)
	}
	if p.Subject != "" {
		out = append(out, "nats:"+p.Subject)
	}
	return out
}

func redeliverForm(ctx context.Context, s Service, r *request) (*form, error) {
	e, err := s.RetrainEvent(ctx, r.PathValue("request"))
	if err != nil {
		return nil, err
	}
	return &form{
		Title: "Deliver again", Button: "Deliver again", Back: "/retraining",
		Text:   "The same event is sent again to every destination that was given up, until it is taken or given up anew.",
		Points: []string{e.Model + ": " + e.Text},
	}, nil
}
