package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// loopback is a server on free ports of the loopback address.
func loopback(data string) Config {
	return Config{
		Data: data, HTTP: "127.0.0.1:0", Devices: "127.0.0.1:0", MQTT: "127.0.0.1:0",
		Hosts: []string{"127.0.0.1"}, Version: "test",
	}
}

func launch(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	if err := s.Start(t.Context()); err != nil {
		t.Fatalf("Start: %v", err)
	}
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

// ask makes a request with the first admin token and decodes the answer.
func ask(t *testing.T, s *Server, method, path string, body, into any) {
	t.Helper()
	token, err := os.ReadFile(s.dir(access.AdminTokenFile))
	if err != nil {
		t.Fatal(err)
	}
	status, raw := request(t, s, method, path, strings.TrimSpace(string(token)), body)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, raw)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
}

func request(t *testing.T, s *Server, method, path, token string, body any) (status int, answer []byte) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.peopleURL()+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	req.Close = true // or the client keeps goroutines of its own
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, answer
}

func TestStartsAgainWithWhatItHad(t *testing.T) {
	data := t.TempDir()
	first := launch(t, loopback(data))
	var made operator.TokenSecret
	ask(t, first, http.MethodPost, operator.Prefix+"/tokens", operator.TokenCreate{Name: "grafana", Role: operator.Viewer}, &made)
	if _, err := os.Stat(filepath.Join(data, AddressFile)); err != nil {
		t.Errorf("addresses of a running server: %v", err)
	}
	ca := first.ca.SHA256()
	stop(t, first)
	if _, err := os.Stat(filepath.Join(data, AddressFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("addresses of a stopped server: %v, want none", err)
	}
	stop(t, first) // once more does nothing

	second := launch(t, loopback(data))
	if got := second.ca.SHA256(); got != ca {
		t.Error("the device CA is another one: every device would have to enrol again")
	}
	if p, err := second.access.Authenticate(t.Context(), made.Secret); err != nil || p.Name != "grafana" {
		t.Errorf("token of before: %+v, %v", p, err)
	}
	var info operator.ServerInfo
	ask(t, second, http.MethodGet, operator.Prefix+"/server", nil, &info)
	if info.Storage.RecordLimit == 0 || info.Storage.DiskFreeBytes == 0 {
		t.Errorf("storage %+v, want its limits", info.Storage)
	}
}

// Repair is for a stopped server, and leaves a sound one as it is.
func TestRepair(t *testing.T) {
	data := t.TempDir()
	s := launch(t, loopback(data))
	if _, err := Repair(t.Context(), Config{Data: data}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("while it runs: %v", err)
	}
	// A checkpoint of another stream: nothing can be folded from it.
	for _, fold := range []string{fleetFold, driftFold} {
		if _, err := s.buckets[fold].Put(t.Context(), "marker", []byte(`{"incarnation":"2020-01-01T00:00:00Z","seq":7}`)); err != nil {
			t.Fatal(err)
		}
	}
	stop(t, s)
	broken, err := New(loopback(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "vedette-control repair") {
		t.Errorf("start with a foreign checkpoint: %v", err)
	}
	stop(t, broken)
	for _, want := range []int{2, 0} {
		got, err := Repair(t.Context(), Config{Data: data})
		if err != nil || len(got) != want {
			t.Errorf("repaired %+v, %v; want %d", got, err, want)
		}
	}
	launch(t, loopback(data))
}

// A stopped server has no goroutine of ours left.
func TestStopLeavesNothingRunning(t *testing.T) {
	stop(t, launch(t, loopback(t.TempDir())))
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if left = ours(); len(left) == 0 {
			return
		}
	}
	t.Errorf("still running:\n%s", strings.Join(left, "\n\n"))
}

// ours are the stacks of goroutines that run code of this module, but for tests.
func ours() []string {
	buf := make([]byte, 4<<20)
	var out []string
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "vedette-edge/vedette/") && !strings.Contains(stack, "testing.tRunner") {
			out = append(out, stack)
		}
	}
	return out
}

func TestWhatStartRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	running := launch(t, loopback(t.TempDir()))
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"the same data", func(c *Config) { c.Data = running.cfg.Data }, "another data directory"},
		{"the same address for people", func(c *Config) { c.HTTP = running.Addr().HTTP }, "choose another address with --http"},
		{"the same address for devices", func(c *Config) { c.Devices = running.Addr().Devices }, "choose another address with --devices"},
		{"the MQTT port is taken", func(c *Config) { c.MQTT = taken.Addr().String() }, taken.Addr().String()},
		{"a certificate that is not there", func(c *Config) { c.TLSCert, c.TLSKey = "/nowhere.pem", "/nowhere.key" }, "--tls-cert"},
		{"data in a file", func(c *Config) { c.Data = os.Args[0] }, "make data directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := loopback(t.TempDir())
			tt.change(&cfg)
			s, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start: %v, want %q in it", err, tt.want)
			}
			stop(t, s)
			if cfg.Data != running.cfg.Data && cfg.Data != os.Args[0] {
				stop(t, launch(t, loopback(cfg.Data))) // what failed has let go of everything
			}
		})
	}
	var info operator.ServerInfo
	ask(t, running, http.MethodGet, operator.Prefix+"/server", nil, &info) // and disturbed nobody
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no data directory":         {},
		"a certificate without key": {Data: "x", TLSCert: "cert.pem"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStageThatEndsIsTold(t *testing.T) {
	for name, end := range map[string]func(*Server){
		"the listener of people":  func(s *Server) { s.people.Close() },
		"the listener of devices": func(s *Server) { s.devices.Close() },
		"a stage":                 func(s *Server) { s.run("short", func(context.Context) error { return nil }) },
		"the broker":              func(s *Server) { s.broker.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := launch(t, loopback(t.TempDir()))
			end(s)
			select {
			case err := <-s.Failed():
				if err == nil {
					t.Error("told nothing")
				}
			case <-time.After(20 * time.Second):
				t.Error("nobody is told")
			}
			if name == "the broker" {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				_ = s.Stop(ctx) // cannot write its last checkpoints, and says so
			}
		})
	}
}

func TestStartIsBoundedByItsContext(t *testing.T) {
	s, err := New(loopback(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Start: %v, want %v", err, context.Canceled)
	}
	stop(t, s)
}

func TestMetrics(t *testing.T) {
	s := launch(t, loopback(t.TempDir()))
	var viewer operator.TokenSecret
	ask(t, s, http.MethodPost, operator.Prefix+"/tokens", operator.TokenCreate{Name: "prometheus", Role: operator.Viewer}, &viewer)
	for name, token := range map[string]string{"no token": "", "a made-up token": "vdo1.nobody.secret"} {
		if status, _ := request(t, s, http.MethodGet, "/metrics", token, nil); status != http.StatusUnauthorized {
			t.Errorf("%s: status %d", name, status)
		}
	}
	s.fleet.SetPresence("cam-1", true, time.Now())
	status, body := request(t, s, http.MethodGet, "/metrics", viewer.Secret, nil)
	if status != http.StatusOK {
		t.Fatalf("with a viewer's token: %d %s", status, body)
	}
	for _, want := range []string{
		`vedette_devices{presence="online"} 1`, `vedette_devices{presence="offline"} 0`,
		`vedette_ingest_messages_total{outcome="stored"} 0`, `vedette_alarms_raised{kind="drift"} 0`,
		`vedette_rollouts{status="running"} 0`, `vedette_rollout_orders_total{direction="forward"} 0`, "vedette_rollout_stop_seconds_count 0", `vedette_fold_lag_messages{fold="drift"} 0`,
		"vedette_stream_limit_bytes 2.147483648e+10", "vedette_disk_free_bytes ", "go_goroutines ",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// A healthy server has nothing to warn of, from start to stop.
func TestHealthyServerWarnsOfNothing(t *testing.T) {
	var log safeLog
	cfg := loopback(t.TempDir())
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.EvaluateEvery = time.Millisecond
	s := launch(t, cfg)
	var info operator.ServerInfo
	ask(t, s, http.MethodGet, operator.Prefix+"/server", nil, &info)
	stop(t, s)
	if got := log.String(); got != "" {
		t.Errorf("logged\n%s", got)
	}
}

// safeLog is written by many and read by one.
type safeLog struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
