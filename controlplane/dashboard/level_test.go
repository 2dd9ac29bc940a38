package dashboard

import (
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/operator"
)

var levelPaths = map[string][]string{
	"/drift/digits/by/site": {
		`aria-current="page">Sites`, "/drift/digits/group?by=site&amp;name=b", "3 of 3 drifted", "missing<b>4.3", "new values<b>3.1", "overconfident", "ECE 0.220",
		"floor 90.0", `aria-label="accuracy 64.0`,
	},
	"/drift/digits/by/cohort":  {`aria-current="page">Cohorts`},
	"/drift/digits/by/version": {`aria-current="page">Versions`, "calibrated"},
	"/drift/digits/by/device":  {`aria-current="page">Devices`, "cam-a2"},
	"/drift/digits/by/fleet":   {`aria-current="page">Fleet`, "all versions"},
	"/drift/digits/group?by=site&name=b": {
		"2 – 4: 12.5", "missing values", "new values", "0.1\u2009% → 4.3", "calibration: overconfident, expected error 0.220", "The inputs left the training data",
		"says 95.0", "43 more",
	},
	"/drift/digits": {`aria-current="page">Heat map`, "/drift/digits/by/fleet"},
	"/quality":      {"Version 1, all sites", "Site b, version 1", "Brier score", `class="diagonal"`},
}

func TestLevelPages(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	for path, want := range levelPaths {
		body := h.get(path).body
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not show %q", path, text)
			}
		}
		if problem := unbalanced(body); problem != "" {
			t.Errorf("%s: %s", path, problem)
		}
	}
	for _, path := range []string{"/drift/none/by/site", "/drift/digits/group?by=site&name=z"} {
		if got := h.get(path).status; got != 404 {
			t.Errorf("%s: got %d, want 404", path, got)
		}
	}
}

func TestLevelPagesEscape(t *testing.T) {
	h := open(t)
	h.hostile = hostile
	h.signIn("olga")
	for path := range levelPaths {
		if body := h.get(path).body; strings.Contains(body, "<script src=//evil") || strings.Contains(body, "<img") {
			t.Errorf("%s lets text become a tag", path)
		}
	}
}

func TestPicturesOfGroups(t *testing.T) {
	i := intervalOf(&operator.Accuracy{Labels: 9, Accuracy: 0.9, Lower: 0.85, Upper: 0.95, Floor: 0.8})
	if i.From != "70.0\u2009%" || i.X < 49.9 || i.X > 50.1 || i.W < 33.2 || i.W > 33.4 || i.Floor < 33.2 || i.Floor > 33.4 || i.Below {
		t.Errorf("interval on a scale from 0.7: got %+v", i)
	}
	if i := intervalOf(&operator.Accuracy{}); i.Label != "" {
		t.Errorf("no labels: got %+v", i)
	}
	h := histogramOf("x", []operator.FeatureBin{{Label: "≤ 1", Before: 0.5, After: 0.25}, {Label: "missing", After: 0.25}})
	if h.W != 20 || h.Bins[0].Before != 40 || h.Bins[0].YA != 20 || !h.Bins[1].Odd || h.Bins[1].X != 10 {
		t.Errorf("histogram: got %+v", h)
	}
	d := diagramOf(&operator.Calibration{Bins: []operator.CalibrationBin{
		{Labels: 100, Confidence: 0.9, Accuracy: 0.5, Lower: 0.4, Upper: 0.6}, {Labels: 1, Confidence: 0.5, Accuracy: 0.4, Lower: 0, Upper: 1},
	}})
	if a, b := d.Points[0], d.Points[1]; !a.Off || b.Off || a.Y != 50 || a.X != 90 || a.Side <= b.Side {
		t.Errorf("diagram: got %+v", d)
	}
}
