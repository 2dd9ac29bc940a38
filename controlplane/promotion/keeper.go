package promotion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Chain is the ledger's chain of promotions.
const Chain = "promotion"

// Kinds of records in the chain.
const (
	KindPolicy = "promotion.policy"
	KindState  = "promotion.state"
)

// Actor is who acts in the ledger when nobody gave the command.
const Actor = "promotion"

// look is how often Run looks without having been woken: deadlines have no
// other clock.
const look = 15 * time.Second

// Bucket is where policies and promotions are kept.
type Bucket interface {
	List(ctx context.Context, prefix string) ([]kvstore.Entry, error)
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	Delete(ctx context.Context, key string) error
}

// Versions are the releases of the registry.
type Versions interface {
	Versions() []registry.Version
	Release(d release.Digest) (registry.Version, error)
}

// Gates say whether a release may go to devices.
type Gates interface {
	Cleared(ctx context.Context, model string, d release.Digest) error
}

// Fleet makes and finds rollouts. Start may be called again after a failure of
// unknown outcome: Find is asked first.
type Fleet interface {
	Start(ctx context.Context, creator, reason string, spec rollout.Spec) error
	// Find is the rollout of that creator; not ok when there is none.
	Find(creator string) (id string, status rollout.Status, cause string, ok bool)
}

// Stages move a version to a stage, with gates and ledger as for any other command.
type Stages interface {
	SetStage(ctx context.Context, model, version string, to operator.Stage, reason string) error
}

// Candidates know the tags of the registered version that a release was packed
// from, nil for none.
type Candidates interface {
	Tags(source string) map[string]string
}

// Requests are told what became of the version that answers one. State is one of
// operator.RetrainValidated, RetrainRolledOut and RetrainRejected.
type Requests interface {
	Advance(ctx context.Context, now time.Time, id, state, release, text string) error
}

// Notifier tells people of a promotion that came to a bad end, and with an empty
// text that there is none any more.
type Notifier interface {
	Notify(ctx context.Context, now time.Time, p operator.Promotion, text string) error
}

// Lab has lab devices try releases.
type Lab interface {
	// Try begins a trial of a release whose gates lack what only lab devices
	// measure. It is called again and again while the promotion that began then
	// waits; a trial that a person began, or ended since, stands.
	Try(ctx context.Context, model string, d release.Digest, since time.Time) error
	// Done ends the trial that Try began.
	Done(ctx context.Context, model string, d release.Digest) error
}

// Ledger takes what was decided.
type Ledger interface {
	Append(ctx context.Context, chain string, expect uint64, kind, actor string, body any) (ledger.Record, error)
}

// Config is what a Keeper works with. All but Requests, Notifier, Lab, Changed,
// Now and Log are required.
type Config struct {
	Bucket     Bucket
	Versions   Versions
	Gates      Gates
	Fleet      Fleet
	Stages     Stages
	Candidates Candidates
	Ledger     Ledger
	Requests   Requests
	Notifier   Notifier
	Lab        Lab
	Changed    func(model string) // a promotion changed
	Now        func() time.Time
	Log        *slog.Logger
}

// policyRecord is a policy as it was set.
type policyRecord struct {
	operator.PromotionPolicy

	policy *Policy
}

// Keeper keeps promotions and moves them on. It is safe for concurrent use.
type Keeper struct {
	cfg  Config
	wake chan struct{}

	stepping sync.Mutex // held while promotions are changed; one at a time

	mu         sync.Mutex // guards all below
	policies   map[string]policyRecord
	promotions map[release.Digest]record // the newest of each release
}

// Open reads what is there.
func Open(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg, wake: make(chan struct{}, 1), policies: map[string]policyRecord{}, promotions: map[release.Digest]record{}}
	entries, err := cfg.Bucket.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read promotions: %w", err)
	}
	for _, e := range entries {
		if err := k.load(e); err != nil {
			return nil, fmt.Errorf("read promotion %s: %w", e.Key, err)
		}
	}
	return k, nil
}

const (
	policyPrefix    = "policy"
	promotionPrefix = "promotion"
)

func (k *Keeper) load(e kvstore.Entry) error {
	kind, _, _ := strings.Cut(e.Key, ".")
	if kind == policyPrefix {
		var p policyRecord
		if err := json.Unmarshal(e.Value, &p.PromotionPolicy); err != nil {
			return err
		}
		var err error
		p.policy, err = ParsePolicy([]byte(p.Text))
		k.policies[p.Model] = p
		return err
	}
	var r record
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return err
	}
	if r.Format != recordFormat {
		return fmt.Errorf("it has format %d, this program reads %d", r.Format, recordFormat)
	}
	k.promotions[r.Release] = r
	return nil
}

// Nudge makes Run look now.
func (k *Keeper) Nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run moves promotions on until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		if err := k.Look(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.Error("promotions were not moved on, it is tried again", "error", err)
		}
		select {
		case <-ticker.C:
		case <-k.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// Policy is that of a model; one without text when there is none.
func (k *Keeper) Policy(model string) operator.PromotionPolicy {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p, ok := k.policies[model]; ok {
		return p.PromotionPolicy
	}
	return operator.PromotionPolicy{Model: model}
}

// SetPolicy sets or, with an empty text, removes the policy of a model. It holds
// for versions that are published from now on; promotions under way keep theirs.
func (k *Keeper) SetPolicy(ctx context.Context, actor, model string, c operator.PromotionPolicyChange) (operator.PromotionPolicy, error) {
	p := policyRecord{PromotionPolicy: operator.PromotionPolicy{Model: model, Text: c.Text, Actor: actor, Reason: c.Reason, At: k.cfg.Now().UTC()}}
	key := policyPrefix + "." + kvstore.Key(model)
	k.stepping.Lock()
	defer k.stepping.Unlock()
	if strings.TrimSpace(c.Text) == "" {
		p.Text = ""
		if err := k.cfg.Bucket.Delete(ctx, key); err != nil {
			return p.PromotionPolicy, fmt.Errorf("remove promotion policy: %w", err)
		}
	} else if err := k.putPolicy(ctx, key, &p); err != nil {
		return p.PromotionPolicy, err
	}
	if _, err := k.cfg.Ledger.Append(ctx, Chain, ledger.Any, KindPolicy, actor, p.PromotionPolicy); err != nil {
		return p.PromotionPolicy, fmt.Errorf("record promotion policy: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.policy == nil {
		delete(k.policies, model)
	} else {
		k.policies[model] = p
	}
	return p.PromotionPolicy, nil
}

func (k *Keeper) putPolicy(ctx context.Context, key string, p *policyRecord) (err error) {
	if p.policy, err = ParsePolicy([]byte(p.Text)); err != nil {
		return err
	}
	b, err := json.Marshal(p.PromotionPolicy)
	if err != nil {
		return fmt.Errorf("encode promotion policy: %w", err)
	}
	if _, err := k.cfg.Bucket.Put(ctx, key, b); err != nil {
		return fmt.Errorf("keep promotion policy: %w", err)
	}
	return nil
}

// List are the promotions of a model, the newest first; of all for "".
func (k *Keeper) List(model string) []operator.Promotion {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := []operator.Promotion{}
	for _, r := range k.promotions {
		if model == "" || r.Model == model {
			list = append(list, r.Promotion)
		}
	}
	slices.SortFunc(list, func(a, b operator.Promotion) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.Model+a.Version, b.Model+b.Version)
	})
	return list
}

// Get is the newest promotion of a release.
func (k *Keeper) Get(d release.Digest) (operator.Promotion, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, ok := k.promotions[d]
	if !ok {
		return operator.Promotion{}, fmt.Errorf("release %s: %w", d.Short(), ErrNotFound)
	}
	return r.Promotion, nil
}

// Propose brings a version on its way, whatever the policy takes by itself. One
// that is under way already stays as it is; one that ended badly begins again.
func (k *Keeper) Propose(ctx context.Context, p Proposal) error {
	v, err := k.cfg.Versions.Release(p.Digest)
	if err != nil {
		return fmt.Errorf("propose %s: %w", p.Model, err)
	}
	k.stepping.Lock()
	err = k.begin(ctx, &v, p)
	k.stepping.Unlock()
	k.Nudge()
	return err
}

// begin stores a new promotion. k.stepping is held.
func (k *Keeper) begin(ctx context.Context, v *registry.Version, p Proposal) error {
	k.mu.Lock()
	policy, ok := k.policies[v.Model]
	old, again := k.promotions[v.Digest]
	k.mu.Unlock()
	switch {
	case !ok:
		return fmt.Errorf("%w: %s has none: set one with `vedette model promotion set`", ErrPolicy, v.Model)
	case again && (!old.State.Final() || old.State == operator.PromotionCompleted):
		return nil
	}
	now := k.cfg.Now().UTC()
	r := record{
		Format: recordFormat, Sequence: v.Sequence, Policy: policy.policy,
		Promotion: operator.Promotion{
			Model: v.Model, Version: v.Version, Release: v.Digest, Why: brief(p.Why), Evidence: brief(p.Evidence), Retrain: p.Retrain,
			Approver: policy.policy.Approver(), Created: now,
		},
	}
	if again {
		r.Attempt = old.Attempt + 1
	}
	return k.keep(ctx, r.to(operator.PromotionGates, "", now), Actor)
}

// keep stores a promotion, records it and tells of it. k.stepping is held.
func (k *Keeper) keep(ctx context.Context, r record, actor string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode promotion: %w", err)
	}
	if _, err := k.cfg.Bucket.Put(ctx, promotionPrefix+"."+kvstore.Key(r.Model, r.Release.String()), b); err != nil {
		return fmt.Errorf("keep promotion of %s %s: %w", r.Model, r.Version, err)
	}
	k.mu.Lock()
	old, had := k.promotions[r.Release]
	k.promotions[r.Release] = r
	k.mu.Unlock()
	k.cfg.Changed(r.Model)
	if had && old.State == r.State && old.Attempt == r.Attempt {
		return nil
	}
	if _, err := k.cfg.Ledger.Append(ctx, Chain, ledger.Any, KindState, actor, r.Promotion); err != nil {
		return fmt.Errorf("record promotion of %s %s: %w", r.Model, r.Version, err)
	}
	return nil
}

// Decide approves or denies a promotion that waits for it.
func (k *Keeper) Decide(ctx context.Context, actor string, d release.Digest, approve bool, reason string) (operator.Promotion, error) {
	k.stepping.Lock()
	defer k.stepping.Unlock()
	k.mu.Lock()
	r, ok := k.promotions[d]
	k.mu.Unlock()
	if !ok {
		return operator.Promotion{}, fmt.Errorf("release %s: %w", d.Short(), ErrNotFound)
	}
	next, err := r.decide(actor, approve, reason, k.cfg.Now().UTC())
	if err != nil {
		return r.Promotion, err
	}
	err = k.keep(ctx, next, actor)
	k.Nudge()
	return next.Promotion, err
}

// Look takes new versions on and moves every promotion on by one step.
func (k *Keeper) Look(ctx context.Context) error {
	k.stepping.Lock()
	defer k.stepping.Unlock()
	errs := []error{k.takeOn(ctx)}
	k.mu.Lock()
	var open []record
	for _, r := range k.promotions {
		if !r.State.Final() || r.owes() {
			open = append(open, r)
		}
	}
	k.mu.Unlock()
	slices.SortFunc(open, func(a, b record) int { return a.Created.Compare(b.Created) })
	for _, r := range open {
		errs = append(errs, k.advance(ctx, r))
	}
	return errors.Join(errs...)
}

// takeOn begins a promotion of each version that was published after its model's
// policy was set and that the policy takes.
func (k *Keeper) takeOn(ctx context.Context) error {
	var errs []error
	for _, v := range k.cfg.Versions.Versions() {
		k.mu.Lock()
		p, ok := k.policies[v.Model]
		_, known := k.promotions[v.Digest]
		k.mu.Unlock()
		if !ok || known || v.Withdrawn || v.BelowFloor || v.Published.Before(p.At) || v.Manifest == nil {
			continue
		}
		tags := k.cfg.Candidates.Tags(v.Manifest.Lineage.Source)
		if !p.policy.Takes(tags) {
			continue
		}
		errs = append(errs, k.begin(ctx, &v, Proposal{
			Model: v.Model, Digest: v.Digest, Why: "published by " + v.PublishedBy, Retrain: tags[operator.TagRetrain],
		}))
	}
	return errors.Join(errs...)
}
