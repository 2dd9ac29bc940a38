package dashboard

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

func (f *fleet) Experiments(context.Context) ([]operator.Experiment, error) {
	return []operator.Experiment{
		{ID: "1", Name: f.text("digits by night"), Runs: 1234, Created: now.Add(-time.Hour), Updated: now},
		{ID: "0", Name: "Default"},
	}, nil
}

// run is one of two runs that differ in their depth; b has a metric that never
// was a number.
func (f *fleet) run(id string) operator.Run {
	accuracy, depth := 0.9123, "3"
	metrics := map[string]operator.RunMetric{"val/accuracy": {Value: &accuracy, Step: 60, At: now}, "loss": {Value: new(0.25), Step: 60, At: now}}
	if id == "b" {
		accuracy, depth = 0.9345, "4"
		metrics["broken"] = operator.RunMetric{At: now}
	}
	return operator.Run{
		ID: id, Name: f.text("heron " + id), Experiment: "1", ExperimentName: f.text("digits by night"), User: f.text("ann"), Principal: "ci",
		Status: "FINISHED", Started: now.Add(-time.Hour), Ended: now, Commit: f.text("0206e55e8f1a"), Source: f.text("train.py"),
		Params:  map[string]string{"depth": f.text(depth), "seed": f.text("7"), f.text("rate"): "0.1"},
		Metrics: metrics, Tags: map[string]string{"kind": f.text("tree")},
	}
}

func (f *fleet) Runs(_ context.Context, q operator.RunQuery) (*operator.Page[operator.Run], error) {
	if q.Filter == "wrong >" {
		return nil, operator.Errorf(operator.Invalid, "the filter ends too early")
	}
	return &operator.Page[operator.Run]{Items: []operator.Run{f.run("a"), f.run("b")}, Total: 1234, Next: "more & more"}, nil
}

func (f *fleet) Run(_ context.Context, id string) (*operator.RunDetail, error) {
	if id != "a" && id != "b" {
		return nil, operator.Errorf(operator.NotFound, "there is no run %s", id)
	}
	return &operator.RunDetail{
		Run:      f.run(id),
		Datasets: []operator.RunDataset{{Name: f.text("mnist"), Digest: "6f2a1c0" + id, Source: f.text("/data"), Context: "training"}},
		Models: []operator.RunModel{
			{Name: "digits", Version: 3, Stage: "None", Deployable: "false", Reason: f.text("it is only a pickle")},
			{Name: "digits", Version: 2, Stage: "production", Release: digest2.String()},
		},
	}, nil
}

func (f *fleet) RunMetric(_ context.Context, id string, q operator.RunMetricQuery) ([]operator.MetricPoint, error) {
	var out []operator.MetricPoint
	for i := range 61 {
		p := operator.MetricPoint{Step: int64(i), At: now.Add(time.Duration(i) * time.Second), Value: new(float64(i) / 60)}
		if i == 30 || q.Key == "broken" {
			p.Value = nil
		}
		out = append(out, p)
	}
	return out, nil
}

func (f *fleet) RunFiles(_ context.Context, _ string, q operator.RunFileQuery) ([]operator.RunFile, error) {
	if q.Path != "" {
		return []operator.RunFile{{Path: q.Path + "/MLmodel", Size: 300}}, nil
	}
	return []operator.RunFile{{Path: "model", Dir: true}, {Path: f.text("notes <1>.html"), Size: 71_000}}, nil
}

// RunFile opens what runs logged: whatever the path is, a page with a script.
func (f *fleet) RunFile(_ context.Context, run, path string) (io.ReadSeekCloser, time.Time, error) {
	if run != "a" {
		return nil, time.Time{}, operator.Errorf(operator.NotFound, "there is no run %s", run)
	}
	return nopSeekCloser{bytes.NewReader(fmt.Appendf(nil, "<script>alert(%q)</script>", path))}, now, nil
}

type nopSeekCloser struct{ io.ReadSeeker }

func (nopSeekCloser) Close() error { return nil }
