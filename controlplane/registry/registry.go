// Package registry knows the models: which versions publishers released, where
// each stands in its life, and the signed metadata that devices believe.
//
// A version appears in one way only: publishers upload a targets file that is
// signed by enough of their keys and names a manifest that is there with all its
// files, and whose graphs, baseline and golden vectors fit its schema. The
// registry signs nothing but the two online roles of package trust: which
// targets file is the newest, and that this was still so a moment ago.
//
// What it keeps lies in one bucket:
//
//	meta.ROLE.N.DIGEST    metadata files, byte for byte as uploaded or signed
//	head                  which of them count; one write to it is the commit
//	version.MODEL.DIGEST  when it was published, its stage and how it came there
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// What the registry may answer. Refused metadata also wraps a reason of package
// trust, refused releases one of graph or release.
var (
	// ErrNotFound says that there is no such model, version or metadata.
	ErrNotFound = errors.New("not in the registry")
	// ErrNoRoot says that publishers have not installed a root of trust yet.
	ErrNoRoot = errors.New("no root of trust is installed: run `vedette key init` and push the root")
	// ErrStale says that what was to be changed has changed meanwhile.
	ErrStale = errors.New("changed by someone else meanwhile: read it again and repeat")
	// ErrMissingBlob says that a file of a release was not uploaded.
	ErrMissingBlob = errors.New("file was not uploaded")
	// ErrRelease says that a release does not hold together.
	ErrRelease = errors.New("release does not hold together")
	// ErrRefused says that signed metadata was not accepted.
	ErrRefused = errors.New("signed metadata refused")
)

// Lifetimes of online metadata. A device that hears nothing new for longer than
// the timestamp's lifetime takes no new release, so it bounds how long a frozen
// server goes unnoticed, and how long the server may be down without harm.
const (
	DefaultTimestampLifetime = 7 * 24 * time.Hour
	DefaultSnapshotLifetime  = 30 * 24 * time.Hour
	// keepVersions of targets and snapshot are served, for devices that are in
	// the middle of a refresh.
	keepVersions = 8
	// resignCheck is how often Run looks whether something expires soon.
	resignCheck = 10 * time.Minute
)

// Bucket is where the registry keeps its state.
type Bucket interface {
	List(ctx context.Context, prefix string) ([]kvstore.Entry, error)
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	CompareAndSet(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string) error
}

// Blobs are the uploaded files. An error means that there is no such blob, or
// that it cannot be read now.
type Blobs interface {
	Open(ctx context.Context, d release.Digest) (content io.ReadSeekCloser, size int64, err error)
}

// Config is what a Registry works with. Bucket, Blobs and KeyDir are required.
type Config struct {
	Bucket Bucket
	Blobs  Blobs
	// KeyDir keeps the two online keys. They are made at the first start.
	KeyDir string

	Now               func() time.Time // time.Now when nil
	TimestampLifetime time.Duration    // DefaultTimestampLifetime when 0
	SnapshotLifetime  time.Duration    // DefaultSnapshotLifetime when 0
	// Changed is called after a publication or a change of stage, with the names
	// of the models. It must not call back.
	Changed func(models ...string)
	Log     *slog.Logger // discards when nil
}

// Version is one release of a model.
type Version struct {
	trust.Target

	Manifest    *release.Manifest // nil when its blob cannot be read
	Published   time.Time
	PublishedBy string
	Stage       operator.Stage
	StageLog    []operator.StageChanged // newest first
	Revision    string                  // of the stage
	BelowFloor  bool                    // devices refuse it
	Withdrawn   bool                    // no longer among the signed targets
}

// Model is a model with its versions.
type Model struct {
	Name       string
	Floor      uint64 // lowest sequence devices accept, signed
	Production string // version in that stage; empty for none
	Updated    time.Time
	Versions   []Version // highest sequence first
}

// Registry is safe for concurrent use.
type Registry struct {
	cfg                 Config
	snapshot, timestamp *trust.Key

	writing sync.Mutex // held by whoever changes something; one writer at a time

	mu   sync.RWMutex // guards view, which is replaced, never changed
	view *view
}

// New reads what is there and makes the online keys at the first start.
func New(ctx context.Context, cfg Config) (*Registry, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.TimestampLifetime == 0 {
		cfg.TimestampLifetime = DefaultTimestampLifetime
	}
	if cfg.SnapshotLifetime == 0 {
		cfg.SnapshotLifetime = DefaultSnapshotLifetime
	}
	if cfg.Changed == nil {
		cfg.Changed = func(...string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{cfg: cfg}
	var err error
	if r.snapshot, err = onlineKey(filepath.Join(cfg.KeyDir, "snapshot.key")); err != nil {
		return nil, err
	}
	if r.timestamp, err = onlineKey(filepath.Join(cfg.KeyDir, "timestamp.key")); err != nil {
		return nil, err
	}
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("load registry: %w", err)
	}
	return r, r.reconcile(ctx)
}

// Run signs online metadata again before it expires, until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	ticker := time.NewTicker(resignCheck)
	defer ticker.Stop()
	for {
		if err := r.Resign(ctx, r.cfg.Now()); err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("online metadata not signed again", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *Registry) current() *view {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.view
}
