package rollout

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

var (
	v1 = release.DigestOf([]byte("v1"))
	v2 = release.DigestOf([]byte("v2"))

	begin = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// world is a fleet and a ledger, scripted: the outside of the engine.
type world struct {
	t     *testing.T
	now   time.Time
	seq   uint64
	state *State
	facts *Facts
	first *State   // as created
	log   []record // what the ledger holds
	known *Facts   // as of the newest record
}

// record is what the runner commits.
type record struct {
	Seq      uint64     `json:"seq"`
	Decision *Decision  `json:"decision"`
	Facts    FactsPatch `json:"facts"`
	Digest   string     `json:"digest"`
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, now: begin, seq: 100, facts: &Facts{Devices: map[string]*DeviceFacts{}}, known: &Facts{}}
}

// set changes what is known of a device.
func (w *world) set(id string, change func(f *DeviceFacts)) {
	f := w.facts.device(id)
	change(&f)
	w.facts.Devices[id] = &f
}

// create makes the rollout.
func (w *world) create(spec Spec, requires Requirements) {
	w.t.Helper()
	spec.Model, spec.Version, spec.Release = "digits", "v2", v2
	spec = spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		w.t.Fatal(err)
	}
	w.state = New("digits-v2-1", "alice", spec, requires, w.now)
	w.first, w.log, w.known = w.state, nil, &Facts{}
}

// step takes one step, commits it and lets desired state follow.
func (w *world) step(cmd *Command) (*Decision, error) {
	w.t.Helper()
	before := w.state
	news := w.known.Diff(w.facts)
	facts := w.known.Apply(news)
	next, d, err := Step(w.state, facts, w.now, cmd)
	if err != nil || d.Empty() {
		return d, err
	}
	digest, err := Digest(next, facts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.seq++
	w.log = append(w.log, w.roundTrip(record{Seq: w.seq, Decision: d, Facts: news, Digest: digest}))
	w.known = facts
	if w.state, err = before.Apply(d.Patch, w.seq); err != nil {
		w.t.Fatal(err)
	}
	for _, a := range d.Assign {
		if a.Role != "" {
			continue // beside what is assigned
		}
		for _, id := range a.Devices {
			w.set(id, func(f *DeviceFacts) { f.Assigned = a.Release })
		}
	}
	return d, nil
}

// roundTrip is what a record is after the ledger.
func (w *world) roundTrip(r record) record {
	w.t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	var out record
	if err := json.Unmarshal(raw, &out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// restart folds the ledger from the beginning, replaying every decision, and
// goes on with what comes out.
func (w *world) restart() {
	w.t.Helper()
	s, f := w.first, (&Facts{}).Apply(FactsPatch{})
	for _, r := range w.log {
		f = f.Apply(r.Facts)
		next, err := Replay(s, f, r.Decision, r.Digest, r.Seq)
		if err != nil {
			w.t.Fatal(err)
		}
		s = next
	}
	got, want := asJSON(w.t, s), asJSON(w.t, w.state)
	if got != want {
		w.t.Fatalf("the ledger folds to\n%s\nwant\n%s", got, want)
	}
	w.state = s
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// report lets a device report that it acts on its newest desired state.
func (w *world) report(id string, change func(f *DeviceFacts)) {
	w.set(id, func(f *DeviceFacts) {
		f.Generation, f.Reported = w.seq, w.now
		change(f)
	})
}

// serve is a device that runs a release and answers.
func serve(r release.Digest) func(f *DeviceFacts) {
	return func(f *DeviceFacts) {
		f.Active, f.Target, f.Update, f.Serving = r, release.Digest{}, "idle", !r.IsZero()
	}
}

// obedient lets devices do at once what they were told.
func (w *world) obedient(ids []string) {
	for _, id := range ids {
		w.report(id, serve(w.facts.Devices[id].Assigned))
	}
}

func (w *world) ids() []string { return slices.Sorted(maps.Keys(w.facts.Devices)) }

// on lists devices that run the new release.
func (w *world) on() []string {
	var out []string
	for _, id := range w.ids() {
		if w.facts.Devices[id].Active == v2 {
			out = append(out, id)
		}
	}
	return out
}

// invariants hold after every step.
func (w *world) invariants() {
	w.t.Helper()
	s := w.state
	if !s.Header.Status.Final() && s.Header.Deadline.IsZero() {
		w.t.Errorf("status %s has no deadline", s.Header.Status)
	}
	for id, d := range s.Devices {
		if !s.Header.Status.Final() && s.DeadlineOf(id).IsZero() {
			w.t.Errorf("device %s in state %s has no deadline", id, d.State)
		}
		if d.Control && !s.last() && (d.Tries > 0 || d.Wave > 0) {
			w.t.Errorf("control device %s is touched before the last wave", id)
		}
	}
	if wake := s.Wake(w.now); !s.Header.Status.Final() && wake.IsZero() {
		w.t.Errorf("status %s waits for nothing", s.Header.Status)
	}
}
