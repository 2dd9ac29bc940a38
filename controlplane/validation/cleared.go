package validation

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// engine is who judges, in the ledger.
const engine = "engine"

// Refused is why a version is not cleared.
type Refused struct {
	Model   string
	Version string
	Gate    string // the first, in order, that stops it
	Status  operator.GateStatus
	Text    string // what the gate found
	Next    string // what to do
}

// Error names the gate and what it found.
func (r *Refused) Error() string {
	return fmt.Sprintf("%s %s: %s: %s", r.Model, r.Version, stands(r.Gate, r.Status), r.Text)
}

// stands says how a gate stands in the way.
func stands(gate string, s operator.GateStatus) string {
	if s == operator.GateMissing {
		return "gate " + gate + " lacks evidence"
	}
	return "gate " + gate + " fails"
}

// Unwrap lets callers ask for ErrNotCleared.
func (r *Refused) Unwrap() error { return ErrNotCleared }

// Cleared says whether a release may go to devices outside the lab: nil when its
// model has no gates, when all are passed or overridden, and when it was in
// production before, because going back must not wait for evidence. Otherwise the
// error is a *Refused with the first gate that stops it.
func (s *Store) Cleared(ctx context.Context, model string, d release.Digest) error {
	if s.Policy(model).Text == "" {
		return nil
	}
	v, err := s.cfg.Registry.Release(d)
	if err != nil {
		return fmt.Errorf("validate %s: %w", model, err)
	}
	if s.proven(&v) {
		return nil
	}
	r, err := s.Judge(ctx, &v)
	if err != nil {
		return err
	}
	if r.Cleared {
		return nil
	}
	g := r.Gates[slices.IndexFunc(r.Gates, func(g operator.GateVerdict) bool { return g.Name == r.First })]
	return &Refused{Model: model, Version: v.Version, Gate: g.Name, Status: g.Status, Text: g.Evidence, Next: r.Next}
}

// proven says that a version is, or was, in production: in that stage, or brought
// to the fleet by a rollout that was completed, whatever its stage.
func (s *Store) proven(v *registry.Version) bool {
	return v.Stage == operator.StageProduction || slices.Contains(s.deployed(v.Model), v.Digest) ||
		slices.ContainsFunc(v.StageLog, func(c operator.StageChanged) bool { return c.To == operator.StageProduction })
}

func (s *Store) deployed(model string) []release.Digest {
	if s.cfg.Deployed == nil {
		return nil
	}
	return s.cfg.Deployed(model)
}

// Judge judges a version on what is known now. Verdicts on the same evidence are
// kept. When they changed the ledger gets them, and when another gate stops the
// version people are told.
func (s *Store) Judge(ctx context.Context, v *registry.Version) (*operator.Validation, error) {
	s.mu.Lock()
	p, has := s.policies[v.Model]
	s.mu.Unlock()
	rec := s.record(v.Digest)
	out := &operator.Validation{
		Model: v.Model, Version: v.Version, Release: v.Digest, Gates: []operator.GateVerdict{}, Evidence: rec.held(), Trials: s.Trials(v.Model, v.Digest),
	}
	if champion, ok := s.champion(v.Model); ok {
		out.Champion = champion.Version
	}
	if !has || len(p.policy.Gates) == 0 {
		out.Cleared, out.Why = true, v.Model+" has no gates: every version may be rolled out"
		return out, s.tell(ctx, v, &rec, rec.Outcome, Stop{Model: v.Model, Version: v.Version, Release: v.Digest, Text: v.Model + " has no gates any more"})
	}
	j, err := s.verdicts(ctx, v, &p, &rec, out.Trials)
	if err != nil {
		return nil, err
	}
	out.Policy, out.Judged = p.Digest, j.at
	out.Gates = overridden(j.verdicts, rec.Overrides)
	sum(out)
	if s.proven(v) && !out.Cleared {
		out.Cleared, out.Why = true, fmt.Sprintf("%s was in production before: it may be rolled out without passing gate %s", v.Version, out.First)
	}
	return out, s.report(ctx, v, &rec, out)
}

// overridden puts overrides on the gates that need them.
func overridden(verdicts []operator.GateVerdict, overrides map[string]operator.GateOverride) []operator.GateVerdict {
	out := slices.Clone(verdicts)
	for i := range out {
		if o, ok := overrides[out[i].Name]; ok && !out[i].Status.Clears() {
			out[i].Status, out[i].Override, out[i].Next = operator.GateOverridden, &o, ""
		}
	}
	return out
}

// sum says what follows from the gates together.
func sum(v *operator.Validation) {
	at := slices.IndexFunc(v.Gates, func(g operator.GateVerdict) bool { return !g.Status.Clears() })
	if at < 0 {
		v.Cleared, v.Why = true, fmt.Sprintf("all %d gates are passed or overridden", len(v.Gates))
		return
	}
	g := &v.Gates[at]
	v.First, v.Next, v.Why = g.Name, g.Next, stands(g.Name, g.Status)+": "+g.Evidence
}

// champion is the version in production: the one in that stage, and where nobody
// uses stages the one that the newest completed rollout brought.
func (s *Store) champion(model string) (v registry.Version, ok bool) {
	m, err := s.cfg.Registry.Model(model)
	if err != nil {
		return v, false
	}
	at := slices.IndexFunc(m.Versions, func(v registry.Version) bool { return v.Stage == operator.StageProduction })
	if at >= 0 {
		return m.Versions[at], true
	}
	for _, d := range s.deployed(model) {
		if v, err := s.cfg.Registry.Release(d); err == nil {
			return v, true
		}
	}
	return v, false
}

// verdicts judges, or repeats a judgement on the same evidence.
func (s *Store) verdicts(ctx context.Context, v *registry.Version, p *policyRecord, rec *versionRecord, trials []operator.LabResult) (judgement, error) {
	s.judging.Lock()
	defer s.judging.Unlock()
	champion, _ := s.champion(v.Model)
	rival := s.record(champion.Digest)
	var pairs []pairing
	for _, rows := range p.policy.pins() {
		pairs = append(pairs, rec.pair(&rival, rows))
	}
	profiles := s.profiles(v.Model)
	on, err := fingerprint(p.Digest, v.Digest, champion.Digest, pairs, profiles, trials, rec.Training, rec.Checked)
	if err != nil {
		return judgement{}, err
	}
	s.mu.Lock()
	known := s.judged[v.Digest]
	s.mu.Unlock()
	if known.on == on {
		return known, nil
	}
	ev := Evidence{Champion: Rival{Version: champion.Version, Release: champion.Digest}, Profiles: profiles, Trials: trials}
	j := judgement{on: on, at: s.cfg.Now().UTC(), verdicts: make([]operator.GateVerdict, len(p.policy.Gates))}
	for _, pair := range pairs {
		if err := s.judgeOn(ctx, v, &p.policy, rec, pair, ev, j.verdicts); err != nil {
			return judgement{}, err
		}
	}
	s.mu.Lock()
	s.judged[v.Digest] = j
	s.mu.Unlock()
	return j, nil
}

// judgeOn judges the gates that go by a pair of evaluations, the only ones in
// memory meanwhile.
func (s *Store) judgeOn(
	ctx context.Context, v *registry.Version, p *Policy, rec *versionRecord, pair pairing, ev Evidence, verdicts []operator.GateVerdict,
) (err error) {
	if ev.Candidate, err = s.evaluated(ctx, pair.Own); err != nil {
		return err
	}
	if ev.Champion.Release != v.Digest {
		if ev.Champion.Evaluated, err = s.evaluated(ctx, pair.Other); err != nil {
			return err
		}
	}
	ev.Training, ev.Checked = rec.reports(pair.Own)
	for i := range p.Gates {
		if p.Gates[i].pin() == pair.Rows {
			one := Policy{Gates: p.Gates[i : i+1]}
			verdicts[i] = Judge(one, Subject{Model: v.Model, Version: v.Version, Release: v.Digest}, ev)[0]
		}
	}
	return nil
}

// fingerprint is a digest of everything that a verdict depends on.
func fingerprint(parts ...any) (string, error) {
	b, err := json.Marshal(parts)
	if err != nil {
		return "", fmt.Errorf("digest evidence: %w", err)
	}
	return release.DigestOf(b).String(), nil
}

// pairing are evaluations on the same rows; nil for none.
type pairing struct {
	Rows       release.Digest // that a gate names; zero for any
	Own, Other *evaluationRecord
}

// pair finds the newest evaluation on some rows, any if zero, and the rival's
// newest on the same. Where the newest has no counterpart, the newest that has one
// is taken: a comparison on older rows is worth more than none.
func (r *versionRecord) pair(rival *versionRecord, rows release.Digest) pairing {
	out := pairing{Rows: rows}
	for i := range r.Evaluations {
		own := &r.Evaluations[i]
		if !rows.IsZero() && own.Header.Rows != rows {
			continue
		}
		for k := range rival.Evaluations {
			if own.Header.Rows == rival.Evaluations[k].Header.Rows {
				out.Own, out.Other = own, &rival.Evaluations[k]
				return out
			}
		}
		out.Own = cmp.Or(out.Own, own)
	}
	return out
}

// reports are the newest on training rows, and on the rows that were evaluated.
func (r *versionRecord) reports(own *evaluationRecord) (training, checked *Reported) {
	if len(r.Training) > 0 {
		training = &Reported{Report: r.Training[0].Report, Actor: r.Training[0].Actor, At: r.Training[0].At}
	}
	for _, x := range r.Checked {
		if own != nil && x.Report.Rows == own.Header.Rows {
			return training, &Reported{Report: x.Report, Actor: x.Actor, At: x.At}
		}
	}
	return training, nil
}

func (s *Store) evaluated(ctx context.Context, r *evaluationRecord) (*Evaluated, error) {
	if r == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	t, err := s.table(ctx, r.Blob)
	if err != nil {
		return nil, err
	}
	return &Evaluated{Table: t, Blob: r.Blob, Actor: r.Actor, At: r.At}, nil
}

// report records verdicts that changed, and tells people of another gate that
// stops the version. Gates that lack evidence are news to nobody.
func (s *Store) report(ctx context.Context, v *registry.Version, rec *versionRecord, out *operator.Validation) error {
	outcome := statuses(out)
	stop := Stop{Model: v.Model, Version: v.Version, Release: v.Digest, Text: "no gate fails any more"}
	at := slices.IndexFunc(out.Gates, func(g operator.GateVerdict) bool { return g.Name == out.First && g.Status == operator.GateFailed })
	if why := s.past(v); why != "" {
		stop.Text = why
	} else if at >= 0 {
		stop.Gate, stop.Text = out.Gates[at].Name, out.Gates[at].Evidence
	}
	if outcome != rec.Outcome {
		if _, err := s.cfg.Ledger.Append(ctx, Chain, ledger.Any, KindJudged, engine, map[string]any{
			"model": v.Model, "version": v.Version, "release": v.Digest, "policy": out.Policy, "cleared": out.Cleared, "gates": out.Gates,
		}); err != nil {
			return fmt.Errorf("record verdicts: %w", err)
		}
	}
	return s.tell(ctx, v, rec, outcome, stop)
}

// tell keeps an outcome, and tells people when another gate stops the version, or
// none any more.
func (s *Store) tell(ctx context.Context, v *registry.Version, rec *versionRecord, outcome string, stop Stop) error {
	if outcome == rec.Outcome && stop.Gate == rec.Stopped {
		return nil
	}
	if stop.Gate != rec.Stopped && s.cfg.Notifier != nil {
		if err := s.cfg.Notifier.Notify(ctx, s.cfg.Now(), stop); err != nil {
			return fmt.Errorf("tell of gate %s: %w", stop.Gate, err)
		}
	}
	if err := s.update(ctx, v, func(rec *versionRecord) { rec.Outcome, rec.Stopped = outcome, stop.Gate }); err != nil {
		return err
	}
	s.cfg.Changed(v.Model)
	return nil
}

// past says why nobody waits for a version any more; empty while somebody may.
func (s *Store) past(v *registry.Version) string {
	champion, ok := s.champion(v.Model)
	switch {
	case v.Stage == operator.StageArchived:
		return v.Version + " was archived"
	case s.proven(v):
		return v.Version + " is or was in production"
	case ok && champion.Sequence > v.Sequence:
		return champion.Version + ", which is newer, is in production"
	}
	return ""
}

// Settle looks again at the versions of a model that people were told a gate
// stops: its gates may be others now, or nobody waits for the version any more.
// What cannot be judged is logged, and judged when somebody asks for it.
func (s *Store) Settle(ctx context.Context, model string) {
	for _, d := range s.stopped(model) {
		v, err := s.cfg.Registry.Release(d)
		if err == nil {
			_, err = s.Judge(ctx, &v)
		}
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("a version that a gate stopped was not judged again", "model", model, "release", d, "error", err)
		}
	}
}

// stopped are the versions of a model that people were told a gate stops.
func (s *Store) stopped(model string) (out []release.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, v := range s.versions {
		if v.Model == model && v.Stopped != "" {
			out = append(out, d)
		}
	}
	return out
}

// statuses is the outcome in one line, to see whether it changed.
func statuses(v *operator.Validation) string {
	byGate := map[string]string{}
	for _, g := range v.Gates {
		byGate[g.Name] = string(g.Status)
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(byGate)) {
		out = append(out, name+"="+byGate[name])
	}
	return v.Policy.Short() + " " + strings.Join(out, ",")
}
