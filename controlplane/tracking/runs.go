package tracking

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unique"
)

// Tags that MLflow gives a meaning.
const (
	tagRunName = "mlflow.runName"
	tagUser    = "mlflow.user"
)

// CreateRun makes a run of what is set in it; id, status and artifact place are
// given.
func (s *Store) CreateRun(ctx context.Context, r Run) (Run, error) {
	if err := cmp.Or(checkTags(r.Tags), checkValue("run name", r.Name, MaxTag), checkText("user", r.User, MaxName)); err != nil {
		return Run{}, err
	}
	r.Experiment = cmp.Or(r.Experiment, DefaultID)
	e, err := s.activeExperiment(r.Experiment)
	if err != nil {
		return Run{}, err
	}
	r, err = s.complete(r)
	if err != nil {
		return Run{}, err
	}
	if err := s.store(ctx, &record{AtMS: s.nowMS(), Run: &r}); err != nil {
		return Run{}, err
	}
	r.ArtifactURI, r.Tags = runPlace(e, r.ID), maps.Clone(r.Tags)
	return r, nil
}

// complete gives a new run what it needs. Its name stands in a tag too.
func (s *Store) complete(r Run) (Run, error) {
	tagged := r.Tags[tagRunName]
	if r.Name != "" && tagged != "" && r.Name != tagged {
		return r, refuse(Invalid, "run name %q and tag %s %q differ", r.Name, tagRunName, tagged)
	}
	id := newID()
	name := cmp.Or(r.Name, tagged, "run-"+id[:8])
	return Run{
		ID: id, Experiment: r.Experiment, Name: name, User: cmp.Or(r.User, r.Tags[tagUser]), Status: Running,
		StartedMS: cmp.Or(r.StartedMS, s.nowMS()), Tags: with(maps.Clone(r.Tags), tagRunName, name),
	}, nil
}

// Run returns the one with an id, a deleted one too.
func (s *Store) Run(id string) (Run, error) {
	r, err := s.run(id)
	if err != nil {
		return Run{}, err
	}
	return s.viewOf(r), nil
}

func (s *Store) run(id string) (*run, error) {
	if !runForm.MatchString(id) {
		return nil, refuse(Invalid, "run id %.60q must be 1 to 256 letters, digits, underscores or dashes", id)
	}
	s.mu.RLock()
	c := s.x.run[id]
	s.mu.RUnlock()
	if c == nil {
		return nil, refuse(NotFound, "no run with id %q", id)
	}
	return c.get(), nil
}

func (s *Store) viewOf(r *run) Run { return r.view(s.placeOf(r)) }

// placeOf is where the artifacts of a run are.
func (s *Store) placeOf(r *run) string {
	s.mu.RLock()
	e := s.x.experiment[r.experiment]
	s.mu.RUnlock()
	return cmp.Or(r.place, runPlace(e.get(), r.id))
}

// activeRun is a run that may be added to. The caller holds it.
func (s *Store) activeRun(id string) (*run, error) {
	r, err := s.run(id)
	if err == nil && r.deleted != 0 {
		return nil, refuse(Invalid, "run %s is deleted: restore it first", id)
	}
	return r, err
}

// changeRun stores a change of an active run. Check sees the run before.
func (s *Store) changeRun(ctx context.Context, ch *change, check func(*run) error) error {
	defer s.hold(holdRun, ch.ID)()
	r, err := s.activeRun(ch.ID)
	if err != nil {
		return err
	}
	if err := check(r); err != nil {
		return err
	}
	return s.storeChange(ctx, r, ch)
}

// storeChange stores a change of a run, if it leaves the run at a size that can
// be kept.
func (s *Store) storeChange(ctx context.Context, r *run, ch *change) error {
	at, after := s.nowMS(), *r
	after.apply(ch, at)
	if n := after.size(); n > MaxRunState && n > r.size() {
		return refuse(Invalid, "run %s has %d bytes of params, tags, datasets and newest metrics, at most %d can be kept: "+
			"log large things as artifacts", r.id, n, MaxRunState)
	}
	return s.store(ctx, &record{AtMS: at, Change: ch})
}

// UpdateRun sets status, end and name where they are not empty.
func (s *Store) UpdateRun(ctx context.Context, id string, status RunStatus, endedMS int64, name string) (Run, error) {
	switch status {
	case "", Running, Scheduled, Finished, Failed, Killed:
	default:
		return Run{}, refuse(Invalid, "run status %q is none of RUNNING, SCHEDULED, FINISHED, FAILED, KILLED", status)
	}
	if err := checkValue("run name", name, MaxTag); err != nil {
		return Run{}, err
	}
	ch := &change{ID: id, Status: status, EndedMS: endedMS, Name: name}
	if name != "" {
		ch.Tags = map[string]string{tagRunName: name}
	}
	if err := s.changeRun(ctx, ch, func(*run) error { return nil }); err != nil {
		return Run{}, err
	}
	return s.Run(id)
}

// DeleteRun marks a run deleted or, with false, restores it.
func (s *Store) DeleteRun(ctx context.Context, id string, deleted bool) error {
	defer s.hold(holdRun, id)()
	r, err := s.run(id)
	if err != nil || (r.deleted != 0) == deleted {
		return err
	}
	return s.storeChange(ctx, r, &change{ID: id, Delete: &deleted})
}

// Log adds what a batch holds to a run, all or nothing.
func (s *Store) Log(ctx context.Context, id string, b Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	ch := &change{ID: id, Metrics: b.Metrics, Params: b.Params, Tags: b.Tags, Name: b.Tags[tagRunName]}
	defer s.hold(holdRun, id)()
	r, err := s.activeRun(id)
	if err != nil {
		return err
	}
	if ch.Params, err = r.newParams(b.Params); err != nil {
		return err
	}
	if len(ch.Metrics)+len(ch.Params)+len(ch.Tags) == 0 {
		return nil
	}
	return s.storeChange(ctx, r, ch)
}

// newParams are those that the run does not have yet. A parameter never changes.
func (r *run) newParams(params map[string]string) (map[string]string, error) {
	added := maps.Clone(params)
	for key, value := range params {
		have, ok := find(r.params, unique.Make(key))
		if ok && have != value {
			return nil, refuse(Invalid, "param %q of run %s is %.100q already and cannot change to %.100q: a parameter is logged once", key, r.id, have, value)
		}
		if ok {
			delete(added, key)
		}
	}
	return added, nil
}

// DeleteRunTag removes a tag.
func (s *Store) DeleteRunTag(ctx context.Context, id, key string) error {
	return s.changeRun(ctx, &change{ID: id, Untag: key}, func(r *run) error {
		if _, ok := find(r.tags, unique.Make(key)); !ok {
			return refuse(NotFound, "run %s has no tag %q", id, key)
		}
		return nil
	})
}

// LogInputs notes what data and models a run used.
func (s *Store) LogInputs(ctx context.Context, id string, data []Dataset, models []ModelRef) error {
	for i := range data {
		if data[i].Name == "" || data[i].Digest == "" {
			return refuse(Invalid, "dataset %d needs a name and a digest", i+1)
		}
	}
	return s.changeRun(ctx, &change{ID: id, Data: data, Inputs: models}, func(*run) error { return nil })
}

// LogOutputs notes what models a run produced.
func (s *Store) LogOutputs(ctx context.Context, id string, models []ModelRef) error {
	return s.changeRun(ctx, &change{ID: id, Outputs: models}, func(*run) error { return nil })
}

// maxHistory is how many values a page of a history has, as MLflow's clients ask.
const maxHistory = 25_000

// MetricHistory returns the values of a metric in the order in which they were
// logged. It reads the journal.
func (s *Store) MetricHistory(ctx context.Context, id, key string, limit int, page string) (found []Metric, next string, err error) {
	r, err := s.run(id)
	if err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > maxHistory {
		limit = maxHistory
	}
	if !slices.ContainsFunc(r.metrics, func(p point) bool { return p.key == unique.Make(key) }) {
		return nil, "", nil
	}
	h := &history{run: id, key: key, limit: limit}
	if h.from, h.skip, err = place(page); err != nil {
		return nil, "", err
	}
	s.mu.RLock()
	end := s.x.seq
	s.mu.RUnlock()
	for first, last := range r.history.ranges(h.from, end) {
		err := s.journal.read(ctx, first, last, h.take)
		if errors.Is(err, errEnough) {
			break
		}
		if err != nil {
			return nil, "", fmt.Errorf("read history of run %s: %w", id, err)
		}
	}
	return h.found, h.next, nil
}

// history gathers a page of a metric's values.
type history struct {
	run, key string
	from     uint64 // sequence of the message that the page begins in
	skip     int    // values of it that were on the page before
	limit    int

	found []Metric
	next  string
}

func (h *history) take(seq uint64, message []byte) error {
	nth := 0
	return decode(message, h.run, func(_ int, r *record) error {
		for i := range r.Change.Metrics {
			if r.Change.Metrics[i].Key != h.key {
				continue
			}
			if nth++; seq == h.from && nth <= h.skip {
				continue
			}
			if len(h.found) == h.limit {
				h.next = fmt.Sprintf("%d.%d", seq, nth-1)
				return errEnough
			}
			h.found = append(h.found, r.Change.Metrics[i])
		}
		return nil
	})
}

// place reads where a page of a history begins.
func place(page string) (seq uint64, skip int, err error) {
	if page == "" {
		return 0, 0, nil
	}
	before, after, _ := strings.Cut(page, ".")
	seq, err = strconv.ParseUint(before, 10, 64)
	n, err2 := strconv.ParseUint(after, 10, 31)
	if err != nil || err2 != nil {
		return 0, 0, refuse(Invalid, "page token %.60q is not one of this server", page)
	}
	return seq, int(n), nil
}
