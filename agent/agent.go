package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/agent/host"
	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/observe"
	"github.com/vedette-edge/vedette/agent/outbox"
	"github.com/vedette-edge/vedette/agent/pull"
	"github.com/vedette-edge/vedette/agent/sample"
	"github.com/vedette-edge/vedette/agent/serve"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/agent/trial"
	"github.com/vedette-edge/vedette/agent/truth"
	"github.com/vedette-edge/vedette/agent/updater"
	"github.com/vedette-edge/vedette/agent/uplink"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// Agent is one device. New makes it, Run is its life.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	facts *protocol.Facts
	share share

	lost     *unknown // why there is no identity, nor uplink, puller and truths; else nil
	identity *identity.Identity
	boot     *host.Boot
	outbox   *outbox.Outbox
	observer *observe.Observer
	sampler  *sample.Sampler
	truths   *truth.Taker
	engine   *infer.Engine
	files    *slots.Root
	puller   *pull.Puller
	updater  *updater.Updater
	server   *serve.Server
	uplink   *uplink.Uplink

	told   atomic.Pointer[surroundings] // of the newest report, nil before the first
	hung   chan error                   // a call hangs: the process must be replaced
	opened []io.Closer                  // by New, in order
}

// New opens the state directory and joins the stages. Nothing serves before
// Run. Close releases what New opened.
func New(cfg Config) (*Agent, error) {
	a := &Agent{cfg: cfg, log: cfg.Logger, hung: make(chan error, 1)}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	for _, open := range []func() error{
		a.describe, a.openIdentity, a.openOutbox, a.openObserver, a.openEngine, a.openUpdater, a.openServer, a.openTruths, a.openUplink,
	} {
		if err := open(); err != nil {
			return nil, errors.Join(err, a.endBoot(), a.Close())
		}
	}
	return a, nil
}

// endBoot marks a start that came to nothing as ended: it served nobody.
func (a *Agent) endBoot() error {
	if a.boot == nil {
		return nil
	}
	return a.boot.End()
}

// Close releases what New opened. Call it after Run has returned.
func (a *Agent) Close() error {
	var errs []error
	for _, c := range slices.Backward(a.opened) {
		errs = append(errs, c.Close())
	}
	a.opened = nil
	return errors.Join(errs...)
}

// openOutbox comes before the boot is counted: the outbox is what keeps a
// second agent out of the directory.
func (a *Agent) openOutbox() error {
	box, salvage, err := outbox.Open(filepath.Join(a.cfg.State, outboxFile), outbox.Options{
		ModelBytes: modelBytes(a.share.outbox), TotalBytes: a.share.outbox,
		Stamp: a.stamp, Logger: a.log,
	})
	if err != nil {
		return fmt.Errorf("open outbox: %w", err)
	}
	a.outbox, a.opened = box, append(a.opened, box)
	if salvage != nil {
		a.log.Warn("outbox was damaged and has been salvaged", "lost_records", salvage.LostRecords,
			"more_may_be_lost", salvage.LostUnknown, "quarantine", salvage.Quarantine)
	}
	return a.countBoot()
}

// countBoot counts this start. A full or read-only disk must not keep a device from serving
// what it has, so what cannot be written then is logged.
func (a *Agent) countBoot() (err error) {
	a.boot, err = host.StartBoot(a.cfg.State)
	if errors.Is(err, host.ErrUnmarked) {
		a.log.Error("start is not counted: free some space on the disk, or mount it for writing", "error", err)
	} else if err != nil {
		return fmt.Errorf("count this start: %w", err)
	}
	if a.boot.Unclean {
		a.tell(&protocol.Event{
			Kind:    "boot_unclean",
			Message: "the agent's start before this one did not end by itself: what it served since its last snapshot is not counted",
		})
	}
	return nil
}

// stamp dates what is told before the boot has been counted, too.
func (a *Agent) stamp() *protocol.Stamp {
	if a.boot == nil {
		return nil
	}
	return a.boot.Stamp()
}

// tell leaves an event for the control plane.
func (a *Agent) tell(e *protocol.Event) {
	if err := a.outbox.Append(&protocol.Body{At: a.stamp(), Kind: &protocol.Body_Event{Event: e}}); err != nil {
		a.log.Error("event is not stored", "kind", e.GetKind(), "error", err)
	}
}

func (a *Agent) openObserver() error {
	dir := filepath.Join(a.cfg.State, ringDir)
	a.observer = observe.New(dir, a.outbox, a.boot, observe.Config{Provider: a.provider, Logger: a.log})
	a.opened = append(a.opened, a.observer)
	a.sampler = sample.New(a.outbox, a.boot, sample.Config{Logger: a.log})
	return nil
}

// watchers are told of every call: one counts it, the other may keep a row.
type watchers struct {
	count  *observe.Observer
	sample *sample.Sampler
}

// Served implements infer.Observer.
func (w watchers) Served(c *infer.Call) {
	w.count.Served(c)
	w.sample.Served(c)
}

// openTruths gets ready to fetch what others found out about predictions.
func (a *Agent) openTruths() error {
	if a.lost == nil {
		a.truths = truth.New(a.cfg.State, &truth.HTTP{Client: a.client(), Base: a.identity.DeviceAPI()}, a.observer, a.log)
	}
	return nil
}

func (a *Agent) openEngine() error {
	limits := a.cfg.Calls
	limits.Concurrency = cmp.Or(limits.Concurrency, a.share.concurrency)
	a.engine = infer.New(a.cfg.Runtime, infer.Config{
		Limits: limits, Models: a.cfg.Models, Observer: watchers{a.observer, a.sampler}, Hung: a.onHung, ChallengerHung: a.onChallengerHung, Log: a.log,
	})
	return nil
}

func (a *Agent) provider(model, role string) string {
	list := a.engine.Status()
	if role != infer.RolePrimary {
		list = a.engine.Challengers()
	}
	for _, s := range list {
		if s.Model == model && s.Role == role {
			return s.Provider
		}
	}
	return ""
}

// onChallengerHung journals that a challenger is to blame for a call that does
// not return. The primary release goes on, so nothing is replaced.
func (a *Agent) onChallengerHung(model string, d release.Digest) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := a.updater.Hung(ctx, model, d); err != nil {
		a.log.Error("hung challenger is not journaled", "model", model, "release", d.String(), "error", err)
	}
}

// onHung journals who is to blame, then asks for the process to be replaced.
func (a *Agent) onHung(model string, d release.Digest) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := a.updater.Hung(ctx, model, d)
	select {
	case a.hung <- errors.Join(ErrRestart, err):
	default:
	}
}

func (a *Agent) openUpdater() error {
	files, err := slots.OS(a.cfg.State)
	if err != nil {
		return err
	}
	a.files, a.opened = files, append(a.opened, files)
	held, err := slots.Open(files, a.cfg.State)
	if err != nil {
		return fmt.Errorf("open models: %w", err)
	}
	puller, err := a.openPuller(held)
	if err != nil {
		return err
	}
	a.updater, err = updater.New(updater.Config{
		FS: files, Slots: held, Puller: puller,
		Trier:  trial.New(trial.Config{Args: a.cfg.TrialArgs, Providers: a.share.providers, AgentVersion: a.cfg.Version, Log: a.log}),
		Engine: a.engine, Unclean: a.boot.Unclean, MemoryBudget: a.share.memory,
		OnActive: a.onActive, Events: a.tell, Stamp: a.boot.Stamp, Limits: a.cfg.Limits, Log: a.log,
	})
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	if d := a.updater.Held(); d != nil {
		a.observer.Apply(d.GetSettings())
		a.sampler.Apply(d.GetSettings())
	}
	return nil
}

func (a *Agent) openPuller(held *slots.Slots) (updater.Puller, error) {
	if a.lost != nil {
		return a.withoutIdentity(held)
	}
	store, err := trust.Open(filepath.Join(a.cfg.State, trustDir), a.identity.RootDigest())
	if err != nil {
		return nil, fmt.Errorf("open trust: %w", err)
	}
	source := &pull.HTTP{Client: a.client(), Base: a.identity.DeviceAPI()}
	a.puller = pull.New(pull.Config{
		Blobs: source, Metadata: source, Trust: store, Deltas: source, Held: held.Files,
		Events: a.tell, Now: a.identity.Now, Log: a.log,
	})
	return a.puller, nil
}

// client asks the identity for its TLS configuration at every connection, so
// that a renewed certificate is used without a restart.
func (a *Agent) client() *http.Client {
	transport := &http.Transport{
		DialTLSContext: dialWith(&net.Dialer{Timeout: answerTimeout}, a.identity.TLS),
		// A model's files come over one or two connections; idle ones cost a
		// metered link its keep-alives.
		MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: answerTimeout,
	}
	a.opened = append(a.opened, closer(func() error { transport.CloseIdleConnections(); return nil }))
	return &http.Client{Transport: transport}
}

// answerTimeout bounds a connection with its handshake, and the wait for an
// answer: a slow link is fine, a silent one is not.
const answerTimeout = 30 * time.Second

// closer is a function that closes.
type closer func() error

// Close implements io.Closer.
func (c closer) Close() error { return c() }

// onActive counts a release's calls against its own baseline, from its first
// call on.
func (a *Agent) onActive(r infer.Release) error {
	raw, err := os.ReadFile(r.Path(r.Manifest.Baseline))
	if err != nil {
		return fmt.Errorf("read baseline: %w", err)
	}
	b, err := sketch.Decode(raw)
	if err != nil {
		return fmt.Errorf("read baseline: %w", err)
	}
	a.sampler.SetRelease(r.Digest, r.Role, r.Manifest)
	return a.observer.SetRelease(r.Manifest.Model, r.Digest, r.Role, r.Manifest, b)
}

func (a *Agent) openServer() error {
	a.server = serve.New(a.engine, serve.Config{
		Listen: a.cfg.Listen, Socket: a.cfg.Socket, GRPC: a.cfg.GRPC, GRPCSocket: a.cfg.GRPCSocket,
		Version: a.cfg.Version, Device: a.device(), Traces: a.cfg.Traces, Assigned: a.assigned,
		Runtime: a.cfg.Runtime.Info(), Challengers: a.engine.Challengers, Labels: a.observer, Agent: a.status, Log: a.log,
	})
	return nil
}

// assigned reports whether the control plane wants the model here.
func (a *Agent) assigned(model string) bool {
	for _, m := range a.updater.States() {
		if m.GetModel() == model && (len(m.GetTarget()) > 0 || len(m.GetActive()) > 0) {
			return true
		}
	}
	return false
}

func (a *Agent) openUplink() (err error) {
	if a.lost != nil {
		return nil
	}
	a.uplink, err = uplink.New(uplink.Config{
		Device: a.identity.Device(), Brokers: a.identity.MQTT(), TLS: a.identity.TLS,
		Outbox: a.outbox, Hello: a.hello, Report: a.reportUp, Stamp: a.boot.Stamp,
		Desired: a.desired, ServerTime: a.identity.TrustedTime, Logger: a.log,
	})
	if err != nil {
		return fmt.Errorf("make uplink: %w", err)
	}
	a.applySettings(a.updater.Held().GetSettings())
	return nil
}

// desired takes a message of the control plane. That truths wait is no part of
// its generation [P-9.3].
func (a *Agent) desired(d *protocol.Desired) {
	a.truths.Tell(d.GetSettings().GetTruths())
	a.updater.Desired(d)
}

func (a *Agent) applySettings(s *protocol.Settings) {
	a.observer.Apply(s)
	a.sampler.Apply(s)
	if a.lost != nil {
		return
	}
	a.uplink.SetReportEvery(time.Duration(s.GetReportMs()) * time.Millisecond)
}
