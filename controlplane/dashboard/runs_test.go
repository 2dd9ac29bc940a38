package dashboard

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

func TestRunPages(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	for path, want := range map[string][]string{
		"/experiments":                       {"digits by night", "1\u2009234"},
		"/experiments/1?filter=wrong+%3E":    {"the filter ends too early", `value="wrong &gt;"`},
		"/experiments/1?order=metrics.f1+AS": {"heron a", "0.9345", "not a number", "metrics.`val/accuracy` DESC", "<option selected>metrics.f1 AS</option>", `after=more&#43;%26&#43;more`},
		"/runs/a":                            {"heron a", "0206e55e8f", "6f2a1c0a", "not deployable", "it is only a pickle", "/models/digits/versions/" + digest2.String(), `<path class="line c0" d="M`, "notes &lt;1&gt;.html", "69.3", "train.py"},
		"/runs/a?dir=model":                  {"model/MLmodel", "one directory up"},
		"/runs/compare?run=a&run=b":          {"heron a", "heron b", `<path class="line c1"`, "not a number", `<tr class="differs"><th scope="row">depth`, "6f2a1c0b"},
	} {
		got := h.get(path)
		if got.status != http.StatusOK {
			t.Errorf("%s: status %d", path, got.status)
		}
		for _, text := range want {
			if !strings.Contains(got.body, text) {
				t.Errorf("%s does not show %q", path, text)
			}
		}
	}
	if body := h.get("/runs/compare?run=a&run=b").body; strings.Index(body, ">depth<") > strings.Index(body, ">seed<") {
		t.Error("a parameter that is the same comes before one that differs")
	}
	for path, want := range map[string]int{"/runs/c": 404, "/experiments/9": 404, "/runs/compare?run=a": 400, "/runs/compare?run=a&run=a": 400, "/runs/a/artifacts/x": 404} {
		if got := h.get(path).status; got != want {
			t.Errorf("%s: status %d, want %d", path, got, want)
		}
	}
}

// What somebody logged is saved, never shown by the browser that is signed in.
func TestRunFilesAreOnlySaved(t *testing.T) {
	h := open(t)
	h.pages.cfg.RunFiles = h.fleet
	h.signIn("olga")
	got := h.get("/runs/a/artifacts/model/page.html")
	if got.status != http.StatusOK || !strings.Contains(got.body, "model/page.html") {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/octet-stream", "Content-Disposition": "attachment; filename=page.html",
		"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox",
	} {
		if have := got.header.Get(name); have != want {
			t.Errorf("%s: got %q, want %q", name, have, want)
		}
	}
	if got := h.get("/runs/b/artifacts/x").status; got != http.StatusNotFound {
		t.Errorf("a file of another run: status %d", got)
	}
}

func TestCurves(t *testing.T) {
	at := func(step int64, v *float64) operator.MetricPoint {
		return operator.MetricPoint{Step: step, At: now.Add(time.Duration(step) * time.Second), Value: v}
	}
	for name, c := range map[string]struct {
		points []operator.MetricPoint
		path   string // empty: there is nothing to draw
		unit   string
	}{
		"two steps":       {[]operator.MetricPoint{at(0, new(0.0)), at(10, new(1.0))}, "M46.0 166.0L410.0 10.0", "step"},
		"a gap":           {[]operator.MetricPoint{at(0, new(0.0)), at(5, nil), at(10, new(1.0))}, "M46.0 166.0M410.0 10.0", "step"},
		"always the same": {[]operator.MetricPoint{at(0, new(1.0)), at(10, new(1.0))}, "M46.0 88.0L410.0 88.0", "step"},
		"one value":       {[]operator.MetricPoint{at(0, new(1.0))}, "", ""},
		"no numbers":      {[]operator.MetricPoint{at(0, nil), at(1, nil)}, "", ""},
		"nothing":         {nil, "", ""},
		"no steps": {[]operator.MetricPoint{
			{At: now, Value: new(0.0)}, {At: now.Add(time.Minute), Value: new(1.0)},
		}, "M46.0 166.0L410.0 10.0", "seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := drawCurve("loss", []history{{"a", c.points}})
			if ok != (c.path != "") {
				t.Fatalf("got %t %+v", ok, got)
			}
			if ok && (got.Lines[0].Path != c.path || got.Unit != c.unit) {
				t.Errorf("got %s in %s, want %s in %s", got.Lines[0].Path, got.Unit, c.path, c.unit)
			}
		})
	}
}

func TestNiceSteps(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      string
	}{
		{0, 1, "0 0.2 0.4 0.6 0.8 1"}, {0.31, 0.33, "0.31 0.315 0.32 0.325 0.33"}, {-5, 5, "-4 -2 0 2 4"}, {0, 59, "0 10 20 30 40 50"},
	} {
		var got []string
		for _, v := range niceSteps(c.low, c.high, 4) {
			got = append(got, formatNumber(v))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%g to %g: got %s, want %s", c.low, c.high, s, c.want)
		}
	}
}
