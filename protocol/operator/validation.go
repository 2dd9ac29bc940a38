package operator

import (
	"context"
	"encoding/json"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// ValidationReader reads which gates a version has to pass before it may be
// rolled out, how it did, and what was in production when.
type ValidationReader interface {
	GatePolicy(ctx context.Context, model string) (*GatePolicy, error)
	Validation(ctx context.Context, model, version string) (*Validation, error)
	History(ctx context.Context, model string, q HistoryQuery) (*History, error)
}

// ValidationCommander sets gates and brings the evidence for them.
type ValidationCommander interface {
	SetGatePolicy(ctx context.Context, model string, c GatePolicyChange) (*GatePolicy, error)
	AddEvidence(ctx context.Context, model, version string, c EvidenceAdded) (*Validation, error)
	OverrideGate(ctx context.Context, model, version, gate string, r Reasoned) (*Validation, error)
	SetLabTrial(ctx context.Context, model, version string, c LabTrialChange) (*Validation, error)
}

// GatePolicy are the gates of a model. Text is empty when it has none.
type GatePolicy struct {
	Model  string         `json:"model"`
	Text   string         `json:"text"`  // YAML, as it was set
	Gates  []string       `json:"gates"` // names, in order
	Digest release.Digest `json:"digest,omitzero"`
	Actor  string         `json:"actor,omitempty"`
	Reason string         `json:"reason,omitempty"`
	At     time.Time      `json:"at,omitzero"`
}

// GatePolicyChange sets the gates of a model. An empty text removes them.
type GatePolicyChange struct {
	Text   string `json:"text"` // YAML; `vedette model gates spec` explains it
	Reason string `json:"reason"`
}

// GateStatus is how a version stands with one gate.
type GateStatus string

// Statuses of gates. A version is cleared when each is passed or overridden.
const (
	GatePassed     GateStatus = "passed"
	GateFailed     GateStatus = "failed"
	GateMissing    GateStatus = "missing" // the evidence does not decide it: next says how to get what does
	GateOverridden GateStatus = "overridden"
)

// Clears says whether the gate stands in nobody's way.
func (s GateStatus) Clears() bool { return s == GatePassed || s == GateOverridden }

// Validation is how one version stands with the gates of its model.
type Validation struct {
	Model    string         `json:"model"`
	Version  string         `json:"version"`
	Release  release.Digest `json:"release"`
	Cleared  bool           `json:"cleared"`            // it may be rolled out
	Why      string         `json:"why"`                // in words
	First    string         `json:"first,omitempty"`    // gate that stops it, the first in order
	Next     string         `json:"next,omitempty"`     // what to do about that
	Policy   release.Digest `json:"policy,omitzero"`    // judged by; absent for none
	Gates    []GateVerdict  `json:"gates"`              // in the policy's order
	Evidence []EvidenceHeld `json:"evidence"`           // newest first
	Trials   []LabResult    `json:"trials"`             // of lab devices, by profile
	Lab      *LabTrial      `json:"lab,omitempty"`      // which release the lab tries now
	Judged   time.Time      `json:"judged,omitzero"`    //
	Champion string         `json:"champion,omitempty"` // version in production that it is compared with
}

// GateVerdict is one gate: value, threshold, evidence and what follows.
type GateVerdict struct {
	Name       string        `json:"name"`
	Kind       string        `json:"kind"` // metric, champion, latency, memory, fairness, data, smoke
	Status     GateStatus    `json:"status"`
	Value      *float64      `json:"value,omitempty"`
	Threshold  *float64      `json:"threshold,omitempty"`
	AtMost     bool          `json:"at_most,omitempty"` // the value must not be above the threshold; else not below
	Unit       string        `json:"unit,omitempty"`    // ms, bytes; none for shares and scores
	Lower      *float64      `json:"lower,omitempty"`   // interval of the value
	Upper      *float64      `json:"upper,omitempty"`   //
	Confidence float64       `json:"confidence,omitempty"`
	N          uint64        `json:"n,omitempty"` // rows judged
	Evidence   string        `json:"evidence"`    // in words
	Next       string        `json:"next,omitempty"`
	Parts      []GatePart    `json:"parts,omitempty"`
	Override   *GateOverride `json:"override,omitempty"`
}

// GatePart is one profile, group or check that a gate looks at.
type GatePart struct {
	Name   string     `json:"name"`
	Status GateStatus `json:"status"`
	Value  *float64   `json:"value,omitempty"`
	Limit  *float64   `json:"limit,omitempty"`
	Lower  *float64   `json:"lower,omitempty"`
	Upper  *float64   `json:"upper,omitempty"`
	N      uint64     `json:"n,omitempty"`
	Text   string     `json:"text,omitempty"`
}

// GateOverride lets one version past one gate.
type GateOverride struct {
	Actor  string     `json:"actor"`
	Reason string     `json:"reason"`
	At     time.Time  `json:"at"`
	Was    GateStatus `json:"was"` // at that time
}

// EvidenceHeld is an evaluation or a data report that was uploaded.
type EvidenceHeld struct {
	Kind     string         `json:"kind"` // evaluation, training_data, evaluation_data
	Digest   release.Digest `json:"digest"`
	Rows     release.Digest `json:"rows"` // of the file that was evaluated or checked
	RowsName string         `json:"rows_name,omitempty"`
	Count    int64          `json:"count"` // rows
	Runtime  string         `json:"runtime,omitempty"`
	Actor    string         `json:"actor"`
	At       time.Time      `json:"at"`
}

// Kinds of evidence.
const (
	EvidenceEvaluation     = "evaluation"
	EvidenceTrainingData   = "training_data"
	EvidenceEvaluationData = "evaluation_data"
)

// EvidenceAdded brings evidence for the gates of a version. An evaluation is the
// digest of an uploaded blob that `vedette-agent evaluate` wrote; reports are
// those of `vedette data check -o json`.
type EvidenceAdded struct {
	Evaluation     *release.Digest `json:"evaluation,omitempty"`
	TrainingData   json.RawMessage `json:"training_data,omitempty"`
	EvaluationData json.RawMessage `json:"evaluation_data,omitempty"`
}

// LabResult is what a lab device measured of a release.
type LabResult struct {
	Device      string    `json:"device"`
	Profile     string    `json:"profile"`
	P95US       uint64    `json:"p95_us"`
	PeakBytes   uint64    `json:"peak_bytes"`
	GoldenRows  uint32    `json:"golden_rows"`
	GoldenWrong uint32    `json:"golden_wrong"`
	Code        string    `json:"code,omitempty"` // why the device refused it; empty when it did not
	Message     string    `json:"message,omitempty"`
	Provider    string    `json:"provider,omitempty"`
	Runtime     string    `json:"runtime,omitempty"`
	At          time.Time `json:"at"`
}

// LabTrial is the release that lab devices try beside what they serve.
type LabTrial struct {
	Version string         `json:"version"`
	Release release.Digest `json:"release"`
	Devices []string       `json:"devices"` // that are to try it
	Actor   string         `json:"actor"`
	Reason  string         `json:"reason"`
	At      time.Time      `json:"at"`
}

// LabTrialChange has lab devices try a version, or stop.
type LabTrialChange struct {
	End    bool   `json:"end,omitempty"`
	Reason string `json:"reason"`
}

// HistoryQuery selects a moment of a model's history; zero selects all.
type HistoryQuery struct {
	At time.Time `json:"at,omitzero" query:"at"`
}

// History says what was in production, where, when, by whom and why.
type History struct {
	Model  string         `json:"model"`
	Stages []StageSpan    `json:"stages"` // newest first
	Where  []DeployedSpan `json:"where"`  // newest first
	At     time.Time      `json:"at,omitzero"`
}

// StageSpan is a time that a version spent in a stage.
type StageSpan struct {
	Version string         `json:"version"`
	Release release.Digest `json:"release"`
	Stage   Stage          `json:"stage"`
	From    time.Time      `json:"from"`
	To      time.Time      `json:"to,omitzero"` // zero: still
	Actor   string         `json:"actor"`
	Reason  string         `json:"reason,omitempty"`
}

// DeployedSpan is a rollout that brought a version to devices.
type DeployedSpan struct {
	Version  string         `json:"version"`
	Release  release.Digest `json:"release"`
	Rollout  string         `json:"rollout"`
	State    RolloutState   `json:"state"`
	Selector string         `json:"selector,omitempty"` // empty: the whole fleet
	Devices  int            `json:"devices"`            // that run it because of this rollout, or did when it ended
	Sites    map[string]int `json:"sites,omitempty"`    // of them, by label "site"
	From     time.Time      `json:"from"`
	To       time.Time      `json:"to,omitzero"` // when the next rollout of the model to the same devices began, or this one went back
	Actor    string         `json:"actor"`
	Reason   string         `json:"reason,omitempty"`
}
