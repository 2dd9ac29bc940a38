package retrain

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/vedette-edge/vedette/controlplane/drift"
)

// EventType is the CloudEvents type of a request. History:
//
//	v1  2026-11-23  first
const EventType = "io.vedette.retrain.requested.v1"

// SignatureHeader carries "t=<Unix seconds>,v1=<hex>": the HMAC-SHA256 of the
// seconds, a dot and the body, under the policy's secret. The time lets a
// receiver refuse what was recorded long ago.
const SignatureHeader = "X-Vedette-Signature"

// Delivery takes at most maxAttempts attempts. With firstWait doubling up to
// longestWait that is five to nine hours: a night's outage of the receiver.
const (
	maxAttempts  = 20
	firstWait    = time.Second
	longestWait  = time.Hour
	sendTimeout  = 10 * time.Second
	sendTogether = 8
	maxAnswer    = 64 << 10 // read, to reuse the connection, and thrown away
)

// evidence is the data of an event.
type evidence struct {
	Model    string               `json:"model"`
	Version  string               `json:"version"`
	Release  string               `json:"release"`
	Cause    drift.AlarmKind      `json:"cause"` // drift or accuracy
	Cohort   string               `json:"cohort,omitempty"`
	Alarm    string               `json:"alarm"`
	RaisedMS int64                `json:"raised_ms"`
	Message  string               `json:"message"`
	Features []drift.FeatureScore `json:"features,omitempty"`
	Accuracy *drift.AccuracyScore `json:"accuracy,omitempty"`
}

// event encodes a request as a structured CloudEvent.
func (t *Trigger) event(now time.Time, a *drift.Alarm) (json.RawMessage, error) {
	e := event.New()
	e.SetID(requestID(a.ID))
	e.SetType(EventType)
	e.SetSource(t.cfg.Source)
	e.SetSubject(a.Model)
	e.SetTime(now.UTC().Truncate(time.Millisecond))
	err := e.SetData(event.ApplicationJSON, evidence{
		Model: a.Model, Version: a.Version, Release: a.Release.String(), Cause: a.Kind, Cohort: a.Cohort,
		Alarm: a.ID, RaisedMS: a.RaisedMS, Message: a.Message, Features: a.Features, Accuracy: a.Accuracy,
	})
	if err != nil {
		return nil, fmt.Errorf("encode evidence: %w", err)
	}
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("make event: %w", err)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return data, nil
}

// Run delivers until ctx ends.
func (t *Trigger) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		case <-timer.C:
		}
		next := t.deliver(ctx, time.Now())
		if !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
	}
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
	slots := make(chan struct{}, sendTogether)
	var all sync.WaitGroup
	for _, d := range work {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			err := t.send(ctx, &d)
			if ctx.Err() == nil || err == nil {
				t.tried(ctx, &d, err)
			}
		})
	}
	all.Wait()
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
			if d.NextMS <= now.UnixMilli() {
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
	defer t.mu.Unlock()
	s := t.requests[d.id]
	if s == nil {
		return
	}
	r := &s.Request.Deliveries[d.at]
	now := time.Now()
	r.Attempts++
	r.LastMS, r.NextMS, r.Done, r.Error = now.UnixMilli(), 0, err == nil, ""
	if err != nil {
		r.Error = err.Error()
		if wait, again := backoff(r.Attempts, err); again {
			r.NextMS = now.Add(wait).UnixMilli()
		}
	}
	s.settle()
	t.tell(r, d.id, err)
	// The attempt was made: that must be known even if the server is stopping.
	if err := t.put(context.WithoutCancel(ctx), requestKey(&s.Request), s); err != nil {
		t.cfg.Logger.Error("the outcome of a retrain delivery was not stored; after a restart it is tried again", "request", d.id, "error", err)
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

// refusal is an answer other than success.
type refusal struct {
	status int
	wait   time.Duration // asked for by the receiver
}

func (r *refusal) Error() string {
	return fmt.Sprintf("answered %d %s", r.status, http.StatusText(r.status))
}

// retryable tells whether the same event may be taken later. Other answers
// below 500 mean that it never will be.
func (r *refusal) retryable() bool {
	switch r.status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return r.status >= http.StatusInternalServerError
}

// backoff says how long to wait after attempts, if another one is to be made:
// doubling with jitter, and never shorter than the receiver asks for.
func backoff(attempts int, err error) (wait time.Duration, again bool) {
	var r *refusal
	if errors.As(err, &r) && !r.retryable() || attempts >= maxAttempts {
		return 0, false
	}
	wait = longestWait
	if attempts < 13 { // 2^12 s is beyond the longest
		wait = min(firstWait<<(attempts-1), longestWait)
	}
	wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // spreads load
	if r != nil {
		wait = max(wait, min(r.wait, longestWait))
	}
	return wait, true
}

func (t *Trigger) send(ctx context.Context, d *due) error {
	if d.to.URL == "" {
		if t.cfg.Publisher == nil {
			return errors.New("this server publishes no subjects any more")
		}
		if err := t.cfg.Publisher.Publish(d.to.Subject, d.event); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.to.URL, bytes.NewReader(d.event))
	if err != nil {
		return fmt.Errorf("make request: %w", bare(err))
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "vedette-control")
	if d.to.Secret != "" {
		req.Header.Set(SignatureHeader, Signature(d.to.Secret, time.Now(), d.event))
	}
	res, err := t.cfg.Client.Do(req)
	if err != nil {
		return fmt.Errorf("send: %w", bare(err))
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer)
	if res.StatusCode/100 == 2 {
		return nil
	}
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		seconds = 0 // a date, or nothing: the usual backoff will do
	}
	return &refusal{res.StatusCode, min(time.Duration(min(seconds, 3600))*time.Second, longestWait)}
}

// bare drops the URL that http puts into its errors: it may hold credentials.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Signature is the value of SignatureHeader for a body.
func Signature(secret string, at time.Time, body []byte) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// errLinkLocal says that a webhook's host resolves to a link-local address.
var errLinkLocal = errors.New("link-local addresses are not dialled: use the receiver's own address")

// NewClient makes the client that webhooks are called with: bounded in time,
// without redirects, and refusing link-local addresses.
func NewClient() *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("read address: %w", err)
		}
		if ip := to.Addr().Unmap(); ip.IsLinkLocalUnicast() || ip.IsMulticast() {
			return errLinkLocal
		}
		return nil
	}}
	return &http.Client{
		Timeout: sendTimeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second,
			ResponseHeaderTimeout: sendTimeout, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
