package updater_test

import (
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vedette-edge/vedette/agent/update"
	"github.com/vedette-edge/vedette/protocol"
)

// From each operation on disk of an update on, the disk takes nothing for a while.
// What is active goes on serving, the device says why it waits, asks the disk now
// and then, and comes to the end of the update when the disk takes writes again.
func TestDiskFaultAtEveryOperation(t *testing.T) {
	n := opsOfUpdate(t)
	faults := map[string]struct {
		err  error
		hits func(op string) bool
		code string
	}{
		"full":      {syscall.ENOSPC, func(op string) bool { return op == "create" || op == "write" || op == "mkdir" || op == "link" }, update.CodeDiskFull},
		"read-only": {syscall.EROFS, func(string) bool { return true }, update.CodeReadOnly},
	}
	for name, fault := range faults {
		for k := 1; k <= n; k++ {
			if raced && k%4 > 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", name, k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := installed(t)
					defer r.stop()
					done, before := 0, r.fs.Ops()
					r.fs.Fault(func(op, _ string) error {
						if done++; done >= k && fault.hits(op) {
							return fault.err
						}
						return nil
					})
					r.updater.Desired(desire(2, v2))
					r.bear(2*time.Hour, fault.code)
					if n := r.fs.Ops() - before; n > 2000 {
						t.Errorf("%d operations in two hours: that is busy", n)
					}
					r.fs.Fault(nil)
					for range 3 { // what rested is begun again at the next connect
						time.Sleep(time.Hour)
						r.updater.Desired(desire(2, v2))
						synctest.Wait()
					}
					r.settle()
					r.onePrimary()
					if got := r.engine.now("meter"); got != v2.Digest {
						t.Errorf("%s serves when the disk works again: %v", versionOf(got), r.state())
					}
					if got := r.state().GetWaiting(); got != "" {
						t.Errorf("still waiting for %q", got)
					}
				})
			})
		}
	}
}

// bear lives with a disk at fault: something serves all the time, and the reason
// is told whenever the update does not go on.
func (r *rig) bear(d time.Duration, code string) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Minute) {
		synctest.Wait()
		if r.engine.now("meter").IsZero() {
			r.t.Fatalf("nothing serves: %v", r.state())
		}
	}
	s := r.state()
	settled := s.GetState() == string(update.Idle) && r.engine.now("meter") == v2.Digest
	if !settled && s.GetWaiting() == "" && s.GetOutcome().GetCode() != code && !refusedFor(s, code) {
		r.t.Errorf("the update does not go on, and nobody is told why: %v", s)
	}
}

func refusedFor(s *protocol.ModelState, code string) bool {
	for _, o := range s.GetRefused() {
		if o.GetCode() == code {
			return true
		}
	}
	return false
}

// A device starts on a disk that takes nothing, and serves.
func TestStartOnADiskThatTakesNothing(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EROFS} {
		for _, state := range []update.State{update.Idle, update.Downloading, update.Watching} {
			t.Run(fmt.Sprintf("%v/%s", err, state), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := installed(t)
					want := v1
					if state == update.Downloading {
						r.blockPuller("fetch", untilDone)
					}
					if state == update.Watching {
						want = v2
					}
					if state != update.Idle {
						r.updater.Desired(desire(2, v2))
						r.untilState(state)
					}
					r.reboot() // what it cleans up at a start is cleaned up
					r.stop()
					r.puller.Fault(nil)
					r.fs.Fault(func(string, string) error { return err })
					r.mustBoot(true)
					defer r.stop()
					synctest.Wait()
					if got := r.engine.now("meter"); got != want.Digest {
						t.Errorf("%s serves, want %s: %v", versionOf(got), want.Manifest.Version, r.state())
					}
					r.fs.Fault(nil)
					time.Sleep(time.Hour)
					r.updater.Desired(desire(2, v2))
					r.settle()
					r.onePrimary()
					if got := r.engine.now("meter"); got != v2.Digest {
						t.Errorf("%s serves when the disk works again: %v", versionOf(got), r.state())
					}
				})
			})
		}
	}
}

// A release that hangs or crashes is left on a full disk too: the record of it
// has room of its own.
func TestBadReleaseIsLeftOnAFullDisk(t *testing.T) {
	leave := map[string]func(*rig){
		"hung call": func(r *rig) {
			if err := r.updater.Hung(r.t.Context(), "meter", v2.Digest); err != nil {
				r.t.Errorf("not journaled: %v", err)
			}
			r.reboot()
		},
		"crash loop": func(r *rig) {
			for range 3 {
				r.reboot()
			}
		},
	}
	for name, goes := range leave {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := installed(t)
				r.updater.Desired(desire(2, v2))
				r.untilState(update.Watching)
				time.Sleep(2 * time.Minute) // of the bubble: the reserve is there again if it was taken
				synctest.Wait()
				r.fs.Room(r.fs.Room(0) + 10)
				goes(r)
				defer r.stop()
				r.settle()
				r.onePrimary()
				if got := r.engine.now("meter"); got != v1.Digest {
					t.Errorf("%s serves, want v1: %v", versionOf(got), r.state())
				}
			})
		})
	}
}
