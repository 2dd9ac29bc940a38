package dashboard

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

func (f *fleet) Trends(_ context.Context, _ string, q operator.TrendQuery) (*operator.Trends, error) {
	out := &operator.Trends{Model: "digits", From: q.From, To: q.To, Step: q.Step, Threshold: 0.2, AsOf: now}
	s := operator.TrendSeries{ReleaseRef: ref1, Classes: []string{"0", "1"}}
	if q.By == operator.ByCohort {
		s.Cohort = "b"
	}
	for at := q.From.Truncate(time.Duration(q.Step)); at.Before(q.To); at = at.Add(time.Duration(q.Step)) {
		s.Points = append(s.Points, operator.TrendPoint{
			At: at, Devices: 8, Rows: 4000, Calls: 4000, P50US: 900, P95US: 2100, Labels: 100, Correct: 97,
			Accuracy: new(0.97), ECE: new(0.021), PSI: new(0.13), Furthest: "pixel_3", Shares: []float64{0.4, 0.6},
		})
	}
	out.Series = append(out.Series, s)
	return out, nil
}

func TestTrends(t *testing.T) {
	h := open(t)
	h.signIn("ada")
	for _, c := range []struct {
		path string
		want []string
	}{
		{"/quality/digits/trends", []string{"<option selected>7 d</option>", "97.0\u2009%", "2.1 ms", "pixel_3", `<path d="M0.0`}},
		{"/quality/digits/trends?range=2+y&by=cohort", []string{"<option selected>2 y</option>", "site b", `value="cohort" selected`}},
	} {
		got := h.get(c.path)
		if got.status != http.StatusOK {
			t.Fatalf("%s: status %d\n%s", c.path, got.status, got.body)
		}
		if problem := unbalanced(got.body); problem != "" {
			t.Error(problem)
		}
		for _, want := range c.want {
			if !strings.Contains(got.body, want) {
				t.Errorf("%s: no %s in\n%s", c.path, want, got.body)
			}
		}
	}
}
