package retrain

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/release"
)

// receiver answers webhooks in simulated time.
type receiver struct {
	mu     sync.Mutex
	answer func(n int) (status int, header http.Header, err error)
	got    []string // event ids
	at     []time.Time
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	var e event.Event
	if err := e.UnmarshalJSON(body); err != nil {
		return nil, err
	}
	r.at = append(r.at, time.Now())
	status, header, err := r.answer(len(r.at))
	if err != nil {
		return nil, err
	}
	if status == http.StatusOK {
		r.got = append(r.got, e.ID())
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("thanks")), Request: req}, nil
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.at)
}

func always(status int) func(int) (int, http.Header, error) {
	return func(int) (int, http.Header, error) { return status, http.Header{}, nil }
}

func alarm(id string, kind drift.AlarmKind) drift.Alarm {
	return drift.Alarm{
		ID: id, Kind: kind, Model: "digits", Release: release.Digest{1}, Version: "1", Cohort: "b", RaisedMS: 5,
		Message: "site b has left the training data", Features: []drift.FeatureScore{{Name: "p00", PSI: 1.5}},
	}
}

func open(t *testing.T, store kvstore.Bucket, cfg Config) *Trigger {
	t.Helper()
	tr, err := New(t.Context(), store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func allow(t *testing.T, tr *Trigger, p Policy) {
	t.Helper()
	p.Model = "digits"
	if err := tr.SetPolicy(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// run delivers for a while of simulated time.
func run(t *testing.T, tr *Trigger, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := tr.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAsks(t *testing.T) {
	both := Policy{OnDrift: true, AccuracyFloor: 0.9}
	cleared := alarm("x", drift.DriftAlarm)
	cleared.ClearedMS = 9
	for _, c := range []struct {
		name   string
		policy Policy
		alarm  drift.Alarm
		asks   bool
	}{
		{"drift", both, alarm("x", drift.DriftAlarm), true},
		{"accuracy", both, alarm("x", drift.AccuracyAlarm), true},
		{"sensor fault", both, alarm("x", drift.SensorAlarm), false},
		{"device apart", both, alarm("x", drift.ApartAlarm), false},
		{"cleared", both, cleared, false},
		{"drift, not listened to", Policy{AccuracyFloor: 0.9}, alarm("x", drift.DriftAlarm), false},
		{"accuracy, not listened to", Policy{OnDrift: true}, alarm("x", drift.AccuracyAlarm), false},
	} {
		tr := open(t, kvstore.NewMemory(), Config{})
		allow(t, tr, c.policy)
		asked, err := tr.Consider(t.Context(), time.Now(), []drift.Alarm{c.alarm})
		if err != nil || (len(asked) == 1) != c.asks {
			t.Errorf("%s: asked %d times, %v; want %v", c.name, len(asked), err, c.asks)
		}
	}
	tr := open(t, kvstore.NewMemory(), Config{})
	if asked, err := tr.Consider(t.Context(), time.Now(), []drift.Alarm{alarm("x", drift.DriftAlarm)}); len(asked) != 0 || err != nil {
		t.Errorf("no policy: asked %d times, %v", len(asked), err)
	}
}

func TestDeliveryOverHTTP(t *testing.T) {
	var bodies, signatures []string
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/cloudevents+json") {
			t.Errorf("content type: got %q", ct)
		}
		bodies, signatures = append(bodies, string(body)), append(signatures, r.Header.Get(delivery.SignatureHeader))
		w.WriteHeader(http.StatusAccepted)
	}))
	defer hook.Close()
	tr := open(t, kvstore.NewMemory(), Config{Source: "http://127.0.0.1:8080"})
	allow(t, tr, Policy{OnDrift: true, Webhooks: []string{hook.URL + "/retrain?token=hidden"}, Secret: "s3cret"})
	asked, err := tr.Consider(t.Context(), time.Now(), []drift.Alarm{alarm("a1", drift.DriftAlarm)})
	if err != nil || len(asked) != 1 {
		t.Fatalf("asked %d times, %v", len(asked), err)
	}
	tr.deliver(t.Context(), time.Now())
	if len(bodies) != 1 {
		t.Fatalf("received %d events, want 1", len(bodies))
	}
	var e event.Event
	if err := e.UnmarshalJSON([]byte(bodies[0])); err != nil {
		t.Fatal(err)
	}
	var data evidence
	if err := e.DataAs(&data); err != nil {
		t.Fatal(err)
	}
	if e.SpecVersion() != "1.0" || e.ID() != "retrain-a1" || e.Type() != EventType || e.Subject() != "digits" || e.Source() != "http://127.0.0.1:8080" {
		t.Errorf("event: got %v", e)
	}
	if data.Cause != CauseDrift || data.Cohort != "b" || data.Features[0].PSI != 1.5 || data.Release != (release.Digest{1}).String() {
		t.Errorf("evidence: got %+v", data)
	}
	seconds, _, _ := strings.Cut(strings.TrimPrefix(signatures[0], "t="), ",")
	unix, _ := strconv.ParseInt(seconds, 10, 64)
	if want := delivery.Signature("s3cret", time.Unix(unix, 0), []byte(bodies[0])); signatures[0] != want {
		t.Errorf("signature: got %s, want %s", signatures[0], want)
	}
	r := tr.Requests("digits")[0]
	if d := r.Deliveries[0]; r.Status != Delivered || !d.Done || d.Attempts != 1 || d.Destination != hook.URL+"/retrain" {
		t.Errorf("request: got %+v", r)
	}
}

func TestRetries(t *testing.T) {
	broken := errors.New("connection refused")
	for _, c := range []struct {
		name     string
		answer   func(int) (int, http.Header, error)
		status   string
		attempts int
	}{
		{"fourth time lucky", func(n int) (int, http.Header, error) {
			if n < 4 {
				return 503, http.Header{}, nil
			}
			return 200, http.Header{}, nil
		}, Delivered, 4},
		{"gone", always(410), Failed, 1},
		{"not modified is no success", always(304), Failed, 1},
		{"never there", func(int) (int, http.Header, error) { return 0, nil, broken }, Failed, delivery.MaxAttempts},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{answer: c.answer}
				tr := open(t, kvstore.NewMemory(), Config{Client: &http.Client{Transport: r}})
				allow(t, tr, Policy{OnDrift: true, Webhooks: []string{"https://user:pass@hook.example/x"}})
				if _, err := tr.Consider(t.Context(), time.Now(), []drift.Alarm{alarm("a1", drift.DriftAlarm)}); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				run(t, tr, 24*time.Hour)
				got := tr.Requests("")[0]
				if got.Status != c.status || got.Deliveries[0].Attempts != c.attempts || r.count() != c.attempts {
					t.Errorf("got %+v after %d attempts, want %s after %d", got, r.count(), c.status, c.attempts)
				}
				if strings.Contains(got.Deliveries[0].Error+got.Deliveries[0].Destination, "pass") {
					t.Errorf("the password shows: %+v", got.Deliveries[0])
				}
				if last := r.at[len(r.at)-1].Sub(began); c.attempts == delivery.MaxAttempts && (last < 4*time.Hour || last > 10*time.Hour) {
					t.Errorf("gave up after %v, want a night", last)
				}
			})
		})
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(n int) (int, http.Header, error) {
			if n == 1 {
				return 429, http.Header{"Retry-After": {"90"}}, nil
			}
			return 200, nil, nil
		}}
		tr := open(t, kvstore.NewMemory(), Config{Client: &http.Client{Transport: r}})
		allow(t, tr, Policy{OnDrift: true, Webhooks: []string{"http://hook.example"}})
		if _, err := tr.Consider(t.Context(), time.Now(), []drift.Alarm{alarm("a1", drift.DriftAlarm)}); err != nil {
			t.Fatal(err)
		}
		run(t, tr, time.Hour)
		if len(r.at) != 2 || r.at[1].Sub(r.at[0]) < 90*time.Second {
			t.Errorf("attempts at %v, want the second 90 s after the first", r.at)
		}
	})
}

func TestCooldown(t *testing.T) {
	tr := open(t, kvstore.NewMemory(), Config{})
	allow(t, tr, Policy{OnDrift: true, AccuracyFloor: 0.9, Cooldown: release.Duration(60_000 * time.Millisecond)})
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	consider := func(after time.Duration, alarms ...drift.Alarm) int {
		t.Helper()
		asked, err := tr.Consider(t.Context(), now.Add(after), alarms)
		if err != nil {
			t.Fatal(err)
		}
		return len(asked)
	}
	passing := alarm("c", drift.DriftAlarm)
	if n := consider(0, alarm("a", drift.DriftAlarm), alarm("b", drift.AccuracyAlarm), passing); n != 1 {
		t.Errorf("two findings of one moment: asked %d times, want 1", n)
	}
	passing.ClearedMS = 1
	if n := consider(30*time.Second, passing); n != 0 {
		t.Errorf("in the cooldown: asked %d times, want 0", n)
	}
	if n := consider(61 * time.Second); n != 1 {
		t.Errorf("still raised after the cooldown: asked %d times, want 1", n)
	}
	if n := consider(time.Hour); n != 0 {
		t.Errorf("all asked for or cleared: asked %d times, want 0", n)
	}
}

// flaky is a bucket that fails writes now and then, after or before they took effect.
type flaky struct {
	kvstore.Bucket
	rng *rand.Rand
}

var errStore = errors.New("no quorum")

func (f flaky) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	switch f.rng.IntN(6) {
	case 0:
		return 0, errStore
	case 1:
		_, err := f.Bucket.Put(ctx, key, value)
		return 0, errors.Join(err, errStore)
	default:
		return f.Bucket.Put(ctx, key, value)
	}
}

// However often the server restarts and its store fails, every alarm is asked
// for once under one id, and none is forgotten.
func TestAskedOnceOverRestarts(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			store := kvstore.NewMemory()
			allow(t, open(t, store, Config{}), Policy{OnDrift: true, Cooldown: release.Duration(1 * time.Millisecond), Webhooks: []string{"http://hook.example"}})
			luck := rand.New(rand.NewPCG(seed, 2)) // the receiver's own, guarded by its mutex
			r := &receiver{answer: func(int) (int, http.Header, error) {
				if luck.IntN(3) == 0 {
					return 502, http.Header{}, nil
				}
				return 200, http.Header{}, nil
			}}
			raised := []drift.Alarm{}
			want := map[string]bool{}
			for i := range 12 {
				tr := open(t, flaky{store, rng}, Config{Client: &http.Client{Transport: r}})
				if rng.IntN(2) == 0 {
					a := alarm(strconv.Itoa(i), drift.DriftAlarm)
					raised = append(raised, a)
					want[requestID(a.ID)] = true
				}
				for range 4 {
					time.Sleep(2 * time.Millisecond)
					if _, err := tr.Consider(t.Context(), time.Now(), raised); err != nil && !errors.Is(err, errStore) {
						t.Fatal(err)
					}
				}
				run(t, tr, time.Duration(rng.IntN(5))*time.Second) // and then it is killed
			}
			tr := open(t, store, Config{Client: &http.Client{Transport: r}})
			for range raised {
				time.Sleep(2 * time.Millisecond)
				if _, err := tr.Consider(t.Context(), time.Now(), raised); err != nil {
					t.Fatal(err)
				}
			}
			run(t, tr, 2*time.Hour)
			got := map[string]bool{}
			for _, id := range r.got {
				got[id] = true
			}
			if !maps.Equal(got, want) || len(tr.Requests("")) != len(want) {
				t.Errorf("seed %d: received %v in %d requests, want %v", seed, got, len(tr.Requests("")), want)
			}
			for _, q := range tr.Requests("") {
				if q.Status != Delivered {
					t.Errorf("seed %d: %s is %s", seed, q.ID, q.Status)
				}
			}
		})
	}
}

type bus struct{ got map[string]int }

func (b *bus) Publish(subject string, data []byte) error {
	var e event.Event
	if err := e.UnmarshalJSON(data); err != nil {
		return err
	}
	b.got[subject+" "+e.ID()]++
	return nil
}

func TestSubjectIsPublishedToo(t *testing.T) {
	b := &bus{got: map[string]int{}}
	tr := open(t, kvstore.NewMemory(), Config{Publisher: b})
	allow(t, tr, Policy{OnDrift: true, Subject: "ml.retrain"})
	if _, err := tr.Consider(t.Context(), time.Now(), []drift.Alarm{alarm("a1", drift.DriftAlarm)}); err != nil {
		t.Fatal(err)
	}
	tr.deliver(t.Context(), time.Now())
	tr.deliver(t.Context(), time.Now())
	if !maps.Equal(b.got, map[string]int{"ml.retrain retrain-a1": 1}) {
		t.Errorf("published: got %v", b.got)
	}
	if d := tr.Requests("")[0].Deliveries[0]; d.Destination != "nats:ml.retrain" || !d.Done {
		t.Errorf("delivery: got %+v", d)
	}
}

func TestPolicies(t *testing.T) {
	store := kvstore.NewMemory()
	tr := open(t, store, Config{})
	for name, p := range map[string]Policy{
		"no model":           {},
		"model with a slash": {Model: "a/b"},
		"file":               {Model: "m", Webhooks: []string{"file:///etc/passwd"}},
		"no host":            {Model: "m", Webhooks: []string{"http:///x"}},
		"not a URL":          {Model: "m", Webhooks: []string{"http://a b"}},
		"fragment":           {Model: "m", Webhooks: []string{"http://a/#x"}},
		"too many":           {Model: "m", Webhooks: make([]string, maxWebhooks+1)},
		"floor":              {Model: "m", AccuracyFloor: 1.5},
		"cooldown":           {Model: "m", Cooldown: -1},
		"nothing to publish": {Model: "m", Subject: "ml.b"},
	} {
		if err := tr.SetPolicy(t.Context(), p); !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: got %v, want ErrPolicy", name, err)
		}
	}
	publishing := open(t, store, Config{Publisher: &bus{}})
	for _, subject := range []string{"ledger.gates", "tracking.journal", "in.cam-1", "ml", "ml.>", "ml..x", "$KV.x", "ml.a b"} {
		if err := publishing.SetPolicy(t.Context(), Policy{Model: "m", Subject: subject}); !errors.Is(err, ErrPolicy) {
			t.Errorf("subject %s, perhaps the server's own: got %v, want ErrPolicy", subject, err)
		}
	}
	hooks := []string{"http://127.0.0.1:9/x"}
	allow(t, tr, Policy{OnDrift: true, Webhooks: hooks, Secret: "s"})
	allow(t, tr, Policy{AccuracyFloor: 0.8, Webhooks: hooks}) // keeps the secret
	again := open(t, store, Config{})
	ps := again.Policies()
	if len(ps) != 1 || ps[0].Secret != "" || ps[0].AccuracyFloor != 0.8 || again.policies["digits"].Secret != "s" {
		t.Errorf("after a restart: got %+v, secret %q", ps, again.policies["digits"].Secret)
	}
	allow(t, again, Policy{OnDrift: true})
	if s := again.policies["digits"].Secret; s != "" {
		t.Errorf("secret without webhooks: got %q", s)
	}
}

func TestOldRequestsAreForgotten(t *testing.T) {
	store := kvstore.NewMemory()
	tr := open(t, store, Config{})
	allow(t, tr, Policy{OnDrift: true, Cooldown: release.Duration(1 * time.Millisecond)})
	now := time.Now()
	for i := range keepRequests + 20 {
		a := alarm(strconv.Itoa(i), drift.DriftAlarm)
		if _, err := tr.Consider(t.Context(), now.Add(time.Duration(i)*time.Second), []drift.Alarm{a}); err != nil {
			t.Fatal(err)
		}
	}
	kept := tr.Requests("")
	if len(kept) != keepRequests || kept[0].ID != requestID(strconv.Itoa(keepRequests+19)) {
		t.Errorf("kept %d, newest %s", len(kept), kept[0].ID)
	}
	onDisk, err := store.List(t.Context(), requestPrefix)
	if err != nil || len(onDisk) != keepRequests {
		t.Errorf("on disk: %d, %v", len(onDisk), err)
	}
}
