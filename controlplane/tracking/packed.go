package tracking

import "unique"

// packed is a run as a checkpoint holds it. Keys are texts again.
type packed struct {
	_                                 struct{} `cbor:",toarray"`
	ID, Experiment, Name, User, Place string
	Status                            RunStatus
	Started, Ended, Deleted           int64
	Params, Tags                      []packedPair
	Metrics                           []packedPoint
	History                           positions
	Rare                              *rare
}

type packedPair struct {
	_          struct{} `cbor:",toarray"`
	Key, Value string
}

type packedPoint struct {
	_        struct{} `cbor:",toarray"`
	Key      string
	Value    float64
	At, Step int64
}

func pack(r *run) packed {
	out := packed{
		ID: r.id, Experiment: r.experiment, Name: r.name, User: r.user, Place: r.place, Status: r.status, Started: r.started, Ended: r.ended,
		Deleted: r.deleted, History: r.history, Params: packPairs(r.params), Tags: packPairs(r.tags), Rare: r.rare,
		Metrics: make([]packedPoint, len(r.metrics)),
	}
	for i, p := range r.metrics {
		out.Metrics[i] = packedPoint{Key: p.key.Value(), Value: p.value, At: p.at, Step: p.step}
	}
	return out
}

func packPairs(pairs []pair) []packedPair {
	out := make([]packedPair, len(pairs))
	for i, p := range pairs {
		out[i] = packedPair{Key: p.key.Value(), Value: p.value}
	}
	return out
}

func unpack(p packed) run {
	out := run{
		id: p.ID, experiment: intern(p.Experiment), name: p.Name, user: intern(p.User), place: p.Place, status: RunStatus(intern(string(p.Status))), started: p.Started, ended: p.Ended,
		deleted: p.Deleted, history: p.History, params: unpackPairs(p.Params), tags: unpackPairs(p.Tags), rare: p.Rare,
		metrics: make([]point, len(p.Metrics)),
	}
	for i, m := range p.Metrics {
		out.metrics[i] = point{unique.Make(m.Key), m.Value, m.At, m.Step}
	}
	return out
}

func unpackPairs(pairs []packedPair) []pair {
	out := make([]pair, len(pairs))
	for i, p := range pairs {
		out[i] = pair{unique.Make(p.Key), intern(p.Value)}
	}
	return out
}
