package fleet

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// maxBoots is how many former boots are remembered to know their messages by.
const maxBoots = 8

// position is how far a device is folded and what tells old from new.
type position struct {
	Seq    uint64   `json:"seq"`              // of the uplink stream, included
	Hello  uint64   `json:"hello,omitempty"`  // monotonic ms of the newest hello of the boot
	Report uint64   `json:"report,omitempty"` // of the newest report
	Former []string `json:"former,omitempty"` // boots before, oldest first
}

// checkpoint is what is written down of one device. Labels and the like are
// the operators' and kept elsewhere; presence is kept nowhere.
type checkpoint struct {
	Fold   position `json:"fold"`
	Heard  history  `json:"heard,omitzero"`
	Device Device   `json:"device"`
}

// Apply folds one message of the uplink stream. One that is folded already
// changes nothing.
func (f *Fleet) Apply(seq uint64, a *protocol.Accepted) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entryOf(a.GetDevice())
	if seq <= e.fold.Seq {
		return
	}
	e.fold.Seq, e.reported = seq, true
	received := ofMillis(a.GetReceivedMs())
	e.seen(a, received)
	e.heard.hear(received)
	if f.live {
		e.device.Presence = Online
	}
	switch body := a.GetBody().(type) {
	case *protocol.Accepted_Hello:
		if e.newer(a.GetSent(), &e.fold.Hello, received) {
			e.hello(body.Hello, received)
		}
	case *protocol.Accepted_Report:
		if e.newer(a.GetSent(), &e.fold.Report, received) {
			e.report(body.Report, received)
		}
	case *protocol.Accepted_Record:
		f.event(e, a, body.Record, received)
	}
	f.dirty[a.GetDevice()] = true
	f.tell(a.GetDevice())
}

// seen takes in what every message tells.
func (e *entry) seen(a *protocol.Accepted, received time.Time) {
	d := &e.device
	if received.After(d.LastSeen) {
		d.LastSeen = received
	}
	if wall := a.GetSent().GetWallMs(); wall != 0 {
		d.ClockOffset = time.Duration(wall-a.GetReceivedMs()) * time.Millisecond
	}
	switch {
	case a.GetCloned() && d.Cloned == nil:
		d.Cloned = &Mark{At: received, Reason: "the same record number came with different content: two installations share this identity"}
	case !a.GetCloned() && a.GetCursor() != nil && !a.GetCursor().GetCloned():
		d.Cloned = nil
	}
}

// newer says whether a message of one kind is newer than all before it. A boot
// that was not heard of is newer than every other; within a boot the monotonic
// clock decides. last is the newest of the kind and moves on.
func (e *entry) newer(sent *protocol.Stamp, last *uint64, received time.Time) bool {
	boot := hex.EncodeToString(sent.GetBoot())
	switch {
	case slices.Contains(e.fold.Former, boot):
		return false
	case boot != e.device.Boot.ID:
		e.newBoot(boot, received)
	case sent.GetMonotonicMs() < *last:
		return false
	}
	*last = sent.GetMonotonicMs()
	return true
}

func (e *entry) newBoot(boot string, received time.Time) {
	if e.device.Boot.ID != "" {
		e.fold.Former = append(e.fold.Former, e.device.Boot.ID)
		e.fold.Former = slices.Clone(e.fold.Former[max(0, len(e.fold.Former)-maxBoots):])
	}
	e.fold.Hello, e.fold.Report = 0, 0
	e.device.Boot = Boot{ID: boot, Seen: received, UncleanTotal: e.device.Boot.UncleanTotal}
}

func (e *entry) hello(h *protocol.Hello, received time.Time) {
	d := &e.device
	if h.GetUnclean() && !d.Boot.Unclean {
		d.Boot.UncleanTotal++
	}
	d.Boot.Count, d.Boot.Unclean = h.GetBootCount(), h.GetUnclean()
	d.HelloAt = received
	d.AgentVersion = h.GetAgentVersion()
	d.Root = digest(h.GetRootDigest())
	d.Facts = factsOf(h.GetFacts())
	d.Epochs = nil
	for _, p := range h.GetEpochs() {
		d.Epochs = append(d.Epochs, Epoch{
			ID: hex.EncodeToString(p.GetId()), Sent: p.GetSent(), Acked: p.GetAcked(), Current: p.GetCurrent(),
		})
	}
}

func factsOf(p *protocol.Facts) Facts {
	zone := p.GetTimeZone()
	if !protocol.IsTimeZone(zone) {
		zone = ""
	}
	return Facts{
		TimeZone: zone,
		Profile:  p.GetProfile(), OS: p.GetOs(), Arch: p.GetArch(), Kernel: p.GetKernel(),
		Hostname: p.GetHostname(), CPUModel: p.GetCpuModel(), CPUs: p.GetCpus(),
		MemoryBytes: p.GetMemoryBytes(), DiskBytes: p.GetDiskBytes(),
		Runtime: p.GetRuntime(), RuntimeVersion: p.GetRuntimeVersion(), Providers: p.GetExecutionProviders(),
	}
}

func (e *entry) report(r *protocol.Report, received time.Time) {
	d := &e.device
	d.ReportedAt = received
	d.Generation = r.GetGeneration()
	d.DiskFreeBytes, d.RSSBytes = r.GetDiskFreeBytes(), r.GetRssBytes()
	d.Outbox = Outbox{Bytes: r.GetOutboxBytes(), Pending: r.GetOutboxPending(), Sent: r.GetOutboxSent()}
	d.Metered = known(r.GetMetered(), protocol.MeteredYes, protocol.MeteredNo)
	d.Power = known(r.GetPower(), protocol.PowerMains, protocol.PowerBattery)
	d.Battery = int(min(r.GetBatteryPercent(), 100))
	d.Models = nil
	for _, m := range r.GetModels() {
		d.Models = append(d.Models, modelOf(m, received))
	}
	slices.SortFunc(d.Models, func(a, b Model) int { return strings.Compare(a.Name, b.Name) })
}

// known is a value that this server has a meaning for; any other is as good as
// none.
func known(value string, meant ...string) string {
	if slices.Contains(meant, value) {
		return value
	}
	return ""
}

func modelOf(m *protocol.ModelState, received time.Time) Model {
	out := Model{
		Name: m.GetModel(), Active: digest(m.GetActive()), Previous: digest(m.GetPrevious()), Target: digest(m.GetTarget()),
		State: m.GetState(), StateSince: received.Add(-time.Duration(m.GetStateForMs()) * time.Millisecond), //nolint:gosec // a device that lies here lies about itself
		DoneBytes: m.GetDoneBytes(), TotalBytes: m.GetTotalBytes(), Starts: m.GetStarts(), Serving: m.GetServing(),
		ActiveFor: time.Duration(m.GetActiveForMs()) * time.Millisecond, //nolint:gosec // likewise
		Provider:  m.GetProvider(), Waiting: m.GetWaiting(),
	}
	if o := m.GetOutcome(); o != nil {
		out.Outcome = new(outcomeOf(o))
	}
	for _, o := range m.GetRefused() {
		out.Refused = append(out.Refused, outcomeOf(o))
	}
	if c := m.GetChallenger(); c != nil && c.GetState() != nil {
		out.Challenger = &Challenger{Model: modelOf(c.GetState(), received), Role: c.GetRole(), Share: int(c.GetShare())}
	}
	if t := m.GetTrial(); t != nil {
		out.Trial = &Trial{
			Release: digest(t.GetRelease()), GoldenRows: t.GetGoldenRows(), GoldenWrong: t.GetGoldenWrong(),
			GoldenWorst: t.GetGoldenWorst(), P95US: t.GetP95Us(), PeakBytes: t.GetPeakBytes(),
			Provider: t.GetProvider(), RuntimeVersion: t.GetRuntimeVersion(), Tried: triedOf(t.GetTried()),
		}
	}
	return out
}

func outcomeOf(o *protocol.Outcome) Outcome {
	return Outcome{
		Release: digest(o.GetRelease()), Result: o.GetResult(), Code: o.GetCode(), Message: o.GetMessage(),
		Generation: o.GetGeneration(), At: ofMillis(o.GetAt().GetWallMs()),
	}
}

// digest reads a digest off the wire. Ingest has refused lengths that are wrong;
// empty means none.
func digest(b []byte) release.Digest {
	d, err := release.DigestFromBytes(b)
	if err != nil {
		return release.Digest{}
	}
	return d
}

// event keeps what a device tells that is neither count nor state.
func (f *Fleet) event(e *entry, a *protocol.Accepted, r *protocol.Record, received time.Time) {
	if a.GetRefused() != "" || len(r.GetBody()) == 0 {
		return
	}
	var body protocol.Body
	if err := proto.Unmarshal(r.GetBody(), &body); err != nil {
		f.cfg.Logger.Warn("record not readable", slog.String("device", a.GetDevice()), slog.Any("error", err))
		return
	}
	ev := body.GetEvent()
	if ev == nil {
		return
	}
	told := Event{
		Kind: ev.GetKind(), Model: ev.GetModel(), Release: digest(ev.GetRelease()), Message: ev.GetMessage(),
		Attributes: ev.GetAttributes(), At: ofMillis(body.GetAt().GetWallMs()), Received: received,
	}
	events := append([]Event{told}, e.device.Events...)
	e.device.Events = events[:min(len(events), MaxEvents)]
	if f.live && f.cfg.OnEvent != nil {
		f.cfg.OnEvent(told)
	}
}

// Live says that the fold has caught up: from now on a message means that its
// device is connected.
func (f *Fleet) Live() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live = true
}

// Dirty returns what to write down: the reported part of each device that has
// changed since the last call, by key.
func (f *Fleet) Dirty() map[string][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string][]byte, len(f.dirty))
	for id := range f.dirty {
		out[id] = nil // deletes
		if e, ok := f.devices[id]; ok && e.reported {
			value, err := json.Marshal(checkpoint{Fold: e.fold, Heard: e.heard, Device: e.device})
			if err != nil {
				f.cfg.Logger.Error("device not written down", slog.String("device", id), slog.Any("error", err))
				delete(out, id)
				continue
			}
			out[id] = value
		}
	}
	clear(f.dirty)
	return out
}

// Load restores what Dirty returned before, ahead of the first Apply.
func (f *Fleet) Load(records map[string][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, value := range records {
		var c checkpoint
		if err := json.Unmarshal(value, &c); err != nil {
			return fmt.Errorf("read checkpoint of device %s: %w", id, err)
		}
		e := f.entryOf(id)
		was := e.device
		e.device, e.fold, e.heard, e.reported = c.Device, c.Fold, c.Heard, true
		e.device.ID, e.device.Presence = id, was.Presence
		e.device.setOperators(&was)
	}
	return nil
}

// setOperators takes the operators' part of another device.
func (d *Device) setOperators(from *Device) {
	d.Labels, d.Revision, d.Enrolled, d.Revoked = from.Labels, from.Revision, from.Enrolled, from.Revoked
}
