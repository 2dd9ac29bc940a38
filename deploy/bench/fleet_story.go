package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Bars of the fleet: DESIGN §9 and what issue 4 promises.
const (
	maxResident   = 1.5   // GiB of the server
	maxHome       = 120.0 // seconds from the decision until every device is back
	stopAllowance = 5.0   // seconds beyond one report interval until the last offer
)

// begin brings every device to the old version.
func (f *fleet) begin(ctx context.Context) error {
	f.b.say("  bringing all to version %s", versionOld)
	id, err := f.roll(ctx, operator.RolloutSpec{Version: versionOld, Waves: []operator.WaveSpec{f.wave(100, 0)}})
	if err != nil {
		return err
	}
	_, err = f.ends(ctx, id, operator.RolloutCompleted)
	return err
}

// wave is one that soaks for a number of report intervals.
func (f *fleet) wave(percent float64, soak float64) operator.WaveSpec {
	d := release.Duration(soak * float64(f.size.report))
	return operator.WaveSpec{Percent: percent, Soak: &d, Quorum: 0.9}
}

// roll creates and starts a rollout. The gate on errors alone waits for
// evidence by default; a fleet that has just begun has none to compare with.
func (f *fleet) roll(ctx context.Context, spec operator.RolloutSpec) (id string, err error) {
	spec.Model = model
	spec.Gates = append(spec.Gates, operator.GateSpec{Kind: "errors", Inconclusive: "pass"})
	ro, err := f.client.CreateRollout(ctx, operator.RolloutCreate{Spec: spec, Reason: "benchmark", Start: true})
	if err != nil {
		return "", err
	}
	return ro.ID, nil
}

// summary is a rollout in short: the whole one lists every device.
func (f *fleet) summary(ctx context.Context, id string) (operator.RolloutSummary, error) {
	page, err := f.client.Rollouts(ctx, operator.RolloutQuery{})
	if err != nil {
		return operator.RolloutSummary{}, err
	}
	i := slices.IndexFunc(page.Items, func(r operator.RolloutSummary) bool { return r.ID == id })
	if i < 0 {
		return operator.RolloutSummary{}, fmt.Errorf("there is no rollout %s", id)
	}
	return page.Items[i], nil
}

// patienceWith bounds the wait for a rollout's end, which waits for reports.
func (f *fleet) patienceWith() time.Duration { return 5*time.Minute + 20*f.size.report }

// ends waits until a rollout is in a state and returns it whole.
func (f *fleet) ends(ctx context.Context, id string, want operator.RolloutState) (*operator.Rollout, error) {
	stage := ""
	if err := f.until(ctx, f.patienceWith(), "rollout "+id+" to be "+string(want), func() error {
		if !pause(ctx, min(400*time.Millisecond, f.size.report/10)) {
			return ctx.Err()
		}
		ro, err := f.summary(ctx, id)
		if err != nil {
			return err
		}
		if now := fmt.Sprintf("%s, wave %d", ro.State, ro.Wave); now != stage {
			f.b.say("    %s", now)
			stage = now
		}
		if ro.State != want {
			return fmt.Errorf("it is %s, %v: %s", stage, ro.Counts, ro.Cause)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return f.client.Rollout(ctx, id)
}

// steadyFleet measures the server while nothing but reports and windows come.
func (b *bench) steadyFleet(ctx context.Context) error {
	f, before, err := b.fleetAndGauge(ctx)
	if err != nil {
		return err
	}
	b.say("  %d agents report for %v", len(f.devices), f.size.steady)
	if err := f.last(ctx, f.size.steady); err != nil {
		return err
	}
	after, err := f.gauge(ctx)
	if err != nil {
		return err
	}
	now, err := f.server.resident()
	if err != nil {
		return err
	}
	n := len(f.devices)
	b.atMost(Figure{
		Part: "steady", What: "resident memory of the server", Value: now / (1 << 30), Unit: "GiB",
		Detail: fmt.Sprintf("%d devices, %.0f KiB each; peak %.2f GiB", n, now/1024/float64(n), f.server.peaked()/(1<<30)),
	}, maxResident)
	b.add(Figure{Part: "steady", What: "CPU of the server", Value: after.core(before), Unit: "% of a core", Detail: fmt.Sprintf("over %v", f.size.steady)})
	b.add(Figure{
		Part: "steady", What: "messages stored", Value: after.rate(before), Unit: "/s",
		Detail: fmt.Sprintf("a report and a window of %d rows every %v, hellos", rowsAWindow, f.size.report),
	})
	return nil
}

// errEarly says that the time has not passed yet.
var errEarly = errors.New("it has not")

// last waits unless something breaks.
func (f *fleet) last(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	return f.until(ctx, d+time.Minute, "the time to pass", func() error {
		if time.Now().Before(end) {
			return errEarly
		}
		return nil
	})
}

// goodRollout takes a good version through three waves.
func (b *bench) goodRollout(ctx context.Context) error {
	f, before, err := b.fleetAndGauge(ctx)
	if err != nil {
		return err
	}
	ledger, err := f.ledgerBytes()
	if err != nil {
		return err
	}
	b.say("  version %s in three waves", versionGood)
	id, err := f.roll(ctx, operator.RolloutSpec{
		Version: versionGood, Waves: []operator.WaveSpec{f.wave(1, 1), f.wave(50, 1), f.wave(100, 1)},
	})
	if err != nil {
		return err
	}
	ro, err := f.ends(ctx, id, operator.RolloutCompleted)
	if err != nil {
		return err
	}
	after, err := f.gauge(ctx)
	if err != nil {
		return err
	}
	b.add(Figure{Part: "rollout", What: "three waves to completion", Value: ro.Ended.Sub(ro.Started).Seconds(), Unit: "s", Detail: fmt.Sprintf("each soaks for %v", f.size.report)})
	b.add(Figure{Part: "rollout", What: "CPU of the server", Value: after.core(before), Unit: "% of a core", Detail: fmt.Sprintf("%.0f messages/s stored", after.rate(before))})
	b.atMost(Figure{Part: "rollout", What: "peak resident memory of the server", Value: f.server.peaked() / (1 << 30), Unit: "GiB"}, maxResident)
	if err := f.decided(ctx, ro); err != nil {
		return err
	}
	return f.written("rollout", ro, ledger)
}

// decision is what a record of a rollout in the ledger says of devices.
type decision struct {
	seq      uint64
	at       time.Time
	Decision struct {
		Changes []operator.Change `json:"changes"`
	} `json:"decision"`
}

// decisions reads a rollout's chain, oldest first. The rollout itself names only
// some of the devices of a change.
func (f *fleet) decisions(ctx context.Context, id string) (out []decision, err error) {
	q := operator.LedgerQuery{Chain: "rollout." + id, Paging: operator.Paging{Limit: 200}}
	for more := true; more; {
		page, err := f.client.Ledger(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, r := range page.Items {
			d := decision{seq: r.Seq, at: r.At}
			if err := json.Unmarshal(r.Body, &d); err != nil {
				return nil, fmt.Errorf("read ledger record %d: %w", r.Seq, err)
			}
			out = append(out, d)
		}
		q.Cursor, more = page.Next, page.Next != ""
	}
	slices.Reverse(out)
	return out, nil
}

// decided adds how long it took from decisions to what followed from them.
func (f *fleet) decided(ctx context.Context, ro *operator.Rollout) error {
	all, err := f.decisions(ctx, ro.ID)
	if err != nil {
		return err
	}
	at, seen := map[uint64]time.Time{}, map[string]time.Time{}
	for _, d := range all {
		at[d.seq] = d.at
		for _, c := range d.Decision.Changes {
			if c.Subject != "devices" || c.To != "active" {
				continue
			}
			for _, id := range c.Devices {
				if _, known := seen[id]; !known {
					seen[id] = d.at
				}
			}
		}
	}
	var received, observed []float64
	for _, o := range f.log.offers(ro.Release, ro.Started) {
		decided, known := at[o.decision]
		if !known {
			continue
		}
		received = append(received, o.at.Sub(decided).Seconds())
		if t, known := seen[o.device]; known {
			observed = append(observed, t.Sub(decided).Seconds())
		}
	}
	for _, row := range []struct {
		what string
		of   []float64
	}{
		{"decision in the ledger to desired state on the device", received},
		{"decision in the ledger to the release seen active by the server", observed},
	} {
		f.b.add(Figure{
			Part: "rollout", What: row.what, Value: quantile(row.of, 0.5), Unit: "s",
			Detail: fmt.Sprintf("p50; p99 %.2f s, %d devices", quantile(row.of, 0.99), len(row.of)),
		})
	}
	return nil
}

// badCanary offers a version whose golden vectors disagree, a few devices at a
// time, so that there would be more offers if it were not stopped.
func (b *bench) badCanary(ctx context.Context) error {
	f, ledger, err := b.fleetAndLedger(ctx)
	if err != nil {
		return err
	}
	bad := f.named[versionSick]
	b.say("  version %s, whose golden vectors disagree", versionSick)
	id, err := f.roll(ctx, operator.RolloutSpec{
		Version: versionSick, Waves: []operator.WaveSpec{f.wave(10, 2), f.wave(100, 1)},
		Budget: operator.Budget{InFlight: max(2, len(f.devices)/500)}, OnFailure: operator.OnFailureRevert,
	})
	if err != nil {
		return err
	}
	ro, err := f.ends(ctx, id, operator.RolloutReverted)
	if err != nil {
		return err
	}
	fact, _ := f.log.facts(bad)
	offers := f.log.offers(bad, time.Time{})
	latest := fact // no offer came after the fact
	for _, o := range offers {
		if o.at.After(latest) {
			latest = o.at
		}
	}
	b.atMost(Figure{
		Part: "canary", What: "fact sent by the canary to the last new offer received", Value: latest.Sub(fact).Seconds(), Unit: "s",
		Detail: fmt.Sprintf("%d of %d devices were offered it", len(offers), len(f.devices)),
	}, f.size.report.Seconds()+stopAllowance)
	return f.written("canary", ro, ledger)
}

// badLate lets a version turn bad when half of the fleet has it.
func (b *bench) badLate(ctx context.Context) error {
	f, ledger, err := b.fleetAndLedger(ctx)
	if err != nil {
		return err
	}
	bad := f.named[versionLate]
	b.say("  version %s, which turns bad when half of the fleet has it", versionLate)
	f.server.peaked()
	id, err := f.roll(ctx, operator.RolloutSpec{
		Version: versionLate, Waves: []operator.WaveSpec{f.wave(50, 20), f.wave(100, 1)}, OnFailure: operator.OnFailureRevert,
	})
	if err != nil {
		return err
	}
	half := len(f.devices) * 48 / 100
	if err := f.until(ctx, f.patienceWith(), "half of the fleet to have it", func() error {
		if on, _ := f.log.on(bad); on < half {
			return fmt.Errorf("%d devices have it", on)
		}
		return nil
	}); err != nil {
		return err
	}
	on, _ := f.log.on(bad)
	f.models[bad].turned.Store(true)
	ro, err := f.ends(ctx, id, operator.RolloutReverted)
	if err != nil {
		return err
	}
	f.wentHome(ro, bad, on)
	return f.written("late", ro, ledger)
}

// wentHome measures a revert of so many devices.
func (f *fleet) wentHome(ro *operator.Rollout, bad release.Digest, devices int) {
	var decided time.Time
	for _, d := range ro.Timeline { // newest first
		for _, c := range d.Changes {
			if c.Subject == "rollout" && c.To == string(operator.RolloutReverting) {
				decided = d.At
			}
		}
	}
	left, _ := f.log.on(bad)
	_, ill := f.log.facts(bad)
	var last time.Time
	for _, v := range []string{versionOld, versionGood} {
		if _, at := f.log.on(f.named[v]); at.After(last) {
			last = at
		}
	}
	f.b.add(Figure{
		Part: "late", What: "first failed rows sent to the decision to revert", Value: decided.Sub(ill).Seconds(), Unit: "s",
		Detail: fmt.Sprintf("%d devices had it; windows of %v", devices, f.size.report),
	})
	f.b.atMost(Figure{
		Part: "late", What: "decision to the last device back", Value: last.Sub(decided).Seconds(), Unit: "s",
		Detail: fmt.Sprintf("%d devices still on it; the server saw all of them off it after %.1f s", left, ro.Ended.Sub(decided).Seconds()),
	}, maxHome)
	f.b.atMost(Figure{Part: "late", What: "peak resident memory of the server", Value: f.server.peaked() / (1 << 30), Unit: "GiB"}, maxResident)
}

// written adds what a rollout added to the ledger, bodies of records that are
// kept as blobs included.
func (f *fleet) written(part string, ro *operator.Rollout, before int64) error {
	now, err := f.ledgerBytes()
	if err != nil {
		return err
	}
	size := float64(now - before)
	f.b.add(Figure{
		Part: part, What: "ledger on disk for the rollout", Value: size / (1 << 20), Unit: "MiB",
		Detail: fmt.Sprintf("%d records, %.0f bytes a device", ro.Decisions, size/float64(len(f.devices))),
	})
	return nil
}

// fleetAndLedger is the standing fleet with the bytes that its ledger has before
// a rollout.
func (b *bench) fleetAndLedger(ctx context.Context) (*fleet, int64, error) {
	f, err := b.standingFleet(ctx)
	if err != nil {
		return nil, 0, err
	}
	ledger, err := f.ledgerBytes()
	return f, ledger, err
}

// ledgerBytes is what the ledger and the blobs have on the server's disk. Blobs
// grow by large records alone: models are published before all rollouts.
func (f *fleet) ledgerBytes() (sum int64, err error) {
	err = filepath.WalkDir(f.b.path("control"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "LEDGER") && !strings.Contains(path, "OBJ_") {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return ignoreGone(err)
	})
	return sum, err
}

// ignoreGone forgives a file that went while the folder was read: the server
// runs.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
