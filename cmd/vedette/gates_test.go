package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/release"
)

// makeEvaluation writes what "vedette-agent evaluate" writes for the wine model,
// 300 rows of which some are wrong: evaluation FILE WRONG.
func makeEvaluation(ts *testscript.TestScript, neg bool, given []string) {
	if neg || len(given) != 2 {
		ts.Fatalf("usage: evaluation FILE WRONG")
	}
	wrong, err := strconv.Atoi(given[1])
	ts.Check(err)
	graph, err := os.ReadFile(filepath.Join(packageDir, "testdata", "wine_lr.onnx"))
	ts.Check(err)
	var b bytes.Buffer
	ts.Check(evaluation.WriteHeader(&b, evaluation.Header{
		Format: evaluation.Format, Task: evaluation.Classification, Graph: release.DigestOf(graph), Rows: release.DigestOf([]byte("heldout")),
		RowsName: "heldout.csv", Truth: "kind", Classes: []string{"a", "b", "c"}, Runtime: "onnxruntime 1.30.0", Golden: &evaluation.Golden{Rows: 1},
	}, []string{evaluation.PredictionColumn}))
	for i := range 300 {
		truth := i % 3
		said := truth
		if i < wrong {
			said = (truth + 1) % 3
		}
		fmt.Fprintf(&b, "%d,%c,%c\n", i+1, 'a'+truth, 'a'+said)
	}
	ts.Check(os.WriteFile(ts.MkAbs(given[0]), b.Bytes(), 0o600))
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-11-20T09:00:00Z": "2026-11-20T09:00:00Z", "2026-11-20": "2026-11-20T00:00:00Z", "36h": "2026-11-22T00:00:00Z",
		"2026-11-20 09:30": "2026-11-20T09:30:00Z", "yesterday": "", "-3h": "",
	} {
		got, err := moment(text, now)
		if (err != nil) != (want == "") || err == nil && got.Format(time.RFC3339) != want {
			t.Errorf("%s: got %v, %v, want %s", text, got, err, want)
		}
	}
}
