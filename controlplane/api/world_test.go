package api

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/retrain"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
	"github.com/vedette-edge/vedette/protocol/trust"
)

var (
	now    = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	first  = release.DigestOf([]byte("digits 1"))
	second = release.DigestOf([]byte("digits 2"))
)

// world is a control plane of stand-ins: its fields are what the packages say.
type world struct {
	fleet    map[string]fleet.Device
	desired  map[string]desired.State
	settings desired.Settings
	rollouts []runner.View
	scores   []drift.Score
	alarms   []drift.Alarm
	totals   []drift.Total
	series   []drift.Series
	floors   map[string]float64
	policies []retrain.Policy
	requests []retrain.Request
	board    *incident.Board
	versions []registry.Version
	notes    []ledger.Record
	// Releases beside the primary ones, and what they showed.
	challenges map[string]desired.Challenge
	lab        map[string]desired.LabTrial
	uploads    files // evaluations
	beside     []drift.Beside
	evidence   map[string]drift.Evidence
	refuse     error // what every command is answered, when set
	refusals   map[rollout.Action]error
	done       []string
}

func (w *world) did(what string) error {
	if w.refuse == nil {
		w.done = append(w.done, what)
	}
	return w.refuse
}

type worldFleet struct{ *world }

func (w worldFleet) Device(id string) (fleet.Device, bool) {
	d, ok := w.fleet[id]
	return d, ok
}

func (w worldFleet) Devices(match func(map[string]string) bool) []fleet.Device {
	var out []fleet.Device
	for _, d := range w.fleet {
		if match == nil || match(d.Labels) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b fleet.Device) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (w worldFleet) SetLabels(_ context.Context, id string, c fleet.LabelChange, actor, reason string) error {
	return w.did("labels " + id + " by " + actor + ": " + reason)
}

func (w worldFleet) Revoke(_ context.Context, id, actor, _ string) error {
	return w.did("mark " + id + " by " + actor)
}

type worldDesired struct{ *world }

func (w worldDesired) State(id string) desired.State   { return w.desired[id] }
func (w worldDesired) FleetSettings() desired.Settings { return w.settings }
func (w worldDesired) SetSettings(_ context.Context, actor string, c desired.SettingsChange) error {
	w.settings = c.Settings
	return w.did("settings by " + actor)
}

func (w worldDesired) Challenge(model string) (desired.Challenge, bool) {
	c, ok := w.challenges[model]
	return c, ok
}

func (w worldDesired) Challenges() []desired.Challenge {
	return slices.Collect(maps.Values(w.challenges))
}

func (w worldDesired) SetChallenge(_ context.Context, actor string, c desired.ChallengeChange) (desired.Challenge, error) {
	out := desired.Challenge{ChallengeChange: c, Since: now, Actor: actor, Seq: 9}
	if c.Release.IsZero() {
		out = w.challenges[c.Model]
		out.Ended = &desired.End{At: now, Actor: actor, Reason: c.Reason}
	}
	w.challenges[c.Model] = out
	return out, w.did("challenge " + c.Model + " by " + actor)
}

type worldRollouts struct{ *world }

func (w worldRollouts) List() []runner.View { return slices.Clone(w.rollouts) }

func (w worldRollouts) Get(id string) (runner.View, error) {
	for _, v := range w.rollouts {
		if v.State.ID == id {
			return v, nil
		}
	}
	return runner.View{}, runner.ErrNotFound
}

func (w worldRollouts) Revision(id string) (uint64, error) {
	v, err := w.Get(id)
	return v.Revision, err
}

func (w worldRollouts) Plan(_ context.Context, s rollout.Spec) (rollout.Plan, error) {
	return rollout.Plan{Spec: s, Waves: []rollout.PlanWave{{Number: 1, Devices: []string{"cam-a1"}, Detectable: []rollout.Detectable{{Gate: rollout.Errors}}}}}, w.refuse
}

func (w worldRollouts) Create(_ context.Context, actor, reason string, s rollout.Spec) (runner.View, error) {
	return w.rollouts[0], w.did("create " + s.Model + " by " + actor + ": " + reason)
}

func (w worldRollouts) Act(_ context.Context, id string, c rollout.Command) (runner.View, error) {
	if err := w.refusals[c.Action]; err != nil {
		return runner.View{}, err
	}
	if c.Number != nil && *c.Number != w.rollouts[0].State.Header.Revision {
		return runner.View{}, rollout.ErrStale
	}
	return w.rollouts[0], w.did(string(c.Action) + " " + id + " by " + c.Actor)
}

type worldMonitor struct{ *world }

func (w worldMonitor) Scores(string) []drift.Score          { return slices.Clone(w.scores) }
func (w worldMonitor) Alarms(string) []drift.Alarm          { return slices.Clone(w.alarms) }
func (w worldMonitor) Series(string) []drift.Series         { return slices.Clone(w.series) }
func (w worldMonitor) Totals() []drift.Total                { return slices.Clone(w.totals) }
func (w worldMonitor) SetFloor(model string, floor float64) { w.floors[model] = floor }
func (w worldMonitor) Config() drift.Config                 { return drift.Config{Threshold: 0.2, CohortBy: "site"} }

func (w worldMonitor) Beside(string, release.Digest, time.Time) []drift.Beside { return w.beside }
func (w worldMonitor) Evidence(_ string, d release.Digest, _, _ time.Time) map[string]drift.Evidence {
	if d != first {
		return nil
	}
	return w.evidence
}

type worldRetrain struct{ *world }

func (w worldRetrain) SetPolicy(_ context.Context, p retrain.Policy) error {
	if err := w.did("policy " + p.Model); err != nil {
		return err
	}
	w.policies = []retrain.Policy{p}
	return nil
}
func (w worldRetrain) Policies() []retrain.Policy        { return w.policies }
func (w worldRetrain) Requests(string) []retrain.Request { return slices.Clone(w.requests) }

func (w worldRetrain) Request(id string) (retrain.Request, error) {
	for _, r := range w.requests {
		if r.ID == id {
			return r, nil
		}
	}
	return retrain.Request{}, retrain.ErrNotFound
}

func (w worldRetrain) Ask(_ context.Context, at time.Time, model, who, reason string) (retrain.Request, error) {
	return retrain.Request{ID: "asked", Model: model, AtMS: at.UnixMilli(), Cause: retrain.CauseAsked, Message: reason, Status: retrain.Pending}, w.did("ask " + model + " by " + who)
}

func (w worldRetrain) Redeliver(_ context.Context, _ time.Time, id string) (retrain.Request, error) {
	r, err := w.Request(id)
	if err == nil && !r.Dead() {
		err = retrain.ErrAlive
	}
	return r, err
}

type worldRegistry struct {
	Registry // what is not asked for here
	*world
}

func (w worldRegistry) Models() []registry.Model {
	if len(w.versions) == 0 {
		return nil
	}
	return []registry.Model{{Name: "digits", Versions: w.versions, Production: "1", Floor: 1}}
}

func (w worldRegistry) Model(name string) (registry.Model, error) {
	if name != "digits" {
		return registry.Model{}, registry.ErrNotFound
	}
	return w.Models()[0], nil
}

func (w worldRegistry) Release(d release.Digest) (registry.Version, error) {
	for _, v := range w.versions {
		if v.Digest == d {
			return v, nil
		}
	}
	return registry.Version{}, registry.ErrNotFound
}

func (w worldRegistry) Version(_, name string) (registry.Version, error) {
	for _, v := range w.versions {
		if v.Version == name {
			return v, nil
		}
	}
	return registry.Version{}, registry.ErrNotFound
}

func (w worldRegistry) Signature(release.Digest) (operator.Signature, error) {
	return operator.Signature{Threshold: 1}, nil
}

func (w worldRegistry) Baseline(context.Context, release.Digest) (*sketch.Baseline, error) {
	return &sketch.Baseline{Rows: 100, Streams: []sketch.Stream{{Name: "pixel 1"}}}, nil
}

func (w worldRegistry) Trust() operator.Trust { return operator.Trust{} }

func (w worldRegistry) InstallRoot(_ context.Context, actor string, _ []byte) error {
	return w.did("root by " + actor)
}

func (w worldRegistry) Publish(_ context.Context, actor string, _ []byte, _ int64) (registry.Published, error) {
	return registry.Published{Targets: 4, Added: []trust.Target{{Model: "digits", Version: "3"}}}, w.did("targets by " + actor)
}

func (w worldRegistry) SetStage(_ context.Context, actor, model, version string, _ operator.StageChange) (registry.Version, error) {
	return w.versions[0], w.did("stage " + model + " " + version + " by " + actor)
}

type worldBlobs struct{ *world }

func (w worldBlobs) Status(release.Digest) (artifact.Upload, error) {
	return artifact.Upload{Offset: 7}, w.did("status")
}

func (w worldBlobs) Write(context.Context, release.Digest, int64, int64, io.Reader) (artifact.Upload, error) {
	return artifact.Upload{Offset: 9}, w.did("chunk")
}

func (w worldBlobs) Open(ctx context.Context, d release.Digest) (io.ReadSeekCloser, int64, error) {
	return w.uploads.Open(ctx, d)
}

type worldLedger struct {
	Ledger // reading is tested on a real one
	*world
}

func (w worldLedger) Append(_ context.Context, chain string, _ uint64, kind, actor string, body any) (ledger.Record, error) {
	r := ledger.Record{Chain: chain, Kind: kind, Actor: actor}
	w.notes = append(w.notes, r)
	return r, nil
}

type worldAccess struct {
	Access
	*world
}

func (w worldAccess) CreateEnrolToken(context.Context, operator.EnrolTokenCreate) (*operator.EnrolSecret, error) {
	return &operator.EnrolSecret{Secret: "s3cret"}, w.did("enrol token")
}

func (w worldAccess) RevokeEnrolToken(context.Context, string) error {
	return w.did("revoke enrol token")
}

func (w worldAccess) CreateToken(context.Context, operator.TokenCreate) (*operator.TokenSecret, error) {
	return &operator.TokenSecret{Secret: "s3cret"}, w.did("token")
}
func (w worldAccess) RevokeToken(context.Context, string) error { return w.did("revoke token") }
func (w worldAccess) RevokeDevice(_ context.Context, id, _ string) error {
	return w.did("revoke " + id)
}

func (w *world) service() *Service {
	return NewService(Deps{
		Fleet: worldFleet{w}, Desired: worldDesired{w}, Rollouts: worldRollouts{w}, Registry: worldRegistry{nil, w}, Blobs: worldBlobs{w},
		Challenges: worldDesired{w}, Rivals: worldMonitor{w},
		Monitor: worldMonitor{w}, Retrain: worldRetrain{w}, Incidents: w.board, Validation: w.validation(), Promotions: worldPromotions{w}, Lab: worldDesired{w}, Ledger: worldLedger{nil, w}, Access: worldAccess{nil, w},
		Info: Info{Version: "test", Storage: func(context.Context) (operator.Storage, error) { return operator.Storage{BlobBytes: 5}, nil }},
		Now:  func() time.Time { return now },
	})
}

// newWorld has two sites: at a, cam-a1 serves version 1; at b, cam-b1 serves
// version 2 and cam-b2 refused it and was never seen since.
func newWorld() *world {
	device := func(id, site string, models ...fleet.Model) fleet.Device {
		return fleet.Device{ID: id, Labels: map[string]string{"site": site}, Revision: 7, Presence: fleet.Online, Models: models}
	}
	refused := fleet.Outcome{Release: second, Result: "refused", Code: "golden_mismatch", Message: "4 of 64 rows differ"}
	away := device("cam-b2", "b", fleet.Model{Name: "digits", Active: first, State: "idle", Outcome: &refused, Refused: []fleet.Outcome{refused}})
	away.Presence, away.Revoked = fleet.Offline, &fleet.Mark{At: now, Actor: "ann", Reason: "stolen"}
	board, err := incident.New(context.Background(), kvstore.NewMemory(), incident.Config{})
	if err != nil {
		panic(err) // memory does not fail
	}
	return &world{
		board: board,
		fleet: map[string]fleet.Device{
			"cam-a1": device("cam-a1", "a", fleet.Model{Name: "digits", Active: first, State: "idle", Serving: true}),
			"cam-b1": device("cam-b1", "b", fleet.Model{Name: "digits", Active: second, Previous: first, State: "watching", Serving: true}),
			"cam-b2": away,
			"new":    device("new", "b"),
		},
		desired: map[string]desired.State{
			"cam-b1": {Generation: 9, Assignments: []desired.Assignment{{Model: "digits", Release: second}}},
			"new":    {Generation: 9, Assignments: []desired.Assignment{{Model: "digits", Release: second}}},
		},
		floors:     map[string]float64{},
		challenges: map[string]desired.Challenge{}, lab: map[string]desired.LabTrial{}, uploads: files{},
		versions: []registry.Version{
			{Target: trust.Target{Model: "digits", Version: "2", Sequence: 2, Digest: second}},
			{Target: trust.Target{Model: "digits", Version: "1", Sequence: 1, Digest: first}, Stage: operator.StageProduction},
		},
	}
}

func as(t *testing.T, role operator.Role) context.Context {
	t.Helper()
	return operator.WithPrincipal(t.Context(), operator.Principal{Name: "ann", Role: role})
}
