package validation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol/constraints"
	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// What a Store may answer.
var (
	// ErrNotCleared says that a version has not passed the gates of its model.
	ErrNotCleared = errors.New("the validation gates are not passed")
	// ErrGate says that the policy has no such gate, or that it needs no override.
	ErrGate = errors.New("the gate cannot be overridden")
	// ErrEvidence says that evidence is not of this version, or not readable.
	ErrEvidence = errors.New("the evidence cannot be used")
)

// Chain is the ledger chain of what is decided about gates.
const Chain = "validation"

// Kinds of records.
const (
	KindPolicy   = "gates.set"
	KindEvidence = "gates.evidence"
	KindOverride = "gates.overridden"
	KindJudged   = "gates.judged"
)

// keepEvidence is how many evaluations and reports of a version are kept, the
// newest.
const keepEvidence = 10

// Registry knows the versions.
type Registry interface {
	Model(name string) (registry.Model, error)
	Release(d release.Digest) (registry.Version, error)
}

// Fleet knows the devices.
type Fleet interface {
	Devices(match func(labels map[string]string) bool) []fleet.Device
}

// Blobs hold uploaded evaluations.
type Blobs interface {
	Open(ctx context.Context, d release.Digest) (io.ReadSeekCloser, int64, error)
}

// Ledger takes what was decided.
type Ledger interface {
	Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (ledger.Record, error)
}

// Notifier tells people that a gate stops a version, or with an empty gate that
// none does any more.
type Notifier interface {
	Notify(ctx context.Context, now time.Time, s Stop) error
}

// Stop is a version that a gate stops.
type Stop struct {
	Model   string
	Version string
	Release release.Digest
	Gate    string // the first that failed; empty: no gate fails any more
	Text    string // what the gate found; of no gate, why none stops it
}

// Config of a Store. All but Notifier, Changed, Deployed, Now and Log are required.
type Config struct {
	Bucket   kvstore.Bucket
	Registry Registry
	Fleet    Fleet
	Blobs    Blobs
	Ledger   Ledger
	Notifier Notifier           // nil tells nobody
	Changed  func(model string) // called when a verdict may have changed; nil for nobody
	// Deployed lists the releases of a model that rollouts brought to the fleet, the
	// newest first; nil where there are no rollouts.
	Deployed func(model string) []release.Digest
	Now      func() time.Time // time.Now when nil
	Log      *slog.Logger     // discards when nil
}

// Store keeps policies and evidence, and judges. It is safe for concurrent use.
type Store struct {
	cfg Config

	judging sync.Mutex // held while evaluations are in memory: two at a time are enough

	mu       sync.Mutex // guards everything below
	policies map[string]policyRecord
	versions map[release.Digest]*versionRecord
	trials   map[release.Digest]map[string]operator.LabResult // by device
	judged   map[release.Digest]judgement
}

// policyRecord is what the bucket keeps of a model.
type policyRecord struct {
	Text   string         `json:"text"`
	Digest release.Digest `json:"digest"`
	Actor  string         `json:"actor"`
	Reason string         `json:"reason"`
	At     time.Time      `json:"at"`

	policy Policy
}

// versionRecord is what the bucket keeps of a version.
type versionRecord struct {
	Model       string                           `json:"model"`
	Version     string                           `json:"version"`
	Evaluations []evaluationRecord               `json:"evaluations,omitempty"` // newest first
	Training    []reportRecord                   `json:"training,omitempty"`    // newest first
	Checked     []reportRecord                   `json:"checked,omitempty"`     // newest first
	Overrides   map[string]operator.GateOverride `json:"overrides,omitempty"`   // by gate
	Stopped     string                           `json:"stopped,omitempty"`     // gate that people were told of
	Outcome     string                           `json:"outcome,omitempty"`     // statuses that the ledger has
}

type evaluationRecord struct {
	Blob   release.Digest    `json:"blob"`
	Header evaluation.Header `json:"header"`
	Count  int64             `json:"count"`
	Actor  string            `json:"actor"`
	At     time.Time         `json:"at"`
}

type reportRecord struct {
	Report *constraints.Report `json:"report"`
	Digest release.Digest      `json:"digest"`
	Actor  string              `json:"actor"`
	At     time.Time           `json:"at"`
}

// judgement is a verdict with what it was given on.
type judgement struct {
	on       string
	verdicts []operator.GateVerdict
	at       time.Time
}

// First tokens of keys.
const (
	policyKey  = "policy"
	versionKey = "version"
	trialKey   = "trial"
)

// Open loads what the bucket holds.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cfg: cfg, policies: map[string]policyRecord{}, versions: map[release.Digest]*versionRecord{},
		trials: map[release.Digest]map[string]operator.LabResult{}, judged: map[release.Digest]judgement{},
	}
	entries, err := cfg.Bucket.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("load validation: %w", err)
	}
	for _, e := range entries {
		if err := s.load(e); err != nil {
			return nil, fmt.Errorf("load validation: key %s: %w", e.Key, err)
		}
	}
	return s, nil
}

func (s *Store) load(e kvstore.Entry) error {
	parts, err := kvstore.Parts(e.Key)
	if err != nil || len(parts) < 2 {
		return errors.Join(kvstore.ErrKey, err)
	}
	switch parts[0] {
	case policyKey:
		var p policyRecord
		if err := json.Unmarshal(e.Value, &p); err != nil {
			return err
		}
		if p.policy, err = ParsePolicy([]byte(p.Text)); err != nil {
			return err
		}
		s.policies[parts[1]] = p
		return nil
	case versionKey:
		d, err := release.ParseDigest(parts[1])
		if err != nil {
			return err
		}
		v := &versionRecord{}
		s.versions[d] = v
		return json.Unmarshal(e.Value, v)
	case trialKey:
		return s.loadTrial(parts, e.Value)
	}
	return nil
}

func (s *Store) put(ctx context.Context, value any, parts ...string) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if _, err := s.cfg.Bucket.Put(ctx, kvstore.Key(parts...), b); err != nil {
		return fmt.Errorf("store validation: %w", err)
	}
	return nil
}

// SetPolicy sets the gates of a model; an empty text removes them. Versions that
// people were told a gate stops are judged again at once, the others when somebody
// asks.
func (s *Store) SetPolicy(ctx context.Context, actor, model string, c operator.GatePolicyChange) (operator.GatePolicy, error) {
	p, err := ParsePolicy([]byte(c.Text))
	if err != nil {
		return operator.GatePolicy{}, err
	}
	rec := policyRecord{Text: c.Text, Digest: release.DigestOf([]byte(c.Text)), Actor: actor, Reason: c.Reason, At: s.cfg.Now().UTC(), policy: p}
	if _, err := s.cfg.Ledger.Append(ctx, Chain, ledger.Any, KindPolicy, actor, map[string]any{
		"model": model, "text": c.Text, "digest": rec.Digest, "reason": c.Reason,
	}); err != nil {
		return operator.GatePolicy{}, fmt.Errorf("record policy: %w", err)
	}
	if err := s.put(ctx, rec, policyKey, model); err != nil {
		return operator.GatePolicy{}, err
	}
	s.mu.Lock()
	s.policies[model] = rec
	s.mu.Unlock()
	s.Settle(ctx, model)
	s.cfg.Changed(model)
	return s.Policy(model), nil
}

// Policy are the gates of a model; without any, Text is empty.
func (s *Store) Policy(model string) operator.GatePolicy {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.policies[model]
	out := operator.GatePolicy{Model: model, Gates: []string{}}
	if ok {
		out = operator.GatePolicy{Model: model, Text: p.Text, Gates: p.policy.Names(), Digest: p.Digest, Actor: p.Actor, Reason: p.Reason, At: p.At}
	}
	return out
}

// record returns a copy of what is kept of a version.
func (s *Store) record(d release.Digest) versionRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.versions[d]; v != nil {
		return *v
	}
	return versionRecord{}
}

// update changes what is kept of a version. change must replace slices and maps,
// not write into them.
func (s *Store) update(ctx context.Context, v *registry.Version, change func(*versionRecord)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := versionRecord{}
	if old := s.versions[v.Digest]; old != nil {
		rec = *old
	}
	rec.Model, rec.Version = v.Model, v.Version
	change(&rec)
	if err := s.put(ctx, rec, versionKey, v.Digest.String()); err != nil {
		return err
	}
	s.versions[v.Digest] = &rec
	return nil
}

// AddEvidence takes in evidence for a version, after reading it whole.
func (s *Store) AddEvidence(ctx context.Context, actor string, v *registry.Version, c operator.EvidenceAdded) error {
	now := s.cfg.Now().UTC()
	var eval *evaluationRecord
	if c.Evaluation != nil {
		t, err := s.table(ctx, *c.Evaluation)
		if err == nil {
			err = isOf(&t.Header, v)
		}
		if err != nil {
			return err
		}
		eval = &evaluationRecord{Blob: *c.Evaluation, Header: t.Header, Count: int64(t.Len()), Actor: actor, At: now}
	}
	training, err := reportOf(c.TrainingData, actor, now)
	if err != nil {
		return err
	}
	checked, err := reportOf(c.EvaluationData, actor, now)
	if err != nil {
		return err
	}
	if eval == nil && training == nil && checked == nil {
		return fmt.Errorf("%w: nothing was brought", ErrEvidence)
	}
	body := map[string]any{"model": v.Model, "version": v.Version, "release": v.Digest}
	if eval != nil {
		body["evaluation"], body["rows"] = eval.Blob, eval.Header.Rows
	}
	for name, r := range map[string]*reportRecord{operator.EvidenceTrainingData: training, operator.EvidenceEvaluationData: checked} {
		if r != nil {
			body[name] = r.Digest
		}
	}
	if _, err := s.cfg.Ledger.Append(ctx, Chain, ledger.Any, KindEvidence, actor, body); err != nil {
		return fmt.Errorf("record evidence: %w", err)
	}
	return s.update(ctx, v, func(rec *versionRecord) {
		rec.Evaluations = newest(rec.Evaluations, eval)
		rec.Training, rec.Checked = newest(rec.Training, training), newest(rec.Checked, checked)
	})
}

// newest puts one in front of a list of bounded length.
func newest[T any](list []T, one *T) []T {
	if one == nil {
		return list
	}
	list = slices.Insert(slices.Clone(list), 0, *one)
	return list[:min(len(list), keepEvidence)]
}

// isOf refuses an evaluation of another graph.
func isOf(h *evaluation.Header, v *registry.Version) error {
	if h.Release != nil && *h.Release != v.Digest {
		return fmt.Errorf("%w: it is of release %s, %s %s is %s", ErrEvidence, h.Release.Short(), v.Model, v.Version, v.Digest.Short())
	}
	if v.Manifest == nil {
		return fmt.Errorf("%w: the manifest of %s %s cannot be read", ErrEvidence, v.Model, v.Version)
	}
	for _, variant := range v.Manifest.Variants {
		if variant.Graph.Digest == h.Graph {
			return nil
		}
	}
	return fmt.Errorf("%w: it is of graph %s, which %s %s does not have", ErrEvidence, h.Graph.Short(), v.Model, v.Version)
}

func reportOf(raw json.RawMessage, actor string, now time.Time) (*reportRecord, error) {
	if len(raw) == 0 {
		return nil, nil //nolint:nilnil // none was brought
	}
	r, err := constraints.DecodeReport(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	r.Columns = nil // the verdict needs none, and a version's record is bounded
	return &reportRecord{Report: r, Digest: release.DigestOf(raw), Actor: actor, At: now}, nil
}

// table reads an evaluation from the blobs.
func (s *Store) table(ctx context.Context, d release.Digest) (*evaluation.Table, error) {
	f, _, err := s.cfg.Blobs.Open(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("%w: evaluation %s: %w", ErrEvidence, d.Short(), err)
	}
	defer f.Close()
	t, err := evaluation.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%w: evaluation %s: %w", ErrEvidence, d.Short(), err)
	}
	return t, nil
}

// Override lets a version past one gate. It is in the ledger before it counts.
func (s *Store) Override(ctx context.Context, actor string, v *registry.Version, gate, reason string) error {
	report, err := s.Judge(ctx, v)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(report.Gates, func(g operator.GateVerdict) bool { return g.Name == gate })
	switch {
	case at < 0:
		return fmt.Errorf("%w: %s has no gate %q", ErrGate, v.Model, gate)
	case report.Gates[at].Status.Clears():
		return fmt.Errorf("%w: %s has %s gate %q", ErrGate, v.Version, report.Gates[at].Status, gate)
	}
	o := operator.GateOverride{Actor: actor, Reason: reason, At: s.cfg.Now().UTC(), Was: report.Gates[at].Status}
	if _, err := s.cfg.Ledger.Append(ctx, Chain, ledger.Any, KindOverride, actor, map[string]any{
		"model": v.Model, "version": v.Version, "release": v.Digest, "gate": gate, "was": o.Was, "evidence": report.Gates[at].Evidence, "reason": reason,
	}); err != nil {
		return fmt.Errorf("record override: %w", err)
	}
	return s.update(ctx, v, func(rec *versionRecord) {
		overrides := map[string]operator.GateOverride{gate: o}
		for name, other := range rec.Overrides {
			if name != gate {
				overrides[name] = other
			}
		}
		rec.Overrides = overrides
	})
}

// held lists the evidence of a version, newest first.
func (r *versionRecord) held() []operator.EvidenceHeld {
	out := []operator.EvidenceHeld{}
	for _, e := range r.Evaluations {
		out = append(out, operator.EvidenceHeld{
			Kind: operator.EvidenceEvaluation, Digest: e.Blob, Rows: e.Header.Rows, RowsName: e.Header.RowsName, Count: e.Count,
			Runtime: e.Header.Runtime, Actor: e.Actor, At: e.At,
		})
	}
	for kind, list := range map[string][]reportRecord{operator.EvidenceTrainingData: r.Training, operator.EvidenceEvaluationData: r.Checked} {
		for _, x := range list {
			out = append(out, operator.EvidenceHeld{
				Kind: kind, Digest: x.Digest, Rows: x.Report.Rows, RowsName: x.Report.RowsName, Count: x.Report.Count, Actor: x.Actor, At: x.At,
			})
		}
	}
	slices.SortStableFunc(out, func(a, b operator.EvidenceHeld) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.Kind, b.Kind))
	})
	return out
}
