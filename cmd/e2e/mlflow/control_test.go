// Package mlflow_test drives the control plane with an MLflow client that nobody
// here wrote: service/ml of databricks-sdk-go. It is a module of its own, since
// the client brings three dozen modules that the programs have no use for.
package mlflow_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/databricks/databricks-sdk-go"
)

// control is a running control plane, as a program of its own.
type control struct {
	*testing.T

	url, admin string
}

// startControl builds the program, unless VEDETTE_CONTROL names one, and starts
// it on free ports.
func startControl(t *testing.T) *control {
	t.Helper()
	dir := t.TempDir()
	program := os.Getenv("VEDETTE_CONTROL")
	if program == "" {
		program = filepath.Join(dir, "vedette-control")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/vedette-control")
		build.Dir = filepath.Join("..", "..", "..")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build vedette-control: %v\n%s", err, out)
		}
	}
	data := filepath.Join(dir, "control")
	cmd := exec.Command(program, "run", "--data", data, "--host", "127.0.0.1",
		"--http", "127.0.0.1:0", "--devices", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")
	var log output
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("the control plane ended with %v", err)
		}
		if t.Failed() {
			t.Logf("its log:\n%s", log.String())
		}
	})
	var where struct{ HTTP string }
	for deadline := time.Now().Add(30 * time.Second); where.HTTP == ""; {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the control plane ended: %v\n%s", err, log.String())
		case <-time.After(20 * time.Millisecond): // an outside process says it with a file
		}
		if b, err := os.ReadFile(filepath.Join(data, "addresses.json")); err == nil {
			_ = json.Unmarshal(b, &where) // half a file is read again
		}
		if time.Now().After(deadline) {
			t.Fatalf("the control plane is not up after 30 s\n%s", log.String())
		}
	}
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	return &control{T: t, url: "http://" + where.HTTP, admin: strings.TrimSpace(string(token))}
}

// output is what a program printed.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// call sends one request that the client has no method for.
func (c *control) call(method, path, token, body string) (int, string) {
	c.Helper()
	r, err := http.NewRequestWithContext(c.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		c.Fatal(err)
	}
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	if err != nil {
		c.Fatal(err)
	}
	return reply.StatusCode, string(b)
}

// token makes an operator token of a role.
func (c *control) token(role string) string {
	c.Helper()
	status, body := c.call("POST", "/api/v1/tokens", c.admin, `{"name":"`+role+`","role":"`+role+`"}`)
	var t struct{ Secret string }
	if err := json.Unmarshal([]byte(body), &t); status != http.StatusOK || err != nil {
		c.Fatalf("make token: %d %s", status, body)
	}
	return t.Secret
}

// client is the foreign client with a token.
func (c *control) client(token string) *databricks.WorkspaceClient {
	c.Helper()
	w, err := databricks.NewWorkspaceClient(&databricks.Config{Host: c.url, Token: token, AuthType: "pat", RetryTimeoutSeconds: 5})
	if err != nil {
		c.Fatal(err)
	}
	return w
}
