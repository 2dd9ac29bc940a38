// Package retrain asks for a new version of a model when the world has
// changed: inputs or predictions that left training, an accuracy below its
// floor, or a time that has come. A device at fault asks for nothing. The
// request is a CloudEvents 1.0 event with the evidence in it, sent to webhooks
// and published to a subject. A version that comes back is known by its tag.
//
// One finding asks once. The event's id is derived from the finding, the request
// is stored before it is sent, and every destination is struck off when it has
// taken the event; so a restart neither forgets a request nor makes a second
// one of it. A destination may see the same id twice, after a lost answer. What
// is given up is a dead letter: kept, raised as an incident, and tried again
// when a person says so.
//
// Deciding is pure (decide.go): policy, memory, scores and the time give a new
// memory and at most one request. Trigger keeps the state, and Run sends.
package retrain

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Publisher publishes an event to a subject; nats.Conn is one.
type Publisher interface {
	Publish(subject string, data []byte) error
}

// Scores are what groups of devices show; drift.Monitor has them.
type Scores interface {
	Groups(model string, by drift.Level) []drift.GroupScore
}

// Incidents hears of dead letters; incident.Board is one.
type Incidents interface {
	Raise(ctx context.Context, now time.Time, c incident.Cause) error
	Clear(ctx context.Context, now time.Time, key, reason string) error
}

// States of a request's deliveries.
const (
	Pending   = operator.RetrainPending   // a destination is still being tried
	Delivered = operator.RetrainDelivered // every destination has taken the event
	Failed    = operator.RetrainFailed    // a destination was given up, the others have taken it or were too
)

// Request is one retraining asked for, with how its deliveries stand.
type Request struct {
	ID         string          `json:"id"` // the event's id
	Model      string          `json:"model"`
	Version    string          `json:"version,omitempty"`
	AtMS       int64           `json:"at_ms"`
	Alarm      drift.Alarm     `json:"alarm"` // that asked, or the evidence in the same form
	Cause      string          `json:"cause,omitempty"`
	Condition  string          `json:"condition,omitempty"` // of the policy
	Message    string          `json:"message,omitempty"`
	Cohorts    []string        `json:"cohorts,omitempty"`
	Subjects   []string        `json:"subjects,omitempty"` // runs of conditions it is about
	Status     string          `json:"status"`             // of the deliveries
	Deliveries []Delivery      `json:"deliveries"`
	Answer     *Answer         `json:"answer,omitempty"`
	Event      json.RawMessage `json:"event"` // as sent, the same bytes at every attempt

	groups []drift.GroupScore // that the event tells of, until it is made
}

// Delivery is how one destination stands.
type Delivery struct {
	delivery.State

	Destination string `json:"destination"` // URL without credentials and query, or "nats:" and the subject
}

// State is where the request is in its life.
func (r *Request) State() string {
	if r.Answer != nil {
		return r.Answer.State
	}
	return r.Status
}

// Dead tells whether a destination was given up.
func (r *Request) Dead() bool {
	return slices.ContainsFunc(r.Deliveries, func(d Delivery) bool { return d.Dead() })
}

// Config of a Trigger. Nil collaborators are done without.
type Config struct {
	Publisher Publisher // nil: policies with a subject are refused
	Scores    Scores    // nil: conditions and schedules are not looked at
	Incidents Incidents
	Origins   Origins      // where a release came from
	Samples   Samples      // where labelled rows lie
	Client    *http.Client // nil: delivery.NewClient's
	Logger    *slog.Logger // nil discards
	Source    string       // of events: the control plane's URL, which is also that of the tracking server
	CohortBy  string       // label that makes cohorts
}

// keepRequests is how many requests of a model are remembered.
const keepRequests = 100

// openFor is how long a request without an answer counts as open.
const openFor = 30 * 24 * time.Hour

// Trigger asks for retraining. Make one with New.
type Trigger struct {
	store kvstore.Bucket
	cfg   Config
	wake  chan struct{} // holds one when there may be something to deliver

	mu       sync.Mutex // guards everything below
	policies map[string]Policy
	requests map[string]*stored
	memories map[string]Memory
	written  map[string]int64       // when a memory was stored last, Unix milliseconds
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
		cfg.Client = delivery.NewClient()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Source, cfg.CohortBy = cmp.Or(cfg.Source, "urn:vedette"), cmp.Or(cfg.CohortBy, drift.DefaultCohortBy)
	t := &Trigger{
		store: store, cfg: cfg, wake: make(chan struct{}, 1),
		policies: map[string]Policy{}, requests: map[string]*stored{}, open: map[string]drift.Alarm{},
		memories: map[string]Memory{}, written: map[string]int64{},
	}
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	t.nudge()
	return t, nil
}

// SetPolicy checks and stores the policy of its model. Secrets left empty stay
// what they were.
func (t *Trigger) SetPolicy(ctx context.Context, p Policy) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p = clone(&p)
	p.Reason = ""
	held := t.policies[p.Model]
	keepSecrets(&p, &held)
	if err := t.check(&p); err != nil {
		return err
	}
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
		out = append(out, WithoutSecrets(&p))
	}
	slices.SortFunc(out, func(a, b Policy) int { return cmp.Compare(a.Model, b.Model) })
	return out
}

// Requests returns the newest requests of a model first, "" for all.
func (t *Trigger) Requests(model string) []Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []Request{}
	for _, s := range t.requests {
		if model == "" || s.Request.Model == model {
			out = append(out, s.Request.clone())
		}
	}
	slices.SortFunc(out, newestFirst)
	return out
}

func (r *Request) clone() Request {
	c := *r
	c.Deliveries = slices.Clone(r.Deliveries)
	if r.Answer != nil {
		c.Answer = new(*r.Answer)
	}
	return c
}

// Consider takes alarms as drift.Monitor's Evaluate returned them, or all of
// Alarms after a restart, and stores the requests that policies ask for by
// on_drift and accuracy_floor. It returns the new ones and does not wait for
// their delivery. A raised alarm that could not be asked for, because of the
// cooldown or of an error, is considered again at every later call until it is
// cleared.
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
		s := situation{policy: &p, openCount: t.openCount(a.Model, now), lastMS: t.lastAsked(a.Model), now: now}
		if !wants(&p, &a) || !s.allowed() {
			continue
		}
		r, err := t.ask(ctx, now, &p, t.ofAlarm(now, a))
		if err != nil {
			return asked, err
		}
		delete(t.open, a.ID)
		asked = append(asked, r)
	}
	return asked, nil
}

// wants tells whether a finding speaks for retraining at all, and whether the
// policy listens to it.
func wants(p *Policy, a *drift.Alarm) bool {
	switch a.Kind { //nolint:exhaustive // the others ask for nothing
	case drift.DriftAlarm:
		return p.OnDrift
	case drift.AccuracyAlarm:
		return p.AccuracyFloor > 0
	}
	return false
}

// openCount is how many requests of a model nothing has come of.
func (t *Trigger) openCount(model string, now time.Time) int {
	n := 0
	for _, s := range t.requests {
		r := &s.Request
		if r.Model == model && r.open() && now.UnixMilli()-r.AtMS < openFor.Milliseconds() {
			n++
		}
	}
	return n
}

// open tells whether somebody may still be at it.
func (r *Request) open() bool {
	switch r.State() {
	case operator.RetrainRolledOut, operator.RetrainRejected:
		return false
	}
	return true
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
		return cmp.Or(cmp.Compare(a.RaisedMS, b.RaisedMS), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Ask makes a request because a person says so, whatever the policy's
// conditions, cooldown and limits are.
func (t *Trigger) Ask(ctx context.Context, now time.Time, model, who, reason string) (Request, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.policies[model]
	p.Model = model
	w := &want{
		id: eventID(model, CauseAsked, who, now.UTC().Format(time.RFC3339Nano)), cause: CauseAsked, condition: CauseAsked,
		message: "asked for by " + who + ": " + reason,
	}
	if t.cfg.Scores != nil {
		w.groups = t.cfg.Scores.Groups(model, drift.LevelCohort)
	}
	return t.ask(ctx, now, &p, t.ofWant(now, w))
}

// ask stores a request.
func (t *Trigger) ask(ctx context.Context, now time.Time, p *Policy, r Request) (Request, error) {
	r.Model = p.Model
	event, err := t.event(now, &r)
	if err != nil {
		return Request{}, err
	}
	r.Event, r.Status, r.groups = event, Pending, nil
	s := &stored{Request: r}
	for _, u := range p.Webhooks {
		s.add(target{URL: u, Secret: p.Secret}, now)
	}
	for _, d := range p.Destinations {
		s.add(target{URL: d.URL, Secret: d.Secret}, now)
	}
	if p.Subject != "" {
		s.add(target{Subject: p.Subject}, now)
	}
	s.settle()
	if err := t.put(ctx, requestKey(&s.Request), s); err != nil {
		return Request{}, err
	}
	t.requests[s.Request.ID] = s
	t.prune(ctx, r.Model)
	t.cfg.Logger.Info("retraining asked for", "model", r.Model, "request", r.ID, "cause", r.Cause, "condition", r.Condition)
	t.nudge()
	return s.Request.clone(), nil
}

func (s *stored) add(to target, now time.Time) {
	s.Targets = append(s.Targets, to)
	s.Request.Deliveries = append(s.Request.Deliveries, Delivery{Destination: to.name(), State: delivery.State{NextMS: now.UnixMilli()}})
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
