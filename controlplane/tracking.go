package controlplane

import (
	"context"
	"net/http"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/controlplane/mlflow"
	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// Names of what data scientists' things are kept in.
const (
	trackingBucket = "tracking"  // checkpoints
	filesBucket    = "artifacts" // paths of artifacts
)

// openTracking opens what data scientists log, and the files that come with it.
func (s *Server) openTracking(ctx context.Context) (err error) {
	checkpoints, err := kvstore.Open(ctx, s.broker.Conn(), trackingBucket)
	if err != nil {
		return err
	}
	conn, err := s.broker.Connect("tracking") // histories are read over it, so it is one of its own
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { conn.Close(); return nil })
	s.tracking, err = tracking.Open(ctx, tracking.Config{Conn: conn, Bucket: checkpoints, Logger: s.cfg.Logger, MaxBytes: s.cfg.TrackingBytes})
	if err != nil {
		return err
	}
	s.onStop(s.tracking.Close)
	paths, err := kvstore.Open(ctx, s.broker.Conn(), filesBucket)
	if err != nil {
		return err
	}
	blobs, err := artifact.OpenLocal(artifact.Config{Dir: s.dir("artifacts")})
	if err != nil {
		return err
	}
	s.files, err = mlflow.OpenFiles(ctx, blobs, paths)
	return err
}

// withMLflow gives MLflow's clients their paths, and next all others.
func (s *Server) withMLflow(next http.Handler) http.Handler {
	clients := mlflow.New(mlflow.Config{
		Store: s.tracking, Files: s.files, Auth: s.access, Releases: s.service, Journal: s.service, Log: s.cfg.Logger,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if mlflow.Serves(r.URL.Path) {
			clients.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
