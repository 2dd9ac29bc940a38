package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/agent/score"
	"github.com/vedette-edge/vedette/protocol/release"
)

// What a graph computes may be NaN, and is expected then; infinity is no answer.
func TestExpectedOutputs(t *testing.T) {
	schema := &release.Schema{Outputs: []release.Tensor{
		{Name: "sum", Datatype: "FP32", Shape: []int64{-1, 1}}, {Name: "scores", Datatype: "FP32", Shape: []int64{-1, 2}},
	}}
	path := filepath.Join(t.TempDir(), "expected.csv")
	if err := os.WriteFile(path, []byte("s,low,high\nNaN,0.25,0.1234567891\n1,2,inf\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	table, closeTable, err := openTable(path, expectedSchema(schema), score.HeaderSkip, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeTable()
	_, err = table.Next()
	if want := `column "scores[1]": "inf" is not a finite number`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q in it", err, want)
	}
	if err := os.WriteFile(path, []byte("s,low,high\nNaN,0.25,0.1234567891\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, closeAgain, err := openTable(path, expectedSchema(schema), score.HeaderSkip, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAgain()
	rows, err := again.Next()
	if err != nil {
		t.Fatal(err)
	}
	if sum, ok := rows.Tensors[0].Data.([]float64); !ok || len(sum) != 1 || !math.IsNaN(sum[0]) {
		t.Errorf("sum is %v, want NaN", rows.Tensors[0].Data)
	}
	if got, want := rows.Tensors[1].Data, []float64{0.25, 0.1234567891}; !slices.Equal(got.([]float64), want) {
		t.Errorf("scores are %v, want %v", got, want)
	}
}
