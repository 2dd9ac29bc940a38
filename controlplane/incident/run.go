package incident

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// retryStore is when a step that could not be stored is tried again.
const retryStore = 10 * time.Second

// errForGood says that a receiver will never take a message.
var errForGood = errors.New("refused")

const noticePrefix = "notice"

func noticeKey(id string) string { return kvstore.Key(noticePrefix, id) }

// Run tells people of incidents until ctx ends.
func (b *Board) Run(ctx context.Context) error {
	delivery.Follow(ctx, b.wake, b.work)
	return nil
}

// work makes the notices that are due, sends what can be sent, and returns when
// to look again, zero for when something new comes.
func (b *Board) work(ctx context.Context) time.Time {
	next, err := b.draw(ctx, time.Now())
	if err != nil {
		if ctx.Err() == nil {
			b.cfg.Logger.Error("messages of incidents could not be stored, they are made again soon", "error", err)
		}
		next = time.Now().Add(retryStore)
	}
	var all errgroup.Group
	all.SetLimit(delivery.Together)
	for _, n := range b.ready(time.Now()) {
		all.Go(func() error {
			err := b.send(ctx, &n)
			if ctx.Err() == nil || err == nil {
				// The attempt was made: that must be known even if the server is stopping.
				b.tried(context.WithoutCancel(ctx), time.Now(), n.ID, err)
			}
			return nil
		})
	}
	_ = all.Wait() // none returns an error
	return sooner(next, b.nextAttempt())
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// draw stores the notices that are due, and what receivers know with them. A
// notice goes first: a crash behind it is made up for by load.
func (b *Board) draw(ctx context.Context, now time.Time) (next time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetSilences(ctx, now)
	p := &planner{now: now, settings: &b.settings, incidents: b.incidents, silences: b.silences, link: b.cfg.Link}
	for _, n := range p.plan() {
		if err := b.put(ctx, noticeKey(n.ID), &n); err != nil {
			return p.next, err
		}
		b.notices[n.ID] = &n
		if err := b.mark(ctx, now, &n); err != nil {
			return p.next, err
		}
	}
	return p.next, nil
}

// mark writes down what the receiver of a notice is told by it. It holds in
// memory even where it cannot be stored: the notice is.
func (b *Board) mark(ctx context.Context, now time.Time, n *Notice) error {
	var errs []error
	for _, item := range n.Items {
		held := b.incidents[item.Incident]
		if held == nil || held.Told[n.Receiver].AtMS >= n.AtMS {
			continue
		}
		next := held.clone()
		next.Told[n.Receiver] = Told{item.Phase, item.Severity, n.AtMS}
		b.hold(next)
		b.stored[next.ID] = now.UnixMilli()
		errs = append(errs, b.put(ctx, incidentKey(next.ID), next))
	}
	return errors.Join(errs...)
}

// ready lists the notices to be sent by now, the oldest first.
func (b *Board) ready(now time.Time) []Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Notice
	for _, n := range b.notices {
		if n.State.Due(now) {
			out = append(out, *n)
		}
	}
	slices.SortFunc(out, func(x, y Notice) int { return cmp.Or(cmp.Compare(x.AtMS, y.AtMS), cmp.Compare(x.ID, y.ID)) })
	return out
}

func (b *Board) nextAttempt() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	var next time.Time
	for _, n := range b.notices {
		if n.State.NextMS > 0 {
			next = sooner(next, time.UnixMilli(n.State.NextMS))
		}
	}
	return next
}

// send makes one attempt.
func (b *Board) send(ctx context.Context, n *Notice) error {
	b.mu.Lock()
	settings := clone(b.settings)
	b.mu.Unlock()
	r := receiver(&settings, n.Receiver)
	if r == nil {
		return fmt.Errorf("%w: there is no receiver of this name any more", errForGood)
	}
	return b.tell(ctx, r, &n.Message)
}

// tell hands a message to a receiver.
func (b *Board) tell(ctx context.Context, r *operator.Receiver, m *Message) error {
	post := &delivery.Message{ContentType: "application/json; charset=utf-8", ID: m.ID}
	var err error
	switch {
	case r.Email != nil:
		return b.mail.send(ctx, r.Email, m)
	case r.Slack != nil:
		post.URL = r.Slack.URL
		post.Body, err = m.slack()
	case r.Webhook != nil:
		post.URL, post.Secret = r.Webhook.URL, r.Webhook.Secret
		post.Body, err = json.Marshal(m)
	}
	if err != nil {
		return err
	}
	return delivery.Post(ctx, b.cfg.Client, time.Now(), post)
}

// tried takes in how an attempt ended. A notice that is through is entered in
// its incidents and forgotten.
func (b *Board) tried(ctx context.Context, now time.Time, id string, err error) {
	b.mu.Lock()
	n := b.notices[id]
	if n == nil {
		b.mu.Unlock()
		return
	}
	first := n.State.Attempts == 0
	n.State.Tried(now, err, rand.Float64()) //nolint:gosec // spreads load
	if errors.Is(err, errForGood) {
		n.State.NextMS = 0
	}
	if wrong := b.put(ctx, noticeKey(id), n); wrong != nil {
		b.cfg.Logger.Error("the outcome of a message was not stored; after a restart it is sent again", "notice", id, "error", wrong)
	}
	over := n.State.Done || n.State.Dead()
	if over {
		b.finish(ctx, now, n)
	}
	r := receiver(&b.settings, n.Receiver)
	b.mu.Unlock()
	log := b.cfg.Logger.With("notice", id, "receiver", n.Receiver, "attempts", n.State.Attempts)
	switch {
	case err == nil:
		log.Info("people were told of incidents", "incidents", len(n.Items))
	case over:
		log.Error("a message about incidents was given up, look at its receiver", "error", err)
	case first:
		log.Warn("a message about incidents was not taken, it is tried again", "error", err)
	}
	if over && r != nil {
		b.reached(ctx, now, r, n.State.Error)
	}
}

// finish enters the end of a notice into its incidents, and forgets it.
func (b *Board) finish(ctx context.Context, now time.Time, n *Notice) {
	e := Entry{AtMS: n.State.LastMS, What: EntryTold, Who: n.Receiver, Text: string(n.Message.Phase)}
	if !n.State.Done {
		e.What, e.Text = EntryNotTold, n.State.Error
	}
	for _, item := range n.Items {
		held := b.incidents[item.Incident]
		if held == nil || slices.Contains(held.Timeline, e) {
			continue
		}
		next := held.clone()
		next.enter(e)
		if err := b.commit(ctx, now, next); err != nil {
			b.cfg.Logger.Error("that people were told is not in the incident's timeline", "incident", next.ID, "error", err)
			return // the notice stays, and load tries again
		}
	}
	if err := b.store.Delete(ctx, noticeKey(n.ID)); err != nil {
		b.cfg.Logger.Warn("a finished message stays", "notice", n.ID, "error", err)
		return
	}
	delete(b.notices, n.ID)
}

// reached makes a receiver that cannot be reached an incident itself, told to
// the others.
func (b *Board) reached(ctx context.Context, now time.Time, r *operator.Receiver, problem string) {
	var err error
	if problem == "" {
		err = b.Clear(ctx, now, deadKey(r.Name), "a message was taken again")
	} else {
		err = b.Raise(ctx, now, Cause{
			Key: deadKey(r.Name), Kind: NotifyDead, Severity: Warning, Link: "/incidents",
			Summary: fmt.Sprintf("receiver %s (%s) does not take messages", r.Name, place(r)), Detail: problem,
		})
	}
	if err != nil {
		b.cfg.Logger.Error("the state of a receiver was not stored", "receiver", r.Name, "error", err)
	}
}

// Try sends a message to one receiver now, once, and returns how it went.
func (b *Board) Try(ctx context.Context, now time.Time, name, who string) error {
	b.mu.Lock()
	settings := clone(b.settings)
	b.mu.Unlock()
	r := receiver(&settings, name)
	if r == nil {
		return fmt.Errorf("%w: no receiver %.64q", ErrNotFound, name)
	}
	c := Cause{Key: "test", Kind: Test, Severity: Info, Summary: "this is a trial message, nothing is wrong", Detail: "sent by " + line(who, maxName)}
	i := open(now, c, nil, 0)
	all := []due{{i, PhaseOpen, now}}
	m := compose(noticeID(name, all), now, all, cmp.Or(settings.Link, b.cfg.Link))
	return b.tell(ctx, r, &m)
}
