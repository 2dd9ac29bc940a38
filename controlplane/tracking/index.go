package tracking

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"strconv"
)

// model is a registered model with what clients do not see.
type model struct {
	RegisteredModel

	Serial int64 `cbor:"serial"` // names it for good: its name may change
	Latest int   `cbor:"latest"` // the last version number given
}

// version is a registered version. Its name is the model's.
type version struct {
	ModelVersion

	Serial int64 `cbor:"serial"` // of the model
}

// index is what all records together say. It knows nothing of the journal: apply
// is a pure function of the index and a record.
type index struct {
	seq uint64 // of the last message included

	experiments shelf[Experiment]
	runs        shelf[run]
	logged      shelf[LoggedModel]
	models      shelf[model]
	versions    shelf[version]

	experiment map[string]*cell[Experiment]  // by id
	named      map[string]*cell[Experiment]  // by name
	run        map[string]*cell[run]         // by id
	group      map[string]runList            // by experiment
	loggedAs   map[string]*cell[LoggedModel] // by id
	model      map[string]*cell[model]       // by name
	serial     map[int64]*cell[model]        // by serial
	version    map[int64][]*cell[version]    // by the model's serial, lowest first

	nextExperiment, nextModel int64 // ids to be given
}

func newIndex() *index {
	return &index{
		experiment: map[string]*cell[Experiment]{}, named: map[string]*cell[Experiment]{},
		run: map[string]*cell[run]{}, group: map[string]runList{}, loggedAs: map[string]*cell[LoggedModel]{},
		model: map[string]*cell[model]{}, serial: map[int64]*cell[model]{}, version: map[int64][]*cell[version]{}, nextModel: 1,
	}
}

// apply takes a record in. What a thing includes already it does not take again.
func (x *index) apply(at moment, r *record) {
	switch {
	case r.Experiment != nil:
		x.putExperiment(at, *r.Experiment)
		if r.Cascade {
			x.deleteRuns(at, r.Experiment)
		}
	case r.Run != nil:
		x.addRun(at, r.Run)
	case r.Change != nil:
		x.changeRun(at, r.Change, r.AtMS)
	case r.Purged != nil:
		x.purgeRuns(at, r.Purged)
	case r.Logged != nil:
		x.putLogged(at, *r.Logged)
	default:
		x.putModels(at, r)
	}
}

// reindex files what a checkpoint restored.
func (x *index) reindex() {
	for c := range x.experiments.all() {
		x.indexExperiment(c)
	}
	groups := map[string][]*cell[run]{}
	for c := range x.runs.all() {
		r := c.get()
		x.run[r.id] = c
		groups[r.experiment] = append(groups[r.experiment], c)
	}
	for experiment, cells := range groups {
		x.group[experiment] = newRunList(cells)
	}
	for c := range x.logged.all() {
		x.loggedAs[c.get().ID] = c
	}
	for c := range x.models.all() {
		x.indexModel(c)
	}
	for c := range x.versions.all() {
		x.indexVersion(c)
	}
}

// put makes or replaces a thing.
func put[T any](s *shelf[T], c *cell[T], at moment, v T) *cell[T] {
	switch {
	case c == nil:
		return s.add(at, v)
	case !c.includes(at):
		s.set(c, at, v)
	}
	return c
}

func (x *index) putExperiment(at moment, e Experiment) {
	c := x.experiment[e.ID]
	if c != nil && !c.includes(at) {
		if name := c.get().Name; x.named[name] == c {
			delete(x.named, name)
		}
	}
	x.indexExperiment(put(&x.experiments, c, at, e))
}

func (x *index) indexExperiment(c *cell[Experiment]) {
	e := c.get()
	x.experiment[e.ID], x.named[e.Name] = c, c
	if n, err := strconv.ParseInt(e.ID, 10, 64); err == nil {
		x.nextExperiment = max(x.nextExperiment, n+1)
	}
}

// deleteRuns lets the runs of an experiment go and come back with it.
func (x *index) deleteRuns(at moment, e *Experiment) {
	for _, s := range x.group[e.ID] {
		for _, c := range s.cells {
			if c.includes(at) {
				continue
			}
			r := *c.get()
			if r.deleted = 0; e.Deleted {
				r.deleted = e.UpdatedMS
			}
			x.runs.set(c, at, r)
		}
		s.changes.Add(1)
	}
}

func (x *index) addRun(at moment, in *Run) {
	if x.run[in.ID] != nil {
		return // a checkpoint has it already
	}
	r := run{
		id: in.ID, experiment: in.Experiment, name: in.Name, user: intern(in.User), place: in.ArtifactURI, status: RunStatus(intern(string(in.Status))),
		started: in.StartedMS, ended: in.EndedMS, params: pairsOf(in.Params), tags: pairsOf(in.Tags),
	}
	if e := x.experiment[in.Experiment]; e != nil {
		r.experiment = e.get().ID // shares the text
		if e.get().Deleted {
			r.deleted = e.get().UpdatedMS
		}
	}
	x.indexRun(x.runs.add(at, r))
}

// indexRun files a run.
func (x *index) indexRun(c *cell[run]) {
	r := c.get()
	x.run[r.id] = c
	x.group[r.experiment] = x.group[r.experiment].with(c)
}

func (x *index) changeRun(at moment, ch *change, atMS int64) {
	if c := x.run[ch.ID]; c != nil && !c.includes(at) {
		r := *c.get()
		r.apply(ch, atMS)
		if len(ch.Metrics) > 0 {
			r.history = r.history.add(at.seq())
		}
		x.runs.set(c, at, r)
		x.group[r.experiment].touch(&r)
	}
	x.measureLogged(at, ch.Metrics)
}

// apply changes a copy of a run.
func (r *run) apply(ch *change, atMS int64) {
	r.measure(ch.Metrics)
	r.params, r.tags = set(r.params, ch.Params), set(r.tags, ch.Tags)
	if ch.Untag != "" {
		r.tags = unset(r.tags, ch.Untag)
	}
	r.status = RunStatus(intern(string(cmp.Or(ch.Status, r.status))))
	r.ended, r.name = cmp.Or(ch.EndedMS, r.ended), cmp.Or(ch.Name, r.name)
	if ch.Delete != nil {
		if r.deleted = 0; *ch.Delete {
			r.deleted = atMS
		}
	}
	if len(ch.Data)+len(ch.Inputs)+len(ch.Outputs) > 0 {
		x := r.rarely()
		x.Datasets = joined(x.Datasets, ch.Data, func(d Dataset) string { return d.Name + "\x00" + d.Digest })
		x.Inputs = joined(x.Inputs, ch.Inputs, func(m ModelRef) string { return m.ModelID })
		x.Outputs = joined(x.Outputs, ch.Outputs, func(m ModelRef) string { return m.ModelID })
	}
}

// joined is a list with others added; one of the same name takes the place of
// the older.
func joined[T any](have, more []T, name func(T) string) []T {
	out := slices.Clone(have)
	for _, m := range more {
		if i := slices.IndexFunc(out, func(o T) bool { return name(o) == name(m) }); i >= 0 {
			out[i] = m
		} else {
			out = append(out, m)
		}
	}
	return out
}

func (x *index) purgeRuns(at moment, ids []string) {
	gone := map[*cell[run]]bool{}
	touched := map[string]bool{}
	for _, id := range ids {
		if c := x.run[id]; c != nil && !c.includes(at) {
			gone[c] = true
			touched[c.get().experiment] = true
			delete(x.run, id)
			x.runs.drop(c)
		}
	}
	for experiment := range touched {
		x.group[experiment] = x.group[experiment].without(gone)
	}
}

// putLogged replaces a logged model. Its metrics come with those of runs.
func (x *index) putLogged(at moment, m LoggedModel) {
	c := x.loggedAs[m.ID]
	if m.Metrics = nil; c != nil {
		m.Metrics = c.get().Metrics
	}
	x.loggedAs[m.ID] = put(&x.logged, c, at, m)
}

// measureLogged takes in the values that were measured of logged models.
func (x *index) measureLogged(at moment, logged []Metric) {
	var of map[string][]Metric
	for i := range logged {
		id := logged[i].ModelID
		if id == "" || x.loggedAs[id] == nil {
			continue
		}
		if of == nil {
			of = map[string][]Metric{}
		}
		of[id] = append(of[id], logged[i])
	}
	for _, id := range slices.Sorted(maps.Keys(of)) {
		c := x.loggedAs[id]
		if c.includes(at) {
			continue
		}
		m := *c.get()
		m.Metrics = newest(m.Metrics, of[id])
		x.logged.set(c, at, m)
	}
}

// newest is the newest value for each key and dataset.
func newest(have, more []Metric) []Metric {
	out := slices.Clone(have)
	for _, m := range more {
		i := slices.IndexFunc(out, func(o Metric) bool { return o.Key == m.Key && o.measured() == m.measured() })
		switch {
		case i < 0:
			out = append(out, m)
		case newer(m.point(), out[i].point()):
			out[i] = m
		}
	}
	return out
}

func (m *Metric) point() point { return point{value: m.Value, at: m.TimestampMS, step: m.Step} }

func (x *index) putModels(at moment, r *record) {
	if r.Dropped != nil {
		x.drop(at, r.Dropped)
	}
	if r.Model != nil {
		x.putModel(at, *r.Model)
	}
	for i := range r.Versions {
		x.putVersion(at, r.Versions[i])
	}
}

func (x *index) putModel(at moment, m model) {
	c := x.serial[m.Serial]
	if c != nil && !c.includes(at) && x.model[c.get().Name] == c {
		delete(x.model, c.get().Name)
	}
	x.indexModel(put(&x.models, c, at, m))
}

func (x *index) indexModel(c *cell[model]) {
	m := c.get()
	x.serial[m.Serial] = c
	x.nextModel = max(x.nextModel, m.Serial+1)
	// A checkpoint may hold a newer model of that name already.
	if o := x.model[m.Name]; o == nil || o == c || !o.includes(c.now.Load().at) {
		x.model[m.Name] = c
	}
}

func (x *index) drop(at moment, d *dropped) {
	x.version[d.Model] = slices.DeleteFunc(slices.Clone(x.version[d.Model]), func(c *cell[version]) bool {
		going := !c.includes(at) && (d.Version == 0 || c.get().Version == d.Version)
		if going {
			x.versions.drop(c)
		}
		return going
	})
	c := x.serial[d.Model]
	if c == nil || d.Version != 0 {
		return
	}
	x.models.drop(c)
	delete(x.serial, d.Model)
	delete(x.version, d.Model)
	if name := c.get().Name; x.model[name] == c {
		delete(x.model, name)
	}
}

func (x *index) putVersion(at moment, v version) {
	if c := x.versionOf(v.Serial, v.Version); c != nil {
		put(&x.versions, c, at, v)
		return
	}
	x.indexVersion(x.versions.add(at, v))
}

func (x *index) indexVersion(c *cell[version]) {
	v := c.get()
	list := x.version[v.Serial]
	i := sort.Search(len(list), func(n int) bool { return list[n].get().Version > v.Version })
	x.version[v.Serial] = slices.Concat(list[:i], []*cell[version]{c}, list[i:])
}

func (x *index) versionOf(serial int64, number int) *cell[version] {
	list := x.version[serial]
	i := sort.Search(len(list), func(n int) bool { return list[n].get().Version >= number })
	if i < len(list) && list[i].get().Version == number {
		return list[i]
	}
	return nil
}
