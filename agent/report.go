package agent

import (
	"cmp"
	"encoding/hex"
	"runtime"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/host"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/pull"
	"github.com/vedette-edge/vedette/agent/serve"
	profiles "github.com/vedette-edge/vedette/firmware-profiles"
	"github.com/vedette-edge/vedette/protocol"
)

// hello is what opens every connection; the uplink adds connection and epochs.
func (a *Agent) hello() *protocol.Hello {
	root, facts := a.identity.RootDigest(), proto.CloneOf(a.facts)
	facts.TimeZone = host.TimeZone() // people move devices
	return &protocol.Hello{
		AgentVersion: a.cfg.Version,
		BootCount:    a.boot.Count,
		Unclean:      a.boot.Unclean,
		Generation:   a.updater.Held().GetGeneration(),
		Facts:        facts,
		RootDigest:   root[:],
		Predictions:  a.engine.IDPrefix(),
		Truths:       a.truths.Taken(),
	}
}

// report is the device's whole reported state.
func (a *Agent) report() *protocol.Report {
	stats := a.outbox.Stats()
	r := &protocol.Report{
		Generation:    a.updater.Held().GetGeneration(),
		Models:        a.updater.States(),
		OutboxBytes:   uint64(max(stats.Bytes, 0)),
		OutboxPending: uint64(max(stats.Pending, 0)),
		OutboxSent:    uint64(max(stats.Sent, 0)),
		RssBytes:      host.RSS(),
	}
	now := a.surroundings()
	r.Metered, r.Power, r.BatteryPercent = now.metered, now.power, uint32(now.battery) //nolint:gosec // 0 to 100
	if disk, err := host.Disk(a.cfg.State); err == nil {
		r.DiskFreeBytes = disk.Free
	}
	for _, m := range r.GetModels() {
		m.Provider = a.provider(m.GetModel(), infer.RolePrimary)
	}
	return r
}

// reportUp is a report that goes to the control plane.
func (a *Agent) reportUp() *protocol.Report {
	r := a.report()
	a.told.Store(&surroundings{metered: r.GetMetered(), power: r.GetPower(), battery: int(r.GetBatteryPercent())})
	return r
}

// status is what GET /status says beyond serving.
func (a *Agent) status() *serve.Agent {
	report, link := a.report(), a.link()
	s := &serve.Agent{
		Device: a.device(), BootCount: a.boot.Count, Unclean: a.boot.Unclean,
		Generation: report.GetGeneration(), Metered: report.GetMetered(), Power: report.GetPower(), Battery: int(report.GetBatteryPercent()), TimeZone: host.TimeZone(),
		Uplink: serve.Uplink{Connected: link.Connected, Since: link.Since, Error: link.LastError, Code: link.Code},
		Outbox: serve.Outbox{Pending: report.GetOutboxPending(), Sent: report.GetOutboxSent(), Bytes: report.GetOutboxBytes(), Limit: uint64(max(cmp.Or(a.share.outbox, outbox.DefaultTotalBytes), 0))},
	}
	stats := a.outbox.Stats()
	s.Outbox.Open, s.Outbox.Merged = uint64(max(stats.Open, 0)), stats.Merged
	if stats.Error != nil {
		s.Outbox.Error = stats.Error.Error()
	}
	var fetched pull.Stats
	if a.puller != nil {
		fetched = a.puller.Stats()
	}
	s.Fetch = serve.Fetch{Copied: fetched.Copied, Deltas: fetched.Deltas, DeltasFailed: fetched.Failed, SavedBytes: fetched.SavedBytes}
	for _, m := range report.GetModels() {
		s.Updates = append(s.Updates, updateOf(m.GetModel(), m))
		if c := m.GetChallenger().GetState(); c != nil {
			s.Updates = append(s.Updates, updateOf(m.GetModel()+" (challenger)", c))
		}
	}
	return s
}

func updateOf(name string, m *protocol.ModelState) serve.Update {
	return serve.Update{
		Model: name, State: m.GetState(), ForMs: m.GetStateForMs(),
		Active: hex.EncodeToString(m.GetActive()), Previous: hex.EncodeToString(m.GetPrevious()), Target: hex.EncodeToString(m.GetTarget()),
		Done: m.GetDoneBytes(), Total: m.GetTotalBytes(), Waiting: m.GetWaiting(),
		Result: m.GetOutcome().GetResult(), Code: m.GetOutcome().GetCode(), Message: m.GetOutcome().GetMessage(),
	}
}

// describe says what the device is, which firmware profile that matches and
// what the agent takes of it.
func (a *Agent) describe() (err error) {
	f := host.Facts(a.cfg.State)
	info := a.cfg.Runtime.Info()
	f.Runtime, f.RuntimeVersion, f.ExecutionProviders = info.Name, info.Version, info.Providers
	var found *profiles.Profile
	if p, ok := host.Profile(); ok {
		found = &p
	}
	if a.share, err = shareOf(&a.cfg, found, runtime.NumCPU(), f.GetMemoryBytes()); err != nil {
		return err
	}
	f.Profile, a.facts = a.share.profile, f
	a.log.Info("share of this device", "profile", a.share.profile, "concurrency", a.share.concurrency,
		"model_memory_bytes", a.share.memory, "outbox_bytes", a.share.outbox, "providers", a.share.providers)
	return nil
}
