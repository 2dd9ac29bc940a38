package delivery

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// examples is the folder of what people copy to answer requests.
const examples = "../../deploy/retrain"

const event = `{"specversion":"1.0","id":"retrain-1","type":"io.vedette.retrain.requested.v1","source":"http://127.0.0.1","subject":"digits","data":{"note":"ü\\n"}}`

// need skips a test where a program is missing.
func need(t *testing.T, program, install string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed (apt-get install %s)", program, install)
	}
	return path
}

// The shell script takes what Post signs, and nothing else.
func TestShellExample(t *testing.T) {
	need(t, "openssl", "openssl")
	script, err := filepath.Abs(filepath.Join(examples, "retrain.sh"))
	if err != nil {
		t.Fatal(err)
	}
	const secret = "it's $a \"secret\" \\ with % signs"
	at := time.Now()
	good := Signature(secret, at, []byte(event))
	for name, c := range map[string]struct {
		signature, body string
		code            int
	}{
		"signed":           {good, event, 7}, // as the command ends
		"another body":     {good, event + " ", 2},
		"another secret":   {Signature("other", at, []byte(event)), event, 2},
		"old":              {Signature(secret, at.Add(-10*time.Minute), []byte(event)), event, 2},
		"from tomorrow":    {Signature(secret, at.Add(24*time.Hour), []byte(event)), event, 2},
		"nothing":          {"", event, 2},
		"not hexadecimal":  {"t=1,v1=$(id)", event, 2},
		"more than a line": {good + "\nt=1,v1=" + strings.Repeat("0", 64), event, 2},
	} {
		dir := t.TempDir()
		train := filepath.Join(dir, "train")
		if err := os.WriteFile(train, []byte("#!/bin/sh\ncp \"$VEDETTE_EVENT\" \"$1\"\n[ -z \"${VEDETTE_SECRET:-}\" ] || exit 9\nexit 7\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		got := filepath.Join(dir, "event")
		cmd := exec.CommandContext(t.Context(), "sh", script, train, got)
		cmd.Env = append(os.Environ(), "VEDETTE_SECRET="+secret, "VEDETTE_SIGNATURE="+c.signature, "TMPDIR="+dir)
		cmd.Stdin = strings.NewReader(c.body)
		out, err := cmd.CombinedOutput()
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		}
		body, _ := os.ReadFile(got)
		if code != c.code || (c.code == 7) != (string(body) == c.body) {
			t.Errorf("%s: ended with %d, want %d: %s", name, code, c.code, out)
		}
	}
}

// The Python receiver takes what Post sends, once, and starts the program.
func TestPythonReceiver(t *testing.T) {
	python := need(t, "python3", "python3")
	dir := t.TempDir()
	train, got := filepath.Join(dir, "train"), filepath.Join(dir, "events")
	if err := os.WriteFile(train, []byte("#!/bin/sh\ncat \"$VEDETTE_EVENT\" >>"+got+"\nrm \"$VEDETTE_EVENT\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, python, filepath.Join(examples, "receiver.py"), "--listen", "127.0.0.1:0", "--run", train)
	cmd.Env = append(os.Environ(), "VEDETTE_SECRET=s3cret", "TMPDIR="+dir, "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		t.Fatalf("it said %q, %v", line, err)
	}
	post := func(secret string, at time.Time, body string) int {
		t.Helper()
		err := Post(t.Context(), NewClient(), at, &Message{URL: "http://" + address, Secret: secret, ContentType: "application/cloudevents+json", Body: []byte(body)})
		if r, ok := errors.AsType[*Refusal](err); ok {
			return r.Status
		}
		if err != nil {
			t.Fatal(err)
		}
		return http.StatusAccepted
	}
	for name, c := range map[string]struct {
		secret, body string
		at           time.Time
		want         int
	}{
		"another secret": {"other", event, time.Now(), 401},
		"unsigned":       {"", event, time.Now(), 401},
		"old":            {"s3cret", event, time.Now().Add(-time.Hour), 401},
		"another type":   {"s3cret", `{"type":"x","id":"y"}`, time.Now(), 422},
	} {
		if status := post(c.secret, c.at, c.body); status != c.want {
			t.Errorf("%s: got %d, want %d", name, status, c.want)
		}
	}
	if got := superscript(t, address); !strings.Contains(got, " 413 ") {
		t.Errorf("a length that is no ASCII digit: got %q", got)
	}
	for range 2 { // the second is the same event
		if status := post("s3cret", time.Now(), event); status != http.StatusAccepted {
			t.Errorf("signed: got %d", status)
		}
	}
	second := strings.Replace(event, "retrain-1", "retrain-2", 1)
	post("s3cret", time.Now(), second)
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) { // the program is another process
		if body, _ := os.ReadFile(got); len(body) >= len(event)+len(second) {
			if n := bytes.Count(body, []byte(`"retrain-1"`)); n != 1 {
				t.Errorf("the program was started %d times for one event", n)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the program was not started for both events")
}

// superscript is the first line of the answer to a request whose length is a digit
// to Python's isdigit alone.
func superscript(t *testing.T, address string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(c).ReadString('\n') // none when it has broken off
	return line
}

// What is not run here is at least read as what it is.
func TestExamplesAreWellFormed(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(examples, "github-actions.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var workflow struct {
		On struct {
			Dispatch struct{ Types []string } `yaml:"repository_dispatch"`
		} `yaml:"on"`
		Jobs map[string]struct{ Steps []map[string]any }
	}
	if err := yaml.Unmarshal(b, &workflow); err != nil || len(workflow.On.Dispatch.Types) != 1 || len(workflow.Jobs["train"].Steps) == 0 || len(workflow.Jobs["publish"].Steps) == 0 {
		t.Errorf("workflow: got %+v, %v", workflow, err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if body, isRun := strings.CutPrefix(strings.TrimSpace(line), "- run:"); isRun && strings.Contains(body, "${{") {
			t.Errorf("an expression becomes part of a script: %s", line)
		}
	}
	python := need(t, "python3", "python3")
	for _, name := range []string{"airflow_dag.py", "receiver.py"} {
		cmd := exec.CommandContext(t.Context(), python, "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())", filepath.Join(examples, name))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}
