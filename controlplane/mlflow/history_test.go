package mlflow_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What MLflow's own pages draw charts from.
func TestChartsOfSeveralRuns(t *testing.T) {
	w := newWorld(t)
	experiment, a := w.experiment("charts")
	b := w.text(w.ok("POST", "runs/create", `{"experiment_id":"`+experiment+`"}`), "run.info.run_id")
	for _, run := range []string{a, b} {
		var values []string
		for i := range 100 {
			values = append(values, fmt.Sprintf(`{"key":"loss","value":%d,"timestamp":%d,"step":%d}`, i, i, i))
		}
		w.ok("POST", "runs/log-batch", fmt.Sprintf(`{"run_id":%q,"metrics":[%s]}`, run, strings.Join(values, ",")))
	}
	both := "run_ids=" + a + "&run_ids=" + b + "&metric_key=loss"
	steps := func(answer map[string]any) string {
		list, _ := at(t, answer, "metrics").([]any)
		var out []string
		for _, m := range list {
			out = append(out, fmt.Sprint(at(t, m, "step")))
			if id := at(t, m, "run_id"); id != a && id != b {
				t.Errorf("a value of run %v", id)
			}
		}
		return strings.Join(out, " ")
	}
	if got := steps(w.ok("GET", "metrics/get-history-bulk-interval?"+both+"&max_results=4", "")); got != "0 33 66 99 0 33 66 99" {
		t.Errorf("got steps %s", got)
	}
	if got := steps(w.ok("GET", "metrics/get-history-bulk-interval?"+both+"&start_step=97&end_step=98", "")); got != "97 98 97 98" {
		t.Errorf("got steps %s", got)
	}
	if got := steps(w.ok("GET", "metrics/get-history-bulk?run_id="+a+"&metric_key=loss", "")); len(strings.Fields(got)) != 100 {
		t.Errorf("got steps %s", got)
	}
	for _, q := range []string{"metric_key=loss", both + "&max_results=0", both + "&start_step=9&end_step=8", "run_ids=" + a} {
		w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "GET", "metrics/get-history-bulk-interval?"+q, "")
	}
}

// The addresses that links of MLflow's pages lead to.
func TestGetArtifact(t *testing.T) {
	w := newWorld(t)
	_, run := w.experiment("links")
	root := strings.TrimPrefix(w.text(w.ok("GET", "runs/get?run_id="+run, ""), "run.info.artifact_uri"), "mlflow-artifacts:/")
	w.put(root+"/model/page.html", "<script>")
	w.ok("POST", "registered-models/create", `{"name":"m"}`)
	w.ok("POST", "model-versions/create", `{"name":"m","source":"runs:/`+run+`/model"}`)
	for _, link := range []string{
		"/get-artifact?run_id=" + run + "&path=model/page.html", "/model-versions/get-artifact?name=m&version=1&path=page.html",
		"/ajax-api/2.0/mlflow/get-artifact?run_uuid=" + run + "&path=model/page.html",
	} {
		status, h, body := w.do("GET", link, "")
		if status != http.StatusOK || body != "<script>" || h.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
			t.Errorf("%s: %d %s %v", link, status, body, h)
		}
	}
	w.refused(http.StatusNotFound, "RESOURCE_DOES_NOT_EXIST", "GET", "/get-artifact?run_id="+run+"&path=model/none", "")
	w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "GET", "/get-artifact?run_id="+run, "")
}
