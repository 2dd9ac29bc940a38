package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	randv2 "math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/vedette-edge/vedette/controlplane/client"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

func fleetParts() []part {
	return []part{
		{"engine", "the rollout engine alone", (*bench).engine},
		{"steady", "thousands of agents that only report", (*bench).steadyFleet},
		{"rollout", "a good version in three waves", (*bench).goodRollout},
		{"canary", "a bad version, stopped in its canary", (*bench).badCanary},
		{"late", "a bad version, found when half the fleet has it", (*bench).badLate},
		{"storm", "all connections drop at once", (*bench).storm},
	}
}

// fleetSize is how large a fleet is and how fast it moves.
type fleetSize struct {
	devices                int
	report, jitter, steady time.Duration
}

// withDefaults is the fleet that the bars are stated for, or a small and fast
// one.
func (z fleetSize) withDefaults(quick bool) fleetSize {
	d := fleetSize{devices: 10_000, report: time.Minute, jitter: 30 * time.Second, steady: time.Minute}
	if quick {
		d = fleetSize{devices: 500, report: 5 * time.Second, jitter: 5 * time.Second, steady: 20 * time.Second}
	}
	return fleetSize{
		devices: cmp.Or(z.devices, d.devices), report: cmp.Or(z.report, d.report),
		jitter: cmp.Or(z.jitter, d.jitter), steady: cmp.Or(z.steady, d.steady),
	}
}

// pace is how long something takes here that is stated for devices which
// report every minute.
func (z fleetSize) pace(d time.Duration) time.Duration {
	return time.Duration(float64(d) * min(1, float64(z.report)/float64(time.Minute)))
}

// Versions of the digit reader that the fleet goes through. All are graphs of
// the demo; how the last two do on devices is the agents' script.
const (
	versionOld  = "1"
	versionGood = "2"
	versionSick = "3" // golden vectors disagree on every device
	versionLate = "4" // turns bad when half of the fleet has it
)

// fleet is a control plane with its simulated agents.
type fleet struct {
	b       *bench
	size    fleetSize
	plant   *plant
	client  *client.Client
	server  *watch
	devices []*agent
	brokers []string
	ca      *x509.CertPool
	root    []byte
	facts   *protocol.Facts
	log     *log
	models  map[release.Digest]*behaviour // complete before the first agent connects
	named   map[string]release.Digest     // versions by name

	heldBefore uint64 // rows that the server counted in earlier runs

	stop   context.CancelFunc
	agents sync.WaitGroup
	failed chan error // the first failure of an agent
}

// filesForRest are the open files that a process needs beside its connections.
const filesForRest = 500

// standingFleet is the fleet, enrolled, connected and on the old version. It is
// made once.
func (b *bench) standingFleet(ctx context.Context) (*fleet, error) {
	if b.fleet != nil {
		return b.fleet, nil
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	size := b.size
	// The Go runtime raises the soft limit to the hard one, here and in the server.
	b.say("  %d agents; agents and server may have %d files open each", size.devices, limit.Max)
	if room := int(limit.Max) - filesForRest; limit.Max < 1<<30 && size.devices > room { //nolint:gosec // bounded
		b.say("  that is too few for all of them: %d", room)
		size.devices = room
	}
	f := &fleet{
		b: b, size: size, plant: &plant{b: b}, log: newLog(), models: map[release.Digest]*behaviour{}, named: map[string]release.Digest{},
		failed: make(chan error, 1), stop: func() {},
		facts: &protocol.Facts{
			Profile: "raspberry-pi-4", Os: "linux", Arch: "arm64", Kernel: "6.12.47", CpuModel: "Cortex-A72", Cpus: 4, MemoryBytes: 4 << 30,
			DiskBytes: 32 << 30, Runtime: "onnxruntime", RuntimeVersion: "1.30.0", ExecutionProviders: []string{"CPUExecutionProvider"},
		},
	}
	b.fleet, b.plant = f, f.plant
	for _, s := range []func(context.Context) error{f.start, f.publish, f.enrol, f.connect, f.begin} {
		if err := s(ctx); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *fleet) start(ctx context.Context) error {
	f.b.say("  starting a control plane")
	err := f.plant.serve(ctx)
	if err != nil {
		return err
	}
	if f.client, err = client.New("http://"+f.plant.http, f.plant.token, client.Options{Timeout: time.Minute}); err != nil {
		return err
	}
	f.server = watchProcess(f.plant.control.cmd.Process.Pid)
	every := release.Duration(f.size.report)
	_, err = f.client.SetSettings(ctx, operator.Settings{Window: every, Report: every, Snapshot: every, Reason: "benchmark"})
	return err
}

// publish signs and publishes the versions that are not there yet, with the
// operator's own command line.
func (f *fleet) publish(ctx context.Context) error {
	have, err := f.client.Models(ctx)
	if err != nil {
		return err
	}
	if len(have) == 0 {
		if _, err := f.plant.vedette(ctx, "key", "init"); err != nil {
			return err
		}
		for _, v := range []string{versionOld, versionGood, versionSick, versionLate} {
			from := versionGood
			if v == versionOld {
				from = versionOld
			}
			if err := f.plant.push(ctx, from, v); err != nil {
				return err
			}
		}
	}
	for _, v := range []string{versionOld, versionGood, versionSick, versionLate} {
		found, err := f.client.Version(ctx, model, v)
		if err != nil {
			return err
		}
		b, err := newBehaviour(f.b.path(model+"-"+v, "baseline.json"))
		if err != nil {
			return err
		}
		b.golden = v == versionSick
		f.models[found.Release], f.named[v] = b, found.Release
	}
	return nil
}

func (f *fleet) behaves(d release.Digest) *behaviour {
	if b := f.models[d]; b != nil {
		return b
	}
	return f.models[f.named[versionOld]]
}

// fail notes that an agent cannot go on as it should.
func (f *fleet) fail(err error) {
	select {
	case f.failed <- err:
	default:
	}
}

// connect lets all agents connect, spread over the jitter, and waits until the
// control plane has said its acks to each of them.
func (f *fleet) connect(ctx context.Context) error {
	f.b.say("  connecting %d agents over %v", len(f.devices), f.size.jitter)
	held, _, err := f.held(ctx)
	if err != nil {
		return err
	}
	f.heldBefore = held
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop = stop
	began := time.Now()
	for _, a := range f.devices {
		a.boot, a.started = random(protocol.BootSize), began
		a.box = newBox(random(protocol.EpochSize))
		if err := a.connect(f); err != nil {
			return err
		}
		delay := randv2.N(f.size.jitter) //nolint:gosec // spreads load, keeps no secret
		f.agents.Go(func() {
			if pause(running, delay) {
				_ = a.link.Run(running) // nil when it is told to end, and only then it ends
			}
		})
	}
	f.agents.Go(func() { f.pulse(running) })
	if err := f.until(ctx, f.size.jitter+5*time.Minute, "all agents to connect", func() error { return f.connected(began) }); err != nil {
		return err
	}
	f.b.say("  connected after %.1f s", time.Since(began).Seconds())
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// pause waits, and says whether ctx lasted that long.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// connected is an error while agents have no session that began after a moment.
func (f *fleet) connected(after time.Time) error {
	missing := 0
	for _, a := range f.devices {
		if s := a.link.Status(); !s.Connected || s.Since.Before(after) {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d agents are not connected", missing, len(f.devices))
	}
	return nil
}

// slots is in how many parts the agents close their windows, one after the
// other.
const slots = 200

// pulse closes the window of each agent once in an interval.
func (f *fleet) pulse(ctx context.Context) {
	tick := time.NewTicker(f.size.report / slots)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for i := n % slots; i < len(f.devices); i += slots {
				f.devices[i].close(now)
			}
		}
	}
}

// until asks every moment until the answer is nil, an agent fails, the server
// ends, or the time is over.
func (f *fleet) until(ctx context.Context, most time.Duration, what string, ask func() error) error {
	limited, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-limited.Done():
			return fmt.Errorf("waited %v for %s: %w", most, what, cmp.Or(ctx.Err(), err))
		case failed := <-f.failed:
			return failed
		case <-f.plant.control.done:
			return errors.New("the control plane ended by itself; its log is " + f.plant.control.log)
		case <-tick.C:
		}
	}
}

func (f *fleet) close() {
	f.stop()
	f.agents.Wait()
	if f.server != nil {
		f.server.close()
	}
}

func (f *fleet) identities() string { return filepath.Join(f.b.dir, "identities.json") }
