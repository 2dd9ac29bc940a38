package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// drift is step 6.
func (p *plant) drift(ctx context.Context) (numbers, error) {
	changed := time.Now()
	for _, id := range p.at(fadedSite).devices {
		p.agents[id].camera.through(faded)
	}
	p.agents[deadCamera].camera.through(deadRow)

	world, err := p.awaitAlarm(ctx, operator.AlarmDrift, func(a operator.Alarm) bool { return a.Cohort == fadedSite })
	if err != nil {
		return nil, err
	}
	sensor, err := p.awaitAlarm(ctx, operator.AlarmSensorFault, func(a operator.Alarm) bool { return a.Device == deadCamera })
	if err != nil {
		return nil, err
	}
	var fallen float64
	if err := until(ctx, 30*time.Second, "accuracy at the faded site to fall", func() error {
		var labels uint64
		// Buckets that the change fell into hold clear images too.
		fallen, labels, err = p.accuracy(ctx, "1", fadedSite, changed.Add(p.opts.Pace.Window))
		return errors.Join(err, expect(err != nil || labels > 0 && fallen <= fadedAtMost, "accuracy is %.3f over %d labels", fallen, labels))
	}); err != nil {
		return nil, err
	}
	if err := until(ctx, 20*time.Second, "the retrain request", func() error {
		return expect(len(p.hook.Events()) > 0, "the webhook has not been called")
	}); err != nil {
		return nil, err
	}
	cells := numbers{}
	for _, c := range world.Cells {
		cells[c.Feature] = numbers{"psi": round(c.PSI), "noise": round(c.Noise)}
	}
	out := numbers{
		"drift_alarm": world.Text, "worst_features": cells, "accuracy_at_site_b": round(fallen),
		"sensor_alarm": sensor.Text, "retrain_events": len(p.hook.Events()),
		"seconds_to_drift_alarm": seconds(world.Raised.Sub(changed)), "seconds_to_sensor_alarm": seconds(sensor.Raised.Sub(changed)),
	}
	return out, errors.Join(p.onlyWorldAsks(), p.aboveNoise(world))
}

func (p *plant) awaitAlarm(ctx context.Context, kind string, about func(operator.Alarm) bool) (found operator.Alarm, err error) {
	err = until(ctx, 60*time.Second, "an alarm of kind "+kind, func() error {
		found, err = p.alarm(ctx, kind, about)
		return err
	})
	return found, err
}

// aboveNoise checks that an alarm rests on PSI above its threshold and above
// what the sizes of the samples explain.
func (p *plant) aboveNoise(a operator.Alarm) error {
	for _, c := range a.Cells {
		if !c.Apart || c.PSI <= c.Noise {
			return fmt.Errorf("the alarm names %s with PSI %.3f at noise %.3f", c.Feature, c.PSI, c.Noise)
		}
	}
	return expect(len(a.Cells) > 0, "the alarm names no feature")
}

// onlyWorldAsks checks that retraining was asked for once, because of the faded
// site, and not because of the broken sensor.
func (p *plant) onlyWorldAsks() error {
	events := p.hook.Events()
	if len(events) != 1 {
		return fmt.Errorf("%d retrain requests, want 1", len(events))
	}
	if data := string(events[0].Data); strings.Contains(data, deadCamera) || !strings.Contains(data, `"`+fadedSite+`"`) {
		return fmt.Errorf("the retrain request is not about site %s: %s", fadedSite, data)
	}
	return nil
}

// secondVersion is step 7.
func (p *plant) secondVersion(ctx context.Context) (numbers, error) {
	out := numbers{}
	if p.opts.Kill {
		if err := p.restartControl(ctx); err != nil {
			return nil, err
		}
		out["control_plane_killed"] = true
	}
	failedBefore, _ := p.failures()
	made, err := p.pipeline(ctx, p.hook.Events()[0])
	maps.Copy(out, made)
	if err != nil {
		return out, err
	}
	ro, err := p.followPromotion(ctx)
	if err != nil {
		return out, err
	}
	if _, err := p.allServe(ctx, "2"); err != nil {
		return out, err
	}
	var healed float64
	err = until(ctx, 40*time.Second, "accuracy at the faded site to recover", func() error {
		var labels uint64
		healed, labels, err = p.accuracy(ctx, "2", fadedSite, time.Time{})
		return errors.Join(err, expect(err != nil || labels >= uint64(len(p.images)) && healed >= healedLeast, "accuracy is %.3f over %d labels", healed, labels))
	})
	proof, errClosed := p.closed(ctx, p.hook.Events()[0].ID)
	maps.Copy(out, proof)
	err = errors.Join(err, errClosed)
	failed, last := p.failures()
	var sizes []int
	for _, w := range ro.WaveList {
		sizes = append(sizes, len(w.Devices))
	}
	out["waves"], out["accuracy_at_site_b"], out["failed_requests"] = sizes, round(healed), failed-failedBefore
	out["gates"] = gateResults(ro)
	return out, errors.Join(err,
		expect(len(sizes) == 3 && sizes[0] == 1, "waves had %v devices, want a canary of 1 and three waves", sizes),
		expect(failed == failedBefore, "%d requests were not answered during the rollout: %s", failed-failedBefore, last))
}

// followPromotion waits until the rollout of version 2 completes; with kills, one
// device dies in the middle of its update and the control plane in the middle of
// the rollout.
func (p *plant) followPromotion(ctx context.Context) (*operator.Rollout, error) {
	ro, err := p.promoted(ctx)
	if err != nil {
		return nil, err
	}
	if !p.opts.Kill {
		return p.awaitCompleted(ctx, ro.ID)
	}
	var canary string
	if err := until(ctx, 30*time.Second, "the canary to be offered version 2", func() error {
		if ro, err = p.client.Rollout(ctx, ro.ID); err != nil {
			return err
		}
		if len(ro.WaveList) == 0 || len(ro.WaveList[0].Devices) == 0 {
			return errors.New("no wave is open")
		}
		canary = ro.WaveList[0].Devices[0].Device
		return nil
	}); err != nil {
		return nil, err
	}
	if err := errors.Join(p.crash(canary), p.restartControl(ctx)); err != nil {
		return nil, err
	}
	return p.awaitCompleted(ctx, ro.ID)
}

// restartControl kills the control plane and starts it again.
func (p *plant) restartControl(ctx context.Context) error {
	p.power.Lock()
	defer p.power.Unlock()
	p.killControl()
	if err := p.launchControl(); err != nil {
		return err
	}
	return p.awaitControl(ctx)
}

// gateResults says how each gate stood when its wave closed, by wave.
func gateResults(ro *operator.Rollout) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, w := range ro.WaveList {
		out[w.Name] = map[string]string{}
		for _, g := range w.Gates {
			out[w.Name][g.Kind] = g.Result
		}
	}
	return out
}

// damagedVersion is step 8.
func (p *plant) damagedVersion(ctx context.Context) (numbers, error) {
	if err := p.persist(ctx, "version 2 to be pulled", func() error {
		return p.vedette(ctx, nil, "model", "pull", model, "2", "--to", p.path("digits-2"))
	}); err != nil {
		return nil, err
	}
	folder, err := p.damage("digits-2", "digits-3")
	if err != nil {
		return nil, err
	}
	if err := p.push(ctx, "3", folder); err != nil {
		return nil, err
	}
	stopped, err := p.overridden(ctx)
	if err != nil {
		return nil, err
	}
	failedBefore, _ := p.failures()
	ro, err := p.startRollout(ctx, "3", []operator.WaveSpec{
		{Name: "canary", Count: 1, Soak: p.soak(), Quorum: 1}, {Name: "all", Percent: 100, Soak: p.soak(), Quorum: 1},
	})
	if err != nil {
		return nil, err
	}
	if err := until(ctx, time.Minute, "the rollout of version 3 to halt", func() error {
		if ro, err = p.client.Rollout(ctx, ro.ID); err != nil {
			return err
		}
		return expect(ro.State == operator.RolloutHalted, "rollout is %s: %s", ro.State, ro.Cause)
	}); err != nil {
		return nil, err
	}
	saw, code, err := p.whoSaw(ctx, "3")
	if err != nil {
		return nil, err
	}
	// Whether it served all the while, the cameras know; a device may have lost
	// power a moment ago.
	if err := until(ctx, 20*time.Second, "version 2 to serve everywhere", func() error { return p.stillServe2(ctx) }); err != nil {
		return nil, err
	}
	failed, last := p.failures()
	p.pauseAll(ctx)
	compared, err := p.balance(ctx, p.ids())
	out := numbers{
		"stopped_by_gate": stopped, "rollout": ro.State, "cause": ro.Cause, "devices_that_saw_it": saw, "refused_with": code,
		"failed_requests": failed - failedBefore, "totals": compared, "retrain_events": len(p.hook.Events()),
	}
	return out, errors.Join(err, p.onlyWorldAsks(), p.ledgerVerifies(ctx),
		expect(len(saw) == 1 && code == "golden_mismatch", "version 3 was seen by %v and refused with %q, want one canary and golden_mismatch", saw, code),
		expect(failed == failedBefore, "%d requests were not answered meanwhile: %s", failed-failedBefore, last))
}

// overridden checks that the gates keep version 3 from being rolled out, and has
// people override them one by one. It returns what the first one said.
func (p *plant) overridden(ctx context.Context) (string, error) {
	var refusal string
	if err := p.persist(ctx, "the gates to stop version 3", func() error {
		_, err := p.createRollout(ctx, "3", []operator.WaveSpec{{Percent: 100}})
		if err == nil {
			return permanent{errors.New("version 3 could be rolled out with no evidence")}
		}
		refusal = err.Error()
		return expect(operator.CodeOf(err) == operator.NotCleared, "a rollout of version 3 ended with: %w", err)
	}); err != nil {
		return "", err
	}
	for _, gate := range []string{"smoke", "accuracy", "champion", "fairness"} {
		if err := p.persist(ctx, "gate "+gate+" to be overridden", func() error {
			return p.vedette(ctx, nil, "model", "override", model, "3", "--gate", gate, "--reason", "the demo is in a hurry")
		}); err != nil {
			return "", err
		}
	}
	return refusal, nil
}

// damage copies a profiled folder and overwrites part of the graph's weights,
// as a bad conversion would after the graph was profiled. The file still loads.
func (p *plant) damage(from, to string) (string, error) {
	folder := p.path(to)
	if err := os.CopyFS(folder, os.DirFS(p.path(from))); err != nil {
		return "", fmt.Errorf("copy %s: %w", from, err)
	}
	graphs, err := filepath.Glob(filepath.Join(folder, "*.onnx"))
	if err != nil || len(graphs) != 1 {
		return "", fmt.Errorf("find the graph in %s: %v %w", folder, graphs, err)
	}
	b, err := os.ReadFile(graphs[0])
	if err != nil {
		return "", err
	}
	const weights, size = 16 << 10, 8 << 10 // inside the first layer's 32 KiB
	copy(b[weights:], bytes.Repeat([]byte{0}, size))
	return folder, os.WriteFile(graphs[0], b, 0o600) //nolint:gosec // a file of the demo's own folder
}

// whoSaw lists the devices that were ever asked to run a version, and how the
// last of them refused it.
func (p *plant) whoSaw(ctx context.Context, version string) (saw []string, code string, err error) {
	fleet, err := p.client.Devices(ctx, operator.DeviceQuery{})
	if err != nil {
		return nil, "", err
	}
	for _, d := range fleet.Items {
		m, _ := modelOf(d)
		refused := m.Refused
		if m.Outcome != nil {
			refused = append(refused, *m.Outcome)
		}
		for _, o := range refused {
			if o.Release.Version == version {
				saw, code = append(saw, d.ID), o.Code
				break
			}
		}
		if m.Trial != nil && m.Trial.Release.Version == version && (len(saw) == 0 || saw[len(saw)-1] != d.ID) {
			saw = append(saw, d.ID)
		}
	}
	return saw, code, nil
}

// stillServe2 checks that version 2 still serves everywhere. Trials are not
// counted: the canary's newest trial is that of the version it refused.
func (p *plant) stillServe2(ctx context.Context) error {
	fleet, err := p.client.Devices(ctx, operator.DeviceQuery{})
	if err != nil {
		return err
	}
	for _, d := range fleet.Items {
		if m, ok := modelOf(d); !ok || m.Active == nil || m.Active.Version != "2" || !m.Serving {
			return fmt.Errorf("%s does not serve version 2 any more", d.ID)
		}
	}
	return nil
}

// ledgerVerifies exports the ledger and replays it offline.
func (p *plant) ledgerVerifies(ctx context.Context) error {
	file := p.path("ledger.jsonl")
	out, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := p.persist(ctx, "the ledger", func() error {
		return errors.Join(out.Truncate(0), rewind(out), p.client.ExportLedger(ctx, out))
	}); err != nil {
		return errors.Join(err, out.Close())
	}
	if err := out.Close(); err != nil {
		return err
	}
	return p.vedette(ctx, nil, "ledger", "verify", file)
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// refusesWrongGraph checks that profile writes nothing when the graph computes
// something else than the training script wrote.
func (p *plant) refusesWrongGraph(ctx context.Context) error {
	if err := errors.Join(p.unpack("wrong", "digits-2.onnx"), p.unpack("training", "digits-1.train.csv", "digits-1.expected.csv")); err != nil {
		return err
	}
	_, err := call(ctx, nil, p.program("vedette-agent"), p.profileArgs("digits-1", p.path("wrong", "digits-2.onnx"), "wrong")...)
	if err == nil {
		return errors.New("profile took a graph that disagrees with the expected outputs")
	}
	_, err = os.Stat(p.path("wrong", "golden.json"))
	return expect(errors.Is(err, os.ErrNotExist), "profile refused a graph and wrote golden vectors all the same")
}

// unpack puts embedded files where the programs can read them.
func (p *plant) unpack(folder string, names ...string) error {
	if err := os.MkdirAll(p.path(folder), 0o700); err != nil {
		return err
	}
	for _, name := range names {
		b, err := models.ReadFile("models/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(p.path(folder, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (p *plant) awaitCompleted(ctx context.Context, id string) (ro *operator.Rollout, err error) {
	err = until(ctx, 2*time.Minute, "rollout "+id+" to complete", func() error {
		if ro, err = p.client.Rollout(ctx, id); err != nil {
			return err
		}
		switch ro.State {
		case operator.RolloutCompleted:
			return nil
		case operator.RolloutHalted, operator.RolloutReverted, operator.RolloutAborted, operator.RolloutReplaced:
			return permanent{fmt.Errorf("rollout is %s: %s", ro.State, ro.Cause)}
		case operator.RolloutDraft, operator.RolloutQueued, operator.RolloutAwaiting, operator.RolloutRunning, operator.RolloutPaused, operator.RolloutReverting:
		}
		return fmt.Errorf("rollout is %s in wave %d: %s", ro.State, ro.Wave, ro.Cause)
	})
	return ro, err
}

// profileArgs profile a graph over the training rows of a name into a folder.
func (p *plant) profileArgs(name, graph, folder string) []string {
	return []string{
		"profile", graph, "--rows", p.path("training", name+".train.csv"), "--expected", p.path("training", name+".expected.csv"),
		"--condition", "condition", "--source", "scikit-learn 1.2.1", "--to", p.path(folder),
	}
}
