package retrain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/incident"
)

// errSubject says that a subject may be the server's own.
var errSubject = errors.New(`a subject must begin with "ml."`)

// Run delivers until ctx ends.
func (t *Trigger) Run(ctx context.Context) error {
	delivery.Follow(ctx, t.wake, func(ctx context.Context) time.Time { return t.deliver(ctx, time.Now()) })
	return nil
}

// due is one delivery to be tried now.
type due struct {
	id    string
	at    int // which of the request's deliveries
	to    target
	event []byte
}

// deliver tries everything that is due and returns when to try again, zero for
// when something new comes.
func (t *Trigger) deliver(ctx context.Context, now time.Time) time.Time {
	work, _ := t.due(now)
	var all errgroup.Group
	all.SetLimit(delivery.Together)
	for _, d := range work {
		all.Go(func() error {
			err := t.send(ctx, &d)
			if ctx.Err() == nil || err == nil {
				t.tried(ctx, &d, err)
			}
			return nil
		})
	}
	_ = all.Wait() // none returns an error
	_, next := t.due(time.Now())
	return next
}

// due lists what is to be tried by now, and when the next thing is.
func (t *Trigger) due(now time.Time) (work []due, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var soonest int64
	for id, s := range t.requests {
		for i, d := range s.Request.Deliveries {
			if d.Done || d.NextMS == 0 {
				continue
			}
			if soonest == 0 || d.NextMS < soonest {
				soonest = d.NextMS
			}
			if d.Due(now) {
				work = append(work, due{id, i, s.Targets[i], s.Request.Event})
			}
		}
	}
	if soonest == 0 {
		return work, time.Time{}
	}
	return work, time.UnixMilli(soonest)
}

// tried writes down how an attempt ended.
func (t *Trigger) tried(ctx context.Context, d *due, err error) {
	t.mu.Lock()
	s := t.requests[d.id]
	if s == nil {
		t.mu.Unlock()
		return
	}
	r := &s.Request.Deliveries[d.at]
	r.Tried(time.Now(), err, rand.Float64()) //nolint:gosec // spreads load
	s.settle()
	t.tell(r, d.id, err)
	// The attempt was made: that must be known even if the server is stopping.
	if err := t.put(context.WithoutCancel(ctx), requestKey(&s.Request), s); err != nil {
		t.cfg.Logger.Error("the outcome of a retrain delivery was not stored; after a restart it is tried again", "request", d.id, "error", err)
	}
	model, now := s.Request.Model, *r
	t.mu.Unlock()
	t.report(context.WithoutCancel(ctx), model, &now)
}

// deadKey names a destination that a model's events do not reach.
func deadKey(model, destination string) string { return "retrain/" + model + "/" + destination }

// report makes a destination that was given up an incident, over when it takes
// an event again.
func (t *Trigger) report(ctx context.Context, model string, d *Delivery) {
	if t.cfg.Incidents == nil {
		return
	}
	var err error
	switch {
	case d.Done:
		err = t.cfg.Incidents.Clear(ctx, time.Now(), deadKey(model, d.Destination), "an event was taken again")
	case d.Dead():
		err = t.cfg.Incidents.Raise(ctx, time.Now(), incident.Cause{
			Key: deadKey(model, d.Destination), Kind: incident.DeliveryDead, Severity: incident.Critical, Model: model, Link: "/retraining",
			Summary: fmt.Sprintf("a request to retrain %s was not taken by %s", model, d.Destination),
			Detail:  fmt.Sprintf("given up after %d attempts: %s", d.Attempts, d.Error),
		})
	}
	if err != nil {
		t.cfg.Logger.Error("a dead letter is not an incident; see vedette retrain dead", "model", model, "error", err)
	}
}

// tell logs the first failure, the giving up and the success.
func (t *Trigger) tell(r *Delivery, id string, err error) {
	log := t.cfg.Logger.With("request", id, "destination", r.Destination, "attempts", r.Attempts)
	switch {
	case err == nil:
		log.Info("retrain request delivered")
	case r.NextMS == 0:
		log.Error("retrain request given up, check the destination in the model's retrain policy", "error", err)
	case r.Attempts == 1:
		log.Warn("retrain request not delivered, it is tried again", "error", err)
	}
}

func (t *Trigger) send(ctx context.Context, d *due) error {
	if d.to.URL == "" {
		if t.cfg.Publisher == nil {
			return errors.New("this server publishes no subjects any more")
		}
		if !subject.MatchString(d.to.Subject) { // of a policy that was taken before subjects were bounded
			return fmt.Errorf("publish: %w", errSubject)
		}
		if err := t.cfg.Publisher.Publish(d.to.Subject, d.event); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		return nil
	}
	return delivery.Post(ctx, t.cfg.Client, time.Now(), &delivery.Message{
		URL: d.to.URL, Secret: d.to.Secret, ContentType: "application/cloudevents+json; charset=utf-8", ID: d.id, Body: d.event,
	})
}
