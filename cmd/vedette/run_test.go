package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/operator"
)

func comparedRun(name, depth string, accuracy *float64) *operator.RunDetail {
	return &operator.RunDetail{
		Run: operator.Run{
			ID: name, Name: name, Status: "FINISHED", User: "ann", Commit: "c0ffee",
			Params: map[string]string{"depth": depth, "seed": "7"}, Metrics: map[string]operator.RunMetric{"accuracy": {Value: accuracy}},
		},
		Datasets: []operator.RunDataset{{Name: "mnist", Digest: "6f2a1c0" + depth}},
	}
}

func TestCompareRuns(t *testing.T) {
	runs := []*operator.RunDetail{comparedRun("a", "3", new(0.9)), comparedRun("b", "4", nil), comparedRun("c", "3", new(0.9))}
	runs[2].Params["only here"] = "1"
	var got []string
	for _, l := range compareRuns(runs, false) {
		got = append(got, l.Kind+" "+l.Key+": "+strings.Join(l.Values, "|"))
	}
	want := []string{"param depth: 3|4|3", "param only here: ||1", "metric accuracy: 0.9|not a number|0.9", "fact data: mnist 6f2a1c03|mnist 6f2a1c04|mnist 6f2a1c03"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if all := compareRuns(runs, true); len(all) != 9 {
		t.Errorf("got %d lines with those that are the same, want 9", len(all))
	}
	var out bytes.Buffer
	showComparison(&out, runs[:1], compareRuns(runs[:1], false))
	if out.String() != "the runs do not differ\n" {
		t.Errorf("got %q", out.String())
	}
}

func TestShowRun(t *testing.T) {
	r := comparedRun("a", "3", new(0.9))
	r.Models = []operator.RunModel{{Name: "digits", Version: 3, Stage: "None", Deployable: "false", Reason: "it is only a pickle"}}
	var out bytes.Buffer
	showRun(&out, r, []operator.RunFile{{Path: "model", Dir: true}, {Path: "notes.txt", Size: 2048}})
	for _, want := range []string{"digits 3  None  not deployable: it is only a pickle", "mnist  6f2a1c03", "accuracy  0.9", "model/\n", "notes.txt  2.0 KiB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
