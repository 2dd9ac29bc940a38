package controlplane

import (
	"testing"

	"github.com/vedette-edge/vedette/controlplane/retrain"
	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// The newest version with the tag answers a request, whatever its model's name.
func TestNewestTagged(t *testing.T) {
	store := tracking.NewMemory()
	if _, ok, err := newestTagged(store, "retrain-1"); ok || err != nil {
		t.Errorf("without versions: got %v, %v", ok, err)
	}
	if _, err := store.CreateRegisteredModel(t.Context(), "digits", "", nil); err != nil {
		t.Fatal(err)
	}
	for _, tags := range []map[string]string{nil, {retrain.TagKey: "retrain-1"}, {retrain.TagKey: "retrain-2"}, {retrain.TagKey: "retrain-1"}, {"other": "retrain-1"}} {
		if _, err := store.CreateVersion(t.Context(), tracking.ModelVersion{Name: "digits", Source: "mlflow-artifacts:/1/a/artifacts/model", Tags: tags}); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]int{"retrain-1": 4, "retrain-2": 3, "retrain-3": 0, "x' OR '1'='1": 0} {
		v, ok, err := newestTagged(store, id)
		if err != nil || ok != (want > 0) || v.Version != want {
			t.Errorf("%s: got version %d, %v, %v; want %d", id, v.Version, ok, err, want)
		}
	}
}
