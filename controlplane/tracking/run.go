package tracking

import (
	"cmp"
	"maps"
	"slices"
	"unique"
)

// name is a key of a parameter, a tag or a metric. Runs share their few keys, so
// each is kept once and compared as a pointer.
type name = unique.Handle[string]

// pair is a parameter or a tag.
type pair struct {
	key   name
	value string
}

// point is the newest value of a metric.
type point struct {
	key   name
	value float64
	at    int64 // Unix milliseconds
	step  int64
}

// run is a Run in a form of which a hundred thousand fit into memory. It is never
// changed: a change makes a new one, which shares what has not changed, so
// searches read runs without a lock.
type run struct {
	id, experiment, name, user string
	place                      string // its artifacts, "" for below the experiment's
	status                     RunStatus
	started, ended             int64
	deleted                    int64 // when, 0 while it is not
	params, tags               []pair
	metrics                    []point
	history                    positions
	rare                       *rare // nil for most
}

// rare is what few runs have.
type rare struct {
	Of       map[string]measured `cbor:"of,omitempty"` // what a metric was measured of, by its key
	Datasets []Dataset           `cbor:"datasets,omitempty"`
	Inputs   []ModelRef          `cbor:"inputs,omitempty"`
	Outputs  []ModelRef          `cbor:"outputs,omitempty"`
}

// measured is what MLflow 3 measured a value of.
type measured struct {
	Model   string `cbor:"model,omitempty"`
	Dataset string `cbor:"dataset,omitempty"`
	Digest  string `cbor:"digest,omitempty"`
}

func (m *Metric) measured() measured {
	return measured{Model: m.ModelID, Dataset: m.DatasetName, Digest: m.DatasetDigest}
}

// find returns the value under a key.
func find(pairs []pair, key name) (string, bool) {
	for i := range pairs {
		if pairs[i].key == key {
			return pairs[i].value, true
		}
	}
	return "", false
}

// set is pairs with those of a map set.
func set(pairs []pair, values map[string]string) []pair {
	if len(values) == 0 {
		return pairs
	}
	out := slices.Grow(slices.Clip(slices.Clone(pairs)), len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		p := pair{unique.Make(key), intern(values[key])}
		if i := slices.IndexFunc(out, func(o pair) bool { return o.key == p.key }); i >= 0 {
			out[i] = p
		} else {
			out = append(out, p)
		}
	}
	return slices.Clip(out)
}

// unset is pairs without a key.
func unset(pairs []pair, key string) []pair {
	k := unique.Make(key)
	return slices.DeleteFunc(slices.Clone(pairs), func(p pair) bool { return p.key == k })
}

func pairsOf(values map[string]string) []pair { return set(nil, values) }

func mapOf(pairs []pair) map[string]string {
	if len(pairs) == 0 {
		return nil
	}
	out := make(map[string]string, len(pairs))
	for _, p := range pairs {
		out[p.key.Value()] = p.value
	}
	return out
}

// newer says whether a value replaces another as the newest of its key, by
// MLflow's rule: the greatest step, then time, then value.
func newer(p, than point) bool {
	if c := cmp.Or(cmp.Compare(p.step, than.step), cmp.Compare(p.at, than.at)); c != 0 {
		return c > 0
	}
	return cmp.Compare(p.value, than.value) >= 0 // NaN is the least
}

// measure takes logged values in.
func (r *run) measure(logged []Metric) {
	if len(logged) == 0 {
		return
	}
	r.metrics = slices.Clone(r.metrics)
	for i := range logged {
		m := &logged[i]
		p := point{unique.Make(m.Key), m.Value, m.TimestampMS, m.Step}
		at := slices.IndexFunc(r.metrics, func(o point) bool { return o.key == p.key })
		switch {
		case at < 0:
			r.metrics = append(r.metrics, p)
		case newer(p, r.metrics[at]):
			r.metrics[at] = p
		default:
			continue
		}
		r.measuredOf(m)
	}
	r.metrics = slices.Clip(r.metrics)
}

// measuredOf notes what the newest value of a key was measured of.
func (r *run) measuredOf(m *Metric) {
	if of := m.measured(); of != (measured{}) || r.rare != nil && r.rare.Of[m.Key] != (measured{}) {
		x := r.rarely()
		x.Of = maps.Clone(x.Of)
		if x.Of == nil {
			x.Of = map[string]measured{}
		}
		x.Of[m.Key] = of
	}
}

// rarely returns a copy of what is rare, to be changed.
func (r *run) rarely() *rare {
	x := &rare{}
	if r.rare != nil {
		*x = *r.rare
	}
	r.rare = x
	return x
}

// view is the run as callers see it. Maps and slices are copies.
func (r *run) view(place string) Run {
	out := Run{
		ID: r.id, Experiment: r.experiment, Name: r.name, User: r.user, Status: r.status, StartedMS: r.started, EndedMS: r.ended,
		ArtifactURI: cmp.Or(r.place, place), Deleted: r.deleted != 0, DeletedMS: r.deleted, Params: mapOf(r.params), Tags: mapOf(r.tags),
	}
	if len(r.metrics) > 0 {
		out.Metrics = make(map[string]Metric, len(r.metrics))
	}
	for _, p := range r.metrics {
		m := Metric{Key: p.key.Value(), Value: p.value, TimestampMS: p.at, Step: p.step}
		if r.rare != nil {
			of := r.rare.Of[m.Key]
			m.ModelID, m.DatasetName, m.DatasetDigest = of.Model, of.Dataset, of.Digest
		}
		out.Metrics[m.Key] = m
	}
	if r.rare != nil {
		out.Datasets, out.ModelInputs, out.Models = slices.Clone(r.rare.Datasets), slices.Clone(r.rare.Inputs), slices.Clone(r.rare.Outputs)
	}
	return out
}

// size is about what a run takes in bytes, in memory and in a checkpoint.
func (r *run) size() int {
	n := 200 + len(r.history.Raw) + len(r.id) + len(r.name) + len(r.place) + 40*len(r.metrics)
	for _, pairs := range [][]pair{r.params, r.tags} {
		for _, p := range pairs {
			n += 8 + len(p.key.Value()) + len(p.value)
		}
	}
	return n + r.rare.size()
}

func (x *rare) size() (n int) {
	if x == nil {
		return 0
	}
	for i := range x.Datasets {
		d := &x.Datasets[i]
		n += 100 + len(d.Name) + len(d.Digest) + len(d.SourceType) + len(d.Source) + len(d.Schema) + len(d.Profile)
		for k, v := range d.Tags {
			n += len(k) + len(v)
		}
	}
	return n + 60*(len(x.Inputs)+len(x.Outputs)) + 150*len(x.Of)
}
