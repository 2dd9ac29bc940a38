package controlplane

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/access"
	"github.com/vedette-edge/vedette/controlplane/api"
	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/challenger"
	"github.com/vedette-edge/vedette/controlplane/desired"
	"github.com/vedette-edge/vedette/controlplane/drift"
	"github.com/vedette-edge/vedette/controlplane/fleet"
	"github.com/vedette-edge/vedette/controlplane/history"
	"github.com/vedette-edge/vedette/controlplane/incident"
	"github.com/vedette-edge/vedette/controlplane/ingest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/ledger"
	"github.com/vedette-edge/vedette/controlplane/mlflow"
	"github.com/vedette-edge/vedette/controlplane/promotion"
	"github.com/vedette-edge/vedette/controlplane/registry"
	"github.com/vedette-edge/vedette/controlplane/retrain"
	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/controlplane/sample"
	"github.com/vedette-edge/vedette/controlplane/tracking"
	"github.com/vedette-edge/vedette/controlplane/truth"
	"github.com/vedette-edge/vedette/controlplane/validation"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// Server is a control plane. New makes it, Start serves, Stop undoes Start in
// reverse order.
type Server struct {
	cfg Config

	ca         *access.CA
	broker     *broker.Broker
	buckets    map[string]kvstore.Bucket
	blobs      *artifact.Store
	deltas     *artifact.Deltas
	ledger     *ledger.Ledger
	access     *access.Authority
	registry   *registry.Registry
	fleet      *fleet.Fleet
	monitor    *drift.Monitor
	history    *history.History
	challenger *challenger.Judge
	desired    *desired.Desired
	runner     *runner.Runner
	retrain    *retrain.Trigger
	incidents  *incident.Board
	validation *validation.Store
	promotion  *promotion.Keeper
	ingest     *ingest.Ingest
	tracking   *tracking.Store
	files      *mlflow.Files
	service    *api.Service
	truths     *truth.Service
	samples    *sample.Store

	people, devices net.Listener

	published       chan struct{} // has a value when the registry has changed
	changedRollouts *pending
	failed          failure
	undo            []func(ctx context.Context) error // what Start has begun, in order
}

// New checks the configuration. It touches nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Data == "" {
		return nil, errors.New("a control plane needs a data directory")
	}
	if (cfg.TLSCert == "") != (cfg.TLSKey == "") {
		return nil, errors.New("TLS for the operator API needs a certificate and its key")
	}
	return &Server{
		cfg: cfg.withDefaults(), buckets: map[string]kvstore.Bucket{},
		published: make(chan struct{}, 1), failed: make(failure, 1), changedRollouts: newPending(),
	}, nil
}

// slowStep is after what time a step of a start is named in the log.
const slowStep = 15 * time.Second

// Start brings everything up in the order of its dependencies. ctx bounds the
// start alone; Stop is needed after an error too.
func (s *Server) Start(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"listen", s.listen},
		{"open storage", s.openStorage},
		{"open access", s.openAccess},
		{"open registry", s.openRegistry},
		{"open fleet", s.openFleet},
		{"open history", s.openHistory},
		{"open incidents", s.openIncidents},
		{"open validation", s.openValidation},
		{"open ground truth", s.openGroundTruth},
		{"open rollouts", s.openRollouts},
		{"open retraining", s.openRetrain},
		{"open tracking", s.openTracking},
		{"open challenges", s.openChallenges},
		{"open promotion", s.openPromotion},
		{"join the service", s.openService},
		{"follow devices", s.openIngest},
		{"tell of incidents", s.followIncidents},
		{"promote versions", s.followPromotion},
		{"serve people", s.servePeople},
		{"serve devices", s.serveDevices},
		{"say where", s.writeAddresses},
	} {
		slow := time.AfterFunc(slowStep, func() {
			s.cfg.Logger.Warn("start takes long", "step", step.name, "after", slowStep)
		})
		err := step.do(ctx)
		slow.Stop()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	s.broker.Open(s.access) // last: whoever devices talk to is there now
	s.cfg.Logger.Info("control plane started", "http", s.Addr().HTTP, "devices", s.Addr().Devices, "mqtt", s.Addr().MQTT)
	return nil
}

// Stop ends what Start began. What has not ended when ctx does is cut off. It
// may be called again, and without Start.
func (s *Server) Stop(ctx context.Context) error {
	if len(s.undo) == 0 {
		return nil
	}
	var errs []error
	for _, undo := range slices.Backward(s.undo) {
		errs = append(errs, undo(ctx))
	}
	s.undo = nil
	err := errors.Join(errs...)
	s.cfg.Logger.Info("control plane stopped", "clean", err == nil)
	return err
}

// Failed tells that a stage ended by itself: the server cannot go on and should
// be stopped.
func (s *Server) Failed() <-chan error { return s.failed }

// Addr tells where the server listens; after Start.
func (s *Server) Addr() Addresses {
	return Addresses{HTTP: s.people.Addr().String(), Devices: s.devices.Addr().String(), MQTT: s.broker.MQTTAddr()}
}

// onStop registers how to undo a step.
func (s *Server) onStop(f func(ctx context.Context) error) { s.undo = append(s.undo, f) }

func (s *Server) listen(ctx context.Context) (err error) {
	if err := os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if s.people, err = listen(ctx, s.cfg.HTTP, "--http"); err != nil {
		return err
	}
	s.onStop(func(context.Context) error { return ignoreClosed(s.people.Close()) })
	if s.devices, err = listen(ctx, s.cfg.Devices, "--devices"); err != nil {
		return err
	}
	s.onStop(func(context.Context) error { return ignoreClosed(s.devices.Close()) })
	return nil
}

func listen(ctx context.Context, addr, flag string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: another control plane may be running; stop it or choose another address with %s", err, flag)
	}
	return l, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) dir(name string) string { return filepath.Join(s.cfg.Data, name) }

func (s *Server) openStorage(ctx context.Context) (err error) {
	if s.ca, err = access.OpenCA(s.dir("pki"), s.cfg.Hosts, nil); err != nil {
		return err
	}
	s.broker, err = broker.Start(broker.Config{Dir: s.dir("nats"), MQTT: s.cfg.MQTT, TLS: s.ca.ServerTLS(), Logger: s.cfg.Logger})
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { s.broker.Close(); return nil })
	for _, name := range []string{"access", "registry", "fleet", fleetFold, driftFold, historyFold, challengeBucket, "cursors", "retrain", incidentBucket, validationBucket, promotionBucket, "deltas", truthBucket, sampleBucket} {
		if s.buckets[name], err = kvstore.Open(ctx, s.broker.Conn(), name); err != nil {
			return err
		}
	}
	if s.blobs, err = artifact.Open(ctx, s.broker.Conn(), artifact.Config{Dir: s.dir("blobs"), Logger: s.cfg.Logger}); err != nil {
		return err
	}
	s.onStop(func(context.Context) error { s.blobs.Close(); return nil })
	if s.deltas, err = artifact.OpenDeltas(ctx, s.blobs, s.buckets["deltas"], artifact.DeltasConfig{Logger: s.cfg.Logger}); err != nil {
		return err
	}
	if s.ledger, err = ledger.Open(ctx, s.broker.Conn(), ledger.Options{Blobs: s.blobs, Logger: s.cfg.Logger}); err != nil {
		return err
	}
	s.run("ledger anchors", func(ctx context.Context) error { return s.ledger.Run(ctx, 0) })
	return nil
}

// Buckets of the folds' checkpoints.
const (
	fleetFold = "fleet-fold"
	driftFold = "drift-fold"
	// historyFold holds what is not in the archive yet.
	historyFold = "history-fold"
)

func (s *Server) openAccess(ctx context.Context) (err error) {
	deviceAPI, mqtt := s.publicURLs()
	s.access, err = access.Open(ctx, access.Config{
		CA: s.ca, Dir: s.cfg.Data, Bucket: s.buckets["access"],
		DeviceAPI: deviceAPI, MQTT: []string{mqtt},
		Cut: s.broker.Disconnect, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { s.access.Close(); return nil })
	return nil
}

// publicURLs are what devices are told to connect to.
func (s *Server) publicURLs() (deviceAPI, mqtt string) {
	host := "localhost"
	if len(s.cfg.Hosts) > 0 {
		host = s.cfg.Hosts[0]
	}
	return "https://" + net.JoinHostPort(host, portOf(s.devices.Addr().String())),
		"mqtts://" + net.JoinHostPort(host, portOf(s.broker.MQTTAddr()))
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr) // a listener's own address is well formed
	return port
}

func (s *Server) openRegistry(ctx context.Context) (err error) {
	s.registry, err = registry.New(ctx, registry.Config{
		Bucket: s.buckets["registry"], Blobs: s.blobs, KeyDir: s.dir("trust"),
		Changed: s.onModels, Log: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	s.run("registry", s.registry.Run)
	s.run("deltas", s.deltas.Run)
	return nil
}

func (s *Server) openFleet(ctx context.Context) (err error) {
	if s.fleet, err = fleet.Open(ctx, s.buckets["fleet"], fleet.Config{Journal: s.ledger, OnEvent: s.onEvent, Logger: s.cfg.Logger}); err != nil {
		return err
	}
	s.monitor = drift.New(s.cfg.Drift)
	for _, d := range s.fleet.Devices(nil) {
		s.monitor.SetLabels(d.ID, d.Labels)
	}
	s.watchReleases(ctx)
	return nil
}

func (s *Server) openRollouts(ctx context.Context) (err error) {
	s.desired = desired.New(s.broker.Conn(), s.ledger, desired.Config{Truths: s.truths.Newest, Logger: s.cfg.Logger})
	s.run("desired state", s.desired.Run)
	s.runner, err = runner.Open(ctx, runner.Config{
		Ledger: s.ledger, Fleet: s.fleet, Evidence: s.monitor, Releases: published{s.registry}, Desired: s.desired,
		Sizes: sizes{s.registry, s.deltas}, Clearance: validation.Clearance{Store: s.validation},
		OnChange: s.onRollout, Logger: s.cfg.Logger,
	})
	return err
}

// openIngest begins to take what devices send, and waits until the folds hold
// what was stored before: gates and pages must not judge by half of it.
func (s *Server) openIngest(ctx context.Context) (err error) {
	s.ingest, err = ingest.Start(ctx, s.broker.Conn(), ingest.Config{
		Cursors: s.buckets["cursors"], OnHello: s.onHello, Samples: s.samples, OnPresence: s.fleet.SetPresence, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	s.onStop(func(ctx context.Context) error { return s.ingest.Stop(ctx) })
	fleetReady, driftReady, historyReady := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.run("fleet fold", func(ctx context.Context) error {
		return s.ingest.Fold(ctx, ingest.Fold{
			Name: "fleet", Bucket: s.buckets[fleetFold],
			Load: s.fleet.Load, Dirty: s.fleet.Dirty,
			Apply: func(seq uint64, a *protocol.Accepted) {
				s.fleet.Apply(seq, a)
				s.service.Observed(a)
			},
			Ready: func() { s.fleet.Live(); close(fleetReady) },
		})
	})
	s.run("drift fold", func(ctx context.Context) error {
		return s.ingest.Fold(ctx, ingest.Fold{
			Name: "drift", Bucket: s.buckets[driftFold],
			Load: s.monitor.Load, Apply: s.monitor.Apply, Dirty: s.monitor.Dirty,
			Ready: func() { close(driftReady) },
		})
	})
	s.foldHistory(historyReady)
	for _, ready := range []<-chan struct{}{fleetReady, driftReady, historyReady, s.desired.Ready()} {
		select {
		case <-ready:
		case err := <-s.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.run("fleet", s.fleet.Run)
	s.run("fleet changes", s.followFleet)
	s.run("lab", s.followLab)
	s.run("releases", s.followReleases)
	s.run("rollouts", s.runner.Run)
	s.run("drift", s.evaluate)
	s.run("history", s.history.Run)
	s.run("challenges", s.challenger.Run)
	return nil
}

// writeAddresses leaves word of where the server listens, for tools that
// started it on free ports.
func (s *Server) writeAddresses(context.Context) error {
	b, err := json.Marshal(s.Addr())
	if err != nil {
		return err
	}
	path := s.dir(AddressFile)
	if err := atomicfile.Write(path, b); err != nil {
		return fmt.Errorf("write addresses: %w", err)
	}
	s.onStop(func(context.Context) error {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	return nil
}

// serve runs an HTTP server on a listener until Stop.
func (s *Server) serve(l net.Listener, h *http.Server, start func(net.Listener) error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := start(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed.tell(fmt.Errorf("serve %s: %w", l.Addr(), err))
		}
	}()
	s.onStop(func(ctx context.Context) error {
		defer func() { <-ended }()
		if err := h.Shutdown(ctx); err != nil {
			return errors.Join(err, h.Close())
		}
		return nil
	})
}

// failure holds the first stage that ended by itself.
type failure chan error

func (f failure) tell(err error) {
	select {
	case f <- err:
	default:
	}
}

// errEnded says that a stage ended without a reason of its own.
var errEnded = errors.New("it ended by itself")

// run starts a stage that lives until Stop. One that ends earlier fails the server.
func (s *Server) run(name string, stage func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := stage(ctx); ctx.Err() == nil {
			s.failed.tell(fmt.Errorf("%s: %w", name, cmp.Or(err, errEnded)))
		}
	}()
	s.onStop(func(stop context.Context) error {
		cancel()
		select {
		case <-ended:
			return nil
		case <-stop.Done():
			return fmt.Errorf("%s did not end: %w", name, stop.Err())
		}
	})
}

// How long a client may take to say what it wants, and keep a connection
// without saying anything.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)
