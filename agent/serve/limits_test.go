package serve

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
)

// gated is an adder whose runs wait.
type gated struct {
	adder
	gate chan struct{} // nil lets everything through
}

func (g *gated) Load(context.Context, infer.Release) (infer.Session, error) { return g, nil }

func (g *gated) Run(ctx context.Context, rows int, in, out []infer.Tensor) error {
	if g.gate != nil {
		<-g.gate
	}
	return g.adder.Run(ctx, rows, in, out)
}

// gatedServer serves a model whose runs wait until the gate is closed.
func gatedServer(t *testing.T, limits infer.Limits) (*Server, *gated, *infer.Engine) {
	t.Helper()
	g := &gated{}
	e := infer.New(g, infer.Config{Limits: limits})
	if err := e.Activate(t.Context(), infer.Release{Manifest: testManifest(), Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	g.gate = make(chan struct{})
	return New(e, Config{}), g, e
}

// answered is a prediction's answer: status and Retry-After, and the body.
type answered struct{ how, body string }

// ask sends a prediction over a connection of its own; the answer comes later.
func ask(s *Server, header ...string) <-chan answered {
	near, far := net.Pipe()
	go s.http.ServeConn(far)
	answer := make(chan answered, 1)
	go func() {
		r := httptest.NewRequest(http.MethodPost, "/v2/models/adder/infer", strings.NewReader(twoRows))
		r.Close = true
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		r.Write(near)
		resp, err := http.ReadResponse(bufio.NewReader(near), r)
		if err != nil {
			answer <- answered{how: err.Error()}
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- answered{strconv.Itoa(resp.StatusCode) + " " + resp.Header.Get("Retry-After"), string(body)}
	}()
	return answer
}

// TestHungRequestIsAnswered hangs a run: its request gets 503 at the deadline,
// and the connection ends.
func TestHungRequestIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g, e := gatedServer(t, infer.Limits{Concurrency: 1})
		start := time.Now()
		got := <-ask(s)
		if got.how != "503 5" || time.Since(start) != infer.MinDeadline {
			t.Fatalf("%s after %v, want 503 5 after %v", got.how, time.Since(start), infer.MinDeadline)
		}
		if !strings.Contains(got.body, infer.ErrHung.Error()) {
			t.Errorf("answer %s", got.body)
		}
		close(g.gate)
		synctest.Wait()
		if got := (<-ask(s)).how; got != "200 " {
			t.Errorf("after the run ended: %s", got)
		}
		if st := e.Status()[0]; st.Failed != 1 || st.Calls != 1 || st.Hung != 0 {
			t.Errorf("status %+v", st)
		}
		text := do(t, s, "GET", "/metrics", "").Body.String()
		if !strings.Contains(text, `vedette_http_requests_total{code="503",route="POST /v2/models/{model}/infer"} 1`) {
			t.Error("the hung request is not counted once")
		}
		e.Close(context.Background())
	})
}

// TestDeadlinesAndQueue fills the one place and the queue: who gives a time is
// answered when it is over, who comes too late at once.
func TestDeadlinesAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g, e := gatedServer(t, infer.Limits{Concurrency: 1, Queue: 2})
		first := ask(s)
		synctest.Wait()
		start := time.Now()
		second := ask(s, "Inference-Timeout", "250ms")
		synctest.Wait()
		third := ask(s)
		synctest.Wait()
		if got := (<-ask(s)).how; got != "429 1" || time.Since(start) != 0 {
			t.Errorf("beyond the queue: %s after %v, want 429 1 at once", got, time.Since(start))
		}
		late := <-second
		if !strings.Contains(late.body, "the request's deadline passed while it waited for its turn") {
			t.Errorf("out of time: %s", late.body)
		}
		if got := late.how; got != "503 1" || time.Since(start) != 250*time.Millisecond {
			t.Errorf("out of time: %s after %v, want 503 1 after 250ms", got, time.Since(start))
		}
		for _, text := range []string{"soon", "0.05", "50", "0s", "-1s"} {
			if got := <-ask(s, "Inference-Timeout", text); got.how != "400 " || !strings.Contains(got.body, "with its unit, such as 250ms") {
				t.Errorf("%s: %s %s", text, got.how, got.body)
			}
		}
		close(g.gate)
		for _, answer := range []<-chan answered{first, third} {
			if got := (<-answer).how; got != "200 " {
				t.Errorf("got %s, want 200", got)
			}
		}
		e.Close(context.Background())
	})
}

// TestTimeoutParameter reads the parameter as Triton's clients send it.
func TestTimeoutParameter(t *testing.T) {
	r := &request{}
	for text, want := range map[string]time.Duration{"250000": 250 * time.Millisecond, "0": 0, "-1": -1, "1.5": -1, "9223372036854775807": -1} {
		body := strings.Replace(twoRows, `"id":"p1"`, `"id":"p1","parameters":{"timeout":`+text+`}`, 1)
		err := r.decode([]byte(body), len(body))
		if (err != nil) != (want < 0) || err == nil && r.timeout != want {
			t.Errorf("timeout %s: %v, %v; want %v", text, r.timeout, err, want)
		}
	}
}

// TestModelBeingMadeReady answers 503 for what is to serve, 404 for what is not.
func TestModelBeingMadeReady(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{Assigned: func(m string) bool { return m == "coming" || m == "adder" }})
	for path, want := range map[string]string{
		"POST /v2/models/coming/infer":           "503 5",
		"GET /v2/models/coming/ready":            "503 5",
		"GET /v2/models/coming":                  "503 5",
		"POST /v2/models/other/infer":            "404 ",
		"GET /v2/models/other/ready":             "404 ",
		"POST /v2/models/adder/versions/9/infer": "404 ",
		"GET /v2/models/adder/versions/9/ready":  "404 ",
	} {
		method, url, _ := strings.Cut(path, " ")
		w := do(t, s, method, url, twoRows)
		if got := strconv.Itoa(w.Code) + " " + w.Header().Get("Retry-After"); got != want || !strings.HasPrefix(w.Body.String(), `{"error":`) {
			t.Errorf("%s: %s %s, want %s", path, got, w.Body, want)
		}
	}
}

// TestRetryAfterFollowsService: a queue of slow calls is worth a longer wait.
func TestRetryAfterFollowsService(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "429 1", 300 * time.Millisecond: "429 1", 2100 * time.Millisecond: "429 3"} {
		s := New(broken{err: &infer.Overload{After: after}}, Config{})
		w := do(t, s, "POST", "/v2/models/m/infer", twoRows)
		if got := strconv.Itoa(w.Code) + " " + w.Header().Get("Retry-After"); got != want {
			t.Errorf("%v: %s, want %s", after, got, want)
		}
	}
}

// chunked hides a reader's length.
type chunked struct{ io.Reader }

func post(url string, body io.Reader) (status int, answer []byte, err error) {
	resp, err := http.Post(url, "application/json", body)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, nil
}

// TestBodiesAreBounded sends bodies of all sizes, with and without their length.
func TestBodiesAreBounded(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{Listen: "127.0.0.1:0", MaxBody: 1 << 20})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Stop(context.Background())
	url := "http://" + s.Addr().String() + "/v2/models/adder/infer"
	padded := func(n int) string { return strings.Repeat(" ", n) + twoRows }
	text := func(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }
	stream := func(s string) func() io.Reader { return func() io.Reader { return chunked{strings.NewReader(s)} } }
	for name, tc := range map[string]struct {
		body func() io.Reader
		want int
	}{
		"small":               {text(twoRows), 200},
		"over a buffer":       {text(padded(200 << 10)), 200},
		"too large":           {text(padded(1 << 20)), 413},
		"chunked":             {stream(twoRows), 200},
		"chunked, large":      {stream(padded(200 << 10)), 411},
		"chunked, and broken": {stream("{"), 400},
	} {
		status, answer, err := post(url, tc.body())
		// A server that refuses a body does not read the rest of it; the reset
		// that follows may overtake the answer.
		for range 20 {
			if tc.want != 200 && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
				status, answer, err = post(url, tc.body())
			}
		}
		if err != nil || status != tc.want {
			t.Errorf("%s: %d %s %v, want %d", name, status, answer, err, tc.want)
		}
	}
	if !s.bodies.TryAcquire(bodiesAtOnce << 20) {
		t.Error("room of a body was not given back")
	}
	// With no room left a large body is put off, a small one is not.
	for body, want := range map[string]int{padded(200 << 10): 429, twoRows: 200} {
		if w := do(t, s, "POST", "/v2/models/adder/infer", body); w.Code != want {
			t.Errorf("%d bytes with no room: %d, want %d", len(body), w.Code, want)
		}
	}
}

// TestConnectionsAreBounded opens one too many.
func TestConnectionsAreBounded(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{Listen: "127.0.0.1:0", Connections: 2})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Stop(context.Background())
	status := func() (int, net.Conn) {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, c
	}
	for i, want := range []int{200, 200, 503} {
		got, c := status()
		defer c.Close()
		if got != want {
			t.Errorf("connection %d: %d, want %d", i, got, want)
		}
	}
}

// TestPanicIsAnswered: a mistake about one request is no end of the device.
func TestPanicIsAnswered(t *testing.T) {
	s := New(panicking{}, Config{})
	if w := do(t, s, "POST", "/v2/models/m/infer", twoRows); w.Code != http.StatusInternalServerError {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

type panicking struct{ broken }

func (panicking) InferInto(context.Context, *infer.Request, *infer.Response) error {
	panic(errors.New("a mistake"))
}

// TestSlowClient sends half a request and nothing more.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, e := gatedServer(t, infer.Limits{Concurrency: 1})
		for _, half := range []string{"POST /v2/models/adder/in", "POST /v2/models/adder/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"} {
			near, far := net.Pipe()
			served := make(chan error, 1)
			go func() { served <- s.http.ServeConn(far) }()
			start := time.Now()
			go io.WriteString(near, half)
			raw, err := io.ReadAll(near)
			if took := time.Since(start); err != nil || took < bodyTimeout || took > bodyTimeout+time.Second {
				t.Errorf("%.30q: the connection ended after %v with %q, %v; want %v", half, took, raw, err, bodyTimeout)
			}
			<-served
		}
		e.Close(context.Background())
	})
}
