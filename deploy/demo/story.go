package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// The devices of the story.
const (
	deadCamera = "cam-a2" // loses a row of pixels
	fadedSite  = "b"      // all its lenses fade
	cutSite    = "c"      // loses its link
)

// Bars of the story's numbers.
const (
	floor        = 0.90 // accuracy asked for
	cleanAtLeast = 0.95 // v1 on clean images
	fadedAtMost  = 0.75 // v1 on faded ones
	healedLeast  = 0.90 // v2 on faded ones
)

type numbers = map[string]any

// step is one numbered part of the story. It returns what it measured, also
// when something did not hold.
type step struct {
	name string
	do   func(*plant, context.Context) (numbers, error)
}

func story() []step {
	return []step{
		{"a control plane with its own CA and a root of trust that stays with the publisher", (*plant).standUp},
		{"eight devices on three sites enrol and connect", (*plant).enrolFleet},
		{"version 1: profiled, signed, rolled out, proven on every device", (*plant).firstVersion},
		{"every device reads real images, truths arrive later, windows reach the server", (*plant).serveImages},
		{"site c loses its link, goes on serving, and nothing is lost or counted twice", (*plant).cutLink},
		{"lenses at site b fade: the world changed; one sensor at site a dies: that is no drift", (*plant).drift},
		{"retrained, registered with MLflow, signed by CI, proven by gates: version 2 goes out in waves and mends site b", (*plant).secondVersion},
		{"version 3 is signed but damaged: gates stop it, and where people override them its canary refuses it", (*plant).damagedVersion},
	}
}

// standUp is step 1.
func (p *plant) standUp(ctx context.Context) (numbers, error) {
	if err := p.startControl(ctx); err != nil {
		return nil, err
	}
	if err := p.connect(); err != nil {
		return nil, err
	}
	fmt.Fprintln(p.opts.Log, "    ", p.whereToLook())
	if err := p.vedette(ctx, nil, "key", "init"); err != nil {
		return nil, err
	}
	if err := p.openRouters(ctx); err != nil {
		return nil, err
	}
	pace := p.opts.Pace
	if _, err := p.client.SetSettings(ctx, operator.Settings{
		Window: release.Duration(pace.Window), Report: release.Duration(pace.Report), Snapshot: release.Duration(pace.Snapshot),
		Reason: "the demo has no five minutes for a window",
	}); err != nil {
		return nil, err
	}
	p.brew()
	trust, err := p.client.Trust(ctx)
	if err != nil {
		return nil, err
	}
	return numbers{"root_version": trust.Root.Version, "targets_keys": len(trust.Targets.KeyIDs)},
		expect(trust.Installed && trust.Root.Version == 1, "a fresh root of trust is installed, got %+v", trust.Root)
}

// enrolFleet is step 2.
func (p *plant) enrolFleet(ctx context.Context) (numbers, error) {
	for _, s := range p.sites {
		for _, id := range s.devices {
			if err := p.enrol(ctx, s, id); err != nil {
				return nil, err
			}
		}
	}
	for _, a := range p.agents {
		if err := p.switchOn(a); err != nil {
			return nil, err
		}
	}
	var online int
	sites := map[string]int{}
	err := until(ctx, 30*time.Second, "eight devices to be online", func() error {
		if err := p.anyDied(); err != nil {
			return permanent{err}
		}
		fleet, err := p.client.Devices(ctx, operator.DeviceQuery{})
		if err != nil {
			return err
		}
		online, sites = 0, map[string]int{}
		for _, d := range fleet.Items {
			sites[d.Site]++
			if d.Presence == operator.Online && d.AgentVersion != "" {
				online++
			}
		}
		return expect(online == len(p.agents), "%d devices are online, want %d", online, len(p.agents))
	})
	return numbers{"devices": len(p.agents), "online": online, "sites": sites}, err
}

// firstVersion is step 3.
func (p *plant) firstVersion(ctx context.Context) (numbers, error) {
	if err := p.refusesWrongGraph(ctx); err != nil {
		return nil, err
	}
	if err := p.profile(ctx, 1); err != nil {
		return nil, err
	}
	var reader struct {
		Recipient string `json:"recipient"`
	}
	if err := p.vedette(ctx, &reader, "key", "sample-init"); err != nil {
		return nil, err
	}
	if err := p.push(ctx, "1", p.path("digits-1"), "--sample-to", reader.Recipient, "--sample-rate", "0.05"); err != nil {
		return nil, err
	}
	if err := p.persist(ctx, "version 1 to be in production", func() error {
		return p.vedette(ctx, nil, "model", "stage", model, "1", "production", "--reason", "demo")
	}); err != nil {
		return nil, err
	}
	if err := p.persist(ctx, "the retrain policy", func() error {
		_, err := p.client.SetRetrainPolicy(ctx, p.asking())
		return err
	}); err != nil {
		return nil, err
	}
	ro, err := p.rollOut(ctx, "1", []operator.WaveSpec{{Percent: 100, Soak: p.soak(), Quorum: 1}})
	if err != nil {
		return nil, err
	}
	trials, err := p.allServe(ctx, "1")
	return numbers{"rollout": ro.State, "trials": trials, "seconds": seconds(ro.Ended.Sub(ro.Started))}, errors.Join(err, p.closeLoop(ctx))
}

// serveImages is step 4.
func (p *plant) serveImages(ctx context.Context) (numbers, error) {
	p.startCameras()
	if p.opts.Kill {
		if err := p.crash("cam-c2"); err != nil { // with windows open
			return nil, err
		}
	}
	target := uint64(len(p.images))
	err := until(ctx, 60*time.Second, "every device to have shown all images once, with labels", func() error {
		totals, err := p.serverTotals(ctx)
		if err != nil {
			return err
		}
		for _, id := range p.ids() {
			if t := totals[id]; t.rows["1"] < target || t.labels == 0 {
				return fmt.Errorf("%s: %d rows and %d labels of %d images", id, t.rows["1"], t.labels, target)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	accuracy, rows, err := p.accuracy(ctx, "1", "", time.Time{})
	if err != nil {
		return nil, err
	}
	failed, last := p.failures()
	out := numbers{"rows": rows, "accuracy": round(accuracy), "failed_requests": failed}
	return out, errors.Join(
		expect(accuracy >= cleanAtLeast, "accuracy on clean images is %.3f, want at least %.2f", accuracy, cleanAtLeast),
		expect(failed == 0, "%d requests were not answered: %s", failed, last))
}

// cutLink is step 5.
func (p *plant) cutLink(ctx context.Context) (numbers, error) {
	s := p.at(cutSite)
	before := p.agents[s.devices[0]].camera.tally()
	s.api.Cut()
	s.mqtt.Cut()
	if err := p.awaitPresence(ctx, s, false); err != nil {
		return nil, err
	}
	if err := pass(ctx, p.opts.Pace.Cut); err != nil {
		return nil, err
	}
	offline := p.agents[s.devices[0]].camera.tally()
	held, err := p.serverTotals(ctx)
	if err != nil {
		return nil, err
	}
	behind := offline.Rows["1"] - min(held[s.devices[0]].rows["1"], offline.Rows["1"])
	s.api.Restore()
	s.mqtt.Restore()
	served := offline.Rows["1"] - before.Rows["1"]
	out := numbers{"rows_served_offline": served, "rows_server_was_behind": behind}
	if err := errors.Join(
		expect(served > 0, "no image was read while the link was down"),
		expect(behind > 0, "the server was not behind while the link was down"),
		p.awaitPresence(ctx, s, true)); err != nil {
		return out, err
	}
	for _, id := range s.devices {
		p.agents[id].camera.pause(ctx)
	}
	compared, err := p.balance(ctx, s.devices)
	for _, id := range s.devices {
		p.agents[id].camera.start()
	}
	out["totals"] = compared
	return out, err
}

// awaitPresence waits until all devices of a site are online, or none is: they
// are offline then, or unknown to a control plane that started since.
func (p *plant) awaitPresence(ctx context.Context, s *site, online bool) error {
	return until(ctx, 60*time.Second, fmt.Sprintf("online to be %t of all at site %s", online, s.name), func() error {
		for _, id := range s.devices {
			d, err := p.client.Device(ctx, id)
			if err != nil {
				return err
			}
			if (d.Presence == operator.Online) != online {
				return fmt.Errorf("%s is %s", id, d.Presence)
			}
		}
		return nil
	})
}

// soak is how long each wave is watched.
func (p *plant) soak() *release.Duration {
	d := release.Duration(p.opts.Pace.Soak)
	return &d
}

// profile runs vedette-agent profile over a version's training rows. The folder
// then holds all that is to be signed.
func (p *plant) profile(ctx context.Context, version int) error {
	name := "digits-" + strconv.Itoa(version)
	if err := errors.Join(p.unpack(name, name+".onnx"), p.unpack("training", name+".train.csv", name+".expected.csv")); err != nil {
		return err
	}
	_, err := call(ctx, nil, p.program("vedette-agent"), p.profileArgs(name, p.path(name, name+".onnx"), name)...)
	return err
}

// push publishes a folder as the next version.
func (p *plant) push(ctx context.Context, version, folder string, flags ...string) error {
	return p.persist(ctx, "version "+version+" to be published", func() error {
		if _, err := p.client.Version(ctx, model, version); err == nil {
			return nil
		}
		args := []string{"model", "push", folder, "--model", model, "--version", version, "--author", "demo"}
		return p.vedette(ctx, nil, append(args, flags...)...)
	})
}

// rollOut starts a rollout and waits until it completes.
func (p *plant) rollOut(ctx context.Context, version string, waves []operator.WaveSpec) (*operator.Rollout, error) {
	ro, err := p.startRollout(ctx, version, waves)
	if err != nil {
		return nil, err
	}
	return p.awaitCompleted(ctx, ro.ID)
}

func (p *plant) startRollout(ctx context.Context, version string, waves []operator.WaveSpec) (ro *operator.Rollout, err error) {
	err = p.persist(ctx, "a rollout of version "+version, func() error {
		if ro, err = p.begunRollout(ctx, version); ro != nil || err != nil {
			return err
		}
		ro, err = p.createRollout(ctx, version, waves)
		return err
	})
	return ro, err
}

// begunRollout finds the rollout of a version that a lost answer was about, and
// starts it if that was still to be done.
func (p *plant) begunRollout(ctx context.Context, version string) (*operator.Rollout, error) {
	list, err := p.client.Rollouts(ctx, operator.RolloutQuery{Model: model})
	if err != nil {
		return nil, err
	}
	for _, ro := range list.Items {
		switch {
		case ro.Version != version:
		case ro.State == operator.RolloutDraft:
			return p.client.ActOnRollout(ctx, ro.ID, operator.RolloutAction{Action: operator.ActStart, Reason: "demo"})
		default:
			return p.client.Rollout(ctx, ro.ID)
		}
	}
	return nil, nil //nolint:nilnil // there is none yet
}

func (p *plant) createRollout(ctx context.Context, version string, waves []operator.WaveSpec) (*operator.Rollout, error) {
	control := 0.0
	if len(waves) > 1 {
		control = 0.25
	}
	slower := 10.0
	return p.client.CreateRollout(ctx, operator.RolloutCreate{
		Spec: operator.RolloutSpec{
			Model: model, Version: version, Waves: waves, Control: &control,
			Gates: []operator.GateSpec{
				// Eight devices share two cores here: their latency says little.
				{Kind: "latency", Limit: &slower, Inconclusive: "pass"},
				// At a site where the old version misreads, the new one is meant
				// to predict other classes.
				{Kind: "drift", Off: true},
				{Kind: "errors", Inconclusive: "pass"},
				{Kind: "accuracy", Inconclusive: "pass"},
			},
		},
		Reason: "demo", Start: true,
	})
}

// allServe says how many devices proved and serve a version.
func (p *plant) allServe(ctx context.Context, version string) (trials int, err error) {
	err = until(ctx, 30*time.Second, "every device to serve version "+version, func() error {
		fleet, err := p.client.Devices(ctx, operator.DeviceQuery{})
		if err != nil {
			return err
		}
		trials = 0
		for _, d := range fleet.Items {
			m, ok := modelOf(d)
			if !ok || m.Active == nil || m.Active.Version != version || !m.Serving {
				return fmt.Errorf("%s does not serve version %s", d.ID, version)
			}
			if m.Trial != nil && m.Trial.GoldenRows > 0 && m.Trial.GoldenWrong == 0 {
				trials++
			}
		}
		return nil
	})
	return trials, errors.Join(err, expect(err != nil || trials == len(p.agents), "%d devices proved version %s by golden vectors, want %d", trials, version, len(p.agents)))
}

func modelOf(d operator.Device) (operator.DeviceModel, bool) {
	for _, m := range d.Models {
		if m.Model == model {
			return m, true
		}
	}
	return operator.DeviceModel{}, false
}

func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// pass lets time go by: the one thing in the story that is about time itself.
func pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }
