package retrain

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// fleet is what the monitor scores.
type fleet struct{ groups []drift.GroupScore }

func (f *fleet) Groups(_ string, by drift.Level) (out []drift.GroupScore) {
	for _, g := range f.groups {
		if g.Level == by {
			out = append(out, g)
		}
	}
	return out
}

func (f *fleet) Origin(string, release.Digest) (Origin, bool) {
	return Origin{Run: "run-1", Source: "models:/digits/1", DataVersion: "2026-02", Commit: "abc", Metrics: map[string]float64{"accuracy": 0.98}}, true
}

func (f *fleet) Sampled(string, time.Time) int { return 42 }

// Every kind of event is as the schema says, and carries all that is promised.
func TestEventsAreAsTheSchemaSays(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(Schema)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("event.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("event.json")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{[]drift.GroupScore{group("a", 0.6, 8), group("b", 0.5, 8)}}
	tr := open(t, kvstore.NewMemory(), Config{Source: "http://127.0.0.1:8080", Scores: f, Origins: f, Samples: f})
	allow(t, tr, Policy{OnDrift: true, Cooldown: 1, When: []operator.RetrainWhen{drifts(0.3, 0)}, Schedule: &operator.RetrainSchedule{Cron: "0 3 * * *"}})
	must := func(r []Request, err error) {
		t.Helper()
		if err != nil || len(r) != 1 {
			t.Fatalf("got %d requests, %v, want 1", len(r), err)
		}
	}
	must(tr.Consider(t.Context(), noon, []drift.Alarm{alarm("a1", drift.DriftAlarm)}))
	must(tr.Look(t.Context(), noon.Add(time.Minute)))
	must(tr.Look(t.Context(), noon.Add(24*time.Hour)))
	asked, err := tr.Ask(t.Context(), noon.Add(25*time.Hour), "digits", "ada", "new labels")
	must([]Request{asked}, err)
	for _, r := range tr.Requests("digits") {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(r.Event)))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v\n%s", r.Cause, err, r.Event)
		}
	}
	var e struct{ Data evidence }
	all := tr.Requests("digits")
	if err := json.Unmarshal(all[len(all)-2].Event, &e); err != nil {
		t.Fatal(err)
	}
	d := e.Data
	if d.Cause != CauseDrift || d.Condition != "moved" || len(d.Cohorts) != 2 || d.Cohorts[1].Selector != "site=b" || d.Window == nil ||
		d.Origin.Run != "run-1" || d.Sample.Rows != 42 || d.Tag != (tag{"vedette.retrain", all[len(all)-2].ID}) || d.Tracking != "http://127.0.0.1:8080" {
		t.Errorf("got %+v", d)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(`{"specversion":"1.0","id":"x","type":"other","source":"y","data":{}}`))
	if err != nil || schema.Validate(v) == nil {
		t.Errorf("the schema takes anything: %v", err)
	}
}

// Each destination has its own secret, which is kept and not shown. So are the
// credentials and the query of a URL.
func TestDestinations(t *testing.T) {
	const a, a2, b = "http://ann:hidden@a/x", "http://a/x?token=hidden", "http://b?token=hidden"
	store := kvstore.NewMemory()
	tr := open(t, store, Config{})
	allow(t, tr, Policy{OnDrift: true, Webhooks: []string{a, a2}, Secret: "one", Destinations: []operator.RetrainDestination{{URL: b, Secret: "two"}, {URL: "http://c"}}})
	shown := tr.Policies()[0]
	for _, secret := range []string{"one", "two", "hidden", "ann"} {
		if text, _ := json.Marshal(shown); strings.Contains(string(text), secret) {
			t.Errorf("secrets are shown: %s", text)
		}
	}
	shown.Destinations[1].URL = "http://evil" // nothing to keep for it
	shown.Destinations = append(shown.Destinations, operator.RetrainDestination{URL: "http://b2"})
	allow(t, tr, shown)
	tr = open(t, store, Config{})
	if _, err := tr.Consider(t.Context(), time.Now(), []drift.Alarm{alarm("a1", drift.DriftAlarm)}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, to := range tr.requests["retrain-a1"].Targets {
		got[to.URL] = to.Secret
	}
	if want := map[string]string{a: "one", a2: "one", b: "two", "http://evil": "", "http://b2": ""}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOldPolicyIsRead(t *testing.T) {
	store := kvstore.NewMemory()
	old := `{"model":"digits","on_drift":true,"cooldown_ms":3600000,"webhooks":["http://a"],"secret":"s"}`
	if _, err := store.Put(t.Context(), policyKey("digits"), []byte(old)); err != nil {
		t.Fatal(err)
	}
	if p := open(t, store, Config{}).policies["digits"]; time.Duration(p.Cooldown) != time.Hour || !p.OnDrift || p.Secret != "s" {
		t.Errorf("got %+v", p)
	}
}

func TestDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := kvstore.NewMemory()
		board, err := incident.New(t.Context(), kvstore.NewMemory(), incident.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var there atomic.Bool
		r := &receiver{answer: func(int) (int, http.Header, error) {
			if there.Load() {
				return 200, http.Header{}, nil
			}
			return 404, http.Header{}, nil
		}}
		cfg := Config{Client: &http.Client{Transport: r}, Incidents: board}
		tr := open(t, store, cfg)
		allow(t, tr, Policy{OnDrift: true, Webhooks: []string{"http://hook.example/x"}})
		if _, err := tr.Consider(t.Context(), time.Now(), []drift.Alarm{alarm("a1", drift.DriftAlarm)}); err != nil {
			t.Fatal(err)
		}
		run(t, tr, time.Minute)
		got, err := tr.Request("retrain-a1")
		if err != nil || !got.Dead() || got.State() != Failed {
			t.Fatalf("got %+v, %v, want a dead letter", got, err)
		}
		all := board.Incidents()
		if len(all) != 1 || all[0].Cause.Kind != incident.DeliveryDead || all[0].State != incident.Open {
			t.Errorf("incidents: got %+v", all)
		}
		there.Store(true)
		tr = open(t, store, cfg) // a restart does not try it again by itself
		run(t, tr, time.Hour)
		if len(r.got) != 0 {
			t.Error("the dead letter was sent again without being asked for")
		}
		if _, err := tr.Redeliver(t.Context(), time.Now(), "retrain-a1"); err != nil {
			t.Fatal(err)
		}
		run(t, tr, time.Minute)
		if got, _ = tr.Request("retrain-a1"); got.Dead() || got.State() != Delivered || len(r.got) != 1 {
			t.Errorf("got %+v after %d deliveries", got, len(r.got))
		}
		if i, _ := board.Newest(all[0].Cause.Key); i.State != incident.Resolved {
			t.Errorf("the incident is %s, want it resolved", i.State)
		}
		if _, err := tr.Redeliver(t.Context(), time.Now(), "retrain-a1"); !errors.Is(err, ErrAlive) {
			t.Errorf("redeliver what arrived: got %v, want ErrAlive", err)
		}
		if _, err := tr.Redeliver(t.Context(), time.Now(), "retrain-x"); !errors.Is(err, ErrNotFound) {
			t.Errorf("unknown: got %v, want ErrNotFound", err)
		}
	})
}

func TestLifeOfARequest(t *testing.T) {
	store := kvstore.NewMemory()
	f := &fleet{[]drift.GroupScore{group("b", 0.5, 8)}}
	tr := open(t, store, Config{Scores: f})
	allow(t, tr, Policy{When: []operator.RetrainWhen{drifts(0.3, 0)}, Cooldown: 1, MaxOpen: 1})
	asked, err := tr.Look(t.Context(), noon)
	if err != nil || len(asked) != 1 || asked[0].State() != Delivered {
		t.Fatalf("got %+v, %v", asked, err)
	}
	id := asked[0].ID
	if err := tr.Advance(t.Context(), noon, id, operator.RetrainValidated, "2", ""); err != nil {
		t.Fatal(err)
	}
	step := func(want string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if got, _ := open(t, store, Config{}).Request(id); got.State() != want {
			t.Errorf("got %s, want %s", got.State(), want)
		}
	}
	step(Delivered, func() error { return nil }) // without an answer nothing advances
	step(operator.RetrainAnswered, func() error { return tr.Answered(t.Context(), noon, id, "digits", "2") })
	step(operator.RetrainValidated, func() error { return tr.Advance(t.Context(), noon, id, operator.RetrainValidated, "2", "passed") })
	step(operator.RetrainValidated, func() error { return tr.Answered(t.Context(), noon, id, "digits", "2") })
	f.groups = append(f.groups, group("c", 0.5, 8))
	if again, err := tr.Look(t.Context(), noon.Add(time.Minute)); err != nil || len(again) != 0 {
		t.Errorf("while one is open: asked %d times, %v", len(again), err)
	}
	step(operator.RetrainRejected, func() error { return tr.Advance(t.Context(), noon, id, operator.RetrainRejected, "2", "a gate failed") })
	again, err := tr.Look(t.Context(), noon.Add(2*time.Minute))
	if err != nil || len(again) != 1 || !slices.Equal(again[0].Cohorts, []string{"b", "c"}) {
		t.Errorf("after a rejection: got %+v, %v, want one of b and c", again, err)
	}
	if err := tr.Answered(t.Context(), noon, "retrain-x", "digits", "2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: got %v, want ErrNotFound", err)
	}
}

// However often the server is killed between its writes, one finding makes one
// request.
func TestConditionsAskOnceOverRestarts(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 7))
		store := kvstore.NewMemory()
		f := &fleet{[]drift.GroupScore{group("b", 0.5, 8)}}
		policy := Policy{When: []operator.RetrainWhen{drifts(0.3, 10*time.Minute)}, Cooldown: 1}
		allow(t, open(t, store, Config{}), policy)
		at := noon
		for range 60 {
			tr := open(t, flaky{store, rng}, Config{Scores: f})
			for range rng.IntN(4) {
				at = at.Add(time.Minute)
				if _, err := tr.Look(t.Context(), at); err != nil && !errors.Is(err, errStore) {
					t.Fatal(err)
				}
			}
		}
		tr := open(t, store, Config{Scores: f})
		for range 30 {
			at = at.Add(time.Minute)
			if _, err := tr.Look(t.Context(), at); err != nil {
				t.Fatal(err)
			}
		}
		if all := tr.Requests(""); len(all) != 1 {
			t.Errorf("seed %d: %d requests, want 1", seed, len(all))
		}
	}
}

var (
	_ Scores  = (*fleet)(nil)
	_ Origins = (*fleet)(nil)
	_ Samples = (*fleet)(nil)
)
