package infer

import (
	"fmt"
	"testing"

	"github.com/vedette-edge/vedette/protocol/release"
)

// TestValuesRoundTrip takes every datatype to golden values and back.
func TestValuesRoundTrip(t *testing.T) {
	for _, want := range []Tensor{
		{Datatype: "BOOL", Data: []bool{true, false}},
		{Datatype: "UINT8", Data: []uint8{0, 255}},
		{Datatype: "UINT16", Data: []uint16{0, 65535}},
		{Datatype: "UINT32", Data: []uint32{0, 1 << 31}},
		{Datatype: "UINT64", Data: []uint64{0, 1 << 53}},
		{Datatype: "INT8", Data: []int8{-128, 127}},
		{Datatype: "INT16", Data: []int16{-1, 1}},
		{Datatype: "INT32", Data: []int32{-1, 1}},
		{Datatype: "INT64", Data: []int64{-1 << 53, 1}},
		{Datatype: "FP32", Data: []float32{-0.1, 3}},
		{Datatype: "FP64", Data: []float64{-0.1, 3}},
		{Datatype: "BYTES", Data: []string{"a", ""}},
	} {
		want.Name, want.Shape = "t", []int64{2}
		got, err := FromValues(release.Tensor{Name: "t", Datatype: want.Datatype, Shape: []int64{-1}}, want.Values())
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
			t.Errorf("%#v, want %#v", got, want)
		}
		half, err := got.Slice(1, 2, 2)
		if err != nil || half.Shape[0] != 1 {
			t.Errorf("%s: second row %v, %v", want.Datatype, half, err)
		}
		if n, ok := dataLen(half.Datatype, half.Data); n != 1 || !ok {
			t.Errorf("%s: second row has %d elements", want.Datatype, n)
		}
	}
}

func TestFromValuesRefuses(t *testing.T) {
	spec := release.Tensor{Name: "t", Datatype: "FP32", Shape: []int64{-1}}
	for name, v := range map[string]release.Values{
		"count":    {Shape: []int64{2}, Data: []float64{1}},
		"negative": {Shape: []int64{-1}, Data: []float64{1}},
		"strings":  {Shape: []int64{1}, Strings: []string{"a"}},
	} {
		if _, err := FromValues(spec, v); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSliceRefuses(t *testing.T) {
	x := Tensor{Datatype: "FP32", Shape: []int64{2}, Data: []float32{1, 2}}
	for _, c := range [][3]int{{0, 3, 2}, {-1, 1, 2}, {2, 1, 2}, {0, 1, 3}, {0, 0, 0}} {
		if _, err := x.Slice(c[0], c[1], c[2]); err == nil {
			t.Errorf("rows %d to %d of %d: cut", c[0], c[1], c[2])
		}
	}
}

func TestGoldenInputs(t *testing.T) {
	s := &release.Schema{Inputs: []release.Tensor{{Name: "a", Datatype: "FP32", Shape: []int64{-1}}, {Name: "b", Datatype: "INT64", Shape: []int64{-1}}}}
	g := &release.Golden{Rows: 1, Inputs: []release.Values{{Name: "b", Shape: []int64{1}, Data: []float64{2}}, {Name: "a", Shape: []int64{1}, Data: []float64{1}}}}
	in, err := GoldenInputs(s, g)
	if want := "[{a FP32 [1] [1]} {b INT64 [1] [2]}]"; err != nil || fmt.Sprint(in) != want {
		t.Errorf("%v, %v; want %s", in, err, want)
	}
	g.Inputs = g.Inputs[:1]
	if _, err := GoldenInputs(s, g); err == nil {
		t.Error("a missing input was accepted")
	}
}
