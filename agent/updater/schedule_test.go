package updater_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

// Random schedules of a device with three models and a challenger. In each, the
// power goes several times, at any operation on disk, also while starting, and
// what was not synced is kept, dropped or torn. Between the cuts wishes change,
// the disk is full or read-only or fails, the link breaks, trials refuse, loads
// fail or hang, calls hang, and the clock jumps by decades. After every start:
// exactly one whole, verified release of each installed model is active and
// answers, and all of them together fit into the memory. In the end each wish is
// met or there is a reason, and nothing refused was tried again under the same
// decision.
func TestRandomSchedules(t *testing.T) {
	first, n := schedules(t)
	results := &tally{counts: map[string]int{}}
	t.Run("seeds", func(t *testing.T) {
		const shards = 4 // of the seeds, run at once
		for shard := range uint64(shards) {
			t.Run(strconv.Itoa(int(shard)), func(t *testing.T) {
				t.Parallel()
				for seed := first + shard; seed < first+n && !t.Failed(); seed += shards {
					runSchedule(t, seed, results)
				}
			})
		}
	})
	if n < 1000 || t.Failed() {
		return
	}
	for _, want := range []string{"met", "refused", "reverted", "failed", "cut", "cut while starting", "disk full", "disk read-only", "disk failing", "call hung", "load hung", "clock jumped", "memory refused", "challenger runs"} {
		if results.counts[want] < 10 {
			t.Errorf("%q happened %d times in %d schedules: %v", want, results.counts[want], n, results.counts)
		}
	}
}

// schedules are the seeds to run: VEDETTE_SEED asks for one, VEDETTE_FULL for
// many more. Of the thousand, the race detector sees two hundred.
func schedules(t *testing.T) (first, n uint64) {
	t.Helper()
	if s := os.Getenv("VEDETTE_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return seed, 1
	}
	if os.Getenv("VEDETTE_FULL") != "" {
		return 0, 20_000
	}
	if raced {
		return 0, 200
	}
	return 0, 1000
}

// runSchedule says how to run a schedule again when it fails.
func runSchedule(t *testing.T, seed uint64, results *tally) {
	t.Helper()
	var s *schedule
	defer func() { // a failed bubble ends the test
		if t.Failed() {
			t.Logf("again: VEDETTE_SEED=%d go test ./agent/updater -run 'TestRandomSchedules$' -count 1\n%s", seed, strings.Join(s.trace, "\n"))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		s = newSchedule(t, seed, results)
		if plant := plants[os.Getenv(plantEnv)]; plant != nil {
			plant(s)
		}
		s.run()
	})
}

// tally counts what happened.
type tally struct {
	mu     sync.Mutex // guards counts
	counts map[string]int
}

func (c *tally) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

// The releases of the schedules beside v1 to v4: a large one that does not fit
// beside all others, and those of further models.
var (
	v5     = bundle("v5", 5)
	other2 = mustBundle("other", "v2", 2)
	pump   = mustBundle("pump", "v1", 1)
	pump2  = mustBundle("pump", "v2", 2)
)

var catalog = map[string][]*agenttest.Bundle{
	"meter": {v1, v2, v3, v4, v5}, "other": {other, other2}, "pump": {pump, pump2, nil},
}

const (
	smallPeak = 10 << 20
	largePeak = 25 << 20
	allMemory = 45 << 20
)

func peakOf(d release.Digest) uint64 {
	if d == v5.Digest {
		return largePeak
	}
	return smallPeak
}

// schedule is a device to which things happen.
type schedule struct {
	*rig
	seed    uint64
	rnd     *rand.Rand // of the schedule itself; what happens to workers draws by itself
	results *tally
	trace   []string

	generation uint64
	wish       map[string]*agenttest.Bundle // nil for off
	decision   map[string]uint64
	beside     *agenttest.Bundle // challenger of meter, nil for none

	wall    time.Duration // the device's clock minus the bubble's
	trouble *trouble
	barred  map[string]uint64 // by laneKey: decision under which it was given up; guarded by rig.mu
}

func newSchedule(t *testing.T, seed uint64, results *tally) *schedule {
	t.Helper()
	s := &schedule{
		rig: onDisk(t, diskWithTwo().Clone()), seed: seed, rnd: rand.New(rand.NewPCG(seed, 3)), results: results,
		wish:     map[string]*agenttest.Bundle{"meter": v1, "other": other},
		decision: map[string]uint64{"meter": 1, "other": 1}, generation: 1,
		wall: clocks[0], trouble: &trouble{seed: seed, draws: map[string]uint64{}}, barred: map[string]uint64{},
	}
	s.puller = agenttest.NewPuller(s.fs, v1, v2, v3, v4, v5, other, other2, pump, pump2)
	s.budget = allMemory
	s.now = func() time.Time { return time.Now().Add(s.wall) }
	s.puller.Fault(s.link)
	s.trier.judge = s.judge
	s.trier.trouble = s.trialFails
	s.refuse = s.load
	s.heard = s.hear
	return s
}

// clocks are what the device's clock shows at a start, from the bubble's 2000:
// right, not set, ten years ahead, ten years behind.
var clocks = []time.Duration{27 * year, -30 * year, 37 * year, 17 * year}

const year = 365 * 24 * time.Hour

// run lives through the schedule and checks it.
func (s *schedule) run() {
	s.start(false)
	for range 1 + s.rnd.IntN(4) {
		s.round()
		s.check()
		if s.t.Failed() {
			s.end()
			return
		}
	}
	s.finish()
}

// round is some time with changes and trouble that ends with the process.
func (s *schedule) round() {
	s.trouble.set([]int{0, 0, 5, 15, 30}[s.rnd.IntN(5)])
	for range s.rnd.IntN(3) {
		s.change()
	}
	s.disk()
	s.say()
	s.fs.CutAt(1 + s.rnd.IntN(250))
	select {
	case <-s.fs.Cut():
		s.note("power cut at an operation")
	case err := <-s.done:
		s.replaced(err)
	case <-time.After(time.Duration(s.rnd.Int64N(int64(40 * time.Minute)))):
		s.interrupt()
	}
	s.results.add("cut")
	s.end()
	s.fs.CutNow()
	s.fs.Fault(nil)
	s.fs.Room(0)
	s.jump()
	s.restart()
}

// interrupt ends the process at a moment of its own choice.
func (s *schedule) interrupt() {
	if s.rnd.IntN(4) > 0 {
		s.note("power cut at some time")
		return
	}
	active := s.engine.now("meter")
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	err := s.updater.Hung(ctx, "meter", active)
	s.note("call to %s hangs, journaled: %v", versionOf(active), err)
	s.results.add("call hung")
}

func (s *schedule) replaced(err error) {
	if !errors.Is(err, updater.ErrStuck) {
		s.t.Errorf("the process ended: %v", err)
	}
	s.note("replaced: %v", err)
	s.results.add("load hung")
	s.done <- nil
}

// end is the end of the process, whatever it says.
func (s *schedule) end() {
	s.cancel()
	<-s.done
	s.cancel = nil
}

// restart starts the device, with more cuts perhaps.
func (s *schedule) restart() {
	for {
		loss := agenttest.Loss(s.rnd.IntN(3))
		s.fs.Reboot(loss, s.rnd)
		s.note("start, unsynced writes: %s", loss)
		if s.rnd.IntN(3) > 0 {
			break
		}
		s.fs.CutAt(1 + s.rnd.IntN(30))
		if s.boot(true) == nil {
			synctest.Wait()
			s.end()
		}
		s.results.add("cut while starting")
		s.fs.CutNow()
	}
	if s.rnd.IntN(2) == 0 {
		s.trouble.set(0)
	}
	s.start(true)
}

func (s *schedule) start(unclean bool) {
	s.mustBoot(unclean)
	s.say()
}

// jump sets the clock for the next start.
func (s *schedule) jump() {
	if next := clocks[s.rnd.IntN(len(clocks))]; next != s.wall {
		s.wall = next
		s.results.add("clock jumped")
		s.note("clock shows %d", s.now().Year())
	}
}

// change makes another wish.
func (s *schedule) change() {
	if s.rnd.IntN(4) == 0 {
		s.beside = []*agenttest.Bundle{nil, v1, v2, v3, v4}[s.rnd.IntN(5)]
	} else {
		model := []string{"meter", "meter", "other", "pump"}[s.rnd.IntN(4)]
		s.wish[model] = catalog[model][s.rnd.IntN(len(catalog[model]))]
	}
	s.generation++
	for _, model := range []string{"meter", "other", "pump"} {
		if s.rnd.IntN(3) > 0 || s.decision[model] == 0 {
			s.decision[model] = s.generation
		}
	}
}

// say is what the control plane says at every connect.
func (s *schedule) say() {
	d := &protocol.Desired{Generation: s.generation}
	var text strings.Builder
	for _, model := range []string{"meter", "other", "pump"} {
		if b := s.wish[model]; b != nil {
			a := desire(s.generation, b).GetAssignments()[0]
			a.Decision = s.decision[model]
			d.Assignments = append(d.Assignments, a)
			fmt.Fprintf(&text, " %s %s/%d", model, b.Manifest.Version, a.Decision)
		}
	}
	if s.beside != nil {
		d.Assignments = append(d.Assignments, &protocol.Assignment{
			Model: "meter", Release: s.beside.Digest.Bytes(), Role: infer.RoleShadow, Decision: s.decision["meter"],
		})
		text.WriteString(" beside " + s.beside.Manifest.Version)
	}
	s.note("desired %d:%s", s.generation, text.String())
	s.updater.Desired(d)
}

func (s *schedule) note(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

// disk makes trouble for some time, or not.
func (s *schedule) disk() {
	end := time.Now().Add(time.Duration(s.rnd.Int64N(int64(time.Hour))))
	from := s.rnd.IntN(60) // operations from now on that still work
	during := func(kind string, err error, hits func(op string, n int) bool) {
		n := 0
		s.fs.Fault(func(op, _ string) error {
			if n++; n > from && time.Now().Before(end) && hits(op, n) {
				return err
			}
			return nil
		})
		s.note("disk %s after %d operations, until %v", kind, from, time.Until(end))
		s.results.add("disk " + kind)
	}
	switch s.rnd.IntN(8) {
	case 0:
		during("full", syscall.ENOSPC, func(op string, _ int) bool { return op == "create" || op == "write" || op == "mkdir" || op == "link" })
	case 1:
		during("read-only", syscall.EROFS, func(string, int) bool { return true })
	case 2:
		during("failing", syscall.EIO, func(_ string, n int) bool { return s.hash("eio", uint64(n))%6 == 0 })
	case 3:
		used := s.fs.Room(0)
		s.fs.Room(used + s.rnd.IntN(6000))
		s.note("room for little more than %d bytes", used)
		s.results.add("disk full")
	}
}

// finish ends all trouble and holds what came of the wishes against them.
func (s *schedule) finish() {
	s.trouble.set(0)
	for range 4 { // whatever rested has rested
		s.say()
		s.calm(3 * time.Hour)
	}
	s.check()
	synctest.Wait()
	for model, want := range s.wish {
		s.results.add(s.verdict(model, want))
	}
	if s.beside != nil && s.engine.challenger("meter") != "none" {
		s.results.add("challenger runs")
	}
	s.end()
}

// calm lets time pass, with a new process where one asks for it.
func (s *schedule) calm(d time.Duration) {
	select {
	case err := <-s.done:
		s.replaced(err)
		s.end()
		s.start(true)
	case <-time.After(d):
	}
	synctest.Wait()
}

// verdict says how a wish ended.
func (s *schedule) verdict(model string, want *agenttest.Bundle) string {
	served := s.engine.now(model)
	if want == nil {
		if !served.IsZero() {
			s.t.Errorf("%s %s serves, and is to be off", model, served.Short())
		}
		return "off"
	}
	if served == want.Digest {
		return "met"
	}
	state := s.stateOf(model)
	o := reason(state, want)
	if o == nil || o.GetCode() == "" || o.GetMessage() == "" {
		s.t.Errorf("%s: %s serves instead of %s, and no reason is given: %v", model, served.Short(), want.Manifest.Version, state)
		return "unexplained"
	}
	if o.GetCode() == trial.CodeMemory {
		s.results.add("memory refused")
	}
	return o.GetResult()
}

func (s *schedule) stateOf(model string) *protocol.ModelState {
	for _, m := range s.updater.States() {
		if m.GetModel() == model {
			return m
		}
	}
	return &protocol.ModelState{}
}

// check holds disk and engine against what must be after every start. In trouble
// a release may need some tries to be loaded.
func (s *schedule) check() {
	s.t.Helper()
	synctest.Wait()
	s.checkDisk()
	for deadline := time.Now().Add(3 * time.Hour); ; {
		missing := s.notServing()
		if missing == "" || s.fs.Off() {
			break
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%s: %v", missing, s.updater.States())
			break
		}
		s.calm(time.Minute)
	}
	s.checkDisk()
}

// notServing names a model whose active release does not answer.
func (s *schedule) notServing() string {
	held := s.reopen()
	for _, model := range held.Models() {
		if active := held.Get(model).Active.Release; s.engine.now(model) != active {
			return fmt.Sprintf("%s of %s is active, %s serves", active.Short(), model, s.engine.now(model).Short())
		}
	}
	return ""
}

// reopen reads the slots as another start would, on a copy of the disk.
func (s *schedule) reopen() *slots.Slots {
	s.t.Helper()
	held, err := slots.Open(s.fs.Clone(), "")
	if err != nil {
		s.t.Fatal(err)
	}
	return held
}

func (s *schedule) checkDisk() {
	s.t.Helper()
	held := s.reopen()
	for _, model := range []string{"meter", "other"} {
		if held.Get(model).Active.Empty() {
			s.t.Errorf("no release of %s is active", model)
		}
	}
	sum := s.checkSlots(held)
	sum += s.checkSlots(held.Challengers())
	if sum > allMemory {
		s.t.Errorf("active releases take %d MiB, there are %d", sum>>20, allMemory>>20)
	}
}

// checkSlots adds up the memory of what is active, and reads all back.
func (s *schedule) checkSlots(held *slots.Slots) (sum uint64) {
	s.t.Helper()
	for _, model := range held.Models() {
		set := held.Get(model)
		for _, slot := range []slots.Slot{set.Trial, set.Active, set.Previous} {
			if slot.Empty() {
				continue
			}
			if err := held.Check(model, slot.Release); err != nil {
				s.t.Errorf("%s of %s: %v", slot.Release.Short(), model, err)
			}
		}
		if set.Active.Release == v3.Digest {
			s.t.Error("v3 is active, which fails every trial")
		}
		sum += set.Active.PeakBytes
	}
	return sum
}

// trouble decides what fails. Every kind of call draws by a count of its own, so
// that a seed means the same in whatever order workers run.
type trouble struct {
	mu      sync.Mutex // guards the rest
	seed    uint64
	percent uint64
	draws   map[string]uint64
}

func (tr *trouble) set(percent int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.percent = uint64(percent)
}

// draw reports whether the next call of that kind fails, and how, in [0, 100).
func (tr *trouble) draw(kind string) (fails bool, how uint64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.draws[kind]++
	h := hash(tr.seed, kind, tr.draws[kind])
	return h%100 < tr.percent, h / 100 % 100
}

func hash(seed uint64, kind string, n uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %d", seed, kind, n)
	return rand.New(rand.NewPCG(h.Sum64(), 1)).Uint64()
}

func (s *schedule) hash(kind string, n uint64) uint64 { return hash(s.seed, kind, n) }

// link is the puller's trouble.
func (s *schedule) link(ctx context.Context, step string) error {
	fails, how := s.trouble.draw("link " + step)
	switch {
	case !fails:
		return ctx.Err()
	case how < 20: // nothing comes back, until the puller has had enough
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Minute):
		}
		return mayPass{errors.New("no answer")}
	case how < 30:
		return errors.New("the signature is wrong")
	}
	return mayPass{errors.New("no route to host")}
}

// judge is the trial's verdict. Nothing that was given up may come here again
// under the decision under which it was.
func (s *schedule) judge(c trial.Candidate) trial.Verdict {
	s.mayBeTried(c)
	report := &protocol.Trial{Release: c.Digest.Bytes(), Provider: "CPU"}
	if c.Digest == v3.Digest {
		return trial.Verdict{Code: trial.CodeGolden, Message: "4 of 4 rows disagree", Report: report}
	}
	if fails, how := s.trouble.draw("verdict " + c.Digest.Short()); fails {
		code := []string{trial.CodeCrash, trial.CodeHang, trial.CodeMemory, trial.CodeSlow}[how%4]
		return trial.Verdict{Code: code, Message: "drawn", Report: report}
	}
	return trial.Verdict{OK: true, Variant: "variant-0", P95: time.Millisecond, PeakBytes: peakOf(c.Digest), Report: report}
}

// laneKey is a release in one of its model's two places.
func laneKey(challenger bool, d []byte) string { return fmt.Sprintf("%t %x", challenger, d) }

func (s *schedule) mayBeTried(c trial.Candidate) {
	challenger := strings.HasPrefix(c.Dir, slots.ChallengerFolder)
	s.mu.Lock()
	under, barred := s.barred[laneKey(challenger, c.Digest.Bytes())]
	s.mu.Unlock()
	for _, a := range s.updater.Held().GetAssignments() {
		same := string(a.GetRelease()) == string(c.Digest.Bytes()) && challenger == (a.GetRole() == infer.RoleShadow)
		if barred && same && a.GetDecision() <= under {
			s.t.Errorf("%s was given up under decision %d and is tried again under %d", versionOf(c.Digest), under, a.GetDecision())
			s.fs.CutNow() // it may go on like that for ever
		}
	}
}

// hear remembers what is reported as given up. It is journaled by then.
func (s *schedule) hear(*protocol.Event) {
	decisions := map[string]uint64{}
	for _, a := range s.updater.Held().GetAssignments() {
		decisions[laneKey(a.GetRole() == infer.RoleShadow, a.GetRelease())] = a.GetDecision()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.updater.States() {
		for challenger, state := range map[bool]*protocol.ModelState{false: m, true: m.GetChallenger().GetState()} {
			list := state.GetRefused()
			if o := state.GetOutcome(); o.GetResult() == update.ResultRefused || o.GetResult() == update.ResultReverted {
				list = append(list, o)
			}
			for _, o := range list {
				key := laneKey(challenger, o.GetRelease())
				// A report names the generation; the decision is not newer.
				s.barred[key] = max(s.barred[key], min(decisions[key], o.GetGeneration()))
			}
		}
	}
}

func (s *schedule) trialFails(ctx context.Context) error {
	fails, how := s.trouble.draw("trial")
	switch {
	case !fails:
		return nil
	case how < 20:
		<-ctx.Done()
		return ctx.Err()
	}
	return errors.New("cannot start the trial process")
}

// load is the engine's trouble, and looks whether all that is loaded fits.
func (s *schedule) load(ctx context.Context, r infer.Release) error {
	if r.Digest == v4.Digest {
		return errors.New("no memory for a second session")
	}
	fails, how := s.trouble.draw("load " + r.Digest.Short())
	switch {
	case !fails:
		return nil
	case how < 20:
		<-ctx.Done()
		return errors.Join(infer.ErrLoading, ctx.Err())
	}
	return errors.New("cannot map the weights")
}

// diskWithTwo holds v1 of meter and of another model.
var diskWithTwo = sync.OnceValue(func() *agenttest.MemFS {
	disk := diskWithV1().Clone()
	held, err := slots.Open(disk, "")
	if err != nil {
		panic(err)
	}
	if err := installOn(disk, held, other); err != nil {
		panic(err)
	}
	return disk
})
