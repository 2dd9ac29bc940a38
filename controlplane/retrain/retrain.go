// Package retrain asks for a new version of a model when the world has
// changed: a cohort that left its training data, or an accuracy below its
// floor. A device at fault asks for nothing. The request is a CloudEvents 1.0
// event with the evidence in it, sent to webhooks and published to a subject.
//
// One finding asks once. The event's id is derived from the alarm, the request is
// stored before it is sent, and every destination is struck off when it has
// taken the event; so a restart neither forgets a request nor makes a second
// one of it. A destination may see the same id twice, after a lost answer.
//
// Webhook URLs are an operator's, and loopback is allowed. Still nothing of an
// answer but its status is kept, redirects are not followed, and link-local
// addresses, where clouds answer for credentials, are not dialled.
package retrain

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// Policy says when a model asks for retraining and whom.
type Policy struct {
	Model         string   `json:"model" yaml:"model"`
	OnDrift       bool     `json:"on_drift" yaml:"on_drift"`                                 // ask when a cohort drifts
	AccuracyFloor float64  `json:"accuracy_floor,omitempty" yaml:"accuracy_floor,omitempty"` // ask when accuracy is proven below; 0 for never
	CooldownMS    int64    `json:"cooldown_ms,omitempty" yaml:"cooldown_ms,omitempty"`       // least time between two requests of the model; DefaultCooldown if 0
	Webhooks      []string `json:"webhooks,omitempty" yaml:"webhooks,omitempty"`             // http or https URLs
	// Secret is the key of the signature that webhooks can check (see Signature).
	// SetPolicy with an empty one keeps the one that is stored, as long as there
	// are webhooks.
	Secret  string `json:"secret,omitempty" yaml:"secret,omitempty"`
	Subject string `json:"subject,omitempty" yaml:"subject,omitempty"` // published to as well, unless empty
}

// Publisher publishes an event to a subject; nats.Conn is one.
type Publisher interface {
	Publish(subject string, data []byte) error
}

// States of a request.
const (
	Pending   = "pending"   // a destination is still being tried
	Delivered = "delivered" // every destination has taken the event
	Failed    = "failed"    // a destination was given up, the others have taken it or were too
)

// Request is one retraining asked for, with how its deliveries stand.
type Request struct {
	ID         string          `json:"id"` // the event's id
	Model      string          `json:"model"`
	AtMS       int64           `json:"at_ms"`
	Alarm      drift.Alarm     `json:"alarm"`
	Status     string          `json:"status"`
	Deliveries []Delivery      `json:"deliveries"`
	Event      json.RawMessage `json:"event"` // as sent, the same bytes at every attempt
}

// Delivery is how one destination stands.
type Delivery struct {
	Destination string `json:"destination"` // URL without credentials and query, or "nats:" and the subject
	Attempts    int    `json:"attempts"`
	LastMS      int64  `json:"last_ms"`
	NextMS      int64  `json:"next_ms,omitempty"` // next attempt, 0 when there is none
	Done        bool   `json:"done"`
	Error       string `json:"error,omitempty"` // of the last attempt
}

// Config of a Trigger.
type Config struct {
	Publisher Publisher    // nil: policies with a subject are refused
	Client    *http.Client // nil: NewClient's
	Logger    *slog.Logger // nil discards
	Source    string       // of events: the control plane's URL
}

// DefaultCooldown is a day: training and rolling out takes at least that.
const DefaultCooldown = 24 * time.Hour

// keepRequests is how many requests of a model are remembered.
const keepRequests = 100

// Trigger asks for retraining. Make one with New.
type Trigger struct {
	store kvstore.Bucket
	cfg   Config
	wake  chan struct{} // holds one when there may be something to deliver

	mu       sync.Mutex // guards everything below
	policies map[string]Policy
	requests map[string]*stored
	open     map[string]drift.Alarm // raised, not asked for yet
}

// stored is a request as it is kept: with where it goes.
type stored struct {
	Request Request  `json:"request"`
	Targets []target `json:"targets"` // of the deliveries, in their order
}

// target is where a delivery goes, with what an API must not show.
type target struct {
	URL     string `json:"url,omitempty"`
	Secret  string `json:"secret,omitempty"`
	Subject string `json:"subject,omitempty"`
}

// New loads policies and unfinished requests.
func New(ctx context.Context, store kvstore.Bucket, cfg Config) (*Trigger, error) {
	if cfg.Client == nil {
		cfg.Client = NewClient()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Source == "" {
		cfg.Source = "urn:vedette"
	}
	t := &Trigger{
		store: store, cfg: cfg, wake: make(chan struct{}, 1),
		policies: map[string]Policy{}, requests: map[string]*stored{}, open: map[string]drift.Alarm{},
	}
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	t.nudge()
	return t, nil
}

// SetPolicy checks and stores the policy of its model.
func (t *Trigger) SetPolicy(ctx context.Context, p Policy) error {
	if err := t.check(&p); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.Secret == "" && len(p.Webhooks) > 0 {
		p.Secret = t.policies[p.Model].Secret
	}
	p.Webhooks = slices.Clone(p.Webhooks)
	if err := t.put(ctx, policyKey(p.Model), &p); err != nil {
		return err
	}
	t.policies[p.Model] = p
	return nil
}

// Policies returns all policies by model, without their secrets.
func (t *Trigger) Policies() []Policy {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Policy, 0, len(t.policies))
	for _, p := range t.policies {
		p.Secret, p.Webhooks = "", slices.Clone(p.Webhooks)
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Policy) int { return compare(a.Model, b.Model) })
	return out
}

// Requests returns the newest requests of a model first, "" for all.
func (t *Trigger) Requests(model string) []Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []Request{}
	for _, s := range t.requests {
		if model == "" || s.Request.Model == model {
			r := s.Request
			r.Deliveries = slices.Clone(r.Deliveries)
			out = append(out, r)
		}
	}
	slices.SortFunc(out, newestFirst)
	return out
}

// Consider takes alarms as drift.Monitor's Evaluate returned them, or all of
// Alarms after a restart, and stores the requests that policies ask for. It
// returns the new ones and does not wait for their delivery. A raised alarm that
// could not be asked for, because of the cooldown or of an error, is considered
// again at every later call until it is cleared.
func (t *Trigger) Consider(ctx context.Context, now time.Time, alarms []drift.Alarm) ([]Request, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range alarms {
		switch _, asked := t.requests[requestID(a.ID)]; {
		case a.Raised() && !asked:
			t.open[a.ID] = a
		case !a.Raised():
			delete(t.open, a.ID)
		}
	}
	var asked []Request
	for _, a := range t.oldestFirst() {
		p := t.policies[a.Model]
		if !p.wants(&a) || now.UnixMilli() < t.lastAsked(a.Model)+p.cooldown().Milliseconds() {
			continue
		}
		r, err := t.ask(ctx, now, &p, a)
		if err != nil {
			return asked, err
		}
		delete(t.open, a.ID)
		asked = append(asked, r)
	}
	if len(asked) > 0 {
		t.nudge()
	}
	return asked, nil
}

// wants tells whether a finding speaks for retraining at all, and whether the
// policy listens to it.
func (p *Policy) wants(a *drift.Alarm) bool {
	switch a.Kind {
	case drift.DriftAlarm:
		return p.OnDrift
	case drift.AccuracyAlarm:
		return p.AccuracyFloor > 0
	case drift.SensorAlarm, drift.ApartAlarm:
	}
	return false
}

func (p *Policy) cooldown() time.Duration {
	if p.CooldownMS <= 0 {
		return DefaultCooldown
	}
	return time.Duration(p.CooldownMS) * time.Millisecond
}

// lastAsked is when the model was asked for last, far in the past for never.
func (t *Trigger) lastAsked(model string) int64 {
	last := int64(-1 << 62)
	for _, s := range t.requests {
		if s.Request.Model == model {
			last = max(last, s.Request.AtMS)
		}
	}
	return last
}

func (t *Trigger) oldestFirst() []drift.Alarm {
	out := make([]drift.Alarm, 0, len(t.open))
	for _, a := range t.open {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b drift.Alarm) int {
		if a.RaisedMS != b.RaisedMS {
			return compare(a.RaisedMS, b.RaisedMS)
		}
		return compare(a.ID, b.ID)
	})
	return out
}

// ask stores a request.
func (t *Trigger) ask(ctx context.Context, now time.Time, p *Policy, a drift.Alarm) (Request, error) {
	event, err := t.event(now, &a)
	if err != nil {
		return Request{}, err
	}
	s := &stored{Request: Request{
		ID: requestID(a.ID), Model: a.Model, AtMS: now.UnixMilli(), Alarm: a, Status: Pending, Event: event,
	}}
	for _, u := range p.Webhooks {
		s.add(target{URL: u, Secret: p.Secret}, now)
	}
	if p.Subject != "" {
		s.add(target{Subject: p.Subject}, now)
	}
	s.settle()
	if err := t.put(ctx, requestKey(&s.Request), s); err != nil {
		return Request{}, err
	}
	t.requests[s.Request.ID] = s
	t.prune(ctx, a.Model)
	t.cfg.Logger.Info("retraining asked for", "model", a.Model, "request", s.Request.ID, "cause", string(a.Kind), "cohort", a.Cohort)
	r := s.Request
	r.Deliveries = slices.Clone(r.Deliveries)
	return r, nil
}

func (s *stored) add(to target, now time.Time) {
	s.Targets = append(s.Targets, to)
	s.Request.Deliveries = append(s.Request.Deliveries, Delivery{Destination: to.name(), NextMS: now.UnixMilli()})
}

// settle works out the request's status from its deliveries.
func (s *stored) settle() {
	s.Request.Status = Delivered
	for _, d := range s.Request.Deliveries {
		switch {
		case !d.Done && d.NextMS > 0:
			s.Request.Status = Pending
			return
		case !d.Done:
			s.Request.Status = Failed
		}
	}
}

// prune forgets the oldest finished requests of a model. One that stays on disk
// is forgotten at a later time.
func (t *Trigger) prune(ctx context.Context, model string) {
	var of []Request
	for _, s := range t.requests {
		if s.Request.Model == model && s.Request.Status != Pending {
			of = append(of, s.Request)
		}
	}
	slices.SortFunc(of, newestFirst)
	for _, r := range of[min(keepRequests, len(of)):] {
		if err := t.store.Delete(ctx, requestKey(&r)); err != nil {
			t.cfg.Logger.Warn("an old retrain request stays", "request", r.ID, "error", err)
			continue
		}
		delete(t.requests, r.ID)
	}
}

// nudge lets Run look for something to deliver.
func (t *Trigger) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}
