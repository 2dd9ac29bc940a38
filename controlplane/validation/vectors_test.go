package validation

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/release"
)

// vectors are what testdata/vectors.py computed with scipy.
type vectors struct {
	Tango []struct {
		B, C, N, Z float64
		Want       [2]float64
	}
	Wilson []struct {
		K, N float64
		Want [2]float64
	}
	Newcombe []struct {
		A, N, B, M float64
		Want       [2]float64
	}
	DeLong struct {
		Truth         []int32
		First, Second []float64
		Areas         [2]float64
		SE            float64 `json:"se"`
		SEFirst       float64 `json:"se_first"`
		MannWhitney   float64 `json:"mann_whitney"`
	} `json:"delong"`
	MAE struct {
		Truth, First, Second []float64
		Value                float64
		Want                 [2]float64
	} `json:"mae"`
	MacroF1 struct {
		Truth, First, Second []int32
		Value                float64
		Want                 [2]float64
	} `json:"macro_f1"`
}

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: got %.8f, want %.8f ± %g", what, got, want, tolerance)
	}
}

// Closed forms agree with scipy, and Tango's with the likelihood maximised
// numerically.
func TestIntervalsAgreeWithScipy(t *testing.T) {
	v := readVectors(t)
	for _, x := range v.Tango {
		lower, upper := tango(x.B, x.C, x.N, x.Z)
		near(t, "Tango, lower", lower, x.Want[0], 2e-6)
		near(t, "Tango, upper", upper, x.Want[1], 2e-6)
	}
	z := quantile(0.975)
	for _, x := range v.Wilson {
		lower, upper := wilson(x.K, x.N, z)
		near(t, "Wilson, lower", lower, x.Want[0], 1e-9)
		near(t, "Wilson, upper", upper, x.Want[1], 1e-9)
	}
	for _, x := range v.Newcombe {
		lower, upper := newcombe(x.A, x.N, x.B, x.M, z)
		near(t, "Newcombe, lower", lower, x.Want[0], 1e-9)
		near(t, "Newcombe, upper", upper, x.Want[1], 1e-9)
	}
	// Newcombe (1998), table II, column 10, rows a and b, to his four digits.
	lower, upper := newcombe(56, 70, 48, 80, z)
	near(t, "published, lower", lower, 0.0524, 6e-5)
	near(t, "published, upper", upper, 0.3339, 6e-5)
	lower, upper = newcombe(9, 10, 3, 10, z)
	near(t, "published, lower", lower, 0.1705, 6e-5)
	near(t, "published, upper", upper, 0.8090, 6e-5)
}

// scored is a table of two classes of which the second has these scores.
func scored(truth []int32, scores []float64) *evaluation.Table {
	t := &evaluation.Table{
		Header: evaluation.Header{Task: evaluation.Classification, Classes: []string{"no", "yes"}, Rows: release.DigestOf([]byte("rows"))},
		Labels: []string{"no", "yes"}, Truth: truth, Predicted: make([]int32, len(truth)),
	}
	for i, s := range scores {
		t.Rows = append(t.Rows, int64(i+1))
		t.Scores = append(t.Scores, float32(-s), float32(s))
		if s > 0.5 {
			t.Predicted[i] = 1
		}
	}
	return t
}

// Areas and their standard errors are those of counting pair by pair, ties
// included.
func TestAreasAgreeWithScipy(t *testing.T) {
	v := readVectors(t).DeLong
	near(t, "vectors", v.Areas[0], v.MannWhitney, 1e-12)
	first, second := scored(v.Truth, v.First), scored(v.Truth, v.Second)
	m := metric{name: rocAUC}
	a, err := auc(m, first)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "area", a.mean, v.Areas[0], 1e-9)
	near(t, "standard error", spread(a.influence), v.SEFirst, 1e-9)
	e, err := contrast(m, first, second, 0.05)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "difference", e.value, v.Areas[0]-v.Areas[1], 1e-9)
	near(t, "its bound", e.lower, e.value-quantile(0.95)*v.SE, 1e-9)
}

// The bootstrap's bounds are scipy's BCa, but for what two seeds differ by.
func TestBootstrapAgreesWithScipy(t *testing.T) {
	v := readVectors(t)
	numbers := func(got []float64) *evaluation.Table {
		return &evaluation.Table{Header: evaluation.Header{Task: evaluation.Regression}, Rows: make([]int64, len(got)), Want: v.MAE.Truth, Got: got}
	}
	// Of errors, the second's minus the first's.
	e, err := contrast(metric{name: mae}, numbers(v.MAE.First), numbers(v.MAE.Second), 0.05)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "MAE", e.value, v.MAE.Value, 1e-9)
	width := v.MAE.Want[1] - v.MAE.Want[0]
	near(t, "MAE, lower", e.lower, v.MAE.Want[0], 0.06*width)
	near(t, "MAE, upper", e.upper, v.MAE.Want[1], 0.06*width)

	classes := func(said []int32) *evaluation.Table {
		return &evaluation.Table{
			Header: evaluation.Header{Task: evaluation.Classification, Classes: []string{"a", "b", "c", "d"}}, Labels: []string{"a", "b", "c", "d"},
			Rows: make([]int64, len(said)), Truth: v.MacroF1.Truth, Predicted: said,
		}
	}
	e, err = contrast(metric{name: macroF1}, classes(v.MacroF1.First), classes(v.MacroF1.Second), 0.05)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "macro F1", e.value, v.MacroF1.Value, 1e-9)
	width = v.MacroF1.Want[1] - v.MacroF1.Want[0]
	near(t, "macro F1, lower", e.lower, v.MacroF1.Want[0], 0.08*width)
	near(t, "macro F1, upper", e.upper, v.MacroF1.Want[1], 0.08*width)
}
