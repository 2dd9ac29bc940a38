package updater_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/agent/updater"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// The releases of these tests. v3 fails its trial, v4 passes it but does not
// load beside the old one.
var (
	v1, v2, v3, v4 = bundle("v1", 1), bundle("v2", 2), bundle("v3", 3), bundle("v4", 4)
	other          = mustBundle("other", "v1", 1)
)

func bundle(version string, sequence uint64) *agenttest.Bundle {
	return mustBundle("meter", version, sequence)
}

func mustBundle(model, version string, sequence uint64) *agenttest.Bundle {
	b, err := agenttest.NewBundle(model, version, sequence, release.Limits{}, agenttest.Script{Name: model + version})
	if err != nil {
		panic(err)
	}
	return b
}

// rig is one device: a disk that outlives its processes, and the process now
// running. It lives in a synctest bubble.
type rig struct {
	t      *testing.T
	fs     *agenttest.MemFS
	puller *agenttest.Puller
	trier  *trier
	budget uint64
	log    bytes.Buffer                               // of all its processes; to be read when nothing is at work
	now    func() time.Time                           // its clock, nil for the bubble's
	fsys   slots.FS                                   // the disk as its processes see it, nil for fs
	refuse func(context.Context, infer.Release) error // of the engine; nil refuses v4

	engine  *engine // of this process
	updater *updater.Updater
	cancel  context.CancelFunc
	done    chan error

	heard  func(*protocol.Event) // told of each event; nil for nobody
	mu     sync.Mutex            // guards events
	events []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return onDisk(t, agenttest.NewMemFS())
}

func onDisk(t *testing.T, fsys *agenttest.MemFS) *rig {
	t.Helper()
	r := &rig{t: t, fs: fsys, puller: agenttest.NewPuller(fsys, v1, v2, v3, v4, other), trier: &trier{}}
	r.trier.judge = func(c trial.Candidate) trial.Verdict {
		if c.Digest == v3.Digest {
			return trial.Verdict{Code: trial.CodeGolden, Message: "4 of 4 rows disagree", Report: &protocol.Trial{Release: c.Digest.Bytes(), GoldenWrong: 4}}
		}
		return trial.Verdict{OK: true, Variant: "variant-0", P95: time.Millisecond, PeakBytes: 10 << 20, Report: &protocol.Trial{Release: c.Digest.Bytes(), Provider: "CPU"}}
	}
	return r
}

// boot starts a process on the disk.
func (r *rig) boot(unclean bool) error {
	disk := r.fsys
	if disk == nil {
		disk = r.fs
	}
	held, err := slots.Open(disk, "")
	if err != nil {
		return err
	}
	r.engine = &engine{t: r.t, fs: r.fs, serving: map[string]release.Digest{}, beside: map[string]infer.Release{}, fail: refuseV4}
	if r.refuse != nil {
		r.engine.fail = r.refuse
	}
	r.updater, err = updater.New(updater.Config{
		FS: disk, Slots: held, Puller: r.puller, Trier: r.trier, Engine: r.engine,
		Unclean: unclean, MemoryBudget: r.budget, Events: r.hearEvent, Random: func() float64 { return 0.5 },
		Now: r.now, Log: slog.New(slog.NewTextHandler(&r.log, nil)),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel, r.done = cancel, make(chan error, 1)
	go func() { r.done <- r.updater.Run(ctx) }()
	<-r.updater.Loaded()
	return nil
}

func refuseV4(_ context.Context, rel infer.Release) error {
	if rel.Digest == v4.Digest {
		return errors.New("no memory for a second session")
	}
	return nil
}

// mustBoot starts a process that has no reason not to start.
func (r *rig) mustBoot(unclean bool) {
	r.t.Helper()
	if err := r.boot(unclean); err != nil {
		r.t.Fatal(err)
	}
}

// stop ends the process; after a power cut, that is when it is noticed.
func (r *rig) stop() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	if err := <-r.done; err != nil {
		r.t.Errorf("run: %v", err)
	}
	r.cancel = nil
}

func (r *rig) hearEvent(e *protocol.Event) {
	if r.heard != nil && r.updater != nil {
		r.heard(e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e.GetKind()+" "+e.GetAttributes()["code"])
}

func (r *rig) noted(event string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains("\n"+strings.Join(r.events, "\n")+"\n", "\n"+event+"\n")
}

func (r *rig) state() *protocol.ModelState {
	for _, s := range r.updater.States() {
		if s.GetModel() == "meter" {
			return s
		}
	}
	return &protocol.ModelState{}
}

// until waits for a state to be reported, or for the power to go.
func (r *rig) until(what string, ok func(*protocol.ModelState) bool) {
	r.t.Helper()
	deadline := time.After(72 * time.Hour)
	for !ok(r.state()) {
		select {
		case <-r.updater.Changed():
		case <-r.fs.Cut():
			return
		case <-deadline:
			r.t.Fatalf("still not %s after three days: %v", what, r.state())
		}
	}
}

func (r *rig) untilState(s update.State) {
	r.t.Helper()
	r.until(string(s), func(m *protocol.ModelState) bool { return m.GetState() == string(s) })
}

// settle waits until nothing is left to do.
func (r *rig) settle() {
	r.t.Helper()
	synctest.Wait() // what was handed over has been looked at
	r.untilState(update.Idle)
	synctest.Wait()
}

// desire is a message of the control plane.
func desire(generation uint64, b *agenttest.Bundle) *protocol.Desired {
	d := &protocol.Desired{Generation: generation}
	if b != nil {
		d.Assignments = []*protocol.Assignment{{Model: b.Manifest.Model, Release: b.Digest.Bytes(), Role: infer.RolePrimary, Decision: generation}}
	}
	return d
}

// diskWithV1 holds v1 as a finished update leaves it.
var diskWithV1 = sync.OnceValue(func() *agenttest.MemFS {
	disk := agenttest.NewMemFS()
	held, err := slots.Open(disk, "")
	if err != nil {
		panic(err)
	}
	if err := installOn(disk, held, v1); err != nil {
		panic(err)
	}
	return disk
})

// installOn makes a release active as an update does.
func installOn(disk slots.FS, held *slots.Slots, b *agenttest.Bundle) error {
	model := b.Manifest.Model
	dir, err := held.Stage(model, b.Manifest)
	if err != nil {
		return err
	}
	if err := agenttest.NewPuller(disk, b).Fetch(context.Background(), b.Manifest, dir, func(int64, int64) {}); err != nil {
		return err
	}
	if err := held.Verify(model, b.Digest); err != nil {
		return err
	}
	slot := slots.Slot{Release: b.Digest, Variant: "variant-0", P95: time.Millisecond, PeakBytes: 10 << 20, Provider: "CPU"}
	return errors.Join(held.Prove(model, slot), held.Activate(model, b.Digest))
}

// installed is a device that serves v1.
func installed(t *testing.T) *rig {
	t.Helper()
	r := onDisk(t, diskWithV1().Clone())
	r.mustBoot(false)
	r.updater.Desired(desire(1, v1))
	r.settle()
	if got := r.engine.now("meter"); got != v1.Digest {
		t.Fatalf("%s serves, want v1: %v", versionOf(got), r.state())
	}
	return r
}

func versionOf(d release.Digest) string {
	for _, b := range []*agenttest.Bundle{v1, v2, v3, v4} {
		if b.Digest == d {
			return b.Manifest.Version
		}
	}
	if d.IsZero() {
		return "nothing"
	}
	return d.Short()
}

// onePrimary checks what must hold after every start: the release that the
// slots call active is whole on disk and serves.
func (r *rig) onePrimary() {
	r.t.Helper()
	synctest.Wait()
	held, err := slots.Open(r.fs, "")
	if err != nil {
		r.t.Fatal(err)
	}
	active := held.Get("meter").Active.Release
	if active.IsZero() {
		r.t.Fatal("no release is active")
	}
	if err := held.Check("meter", active); err != nil {
		r.t.Fatalf("active %s: %v", versionOf(active), err)
	}
	if got := r.engine.now("meter"); got != active {
		r.t.Fatalf("%s serves, %s is active", versionOf(got), versionOf(active))
	}
}

// trier judges without a child process.
type trier struct {
	judge func(trial.Candidate) trial.Verdict
	block chan struct{} // when set, a trial waits until it is closed

	trouble func(context.Context) error // why no trial can be held; nil for none
}

func (tr *trier) Try(ctx context.Context, c trial.Candidate) (trial.Verdict, error) {
	if tr.trouble != nil {
		if err := tr.trouble(ctx); err != nil {
			return trial.Verdict{}, err
		}
	}
	if tr.block != nil {
		select {
		case <-tr.block:
		case <-ctx.Done():
			return trial.Verdict{}, ctx.Err()
		}
	}
	return tr.judge(c), ctx.Err()
}

// engine is what one process serves. It refuses to load what is not whole.
type engine struct {
	t    *testing.T
	fs   *agenttest.MemFS
	fail func(context.Context, infer.Release) error

	mu      sync.Mutex // guards serving, beside and loads
	serving map[string]release.Digest
	beside  map[string]infer.Release // challengers
	loads   []release.Digest         // asked for, in order
}

func (e *engine) Activate(ctx context.Context, r infer.Release) error {
	e.mu.Lock()
	e.loads = append(e.loads, r.Digest)
	e.mu.Unlock()
	if err := e.fail(ctx, r); err != nil {
		return err
	}
	for _, f := range r.Manifest.Files() {
		raw, err := fs.ReadFile(e.fs, path.Join(filepath.ToSlash(r.Dir), f.Digest.String()))
		if errors.Is(err, agenttest.ErrPowerCut) {
			return err
		}
		if err != nil || release.DigestOf(raw) != f.Digest {
			e.t.Errorf("asked to load an unverified release: %s of %s: %v", f.Name, r.Manifest.Version, err)
			return fmt.Errorf("load %s: %w", f.Name, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Role == infer.RoleShadow || r.Role == infer.RoleShare {
		e.beside[r.Manifest.Model] = r
		return nil
	}
	e.serving[r.Manifest.Model] = r.Digest
	return nil
}

func (e *engine) Retire(_ context.Context, model string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.beside, model)
	return nil
}

// challenger is what runs beside the model's release, as role and version.
func (e *engine) challenger(model string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, ok := e.beside[model]
	if !ok {
		return "none"
	}
	return fmt.Sprintf("%s %d %s", r.Role, r.Share, r.Manifest.Version)
}

func (e *engine) Remove(_ context.Context, model string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.serving, model)
	return nil
}

// loaded is how many releases it was asked to load.
func (e *engine) loaded() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.loads)
}

func (e *engine) now(model string) release.Digest {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.serving[model]
}
