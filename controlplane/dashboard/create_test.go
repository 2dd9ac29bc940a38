package dashboard

import (
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// fields are what a browser would send of the last form of a page.
func fields(t *testing.T, page string) url.Values {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	out := url.Values{}
	for n := range root.Descendants() {
		name, value := attribute(n, "name"), attribute(n, "value")
		switch {
		case n.Type != html.ElementNode || n.Data == "button":
		case n.Data == "form":
			out = url.Values{}
		case n.Data == "option":
			if _, chosen := hasAttribute(n, "selected"); chosen || !out.Has(selectName(n)) {
				out.Set(selectName(n), value)
			}
		case n.Data == "textarea" && n.FirstChild != nil:
			out.Set(name, n.FirstChild.Data)
		case n.Data == "textarea":
			out.Set(name, "")
		case n.Data == "input" && attribute(n, "type") == "checkbox":
			if _, checked := hasAttribute(n, "checked"); checked {
				out.Set(name, "on")
			}
		case n.Data == "input":
			out.Set(name, value)
		}
	}
	return out
}

func hasAttribute(n *html.Node, key string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val, true
		}
	}
	return "", false
}

func attribute(n *html.Node, key string) string {
	v, _ := hasAttribute(n, key)
	return v
}

func selectName(option *html.Node) string {
	for p := range option.Ancestors() {
		if p.Data == "select" {
			return attribute(p, "name")
		}
	}
	return ""
}

// press sends the form of a page with one of its buttons.
func (h *house) press(path string, page answer, button string, change url.Values) answer {
	h.t.Helper()
	form := fields(h.t, page.body)
	maps.Copy(form, change)
	form.Set("do", button)
	return h.do(h.request(http.MethodPost, path, form))
}

const newPath = "/rollouts/new"

func TestCreateRollout(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	form := h.get(newPath + "?model=digits&version=2&selector=site%3Db")
	if got := fields(t, form.body); got.Get("what") != "digits 2" || got.Get("selector") != "site=b" || got.Get("wave.2.size") != "100%" || !strings.Contains(form.body, "<b>8</b> devices match") {
		t.Fatalf("the form is filled in with %v", got)
	}
	if strings.Contains(form.body, `value="create"`) {
		t.Error("it can be made before its plan was seen")
	}
	planned := h.press(newPath, form, "plan", url.Values{"wave.0.size": {"5%"}, "wave.0.name": {"few"}})
	for _, want := range []string{"What it would do", "needs arm64", "the first wave has 1 of 7 devices", "digits-1-4", "has 2 of the devices: this one cannot start", "on a metered link", "2 of 28 replays", "1.00 MiB without deltas", "2 devices are away", "3 h", "80 % or more would be seen", "742 KiB", "47 min", `value="few"`} {
		if !strings.Contains(planned.body, want) {
			t.Errorf("the plan does not show %q", want)
		}
	}
	if len(h.planned) != 1 || h.planned[0].Waves[0].Percent != 5 || h.planned[0].Waves[0].Count != 0 || h.planned[0].Selector != "site=b" {
		t.Errorf("planned %+v", h.planned)
	}
	if len(h.actions) > 0 {
		t.Fatalf("done before anybody asked: %q", h.actions)
	}
	made := h.press(newPath, planned, "start", url.Values{"reason": {"trained with\r\nnew lenses"}})
	if made.status != http.StatusSeeOther || made.header.Get("Location") != "/rollouts/digits-2-1" {
		t.Errorf("made: status %d to %q\n%s", made.status, made.header.Get("Location"), made.body)
	}
	if want := `olga: create digits 2 on "site=b" in 3 waves, start true, because trained with new lenses`; !slices.Equal(h.actions, []string{want}) {
		t.Errorf("done %q, want %q", h.actions, want)
	}
}

// What was not planned is not made: the form shows the plan of what it says
// now.
func TestCreateAfterAChange(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	planned := h.press(newPath, h.get(newPath), "plan", nil)
	changed := h.press(newPath, planned, "create", url.Values{"budget.in_flight": {"50"}, "reason": {"why"}})
	if changed.status != http.StatusOK || len(h.actions) > 0 || !strings.Contains(changed.body, "has changed since the plan") || len(h.planned) != 2 {
		t.Fatalf("status %d, done %q, planned %d", changed.status, h.actions, len(h.planned))
	}
	if made := h.press(newPath, changed, "create", nil); made.status != http.StatusSeeOther || len(h.actions) != 1 {
		t.Errorf("then: status %d, done %q", made.status, h.actions)
	}
}

func TestCreateRefused(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	form := h.get(newPath)
	for _, c := range []struct {
		change url.Values
		want   string
		status int
	}{
		{url.Values{"wave.2.size": {"lots"}}, "wave 3 size &#34;lots&#34;: must be a number of devices or a percentage", http.StatusBadRequest},
		{url.Values{"wave.2.size": {"90%"}}, "the last wave must be 100 percent", http.StatusBadRequest},
		{url.Values{"deadline": {"soon"}}, "must be a duration such as 15m or 24h", http.StatusBadRequest},
		{url.Values{"gate.errors.limit": {"NaN"}}, "must be a number", http.StatusBadRequest},
		{url.Values{"require.battery": {"-1"}}, "must be a whole number", http.StatusBadRequest},
		{url.Values{"selector": {"site=("}}, "selector", http.StatusBadRequest},
		{url.Values{"what": {"digits 9"}}, "there is no version 9", http.StatusNotFound},
	} {
		got := h.press(newPath, form, "plan", c.change)
		if got.status != c.status || !strings.Contains(got.body, c.want) {
			t.Errorf("%v: status %d, want %d and %q", c.change, got.status, c.status, c.want)
		}
		for name, values := range c.change {
			if kept := fields(t, got.body).Get(name); kept != values[0] && name != "what" {
				t.Errorf("what was typed as %s is lost: %q", name, kept)
			}
		}
	}
	h.refuse = operator.Errorf(operator.ReasonRequired, "a change of the fleet needs a reason")
	planned := h.press(newPath, form, "plan", url.Values{"reason": {"why not"}})
	got := h.press(newPath, planned, "create", nil)
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "needs a reason") {
		t.Errorf("refused by the server: status %d", got.status)
	}
}

func TestRowsOfTheForm(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	form := h.get(newPath)
	if fields(t, form.body).Has("wave.4.size") || !fields(t, form.body).Has("wave.3.size") {
		t.Fatal("the form does not have one empty row")
	}
	more := h.press(newPath, form, "row", url.Values{"wave.3.size": {"7"}, "wave.2.size": {"still nonsense"}})
	if got := fields(t, more.body); !got.Has("wave.5.size") || !got.Has("window.1.cron") || got.Get("wave.3.size") != "7" || got.Get("wave.2.size") != "still nonsense" {
		t.Errorf("after another row: %v", got)
	}
	if len(h.planned) > 0 {
		t.Error("a row asks for a plan")
	}
}

// The form and the YAML say the same: going from one to the other and back
// changes nothing.
func TestFormAndYAML(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	text := h.press(newPath, h.get(newPath), "yaml", url.Values{"selector": {"site in (a,b)"}, "window.0.cron": {"0 2 * * *"}, "window.0.duration": {"3h"}, "shadow.on": {"on"}})
	for _, want := range []string{"selector: site in (a,b)\n", "- name: canary\n", "- cron: 0 2 * * *\n", "duration: 3h\n", "shadow:"} {
		if !strings.Contains(html.UnescapeString(text.body), want) {
			t.Errorf("the YAML does not say %q", want)
		}
	}
	back := h.press(newPath, text, "form", nil)
	if got := fields(t, back.body); got.Get("selector") != "site in (a,b)" || got.Get("window.0.duration") != "3h" || got.Get("what") != "digits 2" || got.Get("shadow.on") != "on" {
		t.Errorf("back in the form: %v", got)
	}
	wrong := h.press(newPath, text, "plan", url.Values{"yaml": {"model: digits\nverzion: 2\n"}})
	if wrong.status != http.StatusBadRequest || !strings.Contains(wrong.body, "verzion") || fields(t, wrong.body).Get("yaml") != "model: digits\nverzion: 2\n" {
		t.Errorf("a misspelt field: status %d", wrong.status)
	}
	planned := h.press(newPath, text, "plan", nil)
	if made := h.press(newPath, planned, "create", url.Values{"reason": {"why"}}); made.status != http.StatusSeeOther || len(h.actions) != 1 {
		t.Errorf("made of YAML: status %d, done %q", made.status, h.actions)
	}
}

// full is a spec in which every field that a form has is set.
func full() operator.RolloutSpec {
	minute, share := release.Duration(time.Minute), 0.07
	spec, err := defaultSpec("digits", "2")
	if err != nil {
		panic(err)
	}
	budget := operator.Budget{InFlight: 3, PerMinute: 4, BytesPerSecond: 5 << 30, Unavailable: []operator.UnavailableLimit{{Label: "site", Max: 1}, {Label: "line", Percent: 12.5}}}
	spec.Selector, spec.Control, spec.Alpha, spec.Budget, spec.Revert = "site=b", &share, &share, budget, budget
	spec.Revert.BytesPerSecond = 0
	spec.Waves = []operator.WaveSpec{
		{Name: "few", Count: 3, Soak: &minute, Quorum: 0.55, Lateness: minute, Deadline: 2 * minute, Evidence: operator.EvidenceSpec{Devices: 2, Inferences: 1000, Hours: 1.5}, Approval: true},
		{Name: "all", Percent: 100, Soak: new(release.Duration), Quorum: 1, Lateness: 90 * minute},
	}
	spec.Gates[3].Limit, spec.Gates[4].Off, spec.Gates[5].Inconclusive, spec.Gates[6].Min = &share, true, "hold", 77
	spec.Shadow = &operator.ShadowSpec{Rows: 9, Share: 125, Deadline: minute}
	spec.Windows = []operator.WindowSpec{{Cron: "0 2 * * 1-5", Duration: 180 * minute, TimeZone: "Europe/Berlin"}, {Cron: "30 12 * * *", Duration: minute}}
	spec.Require = operator.Require{Unmetered: true, Mains: true, Battery: 30}
	spec.OnFailure, spec.OnConflict, spec.Supersedes, spec.Approval = operator.OnFailureRevert, "queue", "digits-1-1", true
	spec.StartAt = time.Date(2026, 3, 15, 2, 30, 0, 0, time.UTC)
	spec.DeviceDeadline, spec.DecisionDeadline, spec.Deadline = 61*minute, 25*60*minute, 48*60*minute
	return *spec
}

func TestFormHoldsEveryField(t *testing.T) {
	want := full()
	for name, value := range reflect.ValueOf(want).Fields() {
		if value.IsZero() {
			t.Errorf("field %s is not part of this test", name.Name)
		}
	}
	got, err := specOfForm(formOfSpec(&want))
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("through the form: %v\ngot  %+v\nwant %+v", err, *got, want)
	}
	text, err := specYAML(&want)
	if err != nil {
		t.Fatal(err)
	}
	read, err := completeSpec(text)
	if err != nil || !reflect.DeepEqual(*read, want) {
		t.Errorf("through YAML: %v\n%s", err, text)
	}
	for _, line := range []string{"soak: 1m\n", "lateness: 1h30m\n", "deadline: 48h\n", "soak: 0s\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("the YAML does not say %q:\n%s", line, text)
		}
	}
}

// The page's own fields are those of the binder: one that the template misses
// would fall back to its default unseen.
func TestTemplateHasEveryField(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	shown := fields(t, h.get(newPath).body)
	spec := full()
	for name := range formOfSpec(&spec) {
		row := strings.NewReplacer("unavailable.1.", "unavailable.0.", "window.1.", "window.0.").Replace(name)
		checkbox := strings.HasSuffix(name, "approval") || name == "shadow.on" || name == "require.mains" || name == "require.unmetered"
		if !shown.Has(row) && !checkbox {
			t.Errorf("the form lacks %s", row)
		}
	}
}

func TestRevise(t *testing.T) {
	const path = "/rollouts/digits-2-1/revise"
	h := open(t)
	h.signIn("olga")
	form := h.get(path)
	text := fields(t, form.body).Get("yaml")
	if !strings.Contains(text, "in_flight: 2\n") || strings.Contains(form.body, `value="send"`) {
		t.Fatalf("the form holds %q", text)
	}
	same := h.press(path, form, "show", nil)
	if !strings.Contains(same.body, "this is the spec that holds now") {
		t.Error("nothing changed, and something is shown")
	}
	wider := url.Values{"yaml": {strings.Replace(text, "in_flight: 2\n", "in_flight: 5\n", 1)}}
	early := h.press(path, form, "send", wider)
	if len(h.actions) > 0 || early.status != http.StatusOK || !strings.Contains(early.body, "differences now") {
		t.Fatalf("sent unseen: status %d, done %q", early.status, h.actions)
	}
	shown := h.press(path, form, "show", wider)
	for _, want := range []string{"budget.in_flight", "<del><code>2</code></del>", "<ins><code>5</code></ins>"} {
		if !strings.Contains(shown.body, want) {
			t.Errorf("the differences do not show %q", want)
		}
	}
	again := url.Values{"yaml": {strings.Replace(text, "in_flight: 2\n", "in_flight: 9\n", 1)}, "reason": {"more"}}
	if h.press(path, shown, "send", again); len(h.actions) > 0 {
		t.Errorf("sent what was not shown: %q", h.actions)
	}
	sent := h.press(path, shown, "send", url.Values{"reason": {"there is room"}})
	if sent.status != http.StatusSeeOther || !slices.Equal(h.actions, []string{"olga: revise digits-2-1 to 5 at a time because there is room"}) {
		t.Errorf("status %d, done %q", sent.status, h.actions)
	}
	if got := h.press(path, form, "show", url.Values{"yaml": {"waves: ["}}); got.status != http.StatusBadRequest || fields(t, got.body).Get("yaml") != "waves: [" {
		t.Errorf("broken YAML: status %d", got.status)
	}
}

func TestWhoMayCreateAndRevise(t *testing.T) {
	for _, path := range []string{newPath, "/rollouts/digits-2-1/revise"} {
		h := open(t)
		h.signIn("victor")
		if got := h.get(path).status; got != http.StatusForbidden {
			t.Errorf("%s for a viewer: status %d", path, got)
		}
		got := h.do(h.request(http.MethodPost, path, url.Values{csrfField: {h.code("/")}, "do": {"start"}}))
		if got.status != http.StatusForbidden || len(h.actions)+len(h.planned) > 0 {
			t.Errorf("%s by a viewer: status %d, done %q", path, got.status, h.actions)
		}
		h.signIn("olga")
		got = h.do(h.request(http.MethodPost, path, url.Values{"do": {"start"}, "reason": {"x"}}))
		if got.status != http.StatusForbidden || len(h.actions)+len(h.planned) > 0 {
			t.Errorf("%s without the session's code: status %d", path, got.status)
		}
	}
	h := open(t)
	h.signIn("victor")
	if body := h.get("/rollouts").body; strings.Contains(body, "New rollout") {
		t.Error("a viewer is offered a new rollout")
	}
}

func TestMatchingDevices(t *testing.T) {
	h := open(t)
	h.signIn("olga")
	if got := h.get("/rollouts/new/matching?selector=site%3Db").body; !strings.Contains(got, `<output id="matching"><b>8</b> devices match: <a href="/devices/cam-a1">`) {
		t.Errorf("the count is\n%s", got)
	}
}

func TestPlanGroups(t *testing.T) {
	groups := map[string]int{}
	for i := range 9 {
		groups[string(rune('a'+i))] = i + 1
	}
	got := largest(groups)
	if len(got) != groupsShown+1 || got[0] != (counted{"i", 9}) || got[groupsShown] != (counted{"3 others", 6}) {
		t.Errorf("got %v", got)
	}
}
