package infer

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/release"
)

func TestCheckValues(t *testing.T) {
	low, high := -1.0, 10.0
	schema := &release.Schema{
		Inputs: []release.Tensor{
			{Name: "X", Datatype: "FP32", Shape: []int64{-1, 3}, Features: []release.Feature{
				{Name: "free"}, {Name: "bounded", Min: &low, Max: &high}, {Name: "needed", Missing: "refuse"},
			}},
			{Name: "n", Datatype: "INT64", Shape: []int64{-1}, Features: []release.Feature{{Name: "count", Min: &low}}},
		},
		Outputs: []release.Tensor{{Name: "y", Datatype: "FP32", Shape: []int64{-1}}},
	}
	c, err := newChecker(schema)
	if err != nil {
		t.Fatal(err)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	cases := []struct {
		name string
		x    []float32
		n    []int64
		want string
	}{
		{"in range", []float32{1e30, 10, 0, nan, -1, 5}, []int64{0, -1}, ""},
		{"missing passes", []float32{nan, nan, 0, 0, 0, 0}, []int64{0, 0}, ""},
		{"missing refused", []float32{0, 0, 0, 0, 0, nan}, []int64{0, 0}, `input "X" row 1 feature "needed": is missing`},
		{"below", []float32{0, -1.5, 0, 0, 0, 0}, []int64{0, 0}, `input "X" row 0 feature "bounded": is -1.5, below the valid minimum -1`},
		{"infinite", []float32{0, 0, 0, 0, inf, 0}, []int64{0, 0}, `row 1 feature "bounded": is +Inf, above`},
		{"integer", make([]float32, 6), []int64{0, -2}, `input "n" row 1 feature "count": is -2`},
	}
	for _, tc := range cases {
		_, rows, err := c.request(&Request{Inputs: []Tensor{
			{Name: "n", Datatype: "INT64", Shape: []int64{2}, Data: tc.n},
			{Name: "X", Datatype: "FP32", Shape: []int64{2, 3}, Data: tc.x},
		}}, nil, 10)
		var ie *InputError
		if (err == nil) != (tc.want == "") || err != nil && (!errors.As(err, &ie) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if want := 2; err == nil && rows != want {
			t.Errorf("%s: %d rows, want %d", tc.name, rows, want)
		}
	}
}

func TestCheckRefusesGoData(t *testing.T) {
	c, err := newChecker(&testRelease(1).Manifest.Schema)
	if err != nil {
		t.Fatal(err)
	}
	good := rowsOf(1)[0]
	change := func(f func(*Tensor)) []Tensor {
		x := good
		f(&x)
		return []Tensor{x}
	}
	for name, in := range map[string][]Tensor{
		"no input":    nil,
		"twice":       {good, good},
		"another":     {good, {Name: "Z", Datatype: "FP32", Shape: []int64{1}, Data: []float32{0}}},
		"wrong type":  change(func(x *Tensor) { x.Data = []float64{0, 0} }),
		"nil data":    change(func(x *Tensor) { x.Data = nil }),
		"short data":  change(func(x *Tensor) { x.Data = []float32{0} }),
		"no rows":     change(func(x *Tensor) { x.Shape = []int64{0, 2} }),
		"many rows":   change(func(x *Tensor) { x.Shape = []int64{11, 2} }),
		"scalar":      change(func(x *Tensor) { x.Shape = nil }),
		"huge":        change(func(x *Tensor) { x.Shape = []int64{1, math.MaxInt64} }),
		"wrong width": change(func(x *Tensor) { x.Shape = []int64{2, 1} }),
	} {
		_, rows, err := c.request(&Request{Inputs: in}, nil, 10)
		if _, ok := errors.AsType[*InputError](err); !ok {
			t.Errorf("%s: error %v", name, err)
		}
		if rows != 0 {
			t.Errorf("%s: %d rows were believed", name, rows)
		}
	}
}

func TestCheckerRefusesSchema(t *testing.T) {
	x := release.Tensor{Name: "X", Datatype: "FP32", Shape: []int64{-1}}
	for name, s := range map[string]*release.Schema{
		"empty":      {},
		"no outputs": {Inputs: []release.Tensor{x}},
		"datatype":   {Inputs: []release.Tensor{{Name: "X", Datatype: "COMPLEX64", Shape: []int64{-1}}}, Outputs: []release.Tensor{x}},
		"scalar":     {Inputs: []release.Tensor{{Name: "X", Datatype: "FP32"}}, Outputs: []release.Tensor{x}},
	} {
		if _, err := newChecker(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRowID(t *testing.T) {
	if got := RowID("a", 0, 1); got != "a" {
		t.Errorf("single row: %q", got)
	}
	if got := RowID("a", 2, 3); got != "a/2" {
		t.Errorf("row of a batch: %q", got)
	}
}
