package retrain

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
)

// Bounds of a policy.
const (
	maxWebhooks = 8
	maxURL      = 2048
	maxSecret   = 1024
	maxCooldown = int64(366 * 24 * 3600 * 1000) // milliseconds
)

// ErrPolicy says that a policy cannot be followed.
var ErrPolicy = errors.New("retrain policy is not valid")

// First tokens of the keys in the bucket.
const (
	policyPrefix  = "policy"
	requestPrefix = "request"
)

func policyKey(model string) string { return kvstore.Key(policyPrefix, model) }

func requestKey(r *Request) string { return kvstore.Key(requestPrefix, r.Model, r.ID) }

// requestID makes one finding ask once.
func requestID(alarm string) string { return "retrain-" + alarm }

func compare[T cmp.Ordered](a, b T) int { return cmp.Compare(a, b) }

func newestFirst(a, b Request) int {
	return cmp.Or(cmp.Compare(b.AtMS, a.AtMS), cmp.Compare(a.ID, b.ID))
}

func (t *Trigger) load(ctx context.Context) error {
	policies, err := t.store.List(ctx, policyPrefix)
	if err != nil {
		return fmt.Errorf("load retrain policies: %w", err)
	}
	for _, e := range policies {
		var p Policy
		if err := json.Unmarshal(e.Value, &p); err != nil {
			return fmt.Errorf("load retrain policy %s: %w", e.Key, err)
		}
		t.policies[p.Model] = p
	}
	requests, err := t.store.List(ctx, requestPrefix)
	if err != nil {
		return fmt.Errorf("load retrain requests: %w", err)
	}
	for _, e := range requests {
		s := new(stored)
		if err := json.Unmarshal(e.Value, s); err != nil {
			return fmt.Errorf("load retrain request %s: %w", e.Key, err)
		}
		if len(s.Targets) != len(s.Request.Deliveries) {
			return fmt.Errorf("load retrain request %s: %d targets for %d deliveries", e.Key, len(s.Targets), len(s.Request.Deliveries))
		}
		t.requests[s.Request.ID] = s
	}
	return nil
}

func (t *Trigger) put(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if _, err := t.store.Put(ctx, key, data); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

var subject = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

func (t *Trigger) check(p *Policy) error {
	if err := protocol.CheckName(p.Model); err != nil {
		return fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	switch {
	case !(p.AccuracyFloor >= 0 && p.AccuracyFloor < 1):
		return fmt.Errorf("%w: accuracy floor %v is not in 0 to 1", ErrPolicy, p.AccuracyFloor)
	case p.CooldownMS < 0 || p.CooldownMS > maxCooldown:
		return fmt.Errorf("%w: cooldown of %d ms is not in 0 to a year", ErrPolicy, p.CooldownMS)
	case len(p.Webhooks) > maxWebhooks:
		return fmt.Errorf("%w: %d webhooks, at most %d", ErrPolicy, len(p.Webhooks), maxWebhooks)
	case len(p.Secret) > maxSecret:
		return fmt.Errorf("%w: secret of %d bytes, at most %d", ErrPolicy, len(p.Secret), maxSecret)
	case p.Subject != "" && t.cfg.Publisher == nil:
		return fmt.Errorf("%w: this server publishes no subjects, give a webhook", ErrPolicy)
	case p.Subject != "" && (!subject.MatchString(p.Subject) || len(p.Subject) > maxSecret):
		return fmt.Errorf("%w: subject %.64q is not tokens of letters, digits, '-' and '_' joined by dots", ErrPolicy, p.Subject)
	}
	return checkURLs(p.Webhooks)
}

func checkURLs(all []string) error {
	for _, s := range all {
		u, err := url.Parse(s)
		switch {
		case err != nil || len(s) > maxURL:
			return fmt.Errorf("%w: webhook %.64q is not a URL of at most %d bytes", ErrPolicy, s, maxURL)
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Opaque != "":
			return fmt.Errorf("%w: webhook %.64q must be http://… or https://…", ErrPolicy, u.Redacted())
		case u.Fragment != "":
			return fmt.Errorf("%w: webhook %.64q has a fragment, which is never sent", ErrPolicy, u.Redacted())
		}
	}
	return nil
}

// name is the destination for people: no credentials, no query.
func (to *target) name() string {
	if to.URL == "" {
		return "nats:" + to.Subject
	}
	u, err := url.Parse(to.URL)
	if err != nil {
		return "webhook"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
