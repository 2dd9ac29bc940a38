package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
)

// begin is the true time at which every simulation begins. Clocks that are wrong
// are wrong against it.
var begin = time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)

// plan is what a simulation is to be: all of it follows from the seed, the size
// and the scenario.
type plan struct {
	seed     uint64
	scenario scenario
	devices  int           // 0 lets the seed decide
	length   time.Duration // of the troubled part, 0 lets the seed decide
	asked    time.Duration // length as it was asked for
}

// world is everything: the fleet, its network, one server, and the time. It is
// used by one goroutine.
type world struct {
	plan
	ctx context.Context
	rnd *rand.Rand
	t   time.Duration // since begin
	queue
	trouble  trouble // what goes wrong, and how often; healed sets it to nothing
	healed   bool
	releases []*candidate
	devices  []*device
	byID     map[string]*device
	sites    []*site
	server   *server
	check    *checker
	trace    trace
	tally    map[string]int
	failure  error // the first thing that must not be; ends the simulation
	events   int
	progress func() // called now and then, nil for never
}

func newWorld(p plan) *world {
	w := &world{
		plan: p, ctx: context.Background(), rnd: rand.New(rand.NewPCG(p.seed, 11)), //nolint:gosec // a simulation repeats itself
		byID: map[string]*device{}, tally: map[string]int{},
	}
	w.asked = w.length
	w.check = newChecker(w)
	w.trouble = p.scenario.trouble(w.rnd)
	w.releases = w.makeReleases()
	w.server = newServer(w)
	w.makeFleet()
	w.planOperators()
	w.planTrouble()
	return w
}

// now is the true time.
func (w *world) now() time.Time { return begin.Add(w.t) }

// after plans something.
func (w *world) after(d time.Duration, do func()) { w.add(w.t+max(d, 0), do) }

// between is a random duration.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rnd.Int64N(int64(most-least)+1))
}

// often is true in that many of a thousand cases.
func (w *world) often(perThousand int) bool { return w.rnd.IntN(1000) < perThousand }

// fail notes the first thing that must not be.
func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf(format, args...)
	}
}

// note adds a line to the trace.
func (w *world) note(who, format string, args ...any) { w.trace.add(w.t, who, format, args...) }

// run lets everything happen until the end of the trouble, heals what is broken,
// and goes on until the fleet has come to rest.
func (w *world) run() error {
	w.until(w.length)
	if w.failure == nil {
		w.heal()
		w.settle()
	}
	if w.failure == nil {
		w.check.atTheEnd()
	}
	return w.failure
}

// until lets things happen up to a time.
func (w *world) until(end time.Duration) {
	for w.failure == nil && len(w.items) > 0 && w.items[0].at <= end {
		w.step()
	}
	w.t = max(w.t, end)
}

func (w *world) step() {
	it, _ := w.next()
	w.t = it.at
	if w.events++; w.events%progressEvery == 0 && w.progress != nil {
		w.progress()
	}
	it.do()
}

// progressEvery is after how many events progress is shown.
const progressEvery = 1_000_000

// Bounds of the healed part.
const (
	settleStep = 30 * time.Minute
	settleMost = 4 * 24 * time.Hour
)

// settle waits until every rollout has ended and the devices are what they are
// to be. All of that has deadlines, so it ends.
func (w *world) settle() {
	for end := w.t + settleMost; w.failure == nil && w.t < end; {
		w.until(w.t + settleStep)
		if w.server.up && w.check.atRest() {
			return
		}
	}
	if w.failure == nil {
		w.fail("not at rest %v after everything was healed: %s", settleMost, w.check.restless())
	}
}

// final says whether all rollouts have ended.
func (w *world) final() bool {
	for _, s := range w.check.rollouts {
		if !s.state.Header.Status.Final() {
			return false
		}
	}
	return true
}

func (w *world) count(what string) { w.tally[what]++ }

// command is what an operator of the simulation does.
func command(a rollout.Action) rollout.Command {
	return rollout.Command{Action: a, Actor: "sim", Reason: "the simulation wants it"}
}
