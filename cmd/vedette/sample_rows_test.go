package main

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// Labellers open the rows in a spreadsheet: what a device wrote must not run there.
func TestTextIsNoFormula(t *testing.T) {
	m := &release.Manifest{Schema: release.Schema{Inputs: []release.Tensor{
		{Name: "note", Datatype: "BYTES", Shape: []int64{-1, 3}}, {Name: "x", Datatype: "FP32", Shape: []int64{-1, 1}},
	}, Label: "said"}}
	texts := func(name string, list ...string) *protocol.Array {
		a := &protocol.Array{Name: name, Datatype: "BYTES"}
		for _, s := range list {
			a.Strings = append(a.Strings, []byte(s))
		}
		return a
	}
	rows, err := rowsOf(&operator.SealedSample{Device: "cam-1"}, m, &protocol.SampleRows{Rows: []*protocol.SampleRow{{
		Id: "a-1", Stratum: "-", Inputs: []*protocol.Array{texts("note", `=cmd|'/c calc'!A1`, "-2.5", "a=b"), floatArray(t, "x", -1)},
		Outputs: []*protocol.Array{texts("said", "@SUM(A1)")},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rows.csv")
	out, err := createRows(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.discard()
	if err := errors.Join(out.write(rows[0]), out.keep()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "a-1,,cam-1,1970-01-01T00:00:00Z,,'-,1,'@SUM(A1),,'=cmd|'/c calc'!A1,-2.5,a=b,-1\n"
	if _, line, _ := strings.Cut(string(got), "\n"); line != want {
		t.Errorf("got %swant %s", line, want)
	}
}
