package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol/mlmodel"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// What a server says becomes no path outside of the folder of downloads.
func TestHostileServerNamesNoPaths(t *testing.T) {
	work := filepath.Join(t.TempDir(), "a", "b")
	r := &releaser{publisher: &publisher{}, work: work}
	for _, version := range []string{"../../x", "..", "", "0", "-1", "/etc"} {
		_, err := r.release(t.Context(), &client.Registered{Name: "digits", Version: version, Tags: map[string]string{operator.TagVersion: "1"}})
		if err == nil || !strings.Contains(err.Error(), "versions are numbers") {
			t.Errorf("version %q: got %v", version, err)
		}
	}
	for _, name := range []string{"../x.onnx", "/tmp/x.onnx", "a/../../x.onnx"} {
		if err := r.fetchFile(t.Context(), "mlflow-artifacts:/1", name, work, 1); !errors.Is(err, mlmodel.ErrPath) {
			t.Errorf("file %q: got %v, want %v", name, err, mlmodel.ErrPath)
		}
	}
	if _, err := os.Stat(work); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
}
