package dashboard

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// people are who may sign in; their token is their name.
var people = map[string]operator.Role{
	"victor": operator.Viewer, "olga": operator.Operator, "paula": operator.Publisher, "ada": operator.Admin,
}

// house is a server with pages over a fake fleet, and a browser without scripts.
type house struct {
	*fleet

	t       *testing.T
	pages   *Server
	url     string
	browser *http.Client
	log     *strings.Builder
	revoked string    // token that is not known any more
	clock   time.Time //
}

func open(t *testing.T) *house {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{fleet: newFleet(), t: t, log: &strings.Builder{}, clock: now}
	h.browser = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	h.pages = New(Config{
		Service: h.fleet, Auth: authFunc(h.authenticate), Now: func() time.Time { return h.clock },
		Log: slog.New(slog.NewTextHandler(h.log, nil)),
	})
	server := httptest.NewServer(h.pages)
	t.Cleanup(server.Close)
	t.Cleanup(h.pages.Close)
	h.url = server.URL
	return h
}

func (h *house) authenticate(_ context.Context, token string) (operator.Principal, error) {
	role, ok := people[token]
	if !ok || token == h.revoked {
		return operator.Principal{}, operator.Errorf(operator.Unauthorized, "the token is not known").WithHint("use another")
	}
	return operator.Principal{Name: token, Role: role}, nil
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (h *house) do(r *http.Request) answer {
	h.t.Helper()
	resp, err := h.browser.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func (h *house) request(method, path string, form url.Values) *http.Request {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		h.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

func (h *house) get(path string) answer {
	h.t.Helper()
	return h.do(h.request(http.MethodGet, path, nil))
}

func (h *house) signIn(token string) {
	h.t.Helper()
	got := h.do(h.request(http.MethodPost, "/sign-in", url.Values{"token": {token}}))
	if got.status != http.StatusSeeOther {
		h.t.Fatalf("sign in: status %d\n%s", got.status, got.body)
	}
}

var codeInPage = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// post fills in the form at path, as a browser does, and sends it.
func (h *house) post(path string, form url.Values) answer {
	h.t.Helper()
	found := codeInPage.FindStringSubmatch(h.get(path).body)
	if found == nil {
		h.t.Fatalf("%s has no form", path)
	}
	form.Set(csrfField, found[1])
	return h.do(h.request(http.MethodPost, path, form))
}

// paths are all pages that show something.
var paths = []string{
	"/", "/devices", "/devices?presence=offline&text=", "/devices/cam-a1", "/devices/cam-a2", "/devices/cam-b1",
	"/models", "/models/digits", "/models/digits/versions/1", "/models/digits/versions/2",
	"/rollouts", "/rollouts?active=true", "/rollouts/digits-2-1", "/drift", "/drift/digits", "/quality", "/quality/digits", "/quality/digits/trends",
	"/ledger", "/ledger?chain=operator&kind=", "/enrolment",
	"/incidents", "/incidents/inc-1", "/incidents/inc-2?x=1", "/retraining", "/incidents/inc-1/acknowledge", "/incidents/inc-1/silence", "/silences/sil-1/expire", "/retraining/r1/redeliver",
	"/experiments", "/experiments/1?filter=x", "/runs/a", "/runs/a?dir=model", "/runs/compare?run=a&run=b",
	"/rollouts/new", "/rollouts/new?as=yaml", "/rollouts/new/matching?selector=site%3Db", "/rollouts/digits-2-1/revise", "/rollouts?model=digits&state=running",
	"/rollouts/digits-2-1/devices?wave=2&state=&stuck=true", "/rollouts/digits-2-1/decisions", "/rollouts/digits-2-1/decisions?cursor=39",
	"/rollouts/digits-2-1/pause", "/rollouts/digits-2-1/rollback", "/rollouts/digits-2-1/next", "/devices/cam-a1/labels", "/devices/cam-a1/revoke",
	"/models/digits/versions/2/stage", "/models/digits/versions/2/gates/champion/override", "/models/digits/versions/2/lab", "/enrolment/t-1/revoke",
}

// TestPages also looks for what the security policy would refuse to run or load.
func TestPages(t *testing.T) {
	h := open(t)
	h.signIn("ada")
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			got := h.get(path)
			if got.status != http.StatusOK {
				t.Fatalf("status %d\n%s", got.status, got.body)
			}
			if problem := unbalanced(got.body); problem != "" {
				t.Error(problem)
			}
			for _, bad := range []string{` style="`, "<style", "<script>", ` onclick="`, "javascript:", "ZgotmplZ", "%!", "<no value>", `src="http`, `href="http`} {
				if strings.Contains(got.body, bad) {
					t.Errorf("the page holds %s", bad)
				}
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store"} {
				if have := got.header.Get(name); have != want {
					t.Errorf("%s: got %q, want %q", name, have, want)
				}
			}
			if csp := got.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("Content-Security-Policy is %q", csp)
			}
		})
	}
	if strings.Contains(h.log.String(), "ERROR") {
		t.Errorf("the log holds errors:\n%s", h.log)
	}
}

var (
	tags = regexp.MustCompile(`<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:"[^"]*"|'[^']*'|[^>"'])*?)(/?)>`)
	void = []string{"meta", "link", "input", "br", "hr", "img"}
)

// unbalanced names the first tag that closes another one than is open.
func unbalanced(page string) string {
	var open []string
	for _, m := range tags.FindAllStringSubmatch(page, -1) {
		name := strings.ToLower(m[2])
		switch {
		case m[4] == "/" || slices.Contains(void, name):
		case m[1] == "":
			open = append(open, name)
		case len(open) == 0 || open[len(open)-1] != name:
			return "</" + name + "> closes " + strings.Join(open, " ")
		default:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return "not closed: " + strings.Join(open, " ")
	}
	return ""
}

func TestPagesShowWhatMatters(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	for path, want := range map[string][]string{
		"/":                    {"Site b", "drift", "sensor fault", "cam-a2", "digits 2", "1\u2009234\u2009567", "97.8\u2009%"},
		"/devices":             {"cam-a1", "cam-c2", "offline", "downloading", `href="/devices?cursor=cam-c2"`},
		"/devices/cam-a2":      {"sensor fault", "64", "9.1e-07", "412 µs", "4.2 s behind", "120 predictions", `class="now">downloading`, "not enough room", `viewBox="0 0 8 8"`, "2026-03-14 09:17:53</time>, in wave 2"},
		"/rollouts/digits-2-1": {"2 · half", "golden mismatch, late", "1 of 3 devices failed", "new lenses at site b", ">Pause<", ">Abort<", `datetime="2026-03-14T09:00:00Z"`},
		"/drift":               {"Site a", "Site c", "class=\"h8 apart\"", "left the training data", "ci.example", "at most every 6 h"},
		"/quality":             {"data-charts=", "site b", "84.7\u2009%"},
		"/models/digits": {
			"below floor", "production", "shadow of 20\u2009% of the calls", "1 of 2 devices run it", "96.6\u2009%", "is it better at night",
			"131 µs", "1.11 ×", "94.3\u2009%", "golden_mismatch", ">reverted</span>", ">Take it away<",
			"Truths uploaded", "1\u2009104", "night-shift.csv", "cam-b2", "52\u2009000", "1.0\u2009% of its rows",
		},
		"/models/digits/versions/2":  {"2 of 2 needed", "abcdef0123", digest2.String(), "not cleared", "≥\u2009-0.006", "41.2\u2009ms", "Let past by paula"},
		"/ledger":                    {"rollout.step", `id="r40"`, "/ledger?cursor=40"},
		"/enrolment":                 {"t-1", "vedette device token create", ">Revoke<"},
		"/rollouts/digits-2-1/abort": {"Abort: digits 2", "Devices keep what they run now"},
	} {
		body := h.get(path).body
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not show %q", path, text)
			}
		}
	}
}

// hostile breaks out of text, attributes, scripts and addresses where one of
// them is not escaped.
const hostile = `"><script src=//evil.example></script><img src=x onerror=alert(1)>'` + "`{{.}}"

func TestHostileText(t *testing.T) {
	h := open(t)
	h.hostile = hostile
	h.signIn("ada")
	for _, path := range paths {
		body := h.get(path).body
		if !strings.Contains(path, "token") && strings.Contains(body, "<script src=//evil") || strings.Contains(body, "<img") {
			t.Errorf("%s lets text become a tag", path)
		}
		if problem := unbalanced(body); problem != "" {
			t.Errorf("%s: %s", path, problem)
		}
	}
	if body := h.get("/devices/cam-a1").body; !strings.Contains(body, "&lt;script src=//evil") {
		t.Error("the hostile text did not reach the page: the test looks at nothing")
	}
	if body := h.get("/" + url.PathEscape(hostile)).body; strings.Contains(body, "<script src") {
		t.Error("the path of a missing page is echoed")
	}
	if body := h.get("/devices?text=" + url.QueryEscape(hostile)).body; strings.Contains(body, "<script src=//") {
		t.Error("a filter is echoed")
	}
}

func TestUnknownSubjects(t *testing.T) {
	h := open(t)
	h.signIn("ada")
	for path, want := range map[string]int{
		"/devices/none": 404, "/rollouts/none": 404, "/models/none": 404, "/models/digits/versions/9": 404, "/drift/none": 404,
		"/nowhere": 404, "/rollouts/digits-2-1/explode": 404, "/devices?colour=red": 400, "/devices/none/revoke": 404,
	} {
		if got := h.get(path); got.status != want {
			t.Errorf("%s: status %d, want %d", path, got.status, want)
		}
	}
	if got := h.get("/devices/none").body; !strings.Contains(got, "there is no device none") || !strings.Contains(got, "list them") {
		t.Errorf("the page does not say what is wrong and what to do:\n%s", got)
	}
}

func TestNobodySignedIn(t *testing.T) {
	h := open(t)
	for _, path := range append(paths, "/ledger.jsonl") {
		got := h.get(path)
		if got.status != http.StatusSeeOther || !strings.HasPrefix(got.header.Get("Location"), "/sign-in") {
			t.Errorf("%s: status %d to %q", path, got.status, got.header.Get("Location"))
		}
	}
	if got := h.get("/devices?text=b").header.Get("Location"); got != "/sign-in?next=%2Fdevices%3Ftext%3Db" {
		t.Errorf("after signing in one would go to %q", got)
	}
	if got := h.get("/events").status; got != http.StatusUnauthorized {
		t.Errorf("events: status %d", got)
	}
	r := h.request(http.MethodGet, "/devices", nil)
	r.Header.Set("HX-Request", "true")
	if got := h.do(r); got.status != http.StatusUnauthorized || got.header.Get("HX-Redirect") != "/sign-in?next=%2Fdevices" {
		t.Errorf("a refresh: status %d, redirect %q", got.status, got.header.Get("HX-Redirect"))
	}
	if got := h.do(h.request(http.MethodPost, "/rollouts/digits-2-1/abort", url.Values{"reason": {"x"}})); got.status != http.StatusSeeOther || len(h.actions) > 0 {
		t.Errorf("a command: status %d, done %v", got.status, h.actions)
	}
}

func TestSignIn(t *testing.T) {
	h := open(t)
	refused := h.do(h.request(http.MethodPost, "/sign-in", url.Values{"token": {"mallory"}, "next": {"/devices"}}))
	if refused.status != http.StatusUnauthorized || !strings.Contains(refused.body, "the token is not known") || refused.header.Get("Set-Cookie") != "" {
		t.Errorf("a wrong token: status %d, cookie %q", refused.status, refused.header.Get("Set-Cookie"))
	}
	for next, want := range map[string]string{
		"/devices?text=b": "/devices?text=b", "": "/", "https://evil.example/": "/", "//evil.example/": "/", `/\evil.example`: "/", "/x\r\ny": "/",
	} {
		got := h.do(h.request(http.MethodPost, "/sign-in", url.Values{"token": {"olga"}, "next": {next}}))
		if to := got.header.Get("Location"); to != want {
			t.Errorf("next %q leads to %q, want %q", next, to, want)
		}
		cookie := got.header.Get("Set-Cookie")
		if !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") || strings.Contains(cookie, "olga") {
			t.Errorf("cookie is %q", cookie)
		}
	}
}

func TestSignInIsLimited(t *testing.T) {
	h := open(t)
	for range signInBurst + 5 {
		if h.do(h.request(http.MethodPost, "/sign-in", url.Values{"token": {"mallory"}})).status == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("nothing stops somebody who tries tokens")
}

func TestSessionEnds(t *testing.T) {
	for name, end := range map[string]func(h *house){
		"sign out":      func(h *house) { h.do(h.request(http.MethodPost, "/sign-out", url.Values{csrfField: {h.code("/")}})) },
		"token revoked": func(h *house) { h.revoked = "ada" },
		"time is over":  func(h *house) { h.clock = now.Add(DefaultSession) },
		"other key":     func(h *house) { h.pages.seal, _ = sessionKeys(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t)
			h.signIn("ada")
			if got := h.get("/").status; got != http.StatusOK {
				t.Fatalf("before: status %d", got)
			}
			end(h)
			if got := h.get("/").status; got != http.StatusSeeOther {
				t.Errorf("after: status %d, want a way to the sign-in page", got)
			}
		})
	}
}

func (h *house) code(path string) string {
	h.t.Helper()
	return codeInPage.FindStringSubmatch(h.get(path).body)[1]
}

func TestLoadKey(t *testing.T) {
	path := t.TempDir() + "/session.key"
	made, err := LoadKey(path)
	if err != nil || len(made) != keySize {
		t.Fatalf("made %d bytes: %v", len(made), err)
	}
	again, err := LoadKey(path)
	if err != nil || string(again) != string(made) {
		t.Errorf("the key changed over a restart: %v", err)
	}
	if _, err := LoadKey(t.TempDir()); err == nil {
		t.Error("a folder passes for a key")
	}
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		who, path string
		form      url.Values
		want, to  string
	}{
		{"olga", "/rollouts/digits-2-1/pause", url.Values{"reason": {" lens\r\ncleaning "}}, "olga: pause digits-2-1 because lens cleaning", "/rollouts/digits-2-1"},
		{
			"olga", "/devices/cam-a1/labels",
			url.Values{"labels": {"site=c  ring=canary"}, "revision": {"7"}, "reason": {"moved"}},
			"olga: labels of cam-a1 at 7: set map[ring:canary site:c] remove [line] because moved", "/devices/cam-a1",
		},
		{"ada", "/devices/cam-a1/revoke", url.Values{"reason": {"stolen"}}, "ada: revoke cam-a1 because stolen", "/devices/cam-a1"},
		{
			"paula", "/models/digits/versions/2/stage",
			url.Values{"stage": {"production"}, "revision": {"3"}, "reason": {"proven"}},
			"paula: digits 2 to production at 3 because proven", "/models/digits/versions/2",
		},
		{
			"olga", "/models/digits/versions/2/challenge",
			url.Values{"role": {"share"}, "share": {"12.5 %"}, "selector": {"site=b"}, "reason": {"one in eight"}},
			`olga: digits 2 as share of 125 on "site=b" because one in eight`, "/models/digits",
		},
		{
			"paula", "/models/digits/versions/2/gates/champion/override",
			url.Values{"reason": {"it mends site b"}},
			"paula: let digits 2 past champion because it mends site b", "/models/digits/versions/2",
		},
		{
			"olga", "/models/digits/versions/2/lab",
			url.Values{"reason": {"measure it"}},
			"olga: lab tries digits 2 because measure it", "/models/digits/versions/2",
		},
		{"olga", "/models/digits/end-challenge", url.Values{"reason": {"seen enough"}}, "olga: end challenge of digits because seen enough", "/models/digits"},
		{"olga", "/models/digits/versions/2/promotion/approve", url.Values{"reason": {"fine"}}, "olga: approve digits 2 because fine", "/models/digits"},
		{"olga", "/models/digits/versions/2/promotion/deny", url.Values{"reason": {"not now"}}, "olga: deny digits 2 because not now", "/models/digits"},
		{"olga", "/incidents/inc-1/acknowledge", url.Values{"reason": {"on it"}}, "olga: acknowledge inc-1 because on it", "/incidents/inc-1"},
		{"olga", "/incidents/inc-1/resolve", url.Values{"reason": {"cleaned"}}, "olga: resolve inc-1 because cleaned", "/incidents/inc-1"},
		{
			"olga", "/incidents/inc-1/silence",
			url.Values{"for": {"8h"}, "reason": {"works"}},
			"olga: silence monitor/drift/digits/b/ for 8h0m0s because works", "/incidents/inc-1",
		},
		{"olga", "/silences/sil-1/expire", url.Values{"reason": {"done"}}, "olga: expire sil-1 because done", "/incidents"},
		{"olga", "/retraining/r1/redeliver", url.Values{"reason": {"mended"}}, "olga: redeliver r1 because mended", "/retraining"},
		{"olga", "/enrolment/t-1/revoke", url.Values{"reason": {"leaked"}}, "olga: revoke token t-1", "/enrolment"},
	} {
		t.Run(c.path, func(t *testing.T) {
			h := open(t)
			h.signIn(c.who)
			got := h.post(c.path, c.form)
			if got.status != http.StatusSeeOther || got.header.Get("Location") != c.to {
				t.Errorf("status %d to %q, want %q\n%s", got.status, got.header.Get("Location"), c.to, got.body)
			}
			if !slices.Equal(h.actions, []string{c.want}) {
				t.Errorf("done: %q, want %q", h.actions, c.want)
			}
		})
	}
}

func TestRolesOfCommands(t *testing.T) {
	for path, needs := range map[string]operator.Role{
		"/rollouts/digits-2-1/abort": operator.Operator, "/devices/cam-a1/labels": operator.Operator, "/devices/cam-a1/revoke": operator.Admin,
		"/models/digits/versions/2/stage": operator.Publisher, "/enrolment/t-1/revoke": operator.Operator,
		"/models/digits/versions/2/gates/champion/override": operator.Publisher, "/models/digits/versions/2/lab": operator.Operator,
	} {
		for name, role := range people {
			h := open(t)
			h.signIn(name)
			code := h.code("/")
			shown := h.get(path).status
			got := h.do(h.request(http.MethodPost, path, url.Values{csrfField: {code}, "reason": {"x"}, "stage": {"archived"}}))
			allowed := role.Allows(needs)
			if (shown == http.StatusOK) != allowed || (got.status == http.StatusSeeOther) != allowed || (len(h.actions) == 1) != allowed {
				t.Errorf("%s by %s: form %d, answer %d, done %q", path, role, shown, got.status, h.actions)
			}
		}
	}
	h := open(t)
	h.signIn("victor")
	if body := h.get("/rollouts/digits-2-1").body; strings.Contains(body, ">Pause<") {
		t.Error("a viewer is offered a button")
	}
}

func TestForgedForms(t *testing.T) {
	h := open(t)
	h.signIn("ada")
	const path = "/rollouts/digits-2-1/abort"
	code := h.code(path)
	for name, r := range map[string]*http.Request{
		"no code":         h.request(http.MethodPost, path, url.Values{"reason": {"x"}}),
		"wrong code":      h.request(http.MethodPost, path, url.Values{"reason": {"x"}, csrfField: {code + "x"}}),
		"code in address": h.request(http.MethodPost, path+"?csrf="+url.QueryEscape(code), url.Values{"reason": {"x"}}),
		"from another site": func() *http.Request {
			r := h.request(http.MethodPost, path, url.Values{"reason": {"x"}, csrfField: {code}})
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			return r
		}(),
		"too long": h.request(http.MethodPost, path, url.Values{"reason": {strings.Repeat("x", maxForm)}, csrfField: {code}}),
	} {
		if got := h.do(r); got.status < 400 || len(h.actions) > 0 {
			t.Errorf("%s: status %d, done %q", name, got.status, h.actions)
		}
	}
	h.signIn("olga")
	if got := h.do(h.request(http.MethodPost, path, url.Values{"reason": {"x"}, csrfField: {code}})); got.status != http.StatusForbidden {
		t.Errorf("the code of another session: status %d", got.status)
	}
}

func TestRefusedCommandKeepsTheForm(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	h.refuse = operator.Errorf(operator.Conflict, "the rollout is paused already").WithHint("resume it instead")
	got := h.post("/rollouts/digits-2-1/pause", url.Values{"reason": {"lens cleaning"}})
	if got.status != http.StatusConflict {
		t.Errorf("status %d", got.status)
	}
	for _, want := range []string{"the rollout is paused already", "resume it instead", "lens cleaning</textarea>"} {
		if !strings.Contains(got.body, want) {
			t.Errorf("the form does not show %q", want)
		}
	}
	labels := h.post("/devices/cam-a1/labels", url.Values{"labels": {"nonsense"}, "revision": {"7"}, "reason": {"moved"}})
	if labels.status != http.StatusBadRequest || !strings.Contains(labels.body, `value="nonsense"`) {
		t.Errorf("what was typed is lost: status %d\n%s", labels.status, labels.body)
	}
}

func TestDialog(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	post := func() answer {
		r := h.request(http.MethodPost, "/rollouts/digits-2-1/pause", url.Values{"reason": {"x"}, csrfField: {h.code("/")}})
		r.Header.Set("HX-Request", "true")
		return h.do(r)
	}
	if got := post(); got.status != http.StatusOK || got.header.Get("HX-Redirect") != "/rollouts/digits-2-1" {
		t.Errorf("status %d, redirect %q", got.status, got.header.Get("HX-Redirect"))
	}
	h.refuse = errors.New("disk of secrets is full")
	got := post()
	if got.status != http.StatusOK || !strings.Contains(got.body, `id="command"`) || strings.Contains(got.body, "secrets") {
		t.Errorf("a failure: status %d\n%s", got.status, got.body)
	}
	if !strings.Contains(h.log.String(), "disk of secrets is full") {
		t.Error("the log does not say why")
	}
}

func TestEvents(t *testing.T) {
	h := open(t)
	h.signIn("victor")
	resp, err := h.browser.Do(h.request(http.MethodGet, "/events?kinds=rollout,device", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("content type %q", got)
	}
	lines := bufio.NewScanner(resp.Body)
	if got := nextData(lines); got != "start" {
		t.Errorf("the first event is %q: a page would miss what changed before", got)
	}
	h.changed <- operator.Event{Kind: operator.EventRollout}
	h.changed <- operator.Event{Kind: operator.EventDevice} // many make one
	if got := nextData(lines); got != "changed" {
		t.Errorf("a change is told as %q", got)
	}
	h.pages.Close()
	for lines.Scan() { // until the stream ends, as it must
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream broke instead of ending: %v", err)
	}
}

func nextData(lines *bufio.Scanner) string {
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			return data
		}
	}
	return ""
}

func TestHeartbeat(t *testing.T) {
	h := open(t)
	h.pages.cfg.Heartbeat = time.Millisecond
	h.signIn("victor")
	resp, err := h.browser.Do(h.request(http.MethodGet, "/events", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if lines.Text() == ":" {
			return
		}
	}
	t.Errorf("a silent stream says nothing: %v", lines.Err())
}

func TestLedgerExport(t *testing.T) {
	h := open(t)
	h.signIn("victor")
	got := h.get("/ledger.jsonl")
	if got.status != http.StatusOK || got.body != `{"seq":1}`+"\n" {
		t.Errorf("status %d, body %q", got.status, got.body)
	}
}

func TestAssets(t *testing.T) {
	h := open(t)
	for path, want := range map[string]int{
		"/assets/style.css": 200, "/assets/pages.js": 200, "/assets/icon.svg": 200,
		"/assets/": 404, "/assets/none.js": 404, "/templates/layout.html": 404, "/assets/../templates/layout.html": 404,
	} {
		if got := h.get(path).status; got != want && (want == 200 || got == 200) {
			t.Errorf("%s: status %d, want %d", path, got, want)
		}
	}
	r := h.request(http.MethodGet, "/assets/style.css", nil)
	r.Header.Set("If-None-Match", assetTag)
	if got := h.do(r).status; got != http.StatusNotModified {
		t.Errorf("asked for again: status %d", got)
	}
}

func TestLargeFleet(t *testing.T) {
	var many []operator.WaveDevice
	for range 5000 {
		many = append(many, operator.WaveDevice{Device: "cam", State: "healthy"})
	}
	many[4999].State = "failed"
	w := waveOf(&operator.Rollout{}, &operator.Wave{Devices: many}, now)
	if n := len(w.Sites[0].Devices); n != waveChips || w.More != 5000-waveChips || w.Sites[0].Devices[0].State != "failed" {
		t.Errorf("%d chips, %d more, first %s", n, w.More, w.Sites[0].Devices[0].State)
	}
	sites := make([]operator.SiteOverview, 100)
	sites[99].Verdict = operator.VerdictDrift
	for i := range 99 {
		sites[i].Verdict = operator.VerdictOK
	}
	if got := worstSites(sites)[0].Verdict; got != operator.VerdictDrift {
		t.Errorf("the first of many sites is %s", got)
	}
	if got := names(slices.Repeat([]string{"d"}, 14)); !strings.HasSuffix(got, "d and 2 more") {
		t.Errorf("many devices are %q", got)
	}
}

func TestPictures(t *testing.T) {
	cell := func(name string) operator.DriftCell {
		return operator.DriftCell{Feature: name, Side: "input", Enough: true}
	}
	square := inputHeat("", cells(func(i int) bool { return i == 9 }, false), againstTraining)
	if square.W != 8 || square.H != 8 || len(square.Cells) != 64 {
		t.Fatalf("an 8×8 image is %d×%d of %d", square.W, square.H, len(square.Cells))
	}
	if c := square.Cells[9]; c.X != 1 || c.Y != 1 || c.Class != "h8 apart" {
		t.Errorf("pixel 9 is %+v", c)
	}
	var columns []operator.DriftCell
	for i := range 16 {
		columns = append(columns, cell("column "+strings.Repeat("x", i)))
	}
	if strip := inputHeat("", columns, againstTraining); strip.W != 16 || strip.H != 1 {
		t.Errorf("16 columns of a table are drawn %d×%d", strip.W, strip.H)
	}
	if none := inputHeat("", nil, againstTraining); len(none.Cells) != 0 {
		t.Errorf("no features give %+v", none)
	}
	parts := bar(map[string]int{"failed": 1, "healthy": 2, "new": 1}, deviceStates, stateClass)
	if len(parts) != 3 || parts[0].Name != "healthy" || parts[0].W != 50 || parts[2].Name != "new" || parts[2].X+parts[2].W != 100 {
		t.Errorf("a bar is %+v", parts)
	}
}

// TestWilson compares with values computed by hand from the formula.
func TestWilson(t *testing.T) {
	for _, c := range []struct {
		correct, labels uint64
		lower, upper    float64
	}{{95, 100, 0.8882, 0.9785}, {0, 10, 0, 0.2775}, {10, 10, 0.7225, 1}} {
		lower, upper := wilson(c.correct, c.labels)
		if math.Abs(lower-c.lower) > 1e-4 || math.Abs(upper-c.upper) > 1e-4 {
			t.Errorf("%d of %d: [%.4f, %.4f], want [%.4f, %.4f]", c.correct, c.labels, lower, upper, c.lower, c.upper)
		}
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{formatCount(1234567), "1\u2009234\u2009567"},
		{formatCount(uint64(0)), "0"},
		{formatDuration(450 * time.Microsecond), "450 µs"},
		{formatDuration(90 * time.Second), "1 min 30 s"},
		{formatDuration(26 * time.Hour), "26 h"},
		{formatDuration(72 * time.Hour), "3 d"},
		{formatPercent(0.97649), "97.6\u2009%"},
		{formatPercent((*float64)(nil)), "–"},
		{gateValue(operator.Gate{Kind: "install"}, 0.05), "5\u2009%"},
		{gateValue(operator.Gate{Kind: "drift"}, 0.2), "0.2"},
		{formatE(1), "1"},
		{formatE(3.24), "3.2"},
		{formatE(999.6), "1000"},
		{formatE(4321), "4\u2009321"},
		{formatE(2.5e6), "2.5·10⁶"},
		{formatE(1e300), "1·10³⁰⁰"},
		{string(prose("<b> until 2026-03-14T10:00:00Z")), `&lt;b&gt; until <time datetime="2026-03-14T10:00:00Z" data-time="at" title="2026-03-14 10:00:00.000 UTC">2026-03-14 10:00:00</time>`},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.50 KiB", 20 << 20: "20.0 MiB", 300 << 30: "300 GiB"} {
		if got, err := formatBytes(n); got != want || err != nil {
			t.Errorf("%d bytes are %q: %v", n, got, err)
		}
	}
}
