package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vedette-edge/vedette/controlplane/client"
)

// scriptedAgent stands for vedette-agent, which needs ONNX Runtime: it writes
// what profile and evaluate write for the wine model, and refuses as profile does
// when the expected outputs say so.
func scriptedAgent() {
	do := scriptedProfile
	if len(os.Args) > 1 && os.Args[1] == "evaluate" {
		do = scriptedEvaluate
	}
	if err := do(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vedette-agent:", err)
		os.Exit(1)
	}
}

func scriptedProfile(args []string) error {
	if len(args) != 5 || args[0] != "profile" || args[1] != "--mlmodel" || args[3] != "--to" {
		return fmt.Errorf("called with %q", args)
	}
	expected, err := os.ReadFile(filepath.Join(args[2], "vedette", "expected.csv"))
	if err != nil {
		return err
	}
	if strings.Contains(string(expected), "wrong") {
		return errors.New("the graph does not compute what training computed")
	}
	schema := wineSchema()
	encoded, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	baseline, err := wineBaseline(&schema)
	if err != nil {
		return err
	}
	golden, err := wineGolden()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{schemaFile: encoded, baselineFile: baseline, goldenFile: golden} {
		if err := os.WriteFile(filepath.Join(args[4], name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// logVersion logs a run with the wine model and registers it, as a training
// script does: log MODEL EXPECTED [TAG=VALUE ...] [+NAME=FILE ...]. EXPECTED is the
// content of vedette/expected.csv; "none" logs none. +NAME logs vedette/NAME.
func logVersion(ts *testscript.TestScript, neg bool, given []string) {
	if neg || len(given) < 2 {
		ts.Fatalf("usage: log MODEL EXPECTED [TAG=VALUE ...]")
	}
	graph, err := os.ReadFile(filepath.Join(packageDir, "testdata", "wine_lr.onnx"))
	ts.Check(err)
	token, err := os.ReadFile(ts.Getenv("ADMIN"))
	ts.Check(err)
	m := &trainer{server: ts.Getenv("SERVER"), token: strings.TrimSpace(string(token))}
	m.post("experiments/create", map[string]any{"name": fmt.Sprint("wine-", time.Now().UnixNano())})
	m.post("runs/create", map[string]any{"experiment_id": m.text("experiment_id"), "tags": []any{
		map[string]string{"key": "mlflow.user", "value": "ann"}, map[string]string{"key": "mlflow.source.git.commit", "value": "c0ffee"},
	}})
	info := m.object("run", "info")
	run, uri := fmt.Sprint(info["run_id"]), strings.TrimPrefix(fmt.Sprint(info["artifact_uri"]), "mlflow-artifacts:/")
	m.post("runs/log-batch", map[string]any{
		"run_id": run, "metrics": []any{map[string]any{"key": "accuracy", "value": 0.97, "timestamp": 1, "step": 0}},
		"params": []any{map[string]string{"key": "seed", "value": "7"}, map[string]string{"key": "data_version", "value": "uci-1991"}},
	})
	m.put(uri+"/model/model.onnx", graph)
	m.put(uri+"/model/MLmodel", []byte("flavors: {onnx: {data: model.onnx}}\nrun_id: "+run+"\n"))
	if given[1] != "none" {
		m.put(uri+"/vedette/training.csv", []byte("x\n1\n"))
		m.put(uri+"/vedette/expected.csv", []byte(given[1]))
	}
	m.post("registered-models/create", map[string]any{"name": given[0]})
	m.err = nil // the model may be there
	tags := []any{}
	for _, tag := range given[2:] {
		key, value, _ := strings.Cut(tag, "=")
		if name, ok := strings.CutPrefix(key, "+"); ok {
			m.put(uri+"/vedette/"+name, []byte(ts.ReadFile(value)))
			continue
		}
		tags = append(tags, map[string]string{"key": key, "value": value})
	}
	m.post("model-versions/create", map[string]any{"name": given[0], "source": "mlflow-artifacts:/" + uri + "/model", "run_id": run, "tags": tags})
	ts.Check(m.err)
}

// tagVersion sets a tag of a registered version: tag MODEL VERSION KEY=VALUE.
func tagVersion(ts *testscript.TestScript, neg bool, given []string) {
	if neg || len(given) != 3 {
		ts.Fatalf("usage: tag MODEL VERSION KEY=VALUE")
	}
	token, err := os.ReadFile(ts.Getenv("ADMIN"))
	ts.Check(err)
	m := &trainer{server: ts.Getenv("SERVER"), token: strings.TrimSpace(string(token))}
	key, value, _ := strings.Cut(given[2], "=")
	m.post("model-versions/set-tag", map[string]string{"name": given[0], "version": given[1], "key": key, "value": value})
	ts.Check(m.err)
}

// awaitPromotion waits until a version's promotion is in a state: promoted MODEL
// VERSION STATE.
func awaitPromotion(ts *testscript.TestScript, neg bool, given []string) {
	if neg || len(given) != 3 {
		ts.Fatalf("usage: promoted MODEL VERSION STATE")
	}
	token, err := os.ReadFile(ts.Getenv("ADMIN"))
	ts.Check(err)
	c, err := client.New(ts.Getenv("SERVER"), strings.TrimSpace(string(token)), client.Options{})
	ts.Check(err)
	var seen string
	// The server looks at promotions when it finds the time; a script can only ask.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		list, err := c.Promotions(context.Background(), given[0])
		ts.Check(err)
		for _, p := range list {
			if p.Version != given[1] {
				continue
			}
			if seen = string(p.State) + ": " + p.Text; string(p.State) == given[2] {
				return
			}
		}
	}
	ts.Fatalf("%s %s is not %s but %q", given[0], given[1], given[2], seen)
}

// trainer calls the MLflow API as its clients do, and remembers the first error.
type trainer struct {
	server, token string
	reply         map[string]any
	err           error
}

func (m *trainer) post(name string, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		m.err = err
		return
	}
	m.call(http.MethodPost, "/api/2.0/mlflow/"+name, b)
}

func (m *trainer) put(path string, content []byte) {
	m.call(http.MethodPut, "/api/2.0/mlflow-artifacts/artifacts/"+path, content)
}

func (m *trainer) call(method, path string, body []byte) {
	if m.err != nil {
		return
	}
	req, err := http.NewRequest(method, m.server+path, bytes.NewReader(body))
	if err != nil {
		m.err = err
		return
	}
	req.Header.Set("Authorization", "Bearer "+m.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		m.err = err
		return
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, res.Status, raw)
	}
	m.reply = nil
	if err == nil {
		err = json.Unmarshal(raw, &m.reply)
	}
	m.err = err
}

func (m *trainer) text(key string) string { return fmt.Sprint(m.reply[key]) }

func (m *trainer) object(path ...string) map[string]any {
	at := m.reply
	for _, key := range path {
		at, _ = at[key].(map[string]any)
	}
	return at
}

func TestMetricsAndDataOfARun(t *testing.T) {
	var run client.MLflowRun
	text := `{"data": {"metrics": [{"key": "accuracy", "value": 0.5}, {"key": "loss", "value": "NaN"}, {"key": "größe", "value": 1}]},
		"inputs": {"dataset_inputs": [{"dataset": {"name": "digits", "digest": "ab"}}, {"dataset": {"name": "field", "digest": "cd"}}]}}`
	if err := json.Unmarshal([]byte(text), &run); err != nil {
		t.Fatal(err)
	}
	if got := metricsOf(&run); len(got) != 1 || got["accuracy"] != "0.5" {
		t.Errorf("metrics are %v", got)
	}
	if got, want := dataVersion(&run), "digits@ab field@cd"; got != want {
		t.Errorf("data version is %q, want %q", got, want)
	}
	run.Data.Tags = client.Pairs{"data_version": "v7"}
	if got := dataVersion(&run); got != "v7" {
		t.Errorf("data version is %q, want what the run says", got)
	}
}
