package validation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/evaluation"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// plant is what a Store works with: two versions of credit, of which the first
// is in production, cameras that have it, and a bench in the lab.
type plant struct {
	t        *testing.T
	bucket   kvstore.Bucket
	ledger   *ledger.Memory
	versions []registry.Version
	devices  []fleet.Device
	blobs    map[release.Digest][]byte
	opened   int // evaluations read
	told     []string
}

func graphOf(version string) release.Digest { return release.DigestOf([]byte("graph " + version)) }

func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{t: t, bucket: kvstore.NewMemory(), ledger: ledger.NewMemory(time.Now), blobs: map[release.Digest][]byte{}}
	for i, v := range []string{"1", "2"} {
		p.versions = append(p.versions, registry.Version{
			Target:   trust.Target{Model: "credit", Version: v, Sequence: uint64(i + 1), Digest: release.DigestOf([]byte("credit " + v))},
			Manifest: &release.Manifest{Variants: []release.Variant{{Graph: release.File{Digest: graphOf(v)}}}},
		})
	}
	p.versions[0].Stage = operator.StageProduction
	for _, id := range []string{"cam-1", "cam-2", "bench"} {
		d := fleet.Device{ID: id, Facts: fleet.Facts{Profile: "pi-5"}, Models: []fleet.Model{{Name: "credit", Active: p.versions[0].Digest}}}
		if id == "bench" {
			d.Labels = map[string]string{fleet.RingLabel: fleet.LabRing}
		}
		p.devices = append(p.devices, d)
	}
	return p
}

func (p *plant) open() *Store {
	p.t.Helper()
	s, err := Open(p.t.Context(), Config{Bucket: p.bucket, Registry: p, Fleet: p, Blobs: p, Ledger: p.ledger, Notifier: p})
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *plant) Model(name string) (registry.Model, error) {
	return registry.Model{Name: name, Versions: p.versions}, nil
}

func (p *plant) Release(d release.Digest) (registry.Version, error) {
	for _, v := range p.versions {
		if v.Digest == d {
			return v, nil
		}
	}
	return registry.Version{}, registry.ErrNotFound
}

func (p *plant) Devices(match func(map[string]string) bool) (out []fleet.Device) {
	for _, d := range p.devices {
		if match == nil || match(d.Labels) {
			out = append(out, d)
		}
	}
	return out
}

type closing struct{ *bytes.Reader }

func (closing) Close() error { return nil }

func (p *plant) Open(_ context.Context, d release.Digest) (io.ReadSeekCloser, int64, error) {
	b, ok := p.blobs[d]
	if !ok {
		return nil, 0, errors.New("no such blob")
	}
	p.opened++
	return closing{bytes.NewReader(b)}, int64(len(b)), nil
}

func (p *plant) Notify(_ context.Context, _ time.Time, s Stop) error {
	p.told = append(p.told, strings.TrimSpace(s.Version+" "+s.Gate))
	return nil
}

// evaluate uploads an evaluation of 400 rows with so many wrong.
func (p *plant) evaluate(s *Store, version string, wrong int) {
	p.t.Helper()
	p.evaluateOn(s, version, wrong, rowsDigest)
}

func (p *plant) evaluateOn(s *Store, version string, wrong int, rows release.Digest) {
	p.t.Helper()
	var b bytes.Buffer
	if err := evaluation.WriteHeader(&b, evaluation.Header{
		Format: evaluation.Format, Task: evaluation.Classification, Graph: graphOf(version), Rows: rows, Truth: "repaid",
		Classes: []string{"no", "yes"}, Golden: &evaluation.Golden{Rows: 4},
	}, []string{evaluation.PredictionColumn}); err != nil {
		p.t.Fatal(err)
	}
	for i := range 400 {
		said := "yes"
		if i < wrong {
			said = "no"
		}
		fmt.Fprintf(&b, "%d,yes,%s\n", i+1, said)
	}
	d := release.DigestOf(b.Bytes())
	p.blobs[d] = b.Bytes()
	v := p.version(version)
	if err := s.AddEvidence(p.t.Context(), "paula", &v, operator.EvidenceAdded{Evaluation: &d}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) version(name string) registry.Version {
	return p.versions[slices.IndexFunc(p.versions, func(v registry.Version) bool { return v.Version == name })]
}

// stands is the status of every gate of a version.
func (p *plant) stands(s *Store, version string) string {
	p.t.Helper()
	v := p.version(version)
	out, err := s.Judge(p.t.Context(), &v)
	if err != nil {
		p.t.Fatal(err)
	}
	var parts []string
	for _, g := range out.Gates {
		parts = append(parts, g.Name+"="+string(g.Status))
	}
	return strings.Join(parts, " ")
}

const policyText = `
gates:
  - {kind: champion, margin: 0}
  - {kind: latency, p95: 100ms}
`

func (p *plant) set(s *Store, text string) {
	p.t.Helper()
	if _, err := s.SetPolicy(p.t.Context(), "paula", "credit", operator.GatePolicyChange{Text: text, Reason: "agreed"}); err != nil {
		p.t.Fatal(err)
	}
}

// People are told once of a gate that stops a version and once that none does,
// and a restart changes nothing.
func TestStopIsToldOnce(t *testing.T) {
	p := newPlant(t)
	s := p.open()
	p.set(s, policyText)
	p.evaluate(s, "1", 40)
	p.evaluate(s, "2", 60) // worse
	for range 3 {
		if got := p.stands(s, "2"); got != "champion=failed latency=missing" {
			t.Fatalf("got %s", got)
		}
	}
	if !slices.Equal(p.told, []string{"2 champion"}) {
		t.Errorf("told %q", p.told)
	}
	before := p.opened
	p.stands(s, "2")
	if p.opened != before {
		t.Error("the same evidence was read again")
	}
	s = p.open()
	if got := p.stands(s, "2"); got != "champion=failed latency=missing" || len(p.told) != 1 {
		t.Errorf("after a restart: %s, told %q", got, p.told)
	}
	p.evaluate(s, "2", 10) // retrained on more rows
	if got := p.stands(s, "2"); got != "champion=passed latency=missing" {
		t.Errorf("got %s", got)
	}
	if !slices.Equal(p.told, []string{"2 champion", "2"}) {
		t.Errorf("told %q", p.told)
	}
}

// What people were told of a gate ends with the gate, and when nobody waits for
// the version any more.
func TestStopEndsWithItsCause(t *testing.T) {
	for name, end := range map[string]func(p *plant, s *Store){
		"gates removed": func(p *plant, s *Store) { p.set(s, "") },
		"other gates":   func(p *plant, s *Store) { p.set(s, "gates: [{kind: latency, p95: 100ms}]") },
		"archived": func(p *plant, s *Store) {
			p.versions[1].Stage = operator.StageArchived
		},
		"in production": func(p *plant, s *Store) {
			p.versions[0].Stage, p.versions[1].Stage = operator.StageNone, operator.StageProduction
		},
		"a newer one in production": func(p *plant, s *Store) {
			p.versions[0].Stage = operator.StageNone
			p.versions = append(p.versions, registry.Version{
				Target: trust.Target{Model: "credit", Version: "3", Sequence: 3, Digest: release.DigestOf([]byte("credit 3"))}, Stage: operator.StageProduction,
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			s := p.open()
			p.set(s, policyText)
			p.evaluate(s, "1", 40)
			p.evaluate(s, "2", 60)
			p.stands(s, "2")
			if s.Settle(t.Context(), "credit"); !slices.Equal(p.told, []string{"2 champion"}) {
				t.Fatalf("before: told %q", p.told)
			}
			end(p, s)
			for range 2 {
				if s.Settle(t.Context(), "credit"); !slices.Equal(p.told, []string{"2 champion", "2"}) {
					t.Errorf("told %q", p.told)
				}
			}
			if s = p.open(); len(s.stopped("credit")) > 0 {
				t.Error("it stands again after a restart")
			}
		})
	}
}

// What a lab device measured counts after it has gone on to the next candidate.
func TestTrialsAreKept(t *testing.T) {
	p := newPlant(t)
	s := p.open()
	p.set(s, "gates: [{kind: latency, p95: 100ms}]")
	if got := p.stands(s, "2"); got != "latency=missing" {
		t.Fatalf("got %s", got)
	}
	bench := &p.devices[2].Models[0]
	bench.Challenger = &fleet.Challenger{Model: fleet.Model{Name: "credit", Trial: &fleet.Trial{Release: p.versions[1].Digest, P95US: 4000, PeakBytes: 1 << 20, GoldenRows: 4}}}
	if got := p.stands(s, "2"); got != "latency=passed" {
		t.Errorf("what the bench reports now: %s", got)
	}
	for _, id := range []string{"bench", "cam-1", "nobody"} {
		if err := s.Observe(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	bench.Challenger.Trial = &fleet.Trial{Release: release.DigestOf([]byte("credit 3")), P95US: 9, GoldenRows: 4}
	if err := s.Observe(t.Context(), "bench"); err != nil { // of a release that was never published here
		t.Fatal(err)
	}
	s = p.open()
	if got := p.stands(s, "2"); got != "latency=passed" {
		t.Errorf("after the next candidate and a restart: %s", got)
	}
	// A trial outside the lab is no evidence.
	p.devices[0].Models[0].Trial = &fleet.Trial{Release: p.versions[1].Digest, P95US: 900_000, GoldenRows: 4}
	if got := p.stands(s, "2"); got != "latency=passed" {
		t.Errorf("a camera's trial counts: %s", got)
	}
	// Another profile comes into use.
	p.devices = append(p.devices, fleet.Device{ID: "cam-3", Facts: fleet.Facts{Profile: "jetson"}, Models: []fleet.Model{{Name: "credit"}}})
	if got := p.stands(s, "2"); got != "latency=missing" {
		t.Errorf("a profile without a lab device: %s", got)
	}
}

func TestCleared(t *testing.T) {
	p := newPlant(t)
	s := p.open()
	ask := func(version, selector string) error {
		v := p.version(version)
		return Clearance{s}.Cleared(t.Context(), rollout.Spec{Model: "credit", Version: version, Release: v.Digest, Selector: selector})
	}
	if err := ask("2", ""); err != nil {
		t.Errorf("without gates: %v", err)
	}
	p.set(s, policyText)
	refused, ok := errors.AsType[*Refused](ask("2", ""))
	if !ok || !errors.Is(refused, ErrNotCleared) || refused.Gate != "champion" || refused.Status != operator.GateMissing || refused.Next == "" {
		t.Errorf("got %+v", refused)
	}
	for selector, free := range map[string]bool{
		"ring=lab": true, "ring=lab,site=a": true, "ring in (lab)": true, "ring": false, "ring!=lab": false, "ring in (lab,canary)": false, "site=a": false,
	} {
		if err := ask("2", selector); (err == nil) != free {
			t.Errorf("-l %q: %v", selector, err)
		}
	}
	if err := ask("1", ""); err != nil {
		t.Errorf("what is in production: %v", err)
	}
	p.versions[0].Stage, p.versions[0].StageLog = operator.StageArchived, []operator.StageChanged{{To: operator.StageArchived}, {To: operator.StageProduction}}
	if err := ask("1", ""); err != nil {
		t.Errorf("what was in production: %v", err)
	}
	if err := s.Cleared(t.Context(), "credit", release.DigestOf([]byte("unknown"))); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a release that is not known: %v", err)
	}
}

// Where nobody uses stages, what a completed rollout brought is in production: it
// is what others have to beat, and going back to it needs no gates.
func TestDeployedIsInProduction(t *testing.T) {
	p := newPlant(t)
	p.versions[0].Stage = operator.StageNone
	var rolledOut []release.Digest
	s, err := Open(t.Context(), Config{
		Bucket: p.bucket, Registry: p, Fleet: p, Blobs: p, Ledger: p.ledger, Deployed: func(string) []release.Digest { return rolledOut },
	})
	if err != nil {
		t.Fatal(err)
	}
	p.set(s, "gates: [{kind: champion, margin: 0}]")
	p.evaluate(s, "2", 20)
	if got := p.stands(s, "2"); got != "champion=passed" {
		t.Errorf("with nothing to beat: %s", got)
	}
	rolledOut = []release.Digest{p.versions[0].Digest}
	if got := p.stands(s, "2"); got != "champion=missing" {
		t.Errorf("version 1 was rolled out and is not evaluated: %s", got)
	}
	p.evaluate(s, "1", 2)
	if got := p.stands(s, "2"); got != "champion=failed" {
		t.Errorf("version 1 is better: %s", got)
	}
	if err := s.Cleared(t.Context(), "credit", p.versions[0].Digest); err != nil {
		t.Errorf("going back to version 1: %v", err)
	}
}

// An evaluation on easy rows, brought last, hides the one that a gate asks for from
// the other gates alone.
func TestEachGateHasItsRows(t *testing.T) {
	p := newPlant(t)
	s := p.open()
	easy := release.DigestOf([]byte("easy.csv"))
	p.set(s, `gates:
  - {kind: metric, metric: accuracy, at_least: 0.9, evaluation: `+rowsDigest.String()+`}
  - {name: any, kind: metric, metric: accuracy, at_least: 0.9}
  - {kind: champion, evaluation: `+rowsDigest.String()+"}\n")
	p.evaluateOn(s, "2", 0, easy)
	if got, want := p.stands(s, "2"), "metric-accuracy=missing any=passed champion=missing"; got != want {
		t.Errorf("on easy rows: got %s, want %s", got, want)
	}
	p.evaluate(s, "1", 100)
	p.evaluate(s, "2", 80)
	p.evaluateOn(s, "1", 0, easy)
	p.evaluateOn(s, "2", 0, easy)
	if got, want := p.stands(s, "2"), "metric-accuracy=failed any=passed champion=passed"; got != want {
		t.Errorf("on both: got %s, want %s", got, want)
	}
}

// Evidence of something else, or that is nothing, is refused and changes nothing.
func TestForeignEvidence(t *testing.T) {
	p := newPlant(t)
	s := p.open()
	v := p.version("2")
	for name, c := range map[string]operator.EvidenceAdded{
		"nothing":             {},
		"a blob that is not":  {Evaluation: &rowsDigest},
		"a report that isn't": {TrainingData: []byte(`{"format": 7}`)},
	} {
		if err := s.AddEvidence(t.Context(), "paula", &v, c); !errors.Is(err, ErrEvidence) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	p.blobs[rowsDigest] = []byte("row,truth\n1,2\n")
	if err := s.AddEvidence(t.Context(), "paula", &v, operator.EvidenceAdded{Evaluation: &rowsDigest}); !errors.Is(err, ErrEvidence) {
		t.Errorf("a file of predictions: %v", err)
	}
	for i := range keepEvidence + 3 {
		p.evaluate(s, "2", i)
	}
	if got := len(s.record(v.Digest).Evaluations); got != keepEvidence {
		t.Errorf("%d evaluations are kept, want %d", got, keepEvidence)
	}
}
