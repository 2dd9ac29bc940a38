package mlflow_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// experiment makes an experiment and a run in it.
func (w *world) experiment(name string) (experiment, run string) {
	w.Helper()
	experiment = w.text(w.ok("POST", "experiments/create", fmt.Sprintf(`{"name":%q}`, name)), "experiment_id")
	run = w.text(w.ok("POST", "runs/create", fmt.Sprintf(`{"experiment_id":%q,"start_time":"1700000000000","user_id":"ann"}`, experiment)), "run.info.run_id")
	return experiment, run
}

func TestRequestsInAllForms(t *testing.T) {
	w := newWorld(t)
	_, run := w.experiment("forms")
	for name, body := range map[string]string{
		"number":         `{"run_id":"%s","key":"a","value":0.5,"timestamp":1700000000000,"step":1}`,
		"text":           `{"run_id":"%s","key":"b","value":"0.5","timestamp":"1700000000000","step":"1"}`,
		"old id":         `{"run_uuid":"%s","key":"c","value":0.5,"timestamp":1.7e12,"step":1}`,
		"unknown fields": `{"run_id":"%s","key":"d","value":0.5,"timestamp":1,"step":1,"newer":{"a":[1]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			w.ok("POST", "runs/log-metric", fmt.Sprintf(body, run))
		})
	}
	twice := fmt.Sprintf(`"{\"run_id\":\"%s\",\"key\":\"e\",\"value\":0.5,\"timestamp\":1}"`, run)
	w.ok("POST", "runs/log-metric", twice)
	got := w.ok("GET", "runs/get?run_uuid="+run, "")
	if list, ok := at(t, got, "run.data.metrics").([]any); !ok || len(list) != 5 {
		t.Errorf("got metrics %v, want five", at(t, got, "run.data.metrics"))
	}
	if s := fmt.Sprintf("%T %v", at(t, got, "run.info.start_time"), at(t, got, "run.info.start_time")); s != "json.Number 1700000000000" {
		t.Errorf("got start_time %s, want a number", s)
	}
	if at(t, got, "run.info.run_id") != at(t, got, "run.info.run_uuid") {
		t.Error("run_id and run_uuid differ")
	}
}

func TestNotFiniteValues(t *testing.T) {
	w := newWorld(t)
	_, run := w.experiment("not finite")
	for _, v := range []string{"NaN", "Infinity", "-Infinity"} {
		w.ok("POST", "runs/log-metric", fmt.Sprintf(`{"run_id":%q,"key":%q,"value":%q,"timestamp":1}`, run, "m"+v, v))
		got := w.ok("GET", fmt.Sprintf("metrics/get-history?run_id=%s&metric_key=m%s", run, v), "")
		if at(t, got, "metrics.0.value") != v {
			t.Errorf("got %v, want %s", got, v)
		}
	}
}

func TestWrongRequests(t *testing.T) {
	w := newWorld(t)
	experiment, run := w.experiment("wrong")
	const invalid, missing = "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"
	batch := func(n int) string {
		return fmt.Sprintf(`{"run_id":%q,"metrics":[%s]}`, run,
			strings.TrimSuffix(strings.Repeat(`{"key":"m","value":1,"timestamp":1},`, n), ","))
	}
	for _, c := range []struct {
		status             int
		code               string
		method, path, body string
	}{
		{404, "ENDPOINT_NOT_FOUND", "POST", "runs/nothing", `{}`},
		{404, "ENDPOINT_NOT_FOUND", "GET", "runs/create", ``},
		{404, "ENDPOINT_NOT_FOUND", "GET", "/api/3.0/mlflow/server-info", ``},
		{404, missing, "GET", "runs/get?run_id=" + strings.Repeat("0", 32), ``},
		{404, missing, "GET", "experiments/get-by-name?experiment_name=none", ``},
		{404, missing, "GET", "registered-models/get?name=none", ``},
		{400, invalid, "GET", "runs/get", ``},
		{400, invalid, "POST", "runs/create", `[1]`},
		{400, invalid, "POST", "runs/create", `{"experiment_id":`},
		{400, invalid, "POST", "runs/create", `{"experiment_id":7}`},
		{400, invalid, "POST", "runs/create", `{"experiment_id":"` + experiment + `","start_time":"soon"}`},
		{400, invalid, "POST", "runs/create", `{"experiment_id":"` + experiment + `","tags":{"a":"b"}}`},
		{400, invalid, "POST", "runs/log-metric", `{"run_id":"` + run + `","key":"a","timestamp":1}`},
		{400, invalid, "POST", "runs/log-metric", `{"run_id":"` + run + `","key":"a","value":"much","timestamp":1}`},
		{400, invalid, "POST", "runs/log-batch", batch(1001)},
		{400, invalid, "POST", "runs/log-batch", `{"run_id":"` + run + `","params":[{"key":"a","value":"1"},{"key":"a","value":"2"}]}`},
		{400, invalid, "POST", "runs/update", `{"run_id":"` + run + `","status":"DONE"}`},
		{400, invalid, "POST", "runs/search", `{"experiment_ids":["` + experiment + `"],"max_results":50001}`},
		{400, invalid, "POST", "runs/search", `{"experiment_ids":["` + experiment + `"],"filter":"metrics.a >"}`},
		{400, invalid, "POST", "runs/search", `{"experiment_ids":["` + experiment + `"],"page_token":"made up"}`},
		{400, invalid, "POST", "runs/search", `{"experiment_ids":["` + experiment + `"],"run_view_type":"SOME"}`},
		{400, invalid, "POST", "runs/set-tag", `{"run_id":"` + run + `","key":"vedette.principal","value":"root"}`},
		{400, invalid, "POST", "runs/log-model", `{"run_id":"` + run + `","model_json":"{}"}`},
		{400, "RESOURCE_ALREADY_EXISTS", "POST", "experiments/create", `{"name":"wrong"}`},
		{400, invalid, "POST", "experiments/create", `{"name":"at home","artifact_location":"file:///etc"}`},
		{400, invalid, "POST", "model-versions/transition-stage", `{"name":"m","version":"x","stage":"Staging"}`},
		{400, invalid, "POST", "logged-models/search", `{"experiment_ids":["` + experiment + `"],"datasets":[{"dataset_name":"d"}]}`},
	} {
		w.refused(c.status, c.code, c.method, c.path, c.body)
	}
	big := `{"run_id":"` + strings.Repeat("x", 17<<20) + `"}`
	w.refused(http.StatusRequestEntityTooLarge, "BAD_REQUEST", "POST", "runs/log-batch", big)
}

func TestWhoMayWhat(t *testing.T) {
	w := newWorld(t)
	_, run := w.experiment("access")
	w.put("1/x/artifacts/a.txt", "a")
	w.role = operator.Viewer
	w.ok("GET", "runs/get?run_id="+run, "")
	w.ok("POST", "runs/search", `{}`)
	w.refused(http.StatusForbidden, "PERMISSION_DENIED", "POST", "experiments/create", `{"name":"b"}`)
	w.refused(http.StatusForbidden, "PERMISSION_DENIED", "PUT", "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/b.txt", "b")
	w.refused(http.StatusForbidden, "PERMISSION_DENIED", "DELETE", "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a.txt", "")
	for _, role := range []operator.Role{"", "stranger"} {
		w.role = role
		w.refused(http.StatusUnauthorized, "UNAUTHENTICATED", "GET", "runs/get?run_id="+run, "")
		w.refused(http.StatusUnauthorized, "UNAUTHENTICATED", "GET", "/get-artifact?run_id="+run+"&path=a", "")
	}
	_, h, _ := w.do("GET", api+"experiments/search", "")
	if got := h.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
		t.Errorf("got WWW-Authenticate %q, want Bearer", got)
	}
}

func TestBasicAuthentication(t *testing.T) {
	w := newWorld(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.http.URL+api+"experiments/create", strings.NewReader(`{"name":"basic"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("anybody:scientist")))
	// What another site could make a browser send is of no use here.
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.AddCookie(&http.Cookie{Name: "session", Value: "admin"})
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		t.Errorf("got %d", reply.StatusCode)
	}
	r, _ = http.NewRequestWithContext(t.Context(), http.MethodGet, w.http.URL+api+"experiments/search", nil)
	r.AddCookie(&http.Cookie{Name: "session", Value: "admin"})
	if reply, err = http.DefaultClient.Do(r); err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	if reply.StatusCode != http.StatusUnauthorized {
		t.Errorf("a cookie alone got %d", reply.StatusCode)
	}
}

func TestGuessingIsSlowedDown(t *testing.T) {
	w := newWorld(t)
	w.role = "stranger"
	slowed := false
	for range 80 {
		status, _, _ := w.do("GET", api+"experiments/search", "")
		slowed = slowed || status == http.StatusTooManyRequests
	}
	if !slowed {
		t.Error("80 wrong tokens in a row were all looked at")
	}
}

func TestPrincipalIsKept(t *testing.T) {
	w := newWorld(t)
	id := w.text(w.ok("POST", "experiments/create", `{"name":"who"}`), "experiment_id")
	got := w.ok("POST", "runs/create", `{"experiment_id":"`+id+`","user_id":"ann","tags":[{"key":"vedette.principal","value":"root"},{"key":"mlflow.user","value":"ann"}]}`)
	tags := fmt.Sprint(at(t, got, "run.data.tags"))
	if w.text(got, "run.info.user_id") != "ann" || !strings.Contains(tags, "the scientist") || strings.Contains(tags, "root") {
		t.Errorf("got %v", got)
	}
}

func TestDeletionsAreRecorded(t *testing.T) {
	w := newWorld(t)
	_, run := w.experiment("gone")
	w.ok("POST", "runs/delete", `{"run_id":"`+run+`"}`)
	want := `the scientist mlflow.deleted {"id":"` + run + `","what":"run"}`
	if len(w.fleet.notes) != 1 || w.fleet.notes[0] != want {
		t.Errorf("got %q, want %q", w.fleet.notes, want)
	}
	w.refused(http.StatusBadRequest, "INVALID_PARAMETER_VALUE", "POST", "runs/log-parameter", `{"run_id":"`+run+`","key":"a","value":"1"}`)
	w.ok("POST", "runs/restore", `{"run_id":"`+run+`"}`)
	w.ok("POST", "runs/log-parameter", `{"run_id":"`+run+`","key":"a","value":"1"}`)
}

func TestOtherAddresses(t *testing.T) {
	w := newWorld(t)
	if status, _, body := w.do("GET", "/health", ""); status != http.StatusOK || body != "OK" {
		t.Errorf("got %d %q", status, body)
	}
	if status, _, body := w.do("GET", "/version", ""); status != http.StatusOK || strings.Count(body, ".") != 2 {
		t.Errorf("got %d %q", status, body)
	}
	if status, _, body := w.do("POST", "/ajax-api/2.0/mlflow/runs/search", `{}`); status != http.StatusOK || body != "{}\n" {
		t.Errorf("got %d %q", status, body)
	}
}
