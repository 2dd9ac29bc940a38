package promotion

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

var day0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// world is everything around a Keeper: it survives its restarts.
type world struct {
	t        *testing.T
	now      time.Time
	bucket   *kvstore.Memory
	versions map[release.Digest]registry.Version
	tags     map[string]map[string]string
	blocked  error // what the gates say
	rollouts map[string]*seen
	specs    []rollout.Spec
	refuse   error // of Start
	crash    bool  // Start makes the rollout and does not come back
	stages   []string
	records  []string
	told     []string
	notified []string
	*Keeper
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, now: day0, bucket: kvstore.NewMemory(), versions: map[release.Digest]registry.Version{},
		tags: map[string]map[string]string{}, rollouts: map[string]*seen{},
	}
	w.restart()
	return w
}

func (w *world) restart() {
	w.t.Helper()
	k, err := Open(w.t.Context(), Config{
		Bucket: w.bucket, Versions: w, Gates: w, Fleet: w, Stages: w, Candidates: w, Ledger: w, Requests: w, Notifier: w,
		Now: func() time.Time { return w.now },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Keeper = k
}

func (w *world) Versions() []registry.Version { return slices.Collect(maps.Values(w.versions)) }

func (w *world) Release(d release.Digest) (registry.Version, error) {
	v, ok := w.versions[d]
	if !ok {
		return v, registry.ErrNotFound
	}
	return v, nil
}

func (w *world) Cleared(context.Context, string, release.Digest) error { return w.blocked }

func (w *world) Start(_ context.Context, creator, _ string, spec rollout.Spec) error {
	if w.refuse != nil {
		return w.refuse
	}
	if w.rollouts[creator] == nil {
		w.specs = append(w.specs, spec)
		w.rollouts[creator] = &seen{ID: fmt.Sprintf("r-%d", len(w.specs)), Status: rollout.StatusDraft}
	}
	if w.crash {
		panic("power cut")
	}
	w.rollouts[creator].Status = rollout.StatusRunning
	return nil
}

func (w *world) Find(creator string) (id string, status rollout.Status, cause string, ok bool) {
	r := w.rollouts[creator]
	if r == nil {
		return "", "", "", false
	}
	return r.ID, r.Status, r.Cause, true
}

func (w *world) SetStage(_ context.Context, model, version string, to operator.Stage, _ string) error {
	w.stages = append(w.stages, model+" "+version+" "+string(to))
	return nil
}

func (w *world) Tags(source string) map[string]string { return w.tags[source] }

func (w *world) Append(_ context.Context, _ string, _ uint64, kind, actor string, body any) (ledger.Record, error) {
	if p, ok := body.(operator.Promotion); ok {
		w.records = append(w.records, actor+": "+p.Version+" "+string(p.State))
	} else {
		w.records = append(w.records, actor+": "+kind)
	}
	return ledger.Record{}, nil
}

func (w *world) Advance(_ context.Context, _ time.Time, id, state, version, _ string) error {
	w.told = append(w.told, id+" "+state+" "+version)
	return nil
}

func (w *world) Notify(_ context.Context, _ time.Time, p operator.Promotion, text string) error {
	w.notified = append(w.notified, p.Version+": "+text)
	return nil
}

// publish adds a version of digits that was packed from a registered one with tags.
func (w *world) publish(version string, sequence uint64, tags map[string]string) release.Digest {
	d := release.DigestOf([]byte(version))
	source := "models:/digits/" + version
	w.tags[source] = tags
	w.versions[d] = registry.Version{
		Target:   trust.Target{Model: "digits", Version: version, Sequence: sequence, Digest: d},
		Manifest: &release.Manifest{Lineage: release.Lineage{Source: source}}, Published: w.now, PublishedBy: "ci",
	}
	return d
}

func (w *world) policy(text string) {
	w.t.Helper()
	if _, err := w.SetPolicy(w.t.Context(), "ann", "digits", operator.PromotionPolicyChange{Text: text, Reason: "agreed"}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) look(after time.Duration) {
	w.t.Helper()
	w.now = w.now.Add(after)
	if err := w.Look(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) want(d release.Digest, state operator.PromotionState, mention string) {
	w.t.Helper()
	p, err := w.Get(d)
	if err != nil || p.State != state || !strings.Contains(p.Text, mention) {
		w.t.Errorf("promotion is %+v, %v, want state %s and %q", p, err, state, mention)
	}
}

const automatic = "on: retrain\nrollout: {waves: [{count: 1}, {percent: 100}]}\nstage: production\n"

// TestByItself: an answer to a request goes through the gates to the whole fleet
// without anybody, in waves of the template, and everybody hears of it once.
func TestByItself(t *testing.T) {
	w := newWorld(t)
	w.policy(automatic)
	w.blocked = errors.New("gate accuracy is missing")
	other := w.publish("1", 1, nil)
	d := w.publish("2", 2, map[string]string{operator.TagRetrain: "q-7"})
	w.look(0)
	if _, err := w.Get(other); !errors.Is(err, ErrNotFound) {
		t.Errorf("a version that answers nothing was taken on (%v)", err)
	}
	w.want(d, operator.PromotionGates, "gate accuracy is missing")
	w.blocked = nil
	w.look(time.Minute)
	w.want(d, operator.PromotionRollingOut, "")
	w.restart()
	w.look(time.Minute)
	w.rollouts["promotion/"+d.Short()].Status = rollout.StatusCompleted
	w.look(time.Hour)
	w.look(time.Hour)
	w.want(d, operator.PromotionCompleted, "stage production")
	spec := w.specs[0]
	if len(w.specs) != 1 || spec.Model != "digits" || spec.Version != "2" || spec.Release != d || len(spec.Waves) != 2 || spec.OnConflict != rollout.Queue {
		t.Errorf("rollouts are %+v", w.specs)
	}
	for name, got := range map[string][]string{
		"digits 2 production":              w.stages,
		"q-7 validated 2|q-7 rolled_out 2": w.told,
		"2: ":                              w.notified,
		"ann: promotion.policy|promotion: 2 gates|promotion: 2 starting|promotion: 2 rolling_out|promotion: 2 completed": w.records,
	} {
		if strings.Join(got, "|") != name {
			t.Errorf("got %q, want %q", got, name)
		}
	}
}

// TestApproval: with an approver nothing starts before a person said so.
func TestApproval(t *testing.T) {
	for _, approve := range []bool{true, false} {
		t.Run(strconv.FormatBool(approve), func(t *testing.T) {
			w := newWorld(t)
			w.policy("on: all\napproval: operator\nrollout: {waves: [{percent: 100}]}\n")
			d := w.publish("1", 1, nil)
			w.look(0)
			w.want(d, operator.PromotionAwaiting, "role operator")
			if len(w.specs) != 0 {
				t.Fatal("it was rolled out before anybody approved")
			}
			if _, err := w.Decide(t.Context(), "bob", d, approve, "looked at it"); err != nil {
				t.Fatal(err)
			}
			w.look(0)
			if _, err := w.Decide(t.Context(), "bob", d, true, "again"); !errors.Is(err, ErrState) {
				t.Errorf("deciding twice: got %v, want %v", err, ErrState)
			}
			if approve {
				w.want(d, operator.PromotionRollingOut, "")
			} else {
				w.want(d, operator.PromotionRejected, "denied: looked at it")
			}
			if len(w.specs) != map[bool]int{true: 1, false: 0}[approve] {
				t.Errorf("%d rollouts", len(w.specs))
			}
		})
	}
}

// TestPowerCutWhileStarting: the rollout was made, and nobody knows. After the
// restart it is found and started; there is no second one.
func TestPowerCutWhileStarting(t *testing.T) {
	w := newWorld(t)
	w.policy("on: all\nrollout: {waves: [{percent: 100}]}\n")
	d := w.publish("1", 1, nil)
	w.crash = true
	func() {
		defer func() { _ = recover() }()
		_ = w.Look(t.Context())
	}()
	w.crash = false
	w.restart()
	w.look(time.Second)
	w.want(d, operator.PromotionRollingOut, "")
	if len(w.specs) != 1 {
		t.Errorf("%d rollouts were made, want 1", len(w.specs))
	}
}

func TestEndings(t *testing.T) {
	const policy = "on: all\ngates_within: 2h\napproval: publisher\napproval_within: 3h\nrollout: {waves: [{percent: 100}]}\n"
	tests := []struct {
		name    string
		do      func(w *world, d release.Digest)
		state   operator.PromotionState
		mention string
	}{
		{"gates never cleared", func(w *world, _ release.Digest) {
			w.blocked = errors.New("gate f1 is failed")
			w.look(0)
			w.look(2 * time.Hour)
		}, operator.PromotionRejected, "not cleared within 2h0m0s: gate f1 is failed"},
		{"nobody approved", func(w *world, _ release.Digest) {
			w.look(0)
			w.look(3 * time.Hour)
		}, operator.PromotionRejected, "nobody approved it within 3h0m0s"},
		{"a newer version came", func(w *world, _ release.Digest) {
			w.look(0)
			w.publish("2", 2, nil)
			w.look(time.Minute)
		}, operator.PromotionSuperseded, "version 2 came"},
		{"withdrawn", func(w *world, d release.Digest) {
			w.look(0)
			v := w.versions[d]
			v.Withdrawn = true
			w.versions[d] = v
			w.look(0)
		}, operator.PromotionRejected, "withdrawn"},
		{"spec refused", func(w *world, d release.Digest) {
			w.refuse = fmt.Errorf("%w: no such device", rollout.ErrSpec)
			w.look(0)
			w.approve(d)
			w.look(0)
		}, operator.PromotionFailed, "could not be started"},
		{"held up for an hour", func(w *world, d release.Digest) {
			w.refuse = errors.New("the ledger is not there")
			w.look(0)
			w.approve(d)
			w.look(time.Minute)
			w.want(d, operator.PromotionStarting, "tried again: the ledger is not there")
			w.look(time.Hour)
		}, operator.PromotionFailed, "the ledger is not there"},
		{"reverted", func(w *world, d release.Digest) {
			w.look(0)
			w.approve(d)
			w.look(0)
			*w.rollouts["promotion/"+d.Short()] = seen{ID: "r-1", Status: rollout.StatusReverted, Cause: "gate errors failed"}
			w.look(time.Minute)
		}, operator.PromotionFailed, "rollout r-1 is reverted: gate errors failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.policy(policy)
			d := w.publish("1", 1, nil)
			tt.do(w, d)
			w.want(d, tt.state, tt.mention)
			if bad := tt.state != operator.PromotionSuperseded; bad != (len(w.notified) > 0) {
				t.Errorf("people were told %q", w.notified)
			}
		})
	}
}

func (w *world) approve(d release.Digest) {
	w.t.Helper()
	if _, err := w.Decide(w.t.Context(), "bob", d, true, "fine"); err != nil {
		w.t.Fatal(err)
	}
}

// TestProposeAgain: what ended badly may begin again, under a name of its own;
// what goes on, or is done, is left alone.
func TestProposeAgain(t *testing.T) {
	w := newWorld(t)
	d := w.publish("1", 1, nil)
	if err := w.Propose(t.Context(), Proposal{Model: "digits", Digest: d, Why: "challenger"}); !errors.Is(err, ErrPolicy) {
		t.Fatalf("without a policy: got %v, want %v", err, ErrPolicy)
	}
	w.policy("on: retrain\nrollout: {waves: [{percent: 100}]}\n")
	propose := func() {
		t.Helper()
		if err := w.Propose(t.Context(), Proposal{Model: "digits", Digest: d, Why: "the challenger is no worse"}); err != nil {
			t.Fatal(err)
		}
		w.look(0)
	}
	propose()
	w.want(d, operator.PromotionRollingOut, "")
	propose()
	w.rollouts["promotion/"+d.Short()].Status = rollout.StatusAborted
	w.look(0)
	w.want(d, operator.PromotionFailed, "aborted")
	propose()
	w.want(d, operator.PromotionRollingOut, "")
	if len(w.specs) != 2 || w.rollouts["promotion/"+d.Short()+".1"] == nil {
		t.Errorf("rollouts are %v", slices.Sorted(maps.Keys(w.rollouts)))
	}
}

// TestOldVersionsStay: a policy is no order to roll out what was there before.
func TestOldVersionsStay(t *testing.T) {
	w := newWorld(t)
	d := w.publish("1", 1, nil)
	w.now = w.now.Add(time.Second)
	w.policy("on: all\nrollout: {waves: [{percent: 100}]}\n")
	w.look(time.Minute)
	if _, err := w.Get(d); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want %v", err, ErrNotFound)
	}
}

func TestPolicies(t *testing.T) {
	for text, mention := range map[string]string{
		"on: sometimes\nrollout: {}":                                     "on is",
		"on: tagged\nrollout: {}":                                        "tags go together",
		"on: all\ntags: {a: b}\nrollout: {}":                             "tags go together",
		"on: all\ngates: maybe\nrollout: {}":                             "gates is",
		"on: all\napproval: viewer\nrollout: {}":                         "approval is",
		"on: all\nstage: gone\nrollout: {}":                              "stage is",
		"on: all\nrollout: {model: digits}":                              "leave out model and version",
		"on: all\nrollout: {waves: [{percent: 200}]}":                    "rollout:",
		"on: all\nrolout: {}":                                            "rolout",
		"on: all\nrollout: {supersedes: r-1}":                            "leave out supersedes",
		"on: all\ngates_within: -1h\nrollout: {waves: [{percent: 100}]}": "negative",
	} {
		if _, err := ParsePolicy([]byte(text)); !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), mention) {
			t.Errorf("%q: got %v, want %q", text, err, mention)
		}
	}
	p, err := ParsePolicy([]byte("on: tagged\ntags: {line: packing}\nrollout: {waves: [{count: 1}, {percent: 100}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Gates != Required || p.Approver() != "" || !p.Takes(map[string]string{"line": "packing"}) || p.Takes(map[string]string{"line": "x"}) || p.Takes(nil) {
		t.Errorf("policy is %+v", p)
	}
}
