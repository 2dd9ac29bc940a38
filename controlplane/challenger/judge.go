package challenger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Challenges are the versions that run beside others.
type Challenges interface {
	Challenges() []desired.Challenge
	SetChallenge(ctx context.Context, actor string, c desired.ChallengeChange) (desired.Challenge, error)
}

// Monitor is what devices counted.
type Monitor interface {
	Beside(model string, d release.Digest, since time.Time) []drift.Beside
	Totals() []drift.Total
}

// Proposal is a version that has proven itself.
type Proposal struct {
	Model    string
	Version  string
	Digest   release.Digest
	Why      string
	Evidence json.RawMessage // the Finding
}

// Promoter takes proven versions on: through gates, approval and a rollout.
type Promoter interface {
	Propose(ctx context.Context, p Proposal) error
}

// Alarm tells people that a challenge came to no good end.
type Alarm interface {
	Raise(ctx context.Context, now time.Time, c incident.Cause) error
}

// Ledger keeps verdicts.
type Ledger interface {
	Note(ctx context.Context, kind, actor string, body any) error
}

// KindVerdict is the ledger kind of a Record.
const KindVerdict = "challenge.verdict"

// Actor is who aborts a challenge, in the ledger.
const Actor = "challenger"

// Record is the ledger body of a verdict.
type Record struct {
	Model    string         `json:"model"`
	Version  string         `json:"version"`
	Release  release.Digest `json:"release"`
	Decision uint64         `json:"decision"` // ledger sequence that began the challenge
	Finding
}

// Config of a Judge. Promoter and Alarm may be nil: then verdicts are only told.
type Config struct {
	Challenges Challenges
	Monitor    Monitor
	Bucket     kvstore.Bucket // belongs to the Judge alone
	Ledger     Ledger
	Promoter   Promoter
	Alarm      Alarm
	Changed    func(model string) // told when a verdict was found; must not block
	Logger     *slog.Logger       // nil discards
}

// Judge looks at challenges and acts on what they show. It is safe for
// concurrent use; Tick is called by one goroutine.
type Judge struct {
	cfg Config

	mu     sync.Mutex // guards states
	states map[string]*state
}

// maxDevices bounds what is remembered of a challenge: 4,000 devices say all
// there is to say.
const maxDevices = 4000

// state is the checkpoint of the newest challenge of a model.
type state struct {
	Decision uint64            `json:"decision"`
	Began    map[string]Counts `json:"began"` // what each device had counted when it was first seen
	Finding  Finding           `json:"finding"`
	Noted    bool              `json:"noted,omitempty"` // a verdict is in the ledger
	Acted    bool              `json:"acted,omitempty"` // on it
}

// Open reads the checkpoints.
func Open(ctx context.Context, cfg Config) (*Judge, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string) {}
	}
	j := &Judge{cfg: cfg, states: map[string]*state{}}
	entries, err := cfg.Bucket.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read challenges: %w", err)
	}
	for _, e := range entries {
		parts, err := kvstore.Parts(e.Key)
		if err != nil || len(parts) != 1 {
			return nil, fmt.Errorf("read challenge %q: %w", e.Key, err)
		}
		s := &state{}
		if err := json.Unmarshal(e.Value, s); err != nil {
			return nil, fmt.Errorf("read challenge of %s: %w", parts[0], err)
		}
		j.states[parts[0]] = s
	}
	return j, nil
}

// Every is how often Run looks: windows come every few minutes.
const Every = time.Minute

// Run looks until ctx ends.
func (j *Judge) Run(ctx context.Context) error {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if err := j.Tick(ctx, now); err != nil && ctx.Err() == nil {
				j.cfg.Logger.Error("challenge could not be judged, trying again", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Tick looks at every challenge that goes on. One that cannot be judged keeps
// no other from it.
func (j *Judge) Tick(ctx context.Context, now time.Time) error {
	var errs []error
	totals := map[string][]drift.Total{}
	for _, c := range j.cfg.Challenges.Challenges() {
		if c.Ended != nil {
			continue
		}
		if len(totals) == 0 {
			for _, t := range j.cfg.Monitor.Totals() {
				totals[t.Model] = append(totals[t.Model], t)
			}
		}
		if err := j.look(ctx, now, &c, totals[c.Model]); err != nil {
			errs = append(errs, fmt.Errorf("judge the challenge of %s: %w", c.Model, err))
		}
	}
	return errors.Join(errs...)
}

func (j *Judge) look(ctx context.Context, now time.Time, c *desired.Challenge, totals []drift.Total) error {
	s := j.state(c)
	if s.Finding.Verdict == Going || s.Finding.Verdict == "" {
		began := len(s.Began)
		counts := s.counts(current(c, j.cfg.Monitor.Beside(c.Model, c.Release, c.Since), totals))
		s.Finding = Decide(Role(c.Role), RulesOf(c), counts, now.Sub(c.Since))
		if len(s.Began) == began && s.Finding.Verdict == Going {
			j.set(c.Model, s)
			return nil
		}
		if err := j.save(ctx, c.Model, s); err != nil {
			return err
		}
	}
	if s.Finding.Verdict == Going || s.Acted {
		return nil
	}
	if err := j.note(ctx, c, s); err != nil {
		return err
	}
	if err := j.act(ctx, now, c, s.Finding); err != nil {
		return err
	}
	s.Acted = true
	j.cfg.Changed(c.Model)
	return j.save(ctx, c.Model, s)
}

// note writes a verdict to the ledger, once unless the server dies just then.
func (j *Judge) note(ctx context.Context, c *desired.Challenge, s *state) error {
	if s.Noted {
		return nil
	}
	if err := j.cfg.Ledger.Note(ctx, KindVerdict, Actor, Record{c.Model, c.Version, c.Release, c.Seq, s.Finding}); err != nil {
		return err
	}
	j.cfg.Logger.Info("challenge is decided", "model", c.Model, "version", c.Version, "verdict", s.Finding.Verdict, "why", s.Finding.Why)
	s.Noted = true
	return j.save(ctx, c.Model, s)
}

// state is a copy of what is known of a challenge, empty for a new one.
func (j *Judge) state(c *desired.Challenge) *state {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.states[c.Model]; s != nil && s.Decision == c.Seq {
		out := *s
		return &out
	}
	return &state{Decision: c.Seq, Began: map[string]Counts{}}
}

func (j *Judge) set(model string, s *state) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.states[model] = s
}

func (j *Judge) save(ctx context.Context, model string, s *state) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode challenge: %w", err)
	}
	if _, err := j.cfg.Bucket.Put(ctx, kvstore.Key(model), data); err != nil {
		return fmt.Errorf("write challenge: %w", err)
	}
	j.set(model, s)
	return nil
}

// Finding is what the evidence amounts to now; ok is false before the first look
// at that challenge, named by the ledger sequence that began it.
func (j *Judge) Finding(model string, decision uint64) (f Finding, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.states[model]
	if s == nil || s.Decision != decision {
		return Finding{}, false
	}
	return s.Finding, true
}

// RulesOf are those of a challenge: what its beginner did not say is the default.
func RulesOf(c *desired.Challenge) Rules {
	r := Rules{Margin: c.Margin, Duration: time.Duration(c.Duration)}
	if c.Device != "" {
		r.Devices = 1 // it was meant so, and no other device is asked about
	}
	return r.WithDefaults()
}

// current is what each device that has computed anything with the challenger has
// counted until now.
func current(c *desired.Challenge, beside []drift.Beside, totals []drift.Total) map[string]Counts {
	out := map[string]Counts{}
	for i := range beside {
		if b := &beside[i]; b.Role == c.Role && b.Rows+b.FailedRows > 0 {
			out[b.Device] = out[b.Device].add(Counts{
				Challenger: Sums{b.Rows + b.FailedRows, b.FailedRows, b.Labels, less(b.Labels, b.Correct)},
				Compared:   b.Compared, Disagreed: less(b.Compared, b.Agreed),
			})
		}
	}
	for i := range totals {
		t := &totals[i]
		if has, ok := out[t.Device]; ok && t.Release != c.Release {
			out[t.Device] = has.add(Counts{Serving: Sums{t.Rows + t.FailedRows, t.FailedRows, t.Matched, less(t.Matched, t.Correct)}})
		}
	}
	return out
}

// counts are what came since each device was first seen: from then on both
// versions are counted over the same time.
func (s *state) counts(now map[string]Counts) map[string]Counts {
	out := map[string]Counts{}
	began := map[string]Counts{}
	maps.Copy(began, s.Began)
	for device, c := range now {
		b, known := began[device]
		if !known && len(began) >= maxDevices {
			continue
		}
		if !known {
			began[device], b = c, c
		}
		out[device] = c.since(b)
	}
	s.Began = began
	return out
}

// act carries a verdict out. Everything in it may be done twice.
func (j *Judge) act(ctx context.Context, now time.Time, c *desired.Challenge, f Finding) error {
	switch f.Verdict {
	case Promote:
		return j.propose(ctx, c, f)
	case Abort:
		if err := j.raise(ctx, now, c, f, incident.Critical); err != nil {
			return err
		}
		_, err := j.cfg.Challenges.SetChallenge(ctx, Actor, desired.ChallengeChange{Model: c.Model, Reason: f.Why})
		return err
	case Undecided:
		return j.raise(ctx, now, c, f, incident.Warning)
	case Going:
	}
	return nil
}

func (j *Judge) propose(ctx context.Context, c *desired.Challenge, f Finding) error {
	if j.cfg.Promoter == nil {
		return nil
	}
	evidence, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode evidence: %w", err)
	}
	return j.cfg.Promoter.Propose(ctx, Proposal{Model: c.Model, Version: c.Version, Digest: c.Release, Why: f.Why, Evidence: evidence})
}

func (j *Judge) raise(ctx context.Context, now time.Time, c *desired.Challenge, f Finding, severity incident.Severity) error {
	if j.cfg.Alarm == nil {
		return nil
	}
	summary := fmt.Sprintf("challenger %s %s is worse than what serves and was taken away", c.Model, c.Version)
	if f.Verdict == Undecided {
		summary = fmt.Sprintf("challenger %s %s: the time is over and nothing is proven", c.Model, c.Version)
	}
	return j.cfg.Alarm.Raise(ctx, now, incident.Cause{
		Key: fmt.Sprintf("challenge/%s/%d", c.Model, c.Seq), Kind: incident.GateFailed, Severity: severity,
		Model: c.Model, Version: c.Version, Cohort: c.Match, Device: c.Device, Summary: summary,
		Detail: f.Why + ". Look at: vedette model challenge show " + c.Model, Link: "/models/" + c.Model,
	})
}
