package incident

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// hook takes messages in simulated time.
type hook struct {
	mu     sync.Mutex
	answer func(n int) int // status of the nth post; nil: 200
	posts  int             // guarded by mu
	got    []Message       // guarded by mu; those that were taken
	bodies []string        // guarded by mu; of all
}

func (h *hook) RoundTrip(req *http.Request) (*http.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	h.posts++
	h.bodies = append(h.bodies, req.URL.Host+" "+string(body))
	status := http.StatusOK
	if h.answer != nil {
		status = h.answer(h.posts)
	}
	var m Message
	if status == http.StatusOK && json.Unmarshal(body, &m) == nil && m.ID != "" {
		if err := delivery.Verify("s3cret", req.Header.Get(delivery.SignatureHeader), time.Now(), time.Minute, body); err != nil {
			return nil, err
		}
		h.got = append(h.got, m)
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

// told is what was taken, as "phase title" lines.
func (h *hook) told() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []string{}
	for _, m := range h.got {
		out = append(out, fmt.Sprintf("%s %d", m.Phase, len(m.Incidents)+m.More))
	}
	return out
}

// seen copies what was posted.
func (h *hook) seen() (taken []Message, bodies []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got), slices.Clone(h.bodies)
}

// settingsOf tells everything to one webhook.
func settingsOf(change ...func(*operator.NotifySettings)) operator.NotifySettings {
	s := operator.NotifySettings{
		Receivers: []operator.Receiver{{Name: "ops", Webhook: &operator.NotifyWebhook{URL: "http://hook.example/in", Secret: "s3cret"}}},
		Link:      "https://vedette.example",
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

// world is a board that runs in simulated time.
type world struct {
	t     *testing.T
	store kvstore.Bucket
	hook  *hook
	board *Board
	stop  func()
}

func newWorld(t *testing.T, s operator.NotifySettings) *world {
	t.Helper()
	w := &world{t: t, store: kvstore.NewMemory(), hook: &hook{}}
	w.begin(w.store)
	if err := w.board.SetSettings(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return w
}

// begin starts a board on a store; end kills it.
func (w *world) begin(store kvstore.Bucket) {
	w.board = board(w.t, store, Config{Client: &http.Client{Transport: w.hook}})
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.board.Run(ctx) })
	w.stop = func() { cancel(); running.Wait() }
}

func (w *world) raise(c Cause) {
	w.t.Helper()
	if err := w.board.Raise(w.t.Context(), time.Now(), c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) clear(key string) {
	w.t.Helper()
	if err := w.board.Clear(w.t.Context(), time.Now(), key, "recovered"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) want(what string, told ...string) {
	w.t.Helper()
	if got := w.hook.told(); !slices.Equal(got, told) {
		w.t.Errorf("%s: told %q, want %q", what, got, told)
	}
}

func TestOneCauseIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settingsOf())
		defer func() { w.stop() }()
		w.raise(cause("a"))
		w.pass(29 * time.Second)
		w.want("within the group wait")
		w.raise(cause("b")) // same kind and model: goes with it
		other := cause("c")
		other.Model = "letters"
		w.raise(other)
		w.pass(2 * time.Second)
		w.want("after it", "open 2")
		for range 100 {
			w.raise(cause("a"))
			w.pass(time.Minute)
		}
		w.want("raised a hundred times", "open 2", "open 1")
		w.pass(3 * time.Hour)
		w.want("after four hours", "open 2", "open 1", "reminder 2", "reminder 1")
		for _, i := range w.board.Incidents() {
			if i.Cause.Key != "a" {
				if _, err := w.board.Acknowledge(t.Context(), time.Now(), i.ID, "ada", "seen"); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.pass(4 * time.Hour)
		w.want("acknowledged", "open 2", "open 1", "reminder 2", "reminder 1", "reminder 1")
		w.clear("a")
		w.pass(5 * time.Minute)
		w.want("in the grace time", "open 2", "open 1", "reminder 2", "reminder 1", "reminder 1")
		w.pass(6 * time.Minute)
		w.want("over", "open 2", "open 1", "reminder 2", "reminder 1", "reminder 1", "resolved 1")
		w.pass(48 * time.Hour)
		w.want("two days later", "open 2", "open 1", "reminder 2", "reminder 1", "reminder 1", "resolved 1")
		taken, _ := w.hook.seen()
		m := taken[0]
		for _, want := range []string{"[warning, digits] 2 incidents: site hall-b has left", "cohort: hall-b", "since: ", "What to do: see which features moved", "https://vedette.example/models/digits/drift", "Incidents: https://vedette.example/incidents"} {
			if !strings.Contains(m.Title+m.Text, want) {
				t.Errorf("the message lacks %q:\n%s\n%s", want, m.Title, m.Text)
			}
		}
		if i, _ := w.board.Newest("a"); whats(&i) != "opened, told, told, told, resolved, told" {
			t.Errorf("timeline: got %s", whats(&i))
		}
	})
}

func TestFlappingIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settingsOf())
		defer func() { w.stop() }()
		for range 15 { // 3 minutes bad, 8 good
			w.raise(cause("a"))
			w.pass(3 * time.Minute)
			w.clear("a")
			w.pass(8 * time.Minute)
		}
		w.want("flapping", "open 1")
		w.pass(24 * time.Hour)
		w.want("quiet again", "open 1", "resolved 1")
		w.raise(cause("b")) // gone before anybody was told
		w.pass(10 * time.Second)
		w.clear("b")
		w.pass(24 * time.Hour)
		w.want("a blip", "open 1", "resolved 1")
		bad := cause("c")
		w.raise(bad)
		w.pass(time.Minute)
		bad.Severity = Critical
		w.raise(bad)
		w.pass(time.Second)
		w.want("it grew worse", "open 1", "resolved 1", "open 1", "open 1")
		i, _ := w.board.Newest("c")
		if _, err := w.board.Resolve(t.Context(), time.Now(), i.ID, "ada", "done"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		w.want("resolved by hand", "open 1", "resolved 1", "open 1", "open 1", "resolved 1")
	})
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settingsOf())
		defer func() { w.stop() }()
		quiet, err := w.board.Silence(t.Context(), time.Now(), "ada", operator.SilenceCreate{Model: "digits", Kind: Drift, For: release.Duration(2 * time.Hour), Reason: "works in hall b"})
		if err != nil {
			t.Fatal(err)
		}
		w.raise(cause("a"))
		other := cause("b")
		other.Kind = Accuracy
		w.raise(other)
		w.pass(time.Hour)
		w.want("the other kind alone", "open 1")
		if i, _ := w.board.Newest("a"); w.board.SilenceOf(&i, time.Now()) != quiet.ID {
			t.Error("the incident does not say which silence keeps it quiet")
		}
		w.stop() // a restart keeps the silence
		w.begin(w.store)
		w.pass(59 * time.Minute)
		w.want("still", "open 1")
		w.pass(2 * time.Minute)
		w.want("the silence ended", "open 1", "open 1")
		if _, err := w.board.Silence(t.Context(), time.Now(), "ada", operator.SilenceCreate{For: release.Duration(time.Hour)}); !errors.Is(err, ErrSilence) {
			t.Errorf("silence of everything: got %v, want ErrSilence", err)
		}
		if _, err := w.board.Silence(t.Context(), time.Now(), "ada", operator.SilenceCreate{Model: "m", For: release.Duration(91 * 24 * time.Hour)}); !errors.Is(err, ErrSilence) {
			t.Errorf("for ever: got %v, want ErrSilence", err)
		}
		quiet, err = w.board.Silence(t.Context(), time.Now(), "ada", operator.SilenceCreate{Key: "b", For: release.Duration(24 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		w.pass(8 * time.Hour)
		w.want("reminders of a alone", "open 1", "open 1", "reminder 1", "reminder 1")
		if err := w.board.Expire(t.Context(), time.Now(), quiet.ID); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		w.want("expired", "open 1", "open 1", "reminder 1", "reminder 1", "reminder 1")
		if err := w.board.Expire(t.Context(), time.Now(), quiet.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("expire twice: got %v, want ErrNotFound", err)
		}
		w.pass(8 * 24 * time.Hour)
		if n := len(w.board.Silences()); n != 0 {
			t.Errorf("a week later %d silences are listed", n)
		}
	})
}

func TestFilters(t *testing.T) {
	i := open(start, cause("a"), nil, 0)
	for name, c := range map[string]struct {
		r    operator.Receiver
		want bool
	}{
		"all":          {operator.Receiver{}, true},
		"its kind":     {operator.Receiver{Kinds: []string{Accuracy, Drift}}, true},
		"other kind":   {operator.Receiver{Kinds: []string{Accuracy}}, false},
		"its model":    {operator.Receiver{Models: []string{"digits"}}, true},
		"other model":  {operator.Receiver{Models: []string{"letters"}}, false},
		"grave ones":   {operator.Receiver{Severity: "critical"}, false},
		"warnings too": {operator.Receiver{Severity: "warning"}, true},
	} {
		if i.Cause.Severity = Warning; listens(&c.r, i) != c.want {
			t.Errorf("%s: got %v", name, !c.want)
		}
	}
}

func TestReceiverThatCannotBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settingsOf(func(s *operator.NotifySettings) {
			s.Receivers = append(s.Receivers, operator.Receiver{Name: "chat", Slack: &operator.NotifySlack{URL: "https://chat.example/T0KEN"}})
		}))
		defer func() { w.stop() }()
		var broken atomic.Bool
		broken.Store(true)
		w.hook.answer = func(int) int {
			if broken.Load() && strings.HasPrefix(w.hook.bodies[len(w.hook.bodies)-1], "chat.example") {
				return http.StatusNotFound
			}
			return http.StatusOK
		}
		c := cause("a")
		c.Summary = "<!channel> & more"
		w.raise(c)
		w.pass(2 * time.Minute)
		w.want("both are told, and of each other", "open 1", "open 1")
		taken, bodies := w.hook.seen()
		last := taken[1]
		if last.Kind != NotifyDead || strings.Contains(last.Text, "T0KEN") || !strings.Contains(last.Text, "404") {
			t.Errorf("got %+v", last)
		}
		if posted := strings.Join(bodies, "\n"); !strings.Contains(posted, `&lt;!channel\u0026gt;`) && !strings.Contains(posted, `\u0026lt;!channel\u0026gt; \u0026amp; more`) {
			t.Errorf("the text for Slack is not escaped: %s", posted)
		}
		broken.Store(false)
		w.pass(5 * time.Hour) // the next reminder is taken
		if i, ok := w.board.Newest(deadKey("chat")); !ok || i.State != Resolved {
			t.Errorf("got %+v, want it resolved", i)
		}
	})
}

// flaky is a bucket that fails writes now and then, after or before they took effect.
type flaky struct {
	kvstore.Bucket
	mu  *sync.Mutex
	rng *rand.Rand // guarded by mu
}

func (f flaky) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	f.mu.Lock()
	luck := f.rng.IntN(8)
	f.mu.Unlock()
	switch luck {
	case 0:
		return 0, errStore
	case 1:
		_, err := f.Bucket.Put(ctx, key, value)
		return 0, errors.Join(err, errStore)
	default:
		return f.Bucket.Put(ctx, key, value)
	}
}

// However often the server is killed and its store fails: nobody is told the
// same under two ids, and nothing is forgotten.
func TestToldOverRestarts(t *testing.T) {
	for seed := range uint64(15) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, settingsOf(func(s *operator.NotifySettings) { s.Repeat = release.Duration(7 * 24 * time.Hour) }))
			rng := rand.New(rand.NewPCG(seed, 1))
			luck := rand.New(rand.NewPCG(seed, 2))
			w.hook.answer = func(int) int { return []int{200, 200, 502}[luck.IntN(3)] }
			for i := range 10 {
				w.stop()
				w.begin(flaky{w.store, new(sync.Mutex), rand.New(rand.NewPCG(seed, uint64(i)+3))})
				c := cause(fmt.Sprint("k", i))
				c.Model = fmt.Sprint("m", i) // a group of its own
				for w.board.Raise(t.Context(), time.Now(), c) != nil {
					time.Sleep(time.Second)
				}
				w.pass(time.Duration(rng.IntN(60)) * time.Second)
			}
			w.stop()
			w.hook.answer = nil
			w.begin(w.store)
			w.pass(2 * time.Hour)
			w.stop()
			ids := map[string]map[string]bool{} // of messages, by incident and phase
			taken, _ := w.hook.seen()
			for _, m := range taken {
				for _, i := range m.Incidents {
					key := i.ID + " " + string(m.Phase)
					if ids[key] == nil {
						ids[key] = map[string]bool{}
					}
					ids[key][m.ID] = true
				}
			}
			if len(ids) != 10 {
				t.Errorf("seed %d: told of %d incidents, want 10", seed, len(ids))
			}
			for key, all := range ids {
				if len(all) != 1 {
					t.Errorf("seed %d: %s was told under %d ids", seed, key, len(all))
				}
			}
			if len(w.board.notices) != 0 {
				t.Errorf("seed %d: %d notices stay", seed, len(w.board.notices))
			}
		})
	}
}

func TestMessagesAreBounded(t *testing.T) {
	all := []due{}
	for n := range 500 {
		c := cause(fmt.Sprint("k", n))
		c.Summary, c.Detail = strings.Repeat("s", maxSummary), strings.Repeat("d", maxDetail)
		all = append(all, due{open(start, c, nil, 0), PhaseOpen, start})
	}
	m := compose("notice-1", start, all, "")
	chat, err := m.slack()
	if err != nil || len(m.Text) > maxText || len(m.Title) > maxTitle || len(m.Incidents) != maxListed || m.More != 490 || len(chat) > 2*maxSlackText {
		t.Errorf("text %d, title %d, listed %d, more %d, chat %d, %v", len(m.Text), len(m.Title), len(m.Incidents), m.More, len(chat), err)
	}
}
