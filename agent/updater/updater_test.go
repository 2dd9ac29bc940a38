package updater_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/agenttest"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/agent/updater"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

func TestUpdateReportsEachState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer r.stop()
		r.updater.Desired(desire(2, v2))
		r.untilState(update.Watching)
		s := r.state()
		if !bytes.Equal(s.GetActive(), v2.Digest.Bytes()) || !bytes.Equal(s.GetPrevious(), v1.Digest.Bytes()) || !s.GetServing() {
			t.Errorf("watching, with %v", s)
		}
		if s.GetTrial().GetProvider() != "CPU" || s.GetProvider() != "CPU" {
			t.Errorf("trial not reported: %v", s)
		}
		began := time.Now()
		r.settle()
		if got := time.Since(began); got != update.DefaultLimits().Watch {
			t.Errorf("watched for %v, want %v", got, update.DefaultLimits().Watch)
		}
		s = r.state()
		if o := s.GetOutcome(); o.GetResult() != update.ResultActive || o.GetGeneration() != 2 || o.GetAt() == nil {
			t.Errorf("outcome %v", o)
		}
		if s.GetTarget() != nil || s.GetActiveForMs() != uint64(update.DefaultLimits().Watch.Milliseconds()) {
			t.Errorf("idle, with %v", s)
		}
		if !r.noted("update_active ") {
			t.Errorf("events %q", r.events)
		}
	})
}

func TestRefusedReleaseWaitsForANewDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		r.updater.Desired(desire(2, v3))
		r.settle()
		o := r.state().GetOutcome()
		if o.GetResult() != update.ResultRefused || o.GetCode() != trial.CodeGolden || !bytes.Equal(o.GetRelease(), v3.Digest.Bytes()) {
			t.Fatalf("outcome %v", o)
		}
		if r.state().GetTrial().GetGoldenWrong() != 4 {
			t.Errorf("trial %v", r.state().GetTrial())
		}
		r.onePrimary()
		r.stop()

		// The reason outlives a restart, and the same decision changes nothing.
		r.mustBoot(false)
		defer r.stop()
		trials := 0
		judge := r.trier.judge
		r.trier.judge = func(c trial.Candidate) trial.Verdict { trials++; return judge(c) }
		again := desire(3, v3)
		again.Assignments[0].Decision = 2
		r.updater.Desired(again)
		r.settle()
		if got := r.state().GetRefused(); trials != 0 || len(got) != 1 || got[0].GetCode() != trial.CodeGolden {
			t.Errorf("%d trials, refused %v", trials, got)
		}
		r.updater.Desired(desire(4, v3))
		r.settle()
		if trials != 1 {
			t.Errorf("%d trials under a new decision, want 1", trials)
		}
	})
}

func TestServesBeforeTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		r.stop()
		r.blockPuller("resolve", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		r.mustBoot(true)
		defer r.stop()
		if got := r.engine.now("meter"); got != v1.Digest {
			t.Errorf("%s serves after the start, want v1", versionOf(got))
		}
		if got := r.updater.Held().GetGeneration(); got != 1 {
			t.Errorf("generation %d is held, want 1", got)
		}
	})
}

func TestCrashLoopRevertsOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		r.updater.Desired(desire(2, v2))
		r.untilState(update.Watching)
		for range 3 {
			time.Sleep(time.Minute) // of the bubble
			r.fs.CutNow()
			r.stop()
			r.fs.Reboot(agenttest.Drop, nil)
			r.mustBoot(true)
		}
		defer r.stop()
		r.settle()
		r.onePrimary()
		if got := r.engine.now("meter"); got != v1.Digest {
			t.Errorf("%s serves, want v1", versionOf(got))
		}
		if o := r.state().GetOutcome(); o.GetResult() != update.ResultReverted || o.GetCode() != update.CodeCrashLoop {
			t.Errorf("outcome %v", o)
		}
		if !r.noted("crash_loop ") || !r.noted("update_reverted crash_loop") {
			t.Errorf("events %q", r.events)
		}
	})
}

// Of two models, the one that is new is to blame.
func TestCrashLoopBlamesTheNewModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		both := desire(2, v1)
		both.Assignments = append(both.Assignments, desire(2, other).GetAssignments()...)
		r.updater.Desired(both)
		time.Sleep(time.Hour) // of the bubble: both are trusted now
		next := proto.CloneOf(both)
		next.Generation = 3
		next.Assignments[0] = desire(3, v2).GetAssignments()[0]
		r.updater.Desired(next)
		r.untilState(update.Watching)
		for range 3 {
			r.fs.CutNow()
			r.stop()
			r.fs.Reboot(agenttest.Keep, nil)
			r.mustBoot(true)
		}
		defer r.stop()
		r.settle()
		if got := r.engine.now("meter"); got != v1.Digest {
			t.Errorf("%s of meter serves, want v1 again", versionOf(got))
		}
		if got := r.engine.now("other"); got != other.Digest {
			t.Errorf("%s of other serves, want it untouched", versionOf(got))
		}
	})
}

func TestHungCallIsJournaledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		r.updater.Desired(desire(2, v2))
		r.untilState(update.Watching)
		if err := r.updater.Hung(t.Context(), "meter", v2.Digest); err != nil {
			t.Fatal(err)
		}
		r.fs.CutNow() // the process is replaced the moment Hung returns
		r.stop()
		r.fs.Reboot(agenttest.Drop, nil)
		r.mustBoot(true)
		defer r.stop()
		r.settle()
		r.onePrimary()
		if got := r.engine.now("meter"); got != v1.Digest {
			t.Errorf("%s serves, want v1", versionOf(got))
		}
		if got := r.engine.loads; len(got) != 1 {
			t.Errorf("the start loaded %d releases, want the one before the hung one alone", len(got))
		}
		if err := r.updater.Hung(t.Context(), "nobody", v2.Digest); err == nil {
			t.Error("a hung call of an unknown model was noted")
		}
	})
}

func TestOffAndOnAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer r.stop()
		r.updater.Desired(desire(2, nil))
		synctest.Wait()
		if got := r.engine.now("meter"); !got.IsZero() {
			t.Errorf("%s serves, want nothing", versionOf(got))
		}
		if got := r.updater.States(); len(got) != 0 {
			t.Errorf("still reported: %v", got)
		}
		r.updater.Desired(desire(3, v1))
		r.settle()
		r.onePrimary()
	})
}

func TestMemoryBudgetIsOverAllModels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.budget = 25 << 20 // two models of 10 MiB, not three
		r.mustBoot(false)
		defer r.stop()
		d := desire(1, v1)
		d.Assignments = append(d.Assignments, desire(1, other).GetAssignments()...)
		r.updater.Desired(d)
		synctest.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		if r.engine.now("meter").IsZero() || r.engine.now("other").IsZero() {
			t.Fatal("two models do not fit")
		}
		next := proto.CloneOf(d)
		next.Generation = 2
		next.Assignments[0].Release, next.Assignments[0].Decision = v2.Digest.Bytes(), 2
		r.updater.Desired(next)
		r.settle()
		o := r.state().GetOutcome()
		if o.GetResult() != update.ResultRefused || o.GetCode() != trial.CodeMemory || !strings.Contains(o.GetMessage(), "25 MiB") {
			t.Errorf("outcome %v", o)
		}
		if got := r.engine.now("meter"); got != v1.Digest {
			t.Errorf("%s serves, want v1", versionOf(got))
		}
	})
}

func TestDesiredRefused(t *testing.T) {
	tests := map[string]func(d *protocol.Desired){
		"name that is a path":  func(d *protocol.Desired) { d.Assignments[0].Model = "../meter" },
		"short digest":         func(d *protocol.Desired) { d.Assignments[0].Release = []byte{1} },
		"digest of zeros":      func(d *protocol.Desired) { d.Assignments[0].Release = make([]byte, 32) },
		"two primaries":        func(d *protocol.Desired) { d.Assignments = append(d.Assignments, d.Assignments[0]) },
		"too many assignments": func(d *protocol.Desired) { d.Assignments = make([]*protocol.Assignment, 1000) },
		"older than held":      func(d *protocol.Desired) { d.Generation = 1 },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.mustBoot(false)
				defer r.stop()
				r.updater.Desired(desire(5, v1))
				r.settle()
				d := desire(6, v2)
				spoil(d)
				r.updater.Desired(d)
				r.settle()
				if got := r.engine.now("meter"); got != v1.Digest {
					t.Errorf("%s serves, want v1 untouched", versionOf(got))
				}
				if got := r.updater.Held().GetGeneration(); got != 5 {
					t.Errorf("generation %d is held, want 5", got)
				}
			})
		})
	}
}

// A control plane restored from a backup counts its generations again.
func TestLowerGenerationSentLaterIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.mustBoot(false)
		defer r.stop()
		first, second := desire(50, v1), desire(7, v2)
		first.ServerMs, second.ServerMs = 1000, 2000
		r.updater.Desired(first)
		r.settle()
		r.updater.Desired(second)
		r.settle()
		if got := r.engine.now("meter"); got != v2.Digest {
			t.Errorf("%s serves, want v2", versionOf(got))
		}
	})
}

func TestDamageAtRest(t *testing.T) {
	graph := func(b *agenttest.Bundle) string {
		return "models/meter/" + b.Digest.String() + "/" + b.Manifest.Variants[0].Graph.Digest.String()
	}
	tests := []struct {
		name    string
		corrupt []string
		offline *agenttest.Bundle // serves before the network
	}{
		{"active release", []string{graph(v2)}, v1},
		{"record of the slots", []string{"models/meter/slots.json"}, v2},
		{"journal", []string{"journal/model-meter.json"}, v2},
		{"desired state", []string{"journal/desired.json"}, v2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := installed(t)
				r.updater.Desired(desire(2, v2))
				r.settle()
				r.stop()
				for _, name := range tt.corrupt {
					if err := r.fs.Corrupt(name); err != nil {
						t.Fatal(err)
					}
				}
				online := make(chan struct{})
				r.puller.Fault(func(ctx context.Context, _ string) error {
					select {
					case <-online:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				r.mustBoot(false)
				defer r.stop()
				synctest.Wait()
				if got := r.engine.now("meter"); got != tt.offline.Digest {
					t.Errorf("%s serves offline, want %s", versionOf(got), tt.offline.Manifest.Version)
				}
				close(online)
				r.updater.Desired(desire(2, v2))
				r.settle()
				r.onePrimary()
				if got := r.engine.now("meter"); got != v2.Digest {
					t.Errorf("%s serves at the end, want v2: %v", versionOf(got), r.state())
				}
			})
		})
	}
}

// mayPass is an error that says it is worth another try.
type mayPass struct{ error }

func (mayPass) Retryable() bool { return true }
func (mayPass) Code() string    { return "link" }

func TestBrokenLinkBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer r.stop()
		var tries []time.Duration
		began := time.Now()
		r.puller.Fault(func(_ context.Context, step string) error {
			if step == "fetch" && len(tries) < 5 {
				tries = append(tries, time.Since(began))
				return mayPass{errors.New("no route to host")}
			}
			return nil
		})
		r.updater.Desired(desire(2, v2))
		r.settle()
		want := []time.Duration{0, 1500 * time.Millisecond, 4500 * time.Millisecond, 10500 * time.Millisecond, 22500 * time.Millisecond}
		for i, at := range tries {
			if at != want[i] {
				t.Errorf("try %d after %v, want %v", i+1, at, want[i])
			}
		}
		if got := r.engine.now("meter"); got != v2.Digest || len(tries) != 5 {
			t.Errorf("%s serves after %d tries", versionOf(got), len(tries))
		}
	})
}

// noRoom is the puller's word for a disk without room.
type noRoom struct{ error }

func (noRoom) Retryable() bool { return true }
func (noRoom) Code() string    { return "disk_full" }

// A device whose disk is full says so, here and upward: once a cause in the
// log, in every report, and no more when there is room again.
func TestFullDiskIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer r.stop()
		var trouble atomic.Pointer[error]
		r.puller.Fault(func(_ context.Context, step string) error {
			if err := trouble.Load(); err != nil && step == "fetch" {
				return *err
			}
			return nil
		})
		const full, link = "18 MiB are free, 40 MiB are needed", "no route to host"
		for _, err := range []error{noRoom{errors.New(full)}, mayPass{errors.New(link)}} {
			trouble.Store(&err)
			r.updater.Desired(desire(2, v2))
			r.until("waiting", func(s *protocol.ModelState) bool { return s.GetWaiting() == err.Error() })
			time.Sleep(time.Hour) // of the bubble: some tries
			synctest.Wait()
			if s := r.state(); s.GetState() != string(update.Downloading) || s.GetWaiting() != err.Error() {
				t.Errorf("%s, waiting for %q, want downloading and %q", s.GetState(), s.GetWaiting(), err)
			}
		}
		trouble.Store(nil)
		r.untilState(update.Watching)
		if got := r.state().GetWaiting(); got != "" {
			t.Errorf("still waiting for %q", got)
		}
		r.settle()
		for text, want := range map[string]int{"update waits": 2, full: 1, "code=disk_full": 1, link: 1, "update goes on": 1} {
			if got := strings.Count(r.log.String(), text); got != want {
				t.Errorf("%q is logged %d times, want %d:\n%s", text, got, want, r.log.String())
			}
		}
	})
}

// What a server answers may be long and is no text perhaps; a report is both.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		defer r.stop()
		r.puller.Fault(func(context.Context, string) error {
			return mayPass{errors.New("a\xff" + strings.Repeat("ü", 4000))}
		})
		r.updater.Desired(desire(2, v2))
		r.until("waiting", func(s *protocol.ModelState) bool { return s.GetWaiting() != "" })
		got := r.state().GetWaiting()
		if !strings.HasPrefix(got, "aü") || len(got) > 1024 || !utf8.ValidString(got) {
			t.Errorf("reports %d bytes, valid UTF-8 %v: %.20q", len(got), utf8.ValidString(got), got)
		}
		if s := r.state(); s.GetState() != string(update.Resolving) {
			t.Errorf("state %s, want resolving", s.GetState())
		}
		r.updater.Desired(desire(3, v1)) // given up: nothing waits any more
		r.settle()
		if got := r.state().GetWaiting(); got != "" {
			t.Errorf("idle, and waiting for %q", got)
		}
		if strings.Contains(r.log.String(), "update goes on") {
			t.Errorf("an update given up went on:\n%s", r.log.String())
		}
	})
}

// What cannot be journaled is not done; when it can be again, it is.
func TestJournalUnwritable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		full := &fullDisk{FS: r.fs}
		held, err := slots.Open(full, "")
		if err != nil {
			t.Fatal(err)
		}
		eng := &engine{t: t, fs: r.fs, serving: map[string]release.Digest{}, fail: func(context.Context, infer.Release) error { return nil }}
		r.updater, err = updater.New(updater.Config{FS: full, Slots: held, Puller: r.puller, Trier: r.trier, Engine: eng, Random: func() float64 { return 0 }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.updater.Run(ctx) }()
		synctest.Wait()
		full.full.Store(true)
		r.updater.Desired(desire(1, v1))
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := eng.now("meter"); !got.IsZero() || r.state().GetState() != string(update.Idle) {
			t.Errorf("%s serves, %v", versionOf(got), r.state())
		}
		if got, want := r.state().GetWaiting(), updater.ErrJournal.Error()+": "; !strings.HasPrefix(got, want) || !strings.Contains(got, "no space left") {
			t.Errorf("waiting for %q, want the reason after %q", got, want)
		}
		full.full.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := eng.now("meter"); got != v1.Digest {
			t.Errorf("%s serves, want v1: %v", versionOf(got), r.state())
		}
		if got := r.state().GetWaiting(); got != "" {
			t.Errorf("still waiting for %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// fullDisk refuses new files while it is full.
type fullDisk struct {
	slots.FS
	full atomic.Bool
}

func (f *fullDisk) Create(name string) (slots.File, error) {
	if f.full.Load() {
		return nil, errors.New("no space left on device")
	}
	return f.FS.Create(name)
}

// A device that has nothing to do writes nothing: cards wear out.
func TestIdleDeviceWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := installed(t)
		r.stop()
		r.mustBoot(true) // an unclean start is remembered for a while
		defer r.stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		before := r.fs.Ops()
		r.updater.Desired(desire(1, v1)) // as at every connect
		time.Sleep(30 * 24 * time.Hour)
		synctest.Wait()
		if got := r.fs.Ops() - before; got != 0 {
			t.Errorf("%d operations on disk in an idle month, want none", got)
		}
	})
}
