package dashboard

import (
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func TestRolloutPage(t *testing.T) {
	h := open(t)
	h.signIn("victor")
	body := h.get("/rollouts/digits-2-1").body
	for _, want := range []string{
		`<b>1</b> of 8 healthy on 2`, "two devices must be seen healthy", "The rollout ends by", `href="#spec">revision 1`,
		"<b>0 of 4</b> <span class=\"dim\">needs 2</span>", "<b>1\u2009234</b> <span class=\"dim\">needs 5\u2009000</span>", "<b>20 min</b> <span class=\"dim\">needs 1 h</span>",
		`<rect width="24.68" height="1"/>`, "by a person", "90\u2009%", // of the wave to come
		"late <b>2</b>", "Control group", "1 held out",
		"latency", `aria-label="harm: e-value 3.2 as evidence that it is worse; from 100 on it stops"`, `aria-label="fine: e-value 14 as evidence that it is no worse; from 20 on it passes"`, `aria-label="control: e-value 1.4 as evidence that the control group got worse too; from 100 on it excuses"`,
		"2.5·10⁶", "1 worse", "5 fine", "12\u2009% <span class=\"dim\">limit 50\u2009%</span>", "this is kept as unproven", "The rollout halts until a person decides.",
		"Who holds it up", "offered 2 times", "1 more, none of them longer", `href="/rollouts/digits-2-1/devices?stuck=true"`, `href="/devices/cam-a3"`,
		"cam-a1, cam-a3 <span class=\"dim\">waiting →</span>", "record 40",
		"2 at a time, 1 away per site", "0 2 * * * for 3 h, the device’s own time", "two at a time is enough", "budget.in_flight", "<del><code>1</code></del>", "<ins><code>2</code></ins>",
		"in_flight: 2\n", "soak: 15m\n",
		`sse-connect="/events?kinds=rollout%2Cdevice"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if strings.Contains(body, "Roll back") {
		t.Error("a viewer is offered a button")
	}
}

func TestRolloutList(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	body := h.get("/rollouts?model=&state=").body
	active, ended := strings.Index(body, "/rollouts/digits-2-1"), strings.Index(body, "/rollouts/digits-1-1")
	if active < 0 || ended < active || strings.Count(body, `href="/rollouts/digits-2-1"`) != 1 {
		t.Errorf("the one under way is at %d, the ended one at %d", active, ended)
	}
	for _, want := range []string{"two devices must be seen healthy", "1 of 8 healthy", "all waves have passed", "New rollout", "2 in all"} {
		if !strings.Contains(body, want) {
			t.Errorf("the list does not show %q", want)
		}
	}
	if only := h.get("/rollouts?active=true").body; strings.Contains(only, "digits-1-1") || !strings.Contains(only, "1 found") {
		t.Error("only those that go on: an ended one is shown")
	}
}

func TestGatesAsPictures(t *testing.T) {
	share := 0.1
	tracks, tens := tracksOf(&operator.Gate{Alpha: 0.01, EHarm: 10, EFine: 1e300, EControl: 0.3}, &operator.RolloutSpec{Alpha: &share})
	if len(tracks) != 3 || !near(tracks[0].Mark, 100/scaleRoom) || !near(tracks[0].X, tracks[0].Mark/2) || tracks[0].Over {
		t.Errorf("ten of a hundred is not drawn half way: %+v", tracks)
	}
	if tracks[1].X != 100 || !near(tracks[1].Mark, tracks[0].Mark/2) || !tracks[1].Over || tracks[1].Value != "1·10³⁰⁰" {
		t.Errorf("the largest e-value, which passes at ten, is %+v", tracks[1])
	}
	if tracks[2].X != 0 || tracks[2].Over || tracks[2].Does != "excuses" {
		t.Errorf("the control group is %+v", tracks[2])
	}
	if len(tens) != 1 || !near(tens[0], tracks[0].X) {
		t.Errorf("the powers of ten below a hundred are at %v", tens)
	}
	for _, c := range []struct {
		value, limit, x, mark float64
		over                  bool
	}{{0.05, 0.1, 25, 50, false}, {0.4, 0.1, 100 / 1.15, 25 / 1.15, true}, {0, 0, 0, 0, false}, {0.5, 0, 100 / 1.15, 0, true}} {
		a := againstLimit(&operator.Gate{Value: c.value, Limit: c.limit})
		if !near(a.X, c.x) || !near(a.Mark, c.mark) || a.Over != c.over {
			t.Errorf("%v of %v is drawn as %+v", c.value, c.limit, *a)
		}
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestWhatFollowsFromAGate(t *testing.T) {
	spec := &operator.RolloutSpec{OnFailure: operator.OnFailureRevert, Gates: []operator.GateSpec{{Kind: "drift", Inconclusive: "pass"}, {Kind: "errors", Inconclusive: "hold"}}}
	for _, c := range []struct{ kind, result, want string }{
		{"drift", "fail", "goes back"},
		{"drift", "inconclusive", "unproven"},
		{"errors", "inconclusive", "waits"},
		{"errors", "unproven", "without an answer"},
		{"errors", "waived", "judged again"},
		{"errors", "pass", ""},
	} {
		if got := follows(&operator.Gate{Kind: c.kind, Result: c.result}, spec); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s %s: %q, want %q", c.kind, c.result, got, c.want)
		}
	}
}

func TestNeedsOfAWave(t *testing.T) {
	soak := release.Duration(time.Hour)
	soaking := &operator.Wave{
		State: "soaking", SoakEnds: now.Add(15 * time.Minute), Deadline: now.Add(time.Hour), Opened: now.Add(-time.Hour),
		Spec: operator.WaveSpec{Soak: &soak, Quorum: 0.5}, Progress: operator.WaveProgress{Healthy: 3, Needed: 2, Counted: 4},
	}
	got := needsOf(soaking, now)
	if len(got) != 3 || !got[0].Met || got[0].X != 100 || got[1].X != 75 || got[1].Met || !got[1].At.Equal(soaking.SoakEnds) || got[2].Name != "Deadline" {
		t.Errorf("soaking: %+v", got)
	}
	pending := &operator.Wave{State: "pending", Spec: operator.WaveSpec{Soak: &soak, Quorum: 0.5, Deadline: soak, Approval: true}}
	var names []string
	for _, n := range needsOf(pending, now) {
		names = append(names, n.Name+" "+n.Want)
	}
	if want := []string{"Healthy 50\u2009%", "Soak 1 h", "Deadline 1 h", "Approval by a person"}; !slices.Equal(names, want) {
		t.Errorf("pending: %q, want %q", names, want)
	}
}

func TestConsequencesOfActions(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	for path, want := range map[string][]string{
		"pause":    {"2 devices are under way", "3 devices are waiting"},
		"rollback": {"3 devices go back to version 1.", "1 device goes back to having no version of the model.", "All at once"},
		"abort":    {"2 devices have version 2 and keep it.", "Offers to 2 devices", "3 devices are never offered it"},
		"next":     {"Wave 2 is closed with 0 of 4 devices healthy.", "Kept as unproven: latency.", "Wave 3 all opens and brings version 2 to 100\u2009% of 8 devices in all"},
	} {
		body := h.get("/rollouts/digits-2-1/" + path).body
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not say %q", path, text)
			}
		}
	}
	x, _ := h.Rollout(t.Context(), "digits-2-1")
	if got := consequences(x, operator.ActResume); len(got) != 1 || got[0] != "Gate install is waived: 1 of 3 devices failed to install it." {
		t.Errorf("resume: %q", got)
	}
	if got := consequences(x, operator.ActRetry); len(got) != 1 || got[0] != "1 device is offered 2 again: cam-b2." {
		t.Errorf("retry: %q", got)
	}
	if got := firstOffers(t.Context(), h.fleet, x); len(got) != 2 || got[0] != "As things are now, 1 device is offered 2 at first, of 7 in all." {
		t.Errorf("start: %q", got)
	}
}

// An action that the rollout does not allow now has no form, and is not done
// when somebody sends one nevertheless.
func TestActionThatIsNotPossible(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	got := h.get("/rollouts/digits-2-1/approve")
	if got.status != http.StatusConflict || !strings.Contains(got.body, "digits-2-1 cannot approve now: it is running") || !strings.Contains(got.body, "possible now: pause, next") {
		t.Errorf("status %d\n%s", got.status, got.body)
	}
	sent := h.do(h.request(http.MethodPost, "/rollouts/digits-2-1/approve", url.Values{csrfField: {h.code("/")}, "reason": {"x"}}))
	if sent.status != http.StatusConflict || len(h.actions) > 0 {
		t.Errorf("sent: status %d, done %q", sent.status, h.actions)
	}
	if got := h.get("/rollouts/digits-2-1/explode").status; got != http.StatusNotFound {
		t.Errorf("no action at all: status %d", got)
	}
}

// A page over ten thousand devices is no longer than one over a few hundred,
// and asks for itself less often.
func TestCrowd(t *testing.T) {
	sizes := map[int]int{}
	for _, n := range []int{1000, 10_000} {
		h := open(t)
		h.pages.cfg.Service = &crowded{fleet: h.fleet, x: crowd(n)}
		h.signIn("victor")
		body := h.get("/rollouts/digits-2-1").body
		sizes[n] = len(body)
		if rows := strings.Count(body, "<tr") + strings.Count(body, "<li"); rows > 500 {
			t.Errorf("%d devices: %d rows and chips", n, rows)
		}
		for _, want := range []string{`sse-connect="/events?every=5s&amp;kinds=rollout%2Cdevice"`, "more are not named here", "more decisions", "all devices of the wave", "and 23 more"} {
			if !strings.Contains(body, want) {
				t.Errorf("%d devices: the page does not hold %q", n, want)
			}
		}
		if unbalanced(body) != "" {
			t.Error(unbalanced(body))
		}
	}
	if small, large := sizes[1000], sizes[10_000]; large > 150_000 || float64(large) > 1.1*float64(small) {
		t.Errorf("the page has %d bytes for 1,000 devices and %d for 10,000", small, large)
	}
}

// BenchmarkRolloutPage of 10,000 devices; a watcher asks for it every 5 s.
func BenchmarkRolloutPage(b *testing.B) {
	x := crowd(10_000)
	s := New(Config{Service: &crowded{fleet: newFleet(), x: x}, Auth: authFunc(anyone), Now: func() time.Time { return now }})
	b.ReportAllocs()
	for b.Loop() {
		v, err := rolloutViewOf(x, &operator.Explanation{}, now)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.pages["rollout"].ExecuteTemplate(discard{}, "layout", &page{Data: v}); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestPaceOfEvents(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": refreshEvery, "nonsense": refreshEvery, "1ms": refreshEvery, "-5s": refreshEvery, "5s": 5 * time.Second, "24h": maxRefresh,
	} {
		if got := paceOf(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestTrain(t *testing.T) {
	for _, c := range []struct {
		state operator.RolloutState
		want  string
	}{
		{operator.RolloutRunning, "done now next"},
		{operator.RolloutPaused, "done now next"},
		{operator.RolloutHalted, "done stopped next"},
		{operator.RolloutAborted, "done stopped next"},
		{operator.RolloutReplaced, "done stopped next"},
		{operator.RolloutReverting, "back back next"},
		{operator.RolloutReverted, "back back next"},
		{operator.RolloutCompleted, "done done next"},
	} {
		var got []string
		for _, w := range rowOf(operator.RolloutSummary{State: c.state, Wave: 2, Waves: 3}).Wagons {
			got = append(got, w.Is)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.state, got, c.want)
		}
	}
}
