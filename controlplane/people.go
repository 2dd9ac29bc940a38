package controlplane

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vedette-edge/vedette/controlplane/api"
	"github.com/vedette-edge/vedette/controlplane/dashboard"
	"github.com/vedette-edge/vedette/controlplane/deviceapi"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// openService joins what operators read and command. It comes before anything
// that could have news for them.
func (s *Server) openService(context.Context) error {
	ca := s.ca.SHA256()
	deviceAPI, mqtt := s.publicURLs()
	s.service = api.NewService(api.Deps{
		Fleet: s.fleet, Desired: s.desired, Rollouts: s.runner, Registry: s.registry, Blobs: s.blobs,
		Monitor: s.monitor, History: s.history, Challenges: s.desired, Rivals: s.monitor, Verdicts: s.challenger, Retrain: s.retrain, Incidents: s.incidents, Validation: s.validation, Promotions: s.promotion, Lab: s.desired, Ledger: s.ledger, Access: s.access,
		Truths: s.truths, Samples: s.samples, Tracking: s.tracking, Artifacts: s.files,
		Info: api.Info{
			Version: s.cfg.Version, Started: time.Now(), API: s.peopleURL(),
			DeviceAPI: deviceAPI, MQTT: []string{mqtt}, CASHA256: hex.EncodeToString(ca[:]),
			Storage: s.storage,
		},
		Log: s.cfg.Logger,
	})
	return nil
}

func (s *Server) peopleURL() string {
	scheme := "http"
	if s.cfg.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + s.people.Addr().String()
}

// storage tells how full the server is.
func (s *Server) storage(ctx context.Context) (operator.Storage, error) {
	held, err := s.ingest.Storage(ctx)
	if err != nil {
		return operator.Storage{}, err
	}
	free, err := s.diskFree()
	if err != nil {
		return operator.Storage{}, err
	}
	out := operator.Storage{
		Records: held.Messages, RecordBytes: held.Bytes, RecordLimit: held.Limit,
		BlobBytes: uint64(max(s.blobs.Total(), 0)), DiskFreeBytes: free,
	}
	return out, s.historySizes(ctx, &out)
}

// diskFree is how many bytes are free where the data directory is.
func (s *Server) diskFree() (uint64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(s.cfg.Data, &disk); err != nil {
		return 0, fmt.Errorf("measure disk of %s: %w", s.cfg.Data, err)
	}
	return disk.Bavail * uint64(max(disk.Bsize, 0)), nil
}

// servePeople serves the operator API, the pages and the metrics.
func (s *Server) servePeople(context.Context) error {
	routes := api.New(api.Config{Backend: s.service, Auth: s.access, Log: s.cfg.Logger})
	mux := http.NewServeMux()
	mux.Handle(operator.Prefix+"/", routes)
	key, err := dashboard.LoadKey(filepath.Join(s.cfg.Data, "session.key"))
	if err != nil {
		return err
	}
	pages := dashboard.New(dashboard.Config{Service: s.service, Auth: s.access, RunFiles: s.service, Key: key, Log: s.cfg.Logger})
	mux.Handle("/", pages)
	mux.Handle("GET /metrics", s.serveMetrics())
	h := &http.Server{
		Handler: s.withMLflow(mux), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug), // what clients do wrong in TLS
	}
	start := h.Serve
	if s.cfg.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(s.cfg.TLSCert, s.cfg.TLSKey)
		if err != nil {
			return fmt.Errorf("read --tls-cert and --tls-key: %w", err)
		}
		h.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
		start = func(l net.Listener) error { return h.ServeTLS(l, "", "") }
	}
	s.serve(s.people, h, start)
	s.onStop(func(context.Context) error { routes.Close(); pages.Close(); return nil }) // streams first: Shutdown would wait for them
	return nil
}

// serveDevices serves what devices alone may ask for.
func (s *Server) serveDevices(context.Context) error {
	d := deviceapi.New(deviceapi.Config{
		CA: s.ca, Access: s.access, Fleet: s.fleet, Trust: s.registry, Blobs: s.blobs, Deltas: s.deltas, Truths: s.truths,
		Failed: s.failed.tell, Logger: s.cfg.Logger,
	})
	d.Serve(s.devices)
	s.onStop(d.Stop)
	return nil
}
