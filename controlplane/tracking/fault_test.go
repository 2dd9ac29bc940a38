package tracking_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// history is what random callers do: it can be done to several stores alike, as
// their names are its own.
type history struct {
	t                            *testing.T
	rng                          *rand.Rand
	stores                       []*tracking.Store
	alias                        []map[string]string // ids of each store by those of the first
	runs, groups, logged, models []string            // as the first calls them
}

// id is what a store calls what the first one calls so.
func (h *history) id(store int, of string) string {
	if of == "" || store == 0 {
		return of
	}
	return h.alias[store][of]
}

// all does one thing to every store. All have to answer alike.
func (h *history) all(what string, do func(n int, s *tracking.Store) (id string, err error)) string {
	h.t.Helper()
	var first string
	var want error
	for n, s := range h.stores {
		id, err := do(n, s)
		if n == 0 {
			first, want = id, err
			continue
		}
		if code(err) != code(want) || (err == nil) != (want == nil) {
			h.t.Fatalf("%s: store %d answers %v, the first %v", what, n, err, want)
		}
		if id != "" {
			h.alias[n][first] = id
		}
	}
	return first
}

// some is one of a list, "0" of none.
func (h *history) some(of []string) string {
	if len(of) == 0 {
		return "0"
	}
	return of[h.rng.IntN(len(of))]
}

// choice is what a step is done to, and with.
type choice struct {
	run, group, logged, model, text string
	yes                             bool
	version                         int
}

// step does one random thing.
func (h *history) step() {
	steps := []func(choice){
		h.createExperiment, h.changeExperiment, h.deleteExperiment, h.createRun, h.createRun, h.log, h.log, h.log, h.log,
		h.deleteRun, h.logModel, h.tagModel, h.register, h.createVersion, h.promote, h.drop,
	}
	steps[h.rng.IntN(len(steps))](choice{
		h.some(h.runs), h.some(h.groups), h.some(h.logged), h.some(h.models), strconv.Itoa(h.rng.IntN(5)), h.rng.IntN(2) == 0, 1 + h.rng.IntN(3),
	})
}

func (h *history) createExperiment(c choice) {
	id := h.all("create experiment", func(_ int, s *tracking.Store) (string, error) {
		e, err := s.CreateExperiment(h.t.Context(), "e"+c.text, "", map[string]string{"t": c.text})
		return e.ID, err
	})
	if id != "" {
		h.groups = append(h.groups, id)
	}
}

func (h *history) changeExperiment(c choice) {
	h.all("change experiment", func(n int, s *tracking.Store) (string, error) {
		if c.yes {
			return "", s.SetExperimentTag(h.t.Context(), h.id(n, c.group), "t", &c.text)
		}
		return "", s.RenameExperiment(h.t.Context(), h.id(n, c.group), "e"+c.text)
	})
}

func (h *history) deleteExperiment(c choice) {
	h.all("delete experiment", func(n int, s *tracking.Store) (string, error) {
		return "", s.DeleteExperiment(h.t.Context(), h.id(n, c.group), c.yes)
	})
}

func (h *history) createRun(c choice) {
	started := h.rng.Int64N(1000) + 1
	id := h.all("create run", func(n int, s *tracking.Store) (string, error) {
		r, err := s.CreateRun(h.t.Context(), tracking.Run{Experiment: h.id(n, c.group), Name: "r" + c.text, StartedMS: started})
		return r.ID, err
	})
	if id != "" {
		h.runs = append(h.runs, id)
	}
}

func (h *history) log(c choice) {
	b := tracking.Batch{Params: map[string]string{"p" + c.text: c.text}, Tags: map[string]string{"t": c.text}}
	for range h.rng.IntN(4) {
		b.Metrics = append(b.Metrics, value("m"+c.text, h.rng.Float64(), h.rng.Int64N(5), h.rng.Int64N(5)))
	}
	if h.rng.IntN(8) == 0 { // two of these make a run large
		b.Params["long"+c.text] = strings.Repeat("long ", 1200)
	}
	h.all("log", func(n int, s *tracking.Store) (string, error) {
		b := b
		b.Metrics = slices.Clone(b.Metrics)
		for i := range b.Metrics {
			if c.yes && len(h.logged) > 0 {
				b.Metrics[i].ModelID = h.id(n, c.logged)
			}
		}
		return "", s.Log(h.t.Context(), h.id(n, c.run), b)
	})
}

// deleteRun deletes or restores a run, or purges what is deleted.
func (h *history) deleteRun(c choice) {
	h.all("delete run", func(n int, s *tracking.Store) (string, error) {
		if c.version == 1 {
			_, err := s.Purge(h.t.Context(), time.Now().Add(time.Hour))
			return "", err
		}
		return "", s.DeleteRun(h.t.Context(), h.id(n, c.run), c.yes)
	})
}

func (h *history) logModel(c choice) {
	id := h.all("log model", func(n int, s *tracking.Store) (string, error) {
		m, err := s.CreateLoggedModel(h.t.Context(), tracking.LoggedModel{Experiment: h.id(n, c.group), Name: "l" + c.text})
		return m.ID, err
	})
	if id != "" {
		h.logged = append(h.logged, id)
	}
}

func (h *history) tagModel(c choice) {
	h.all("tag model", func(n int, s *tracking.Store) (string, error) {
		_, err := s.SetLoggedModelTags(h.t.Context(), h.id(n, c.logged), map[string]string{"t": c.text}, nil)
		return "", err
	})
}

func (h *history) register(c choice) {
	h.all("register", func(_ int, s *tracking.Store) (string, error) {
		_, err := s.CreateRegisteredModel(h.t.Context(), "m"+c.text, c.text, nil)
		return "", err
	})
	h.models = append(h.models, "m"+c.text)
}

func (h *history) createVersion(c choice) {
	h.all("create version", func(_ int, s *tracking.Store) (string, error) {
		_, err := s.CreateVersion(h.t.Context(), tracking.ModelVersion{Name: c.model, Source: c.text})
		return "", err
	})
}

func (h *history) promote(c choice) {
	h.all("promote", func(_ int, s *tracking.Store) (string, error) {
		_, err := s.SetVersionStage(h.t.Context(), "ada", c.model, c.version, tracking.StageProduction, true)
		if err == nil {
			err = s.SetAlias(h.t.Context(), c.model, "a"+c.text, c.version)
		}
		return "", err
	})
}

// drop renames or deletes a registered model, or deletes a version of it.
func (h *history) drop(c choice) {
	h.all("drop", func(_ int, s *tracking.Store) (string, error) {
		switch {
		case c.version == 1:
			_, err := s.RenameRegisteredModel(h.t.Context(), c.model, "m"+c.text)
			return "", err
		case c.version == 2 && c.yes:
			return "", s.DeleteRegisteredModel(h.t.Context(), c.model)
		default:
			return "", s.DeleteVersion(h.t.Context(), c.model, c.version)
		}
	})
}

// canonical is the state of a store with the ids of the first and without times,
// which differ.
func (h *history) canonical(n int) state {
	out := dump(h.t, h.stores[n])
	names := map[string]string{}
	for first, own := range h.alias[n] {
		names[own] = first
	}
	canon := func(s string) string {
		for own, first := range names {
			if len(own) > 8 {
				s = strings.ReplaceAll(s, own, first)
			}
		}
		return s
	}
	for i := range out.Experiments {
		out.Experiments[i].CreatedMS, out.Experiments[i].UpdatedMS = 0, 0
	}
	for i := range out.Runs {
		r := &out.Runs[i]
		r.ID, r.ArtifactURI = canon(r.ID), canon(r.ArtifactURI)
		if r.DeletedMS != 0 {
			r.DeletedMS = 1
		}
		for k, m := range r.Metrics {
			m.ModelID = canon(m.ModelID)
			r.Metrics[k] = m
		}
	}
	for i := range out.Logged {
		m := &out.Logged[i]
		m.ID, m.ArtifactURI, m.CreatedMS, m.UpdatedMS = canon(m.ID), canon(m.ArtifactURI), 0, 0
		for k := range m.Metrics {
			m.Metrics[k].ModelID = canon(m.Metrics[k].ModelID)
		}
	}
	for i := range out.Models {
		m := &out.Models[i]
		m.CreatedMS, m.UpdatedMS = 0, 0
		for v := range m.Versions {
			m.Versions[v].CreatedMS, m.Versions[v].UpdatedMS = 0, 0
			for c := range m.Versions[v].History {
				m.Versions[v].History[c].AtMS = 0
			}
		}
	}
	slices.SortFunc(out.Experiments, func(a, b tracking.Experiment) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(out.Runs, func(a, b tracking.Run) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(out.Logged, func(a, b tracking.LoggedModel) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// differ tells the first difference of two states, "" for none.
func differ(got, want state) string {
	return cmp.Or(differing("experiment", got.Experiments, want.Experiments), differing("run", got.Runs, want.Runs),
		differing("logged model", got.Logged, want.Logged), differing("registered model", got.Models, want.Models))
}

func differing[T any](what string, got, want []T) string {
	for i := range min(len(got), len(want)) {
		// As text: whether a map is empty or not there makes no difference.
		if g, w := fmt.Sprintf("%+v", got[i]), fmt.Sprintf("%+v", want[i]); g != w {
			return fmt.Sprintf("%s %d: got\n%.1500s\nwant\n%.1500s", what, i, g, w)
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("got %d %ss, want %d", len(got), what, len(want))
	}
	return ""
}

// faulty is a bucket whose writes can be made to fail after some of them, as when
// the process is killed in the middle of a checkpoint.
type faulty struct {
	kvstore.Bucket

	left int // writes that succeed; below 0 all do
}

var errKilled = errors.New("killed")

func (f *faulty) allow() error {
	if f.left == 0 {
		return errKilled
	}
	f.left--
	return nil
}

func (f *faulty) Put(ctx context.Context, key string, v []byte) (uint64, error) {
	if err := f.allow(); err != nil {
		return 0, err
	}
	return f.Bucket.Put(ctx, key, v)
}

func (f *faulty) Delete(ctx context.Context, key string) error {
	if err := f.allow(); err != nil {
		return err
	}
	return f.Bucket.Delete(ctx, key)
}

// A store in JetStream that is stopped and killed again and again, also in the
// middle of a checkpoint, answers as one in memory does that never was.
func TestRestartsChangeNothing(t *testing.T) {
	seeds := 2
	if os.Getenv("VEDETTE_FULL") != "" {
		seeds = 60
	}
	dir, ca := t.TempDir(), brokertest.CA(t)
	for seed := range seeds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			b := brokertest.StartAt(t, filepath.Join(dir, strconv.Itoa(seed)), ca)
			disk := &faulty{Bucket: openBucket(t, b.Conn()), left: -1}
			reopen := func() *tracking.Store {
				s, err := tracking.Open(t.Context(), tracking.Config{Conn: b.Conn(), Bucket: disk})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			h := &history{t: t, rng: rng, stores: []*tracking.Store{tracking.NewMemory(), reopen()}, alias: []map[string]string{{}, {"0": "0"}}}
			for range 10 {
				for range 40 {
					h.step()
				}
				if disk.left = -1; rng.IntN(3) > 0 {
					disk.left = rng.IntN(8)
				}
				if err := h.stores[1].Close(t.Context()); err != nil && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				disk.left = -1
				h.stores[1] = reopen()
				if d := differ(h.canonical(1), h.canonical(0)); d != "" {
					t.Fatalf("after a restart: %s", d)
				}
			}
			h.histories()
			ok(t, errors.Join(h.stores[0].Close(t.Context()), h.stores[1].Close(t.Context())))
		})
	}
}

// histories compares what was logged of all metrics.
func (h *history) histories() {
	h.t.Helper()
	for _, id := range h.runs {
		for n := range 5 {
			key := "m" + strconv.Itoa(n)
			want, _, err := h.stores[0].MetricHistory(h.t.Context(), id, key, 0, "")
			got, _, err2 := h.stores[1].MetricHistory(h.t.Context(), h.id(1, id), key, 0, "")
			for i := range want {
				want[i].ModelID = ""
			}
			for i := range got {
				got[i].ModelID = ""
			}
			if code(err) != code(err2) || !slices.Equal(got, want) {
				h.t.Errorf("history of %s: got %v, %v, want %v, %v", key, got, err2, want, err)
			}
		}
	}
}

// A journal or a checkpoint that is not what it was is told, not used.
func TestDamageIsTold(t *testing.T) {
	dir, ca := t.TempDir(), brokertest.CA(t)
	for name, damage := range map[string]func(*testing.T, jetstream.JetStream) error{
		"the journal is a new one": func(t *testing.T, js jetstream.JetStream) error {
			t.Helper()
			return js.DeleteStream(t.Context(), "TRACKING")
		},
		"the journal is shorter": func(t *testing.T, js jetstream.JetStream) error {
			t.Helper()
			return setMarker(t, js, func(m map[string]any) { m["seq"] = 99 })
		},
		"the journal says something else": func(t *testing.T, js jetstream.JetStream) error {
			t.Helper()
			return setMarker(t, js, func(m map[string]any) { m["seq"] = 1 })
		},
		"a newer format": func(t *testing.T, js jetstream.JetStream) error {
			t.Helper()
			return setMarker(t, js, func(m map[string]any) { m["format"] = 2 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := brokertest.StartAt(t, filepath.Join(dir, name), ca)
			w := &world{Store: open(t, b.Conn()), tb: t}
			newRun(t, w)
			ok(t, w.Close(t.Context()))
			js, err := jetstream.New(b.Conn())
			ok(t, err)
			ok(t, damage(t, js))
			_, err = tracking.Open(t.Context(), tracking.Config{Conn: b.Conn(), Bucket: openBucket(t, b.Conn())})
			if err == nil {
				t.Fatal("it was opened")
			}
			if strings.HasPrefix(name, "the journal") && !errors.Is(err, tracking.ErrDamaged) {
				t.Errorf("got %v, want ErrDamaged", err)
			}
		})
	}
}

// A checkpoint that cannot be read costs time and nothing else.
func TestTornCheckpointIsMadeAnew(t *testing.T) {
	b := brokertest.Start(t)
	w := &world{tb: t, reopen: func() *tracking.Store { return open(t, b.Conn()) }}
	w.Store = w.reopen()
	for range 3 {
		ok(t, w.Log(t.Context(), newRun(t, w), tracking.Batch{Metrics: []tracking.Metric{value("acc", 1, 0, 0)}}))
	}
	want := dump(t, w.Store)
	w.again()
	ok(t, w.Close(t.Context()))
	js, err := jetstream.New(b.Conn())
	ok(t, err)
	ok(t, putRaw(t, js, "run.small.0", []byte("torn")))
	for range 2 {
		w.Store = w.reopen()
		if d := differ(dump(t, w.Store), want); d != "" {
			t.Error(d)
		}
		ok(t, w.Close(t.Context()))
	}
}

// setMarker changes what a checkpoint says of the journal.
func setMarker(t *testing.T, js jetstream.JetStream, change func(map[string]any)) error {
	t.Helper()
	kv, err := js.KeyValue(t.Context(), "tracking")
	if err != nil {
		return err
	}
	e, err := kv.Get(t.Context(), "marker")
	if err != nil {
		return err
	}
	m := map[string]any{}
	if err := cbor.Unmarshal(e.Value(), &m); err != nil {
		return err
	}
	change(m)
	raw, err := cbor.Marshal(m)
	if err != nil {
		return err
	}
	return putRaw(t, js, "marker", raw)
}

func putRaw(t *testing.T, js jetstream.JetStream, key string, raw []byte) error {
	t.Helper()
	kv, err := js.KeyValue(t.Context(), "tracking")
	if err == nil {
		_, err = kv.Put(t.Context(), key, raw)
	}
	return err
}
