package updater_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/host"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/agent/updater"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// What this test program is, by its environment: a device, or a trial's child.
const (
	deviceEnv = "VEDETTE_TEST_DEVICE" // the device's folder
	trialEnv  = "VEDETTE_TEST_TRIAL"
	holdEnv   = "VEDETTE_TEST_HOLD"    // where the device stands still
	wellEnv   = "VEDETTE_TEST_WELL"    // no script of releases misbehaves
	linkEnv   = "VEDETTE_TEST_OFFLINE" // the control plane cannot be reached
	hasteEnv  = "VEDETTE_TEST_HASTE"   // what hangs is given up soon
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(trialEnv) != "":
		if err := trial.Child(context.Background(), agenttest.Runtime{}, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case os.Getenv(deviceEnv) != "":
		if err := beDevice(os.Getenv(deviceEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
	default:
		_ = flag.Set("test.parallel", "8") // those that run at once wait for processes, mostly
		os.Exit(m.Run())
	}
}

// order is a line that a device is told.
type order struct {
	Desired json.RawMessage `json:"desired,omitempty"`
	Infer   string          `json:"infer,omitempty"` // model; answered by a line
}

// line is what a device says.
type line struct {
	Held   string            `json:"held,omitempty"`   // where it stands still
	States []json.RawMessage `json:"states,omitempty"` // at every change
	Loaded bool              `json:"loaded,omitempty"`

	Answer string `json:"answer,omitempty"` // version that answered
	Err    string `json:"err,omitempty"`
}

// device is the stack of an agent from updater to inference, with real files,
// real trials in child processes and a real engine. The link is a folder.
type device struct {
	dir    string
	out    *json.Encoder
	said   chan line
	engine *infer.Engine
	loop   *updater.Updater
}

// beDevice runs until stdin closes, or a call or load hangs.
func beDevice(dir string) error {
	root, err := slots.OS(dir)
	if err != nil {
		return err
	}
	held, err := slots.Open(root, dir)
	if err != nil {
		return err
	}
	boot, err := host.StartBoot(dir)
	if err != nil {
		return err
	}
	d := &device{dir: dir, out: json.NewEncoder(os.Stdout), said: make(chan line)}
	hung := make(chan error, 1)
	d.engine = infer.New(agenttest.Runtime{}, infer.Config{Hung: func(model string, r release.Digest) {
		hung <- errors.Join(errors.New("a call hangs"), d.loop.Hung(context.Background(), model, r))
	}})
	d.loop, err = updater.New(updater.Config{
		FS: holdingFS{root, d}, Slots: held, Puller: d, Engine: holdingEngine{d.engine, d},
		Trier:   trial.New(trial.Config{Args: []string{"-test.run=^$"}, Env: []string{trialEnv + "=1"}, Timeout: patience()}),
		Unclean: boot.Unclean, MemoryBudget: 1 << 30, Limits: quickLimits(),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.loop.Run(ctx) }()
	go d.talk()
	go d.obey(ctx, cancel)
	go d.report(ctx)
	select {
	case err := <-hung:
		return err
	case err := <-ended:
		return errors.Join(err, boot.End())
	}
}

// patience is for work that may hang. It is long where nothing does: a machine
// that runs tests may be busy.
func patience() time.Duration {
	if os.Getenv(hasteEnv) != "" {
		return 3 * time.Second
	}
	return 2 * time.Minute
}

// quickLimits let a test see the end of a deadline.
func quickLimits() update.Limits {
	l := update.DefaultLimits()
	l.RetryMin, l.RetryMax = 5*time.Millisecond, 50*time.Millisecond
	l.Activate, l.Load, l.Watch = 2*patience(), patience(), 300*time.Millisecond
	l.Cooldown = 100 * time.Millisecond
	return l
}

func (d *device) talk() {
	for l := range d.said {
		_ = d.out.Encode(l) // who does not listen any more will kill us
	}
}

func (d *device) report(ctx context.Context) {
	<-d.loop.Loaded()
	d.said <- line{Loaded: true}
	for {
		var l line
		for _, s := range d.loop.States() {
			raw, err := protojson.Marshal(s)
			if err != nil {
				panic(err)
			}
			l.States = append(l.States, raw)
		}
		d.said <- l
		select {
		case <-d.loop.Changed():
		case <-ctx.Done():
			return
		}
	}
}

// obey takes orders until there are no more.
func (d *device) obey(ctx context.Context, stop func()) {
	defer stop()
	for orders := json.NewDecoder(os.Stdin); ; {
		var o order
		if orders.Decode(&o) != nil {
			return
		}
		if o.Desired != nil {
			desired := &protocol.Desired{}
			if err := protojson.Unmarshal(o.Desired, desired); err != nil {
				panic(err)
			}
			d.loop.Desired(desired)
			continue
		}
		d.said <- d.infer(ctx, o.Infer)
	}
}

func (d *device) infer(ctx context.Context, model string) line {
	in := infer.Tensor{Name: "X", Datatype: "FP32", Shape: []int64{1, 4}, Data: []float32{1, 2, 3, 6}}
	r, err := d.engine.Infer(ctx, &infer.Request{Model: model, Inputs: []infer.Tensor{in}})
	if err != nil {
		return line{Err: err.Error()}
	}
	if got := r.Outputs[1].Data.([]float32); got[0] != 12 {
		return line{Err: fmt.Sprintf("a wrong answer: %v", got)}
	}
	return line{Answer: r.Version}
}

// hold stands still at a point if that is wanted.
func (d *device) hold(point string) {
	if os.Getenv(holdEnv) == point {
		d.said <- line{Held: point}
		select {}
	}
}

func (d *device) online() error {
	if os.Getenv(linkEnv) != "" {
		return mayPass{errors.New("no route to host")}
	}
	return nil
}

// Resolve reads the manifest from the folder that is the control plane.
func (d *device) Resolve(_ context.Context, _ string, r release.Digest) (*release.Manifest, error) {
	d.hold("resolving")
	if err := d.online(); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(d.dir, "server", r.String(), release.ManifestName))
	if err != nil {
		return nil, err
	}
	return release.Decode(raw)
}

// Fetch copies the files of a release, those there already too.
func (d *device) Fetch(_ context.Context, m *release.Manifest, dir string, _ func(done, total int64)) error {
	if err := d.online(); err != nil {
		return err
	}
	digest, err := m.Digest()
	if err != nil {
		return err
	}
	from := filepath.Join(d.dir, "server", digest.String())
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for i, e := range entries {
		raw, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		part := filepath.Join(dir, e.Name()+".new")
		if err := os.WriteFile(part, raw[:len(raw)/2], 0o600); err != nil {
			return err
		}
		if i == 1 {
			d.hold("downloading")
		}
		if err := errors.Join(os.WriteFile(part, raw, 0o600), os.Rename(part, filepath.Join(dir, e.Name()))); err != nil {
			return err
		}
	}
	return nil
}

// holdingFS stands still within the writes of an update.
type holdingFS struct {
	slots.FS
	device *device
}

// holdingEngine stands still around a switch.
type holdingEngine struct {
	*infer.Engine
	device *device
}

func (e holdingEngine) Activate(ctx context.Context, r infer.Release) error {
	at := "loading " + r.Manifest.Version
	e.device.hold(at)
	err := e.Engine.Activate(ctx, r)
	e.device.hold("after " + at)
	return err
}

// Rename is the moment at which a record changes.
func (f holdingFS) Rename(oldname, newname string) error {
	state := ""
	if strings.HasPrefix(path.Base(newname), "model-") {
		var entry struct{ Machine struct{ State string } }
		raw, err := slots.ReadRecord(f.FS, oldname, 1<<20)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(raw, &entry); err != nil {
			return err
		}
		state = entry.Machine.State
	}
	f.device.hold("before writing " + state)
	err := f.FS.Rename(oldname, newname)
	f.device.hold("after writing " + state)
	return err
}

var _ fs.FS = holdingFS{}

// living is a device's process as its supervisor and its control plane see it.
type living struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	in    *json.Encoder
	lines chan line // closed when the process has ended
	ended chan error
	stop  func() error // closes its input

	states map[string]*protocol.ModelState // as last said
}

// newDevice makes a folder with v1 of meter active and all releases to fetch.
func newDevice(t *testing.T, bundles ...*agenttest.Bundle) string {
	t.Helper()
	dir := t.TempDir()
	for _, b := range append([]*agenttest.Bundle{v1, v2}, bundles...) {
		at := filepath.Join(dir, "server", b.Digest.String())
		if err := errors.Join(os.MkdirAll(at, 0o700), b.Write(at)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := slots.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	held, err := slots.Open(root, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := installOn(root, held, v1); err != nil {
		t.Fatal(err)
	}
	return dir
}

// launch starts a process on the device's folder.
func launch(t *testing.T, dir string, env ...string) *living {
	t.Helper()
	l := &living{t: t, dir: dir, lines: make(chan line, 1000), ended: make(chan error, 1)}
	l.cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	l.cmd.Env = append(append(os.Environ(), deviceEnv+"="+dir), env...)
	var stderr bytes.Buffer // read when the process has ended
	l.cmd.Stderr = &stderr
	in, err := l.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.in, l.stop = json.NewEncoder(in), in.Close
	go func() {
		defer close(l.lines)
		defer func() { l.ended <- l.cmd.Wait() }()
		for scan := bufio.NewScanner(out); scan.Scan(); {
			var said line
			if json.Unmarshal(scan.Bytes(), &said) == nil {
				l.lines <- said
			}
		}
	}()
	t.Cleanup(func() {
		l.kill()
		if t.Failed() {
			t.Logf("a process said:\n%.2000s", stderr.String())
		}
	})
	return l
}

// kill is kill -9.
func (l *living) kill() {
	_ = l.cmd.Process.Kill() // it may have ended
	for range l.lines {
	}
}

// until reads lines until ok; gone says that the process ended instead.
func (l *living) until(what string, ok func(line) bool) (gone bool) {
	l.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case said, open := <-l.lines:
			if !open {
				return true
			}
			l.remember(said)
			if ok(said) {
				return false
			}
		case <-deadline:
			l.t.Fatalf("not %s after two minutes: %v", what, l.states)
		}
	}
}

func (l *living) remember(said line) {
	if said.States == nil {
		return
	}
	l.states = map[string]*protocol.ModelState{}
	for _, raw := range said.States {
		s := &protocol.ModelState{}
		if err := protojson.Unmarshal(raw, s); err != nil {
			l.t.Fatal(err)
		}
		l.states[s.GetModel()] = s
	}
}

func (l *living) loaded() {
	l.t.Helper()
	if l.until("loaded", func(s line) bool { return s.Loaded }) {
		l.t.Fatal("the process ended while starting")
	}
}

func (l *living) desire(d *protocol.Desired) {
	l.t.Helper()
	raw, err := protojson.Marshal(d)
	if err != nil {
		l.t.Fatal(err)
	}
	_ = l.in.Encode(order{Desired: raw}) // it may have been killed
}

// infer asks for a prediction and returns the version that gave it.
func (l *living) infer(model string) (version string, gone bool) {
	l.t.Helper()
	_ = l.in.Encode(order{Infer: model})
	gone = l.until("answered", func(s line) bool {
		version = s.Answer
		return s.Answer != "" || s.Err != ""
	})
	return version, gone
}

// answers checks that the model answers, and returns the version that does.
func (l *living) answers(model string) string {
	l.t.Helper()
	version, gone := l.infer(model)
	if version == "" {
		l.t.Fatalf("%s does not answer (gone %v): %v", model, gone, l.states[model])
	}
	return version
}

// settled waits until the wish of that generation is met or given up, and nothing
// is under way.
func (l *living) settled(generation uint64, wish *agenttest.Bundle) *protocol.ModelState {
	l.t.Helper()
	over := func(line) bool {
		s := l.states["meter"]
		active := string(s.GetActive()) == string(wish.Digest.Bytes())
		return s.GetState() == string(update.Idle) && (active || reason(s, wish).GetCode() != "" && reason(s, wish).GetGeneration() >= generation)
	}
	if !over(line{}) && l.until("settled", over) {
		l.t.Fatalf("the process ended before its update: %v", <-l.ended)
	}
	return l.states["meter"]
}

// wholeOnDisk checks what a killed process has left: exactly one release of meter
// is active, and it is whole. It looks at a copy, as another start would.
func wholeOnDisk(t *testing.T, dir string) {
	t.Helper()
	copied := t.TempDir()
	for _, folder := range []string{slots.Folder, slots.ChallengerFolder} {
		if err := os.CopyFS(filepath.Join(copied, folder), os.DirFS(filepath.Join(dir, folder))); err != nil {
			t.Fatal(err)
		}
	}
	root, err := slots.OS(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	held, err := slots.Open(root, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, model := range held.Models() {
		set := held.Get(model)
		for _, slot := range []slots.Slot{set.Active, set.Previous} {
			if !slot.Empty() {
				if err := held.Check(model, slot.Release); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if held.Get("meter").Active.Empty() {
		t.Fatal("nothing is active")
	}
}
