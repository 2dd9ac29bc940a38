package release

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
)

// golden has three rows of two inputs, a label and two scores.
func golden() *Golden {
	return &Golden{
		Rows:   3,
		Inputs: []Values{{Name: "X", Shape: []int64{3, 2}, Data: []float64{0, 1.5, math.NaN(), 3, 4, 5}}},
		Outputs: []Expected{
			{Values: Values{Name: "label", Shape: []int64{3}, Data: []float64{0, 1, 0}}},
			{Values: Values{Name: "scores", Shape: []int64{3, 2}, Data: []float64{0.9, 0.1, 0.2, 0.8, 0.6, 0.4}}, Abs: 1e-5, Rel: 1e-4},
		},
		Source: "scikit-learn 1.2.1",
	}
}

func goldenSchema() *Schema {
	return &Schema{
		Inputs:  []Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 2}}},
		Outputs: []Tensor{{Name: "label", Datatype: "INT64", Shape: []int64{-1}}, {Name: "scores", Datatype: "FP32", Shape: []int64{-1, 2}}},
	}
}

func TestGoldenVector(t *testing.T) {
	want, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	g, err := DecodeGolden(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	if !math.IsNaN(g.Inputs[0].Data[2]) {
		t.Errorf("a missing value reads as %v", g.Inputs[0].Data[2])
	}
	for name, g := range map[string]*Golden{"decoded": g, "made": golden()} {
		if got, err := g.Encode(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %s, %v, want %s", name, got, err, want)
		}
	}
}

func TestDecodeGoldenRefuses(t *testing.T) {
	tests := []struct {
		name, json string
		want       error
	}{
		{"empty", "", ErrSyntax},
		{"no rows", `{"rows":0,"inputs":[],"outputs":[]}`, ErrInvalid},
		{"no outputs", `{"rows":1,"inputs":[{"name":"X","shape":[1],"data":[1]}],"outputs":[]}`, ErrInvalid},
		{"unknown field", `{"rows":1,"evil":1}`, ErrSyntax},
		{"trailing bytes", `{"rows":1,"inputs":[{"name":"X","shape":[1],"data":[1]}],"outputs":[{"name":"y","shape":[1],"data":[1],"abs":0,"rel":0}]} x`, ErrSyntax},
		{"too few elements", `{"rows":1,"inputs":[{"name":"X","shape":[1,2],"data":[1]}],"outputs":[{"name":"y","shape":[1],"data":[1],"abs":0,"rel":0}]}`, ErrInvalid},
		{"shape that overflows", `{"rows":1,"inputs":[{"name":"X","shape":[1,4294967296,4294967296],"data":[1]}],"outputs":[{"name":"y","shape":[1],"data":[1],"abs":0,"rel":0}]}`, ErrInvalid},
		{"other number of rows", `{"rows":1,"inputs":[{"name":"X","shape":[2],"data":[1,2]}],"outputs":[{"name":"y","shape":[1],"data":[1],"abs":0,"rel":0}]}`, ErrInvalid},
		{"data and strings", `{"rows":1,"inputs":[{"name":"X","shape":[1],"data":[1],"strings":["a"]}],"outputs":[{"name":"y","shape":[1],"data":[1],"abs":0,"rel":0}]}`, ErrInvalid},
		{"negative tolerance", `{"rows":1,"inputs":[{"name":"X","shape":[1],"data":[1]}],"outputs":[{"name":"y","shape":[1],"data":[1],"abs":-1,"rel":0}]}`, ErrInvalid},
		{"the same input twice", `{"rows":1,"inputs":[{"name":"X","shape":[1],"data":[1]},{"name":"X","shape":[1],"data":[1]}],"outputs":[{"name":"y","shape":[1],"data":[1],"abs":0,"rel":0}]}`, ErrInvalid},
		{"endless", strings.Repeat(" ", MaxGolden+1), ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := DecodeGolden(strings.NewReader(tt.json)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestGoldenCheck(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(g *Golden, s *Schema)
		want  string // empty: fits
	}{
		{"fits", func(*Golden, *Schema) {}, ""},
		{"fixed batch", func(_ *Golden, s *Schema) { s.Inputs[0].Shape[0] = 1 }, ""},
		{"input missing", func(_ *Golden, s *Schema) {
			s.Inputs = append(s.Inputs, Tensor{Name: "Z", Datatype: "FP32", Shape: []int64{-1}})
		}, `input "Z": is missing`},
		{"output missing", func(g *Golden, _ *Schema) { g.Outputs = g.Outputs[:1] }, `output "scores": is missing`},
		{"unknown output", func(_ *Golden, s *Schema) { s.Outputs = s.Outputs[:1] }, `output "scores": is not in the schema`},
		{"wrong width", func(_ *Golden, s *Schema) { s.Inputs[0].Shape[1] = 3 }, "has shape [3 2], the schema says [-1 3]"},
		{"wrong rank", func(_ *Golden, s *Schema) { s.Inputs[0].Shape = []int64{-1} }, "has shape [3 2], the schema says [-1]"},
		{"text wanted", func(_ *Golden, s *Schema) { s.Outputs[0].Datatype = "BYTES" }, "need strings"},
		{"whole numbers wanted", func(g *Golden, _ *Schema) { g.Outputs[0].Data[1] = 1.5 }, "element 1 is 1.5"},
		{"missing whole number", func(_ *Golden, s *Schema) { s.Inputs[0].Datatype = "INT32" }, "element 1 is 1.5"},
		{"tolerance on a label", func(g *Golden, _ *Schema) { g.Outputs[0].Abs = 1 }, "must be equal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, s := golden(), goldenSchema()
			tt.spoil(g, s)
			err := g.Check(s)
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v, want nil", err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// outputs are what a graph that agrees computes.
func outputs() []Values {
	var got []Values
	for _, o := range golden().Outputs {
		got = append(got, o.Values)
	}
	return got
}

func TestCompare(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(got []Values)
		wrong int
		worst float64
		first string
	}{
		{"equal", func([]Values) {}, 0, 0, ""},
		{"within tolerance", func(got []Values) { got[1].Data[0] += 0.00009 }, 0, 0.00009, ""},
		{"outside tolerance", func(got []Values) { got[1].Data[0] += 0.00011 }, 1, 0.00011, `row 0, output "scores", element 0`},
		{"wrong label", func(got []Values) { got[0].Data[1] = 0 }, 1, 1, `row 1, output "label", element 0: got 0, want 1`},
		{"label off by a hair", func(got []Values) { got[0].Data[1] = 1.0000001 }, 1, 0, `row 1, output "label"`},
		{"several in one row", func(got []Values) { got[1].Data[2], got[1].Data[3] = 0.8, 0.2 }, 1, 0.6, `row 1, output "scores", element 0`},
		{"first by row, not by output", func(got []Values) { got[0].Data[2], got[1].Data[0] = 9, 0 }, 2, 9, `row 0, output "scores"`},
		{"NaN instead of a score", func(got []Values) { got[1].Data[5] = math.NaN() }, 1, math.Inf(1), `row 2, output "scores", element 1: got NaN`},
		{"infinite score", func(got []Values) { got[1].Data[5] = math.Inf(1) }, 1, math.Inf(1), `got +Inf`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := outputs()
			tt.spoil(got)
			c, err := golden().Compare(got)
			if err != nil {
				t.Fatal(err)
			}
			if c.Rows != 3 || c.Wrong != tt.wrong || c.OK() != (tt.wrong == 0) || math.Abs(c.WorstAbs-tt.worst) > 1e-6 {
				t.Errorf("got %+v, want %d wrong, worst %g", c, tt.wrong, tt.worst)
			}
			if !strings.Contains(c.First, tt.first) || (c.First == "") != (tt.first == "") {
				t.Errorf("first is %q, want %q", c.First, tt.first)
			}
		})
	}
}

func TestCompareStringsAndMissing(t *testing.T) {
	g := &Golden{Rows: 2, Outputs: []Expected{
		{Values: Values{Name: "class", Shape: []int64{2}, Strings: []string{"cat", "dog"}}},
		{Values: Values{Name: "score", Shape: []int64{2}, Data: []float64{math.NaN(), 1}}},
	}}
	c, err := g.Compare([]Values{
		{Name: "score", Shape: []int64{2}, Data: []float64{math.NaN(), 1}},
		{Name: "class", Shape: []int64{2}, Strings: []string{"cat", "cow"}},
	})
	if err != nil || c.Wrong != 1 || !strings.Contains(c.First, `got "cow", want "dog"`) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestCompareRefuses(t *testing.T) {
	for name, got := range map[string][]Values{
		"no output":   outputs()[:1],
		"other shape": {outputs()[0], {Name: "scores", Shape: []int64{6}, Data: outputs()[1].Data}},
		"too short":   {outputs()[0], {Name: "scores", Shape: []int64{3, 2}, Data: []float64{1}}},
	} {
		if _, err := golden().Compare(got); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want %v", name, err, ErrInvalid)
		}
	}
}

func FuzzDecodeGolden(f *testing.F) {
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := DecodeGolden(bytes.NewReader(b))
		if err != nil {
			return
		}
		once, err := g.Encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		g, err = DecodeGolden(bytes.NewReader(once))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := g.Encode(); err != nil || !bytes.Equal(again, once) {
			t.Errorf("got %s, then %s, %v", once, again, err)
		}
	})
}
