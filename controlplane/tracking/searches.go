package tracking

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"unique"
)

// Page sizes, MLflow's.
const (
	usualPage        = 1000
	mostPage         = 50_000
	usualModels      = 100
	mostModels       = 1000
	usualVersions    = 10_000
	mostVersions     = 200_000
	usualLogged      = 50
	mostLogged       = 1000
	mostSearchGroups = 10_000 // experiments of one search
)

// shows says whether a view has what is deleted or what is not.
func (v View) shows(deleted bool) bool {
	return v == All || deleted == (v == DeletedOnly)
}

func (v View) check() error {
	switch v {
	case "", ActiveOnly, DeletedOnly, All:
		return nil
	}
	return refuse(Invalid, "view %q is none of ACTIVE_ONLY, DELETED_ONLY, ALL", v)
}

func textOf[T any](get func(*T) string) look[*T] {
	return look[*T]{text: func(v *T) (string, bool) {
		s := get(v)
		return s, s != ""
	}}
}

// timeOf is a field of Unix milliseconds; 0 is none. They are exact as floats.
func timeOf[T any](get func(*T) int64) look[*T] {
	return look[*T]{number: func(v *T) (float64, bool) {
		ms := get(v)
		return float64(ms), ms != 0
	}}
}

// inMap is a field of a map.
func inMap[T any](get func(*T) map[string]string, key string) look[*T] {
	return look[*T]{text: func(v *T) (string, bool) {
		s, ok := get(v)[key]
		return s, ok
	}}
}

// tagPrompt marks a prompt of MLflow 3, which the registry keeps beside models.
const tagPrompt = "mlflow.prompt.is_prompt"

// inRegistry is a tag of the registry. What does not say that it is a prompt is
// a model: clients of 3.x ask for those whose tag is not 'true', and mean models.
func inRegistry[T any](get func(*T) map[string]string, key string) look[*T] {
	if key != tagPrompt {
		return inMap(get, key)
	}
	return look[*T]{text: func(v *T) (string, bool) { return cmp.Or(get(v)[key], "false"), true }}
}

// attribute finds one among the attributes of a kind of things. Names are told
// apart without regard to case and spaces: clients write "Run Name" too.
func attribute[V any](f field, known map[string]look[V]) (look[V], error) {
	if l, ok := known[strings.ReplaceAll(strings.ToLower(f.key), " ", "_")]; ok && f.entity == attributes {
		return l, nil
	}
	if f.entity != attributes {
		return look[V]{}, wrong(f.at, "there are no %ss here", f.entity)
	}
	return look[V]{}, wrong(f.at, "%q is none of the attributes %s", f.key, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
}

var runAttributes = map[string]look[*run]{
	"run_id":       textOf(func(r *run) string { return r.id }),
	"run_name":     textOf(func(r *run) string { return r.name }),
	"user_id":      textOf(func(r *run) string { return r.user }),
	"status":       textOf(func(r *run) string { return string(r.status) }),
	"start_time":   timeOf(func(r *run) int64 { return r.started }),
	"end_time":     timeOf(func(r *run) int64 { return r.ended }),
	"created":      timeOf(func(r *run) int64 { return r.started }),
	"artifact_uri": {}, // depends on the experiment: see SearchRuns
}

func runField(f field) (look[*run], error) {
	key := unique.Make(f.key)
	switch f.entity {
	case metrics:
		return look[*run]{number: func(r *run) (float64, bool) {
			for i := range r.metrics {
				if r.metrics[i].key == key {
					return r.metrics[i].value, true
				}
			}
			return 0, false
		}}, nil
	case params:
		return look[*run]{text: func(r *run) (string, bool) { return find(r.params, key) }}, nil
	case tags:
		return look[*run]{text: func(r *run) (string, bool) { return find(r.tags, key) }}, nil
	case datasets:
		return datasetField(f)
	case attributes:
	}
	return attribute(f, runAttributes)
}

// tagContext says what a dataset was used for.
const tagContext = "mlflow.data.context"

func datasetField(f field) (look[*run], error) {
	get := map[string]func(*Dataset) string{
		"name": func(d *Dataset) string { return d.Name }, "digest": func(d *Dataset) string { return d.Digest },
		"context": func(d *Dataset) string { return d.Tags[tagContext] },
	}[f.key]
	if get == nil {
		return look[*run]{}, wrong(f.at, "%q is none of the fields of datasets: name, digest, context", f.key)
	}
	return look[*run]{texts: func(r *run) (out []string) {
		if r.rare != nil {
			for i := range r.rare.Datasets {
				out = append(out, get(&r.rare.Datasets[i]))
			}
		}
		return out
	}}, nil
}

// SearchRuns finds runs of experiments: newest start first, unless asked for
// another order.
func (s *Store) SearchRuns(experiments []string, q Search) (found []Run, next string, err error) {
	if len(experiments) > mostSearchGroups {
		return nil, "", refuse(Invalid, "a search in %d experiments, at most %d are allowed", len(experiments), mostSearchGroups)
	}
	if err := q.View.check(); err != nil {
		return nil, "", err
	}
	columns := &runColumns{}
	deleted := columns.look(field{attributes, "deleted", 0}, timeOf(func(r *run) int64 { return r.deleted }))
	sp := space[row]{
		name: "runs", usual: usualPage, most: mostPage, order: []string{"start_time DESC"}, extraOfQuery: experiments,
		look: func(f field) (look[row], error) {
			l, err := s.runField(f)
			return columns.look(f, l), err
		},
		id: columns.look(field{attributes, "run_id", 0}, runAttributes["run_id"]),
		only: func(r row) bool {
			_, gone := deleted.number(r)
			return q.View.shows(gone)
		},
	}
	runs, next, err := sp.find(q, s.runsOf(experiments, columns), newestFirst(q.OrderBy))
	found = make([]Run, 0, len(runs))
	for _, r := range runs {
		found = append(found, s.viewOf(r.run()))
	}
	return found, next, err
}

func (s *Store) runField(f field) (look[*run], error) {
	if f.entity == attributes && f.key == "artifact_uri" {
		return textOf(func(r *run) string { return s.placeOf(r) }), nil
	}
	return runField(f)
}

// newestFirst says whether an order is the one in which runs lie.
func newestFirst(order []string) bool {
	if len(order) == 0 {
		return true
	}
	o, err := parseOrder(order[0])
	return err == nil && o.desc && o.field.entity == attributes && o.field.key == "start_time" && len(order) == 1
}

// runsOf are the runs of experiments, of each the newest first. They are read
// without a lock, as they are when it is their turn.
func (s *Store) runsOf(experiments []string, columns *runColumns) iter.Seq[iter.Seq[row]] {
	return func(yield func(iter.Seq[row]) bool) {
		seen := map[string]bool{}
		for _, id := range experiments {
			s.mu.RLock()
			list := s.x.group[id]
			s.mu.RUnlock()
			if !seen[id] && !yield(columns.newestFirst(list)) {
				return
			}
			seen[id] = true
		}
	}
}

// things are what lies on a shelf now.
func things[T any](s *Store, shelf *shelf[T]) iter.Seq[iter.Seq[*T]] {
	s.mu.RLock()
	cells := slices.Clone(shelf.cells)
	s.mu.RUnlock()
	return func(yield func(iter.Seq[*T]) bool) {
		yield(func(yield func(*T) bool) {
			for _, c := range cells {
				if c != nil && !yield(c.get()) {
					return
				}
			}
		})
	}
}

var experimentAttributes = map[string]look[*Experiment]{
	"name":             textOf(func(e *Experiment) string { return e.Name }),
	"experiment_id":    textOf(func(e *Experiment) string { return e.ID }),
	"creation_time":    timeOf(func(e *Experiment) int64 { return e.CreatedMS }),
	"last_update_time": timeOf(func(e *Experiment) int64 { return e.UpdatedMS }),
}

func experimentField(f field) (look[*Experiment], error) {
	if f.entity == tags {
		return inMap(func(e *Experiment) map[string]string { return e.Tags }, f.key), nil
	}
	return attribute(f, experimentAttributes)
}

// SearchExperiments finds experiments: the youngest first, unless asked for
// another order.
func (s *Store) SearchExperiments(q Search) (found []Experiment, next string, err error) {
	if err := q.View.check(); err != nil {
		return nil, "", err
	}
	sp := space[*Experiment]{
		name: "experiments", usual: usualPage, most: mostPage, look: experimentField, order: []string{"creation_time DESC"},
		id:   textOf(func(e *Experiment) string { return e.ID }),
		only: func(e *Experiment) bool { return q.View.shows(e.Deleted) },
	}
	out, next, err := sp.find(q, things(s, &s.x.experiments), false)
	for _, e := range out {
		found = append(found, e.clone())
	}
	return found, next, err
}

var loggedAttributes = map[string]look[*LoggedModel]{
	"name":                   textOf(func(m *LoggedModel) string { return m.Name }),
	"model_id":               textOf(func(m *LoggedModel) string { return m.ID }),
	"model_type":             textOf(func(m *LoggedModel) string { return m.Type }),
	"status":                 textOf(func(m *LoggedModel) string { return string(m.Status) }),
	"source_run_id":          textOf(func(m *LoggedModel) string { return m.SourceRun }),
	"experiment_id":          textOf(func(m *LoggedModel) string { return m.Experiment }),
	"creation_timestamp":     timeOf(func(m *LoggedModel) int64 { return m.CreatedMS }),
	"creation_time":          timeOf(func(m *LoggedModel) int64 { return m.CreatedMS }),
	"last_updated_timestamp": timeOf(func(m *LoggedModel) int64 { return m.UpdatedMS }),
}

func loggedField(f field) (look[*LoggedModel], error) {
	switch f.entity {
	case params:
		return inMap(func(m *LoggedModel) map[string]string { return m.Params }, f.key), nil
	case tags:
		return inMap(func(m *LoggedModel) map[string]string { return m.Tags }, f.key), nil
	case metrics:
		return look[*LoggedModel]{number: func(m *LoggedModel) (float64, bool) {
			for i := range m.Metrics {
				if m.Metrics[i].Key == f.key {
					return m.Metrics[i].Value, true
				}
			}
			return 0, false
		}}, nil
	case attributes, datasets:
	}
	return attribute(f, loggedAttributes)
}

// SearchLoggedModels finds logged models of experiments: the youngest first,
// unless asked for another order.
func (s *Store) SearchLoggedModels(experiments []string, q Search) (found []LoggedModel, next string, err error) {
	sp := space[*LoggedModel]{
		name: "logged models", usual: usualLogged, most: mostLogged, look: loggedField, order: []string{"creation_timestamp DESC"},
		id: textOf(func(m *LoggedModel) string { return m.ID }), extraOfQuery: experiments,
		only: func(m *LoggedModel) bool { return !m.Deleted && slices.Contains(experiments, m.Experiment) },
	}
	out, next, err := sp.find(q, things(s, &s.x.logged), false)
	for _, m := range out {
		found = append(found, m.clone())
	}
	return found, next, err
}

var modelAttributes = map[string]look[*model]{
	"name":                   textOf(func(m *model) string { return m.Name }),
	"creation_timestamp":     timeOf(func(m *model) int64 { return m.CreatedMS }),
	"last_updated_timestamp": timeOf(func(m *model) int64 { return m.UpdatedMS }),
	"timestamp":              timeOf(func(m *model) int64 { return m.UpdatedMS }),
}

func modelField(f field) (look[*model], error) {
	if f.entity == tags {
		return inRegistry(func(m *model) map[string]string { return m.Tags }, f.key), nil
	}
	return attribute(f, modelAttributes)
}

// SearchRegisteredModels finds registered models: by name, unless asked for
// another order.
func (s *Store) SearchRegisteredModels(q Search) (found []RegisteredModel, next string, err error) {
	sp := space[*model]{
		name: "registered models", usual: usualModels, most: mostModels, look: modelField, order: []string{"name"},
		id: textOf(func(m *model) string { return m.Name }),
	}
	out, next, err := sp.find(q, things(s, &s.x.models), false)
	for _, m := range out {
		if r, err := s.RegisteredModel(m.Name); err == nil { // it may be gone meanwhile
			found = append(found, r)
		}
	}
	return found, next, err
}

var versionAttributes = map[string]look[*ModelVersion]{
	"name":                   textOf(func(v *ModelVersion) string { return v.Name }),
	"version_number":         timeOf(func(v *ModelVersion) int64 { return int64(v.Version) }),
	"version":                timeOf(func(v *ModelVersion) int64 { return int64(v.Version) }),
	"run_id":                 textOf(func(v *ModelVersion) string { return v.Run }),
	"model_id":               textOf(func(v *ModelVersion) string { return v.ModelID }),
	"source_path":            textOf(func(v *ModelVersion) string { return v.Source }),
	"source":                 textOf(func(v *ModelVersion) string { return v.Source }),
	"current_stage":          textOf(func(v *ModelVersion) string { return string(v.Stage) }),
	"user_id":                textOf(func(v *ModelVersion) string { return v.User }),
	"creation_timestamp":     timeOf(func(v *ModelVersion) int64 { return v.CreatedMS }),
	"last_updated_timestamp": timeOf(func(v *ModelVersion) int64 { return v.UpdatedMS }),
}

func versionField(f field) (look[*ModelVersion], error) {
	if f.entity == tags {
		return inRegistry(func(v *ModelVersion) map[string]string { return v.Tags }, f.key), nil
	}
	return attribute(f, versionAttributes)
}

// SearchVersions finds versions of all models: the last changed first, unless
// asked for another order.
func (s *Store) SearchVersions(q Search) (found []ModelVersion, next string, err error) {
	sp := space[*ModelVersion]{
		name: "model versions", usual: usualVersions, most: mostVersions, look: versionField,
		order: []string{"last_updated_timestamp DESC", "name", "version_number DESC"},
		id:    textOf(func(v *ModelVersion) string { return v.Name + "/" + versionText(v.Version) }),
	}
	out, next, err := sp.find(q, s.allVersions(), false)
	for _, v := range out {
		found = append(found, *v)
	}
	return found, next, err
}

// allVersions are the versions of all models as callers see them.
func (s *Store) allVersions() iter.Seq[iter.Seq[*ModelVersion]] {
	return func(yield func(iter.Seq[*ModelVersion]) bool) {
		yield(func(yield func(*ModelVersion) bool) {
			for list := range things(s, &s.x.versions) {
				for v := range list {
					s.mu.RLock()
					c := s.x.serial[v.Serial]
					s.mu.RUnlock()
					if c == nil {
						continue
					}
					if out := c.get().view(v); !yield(&out) {
						return
					}
				}
			}
		})
	}
}
