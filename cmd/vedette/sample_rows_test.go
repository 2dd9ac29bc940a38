package main

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sampling"
)

func floatArray(t *testing.T, name string, values ...float32) *protocol.Array {
	t.Helper()
	raw, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		t.Fatal(err)
	}
	return &protocol.Array{Name: name, Datatype: "FP32", Raw: raw}
}

// A device that lies is told from one whose rows can be labelled.
func TestRowsOfDevicesAreHeldAgainstTheirRelease(t *testing.T) {
	m := &release.Manifest{Schema: release.Schema{
		Inputs: []release.Tensor{{Name: "x", Datatype: "FP32", Shape: []int64{-1, 2}}}, Scores: "p", Classes: []string{"no", "yes"},
	}}
	row := func(inputs ...*protocol.Array) *protocol.SampleRow {
		nan := float32(math.NaN())
		return &protocol.SampleRow{Id: "a-1", Inputs: inputs, Outputs: []*protocol.Array{floatArray(t, "p", nan, nan)}}
	}
	good := row(floatArray(t, "x", 1, float32(math.NaN())))
	late := row(floatArray(t, "x", 1, 2))
	late.WallMs = math.MaxInt64
	for name, rows := range map[string][]*protocol.SampleRow{
		"":              {good},
		"too many":      slices.Repeat([]*protocol.SampleRow{good}, release.MaxSampleRows+1),
		"no input":      {good, row()},
		"other input":   {row(floatArray(t, "y", 1, 2))},
		"two inputs":    {row(floatArray(t, "x", 1, 2), floatArray(t, "x", 1, 2))},
		"wide":          {row(floatArray(t, "x", 1, 2, 3))},
		"half a number": {row(&protocol.Array{Name: "x", Datatype: "FP32", Raw: make([]byte, 7)})},
		"no such year":  {late},
	} {
		got, err := rowsOf(&operator.SealedSample{}, m, &protocol.SampleRows{Rows: rows})
		switch {
		case name == "" && (err != nil || len(got) != 1 || got[0].Confidence != nil):
			t.Errorf("honest rows: got %+v, %v", got, err)
		case name != "" && !errors.Is(err, sampling.ErrSample):
			t.Errorf("%s: got %v, want %v", name, err, sampling.ErrSample)
		}
	}
}
