package controlplane

import (
	"context"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// trackedRuns is a store that ends with the test.
func trackedRuns(t *testing.T) *tracking.Store {
	t.Helper()
	store := tracking.NewMemory()
	t.Cleanup(func() {
		if err := store.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return store
}

// The newest version with the tag answers a request, whatever its model's name.
func TestNewestTagged(t *testing.T) {
	store := trackedRuns(t)
	if _, err := store.CreateRegisteredModel(t.Context(), "digits", "", nil); err != nil {
		t.Fatal(err)
	}
	for _, tags := range []map[string]string{nil, {operator.TagRetrain: "retrain-1"}, {operator.TagRetrain: "retrain-2"}, {operator.TagRetrain: "retrain-1"}, {"other": "retrain-1"}} {
		if _, err := store.CreateVersion(t.Context(), tracking.ModelVersion{Name: "digits", Source: "mlflow-artifacts:/1/a/artifacts/model", Tags: tags}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := newestTagged(store)
	if err != nil || len(got) != 2 || got["retrain-1"].Version != 4 || got["retrain-2"].Version != 3 {
		t.Errorf("got %+v, %v, want versions 4 and 3", got, err)
	}
}

func TestPublishFailuresAreIncidents(t *testing.T) {
	s := withBoard(t, kvstore.NewMemory())
	s.tracking = trackedRuns(t)
	if _, err := s.tracking.CreateRegisteredModel(t.Context(), "digits", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.tracking.CreateVersion(t.Context(), tracking.ModelVersion{Name: "digits", Source: "mlflow-artifacts:/1/a/artifacts/model"}); err != nil {
		t.Fatal(err)
	}
	tag := func(key, value string) {
		t.Helper()
		v := &value
		if value == "" {
			v = nil
		}
		if err := s.tracking.SetVersionTag(t.Context(), "digits", 1, key, v); err != nil {
			t.Fatal(err)
		}
	}
	look := func(want int) {
		t.Helper()
		if err := s.publishFailures(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := len(live(s)); got != want {
			t.Errorf("got %d incidents, want %d", got, want)
		}
	}
	look(0)
	tag(operator.TagProblem, "the graph disagrees with what the framework computed")
	look(1)
	look(1)
	i, _ := s.incidents.Newest("publish/digits/1")
	if i.Count != 1 || i.Cause.Kind != incident.PublishFailed || i.Cause.Detail != "the graph disagrees with what the framework computed" {
		t.Errorf("got %+v", i)
	}
	tag(operator.TagProblem, "")
	look(0)
	tag(operator.TagProblem, "again")
	look(1)
	tag(operator.TagRelease, "abc") // published all the same
	look(0)
}
