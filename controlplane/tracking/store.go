package tracking

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// ErrClosed says that the store was closed.
var ErrClosed = errors.New("the store of tracked runs is closed")

// Store keeps experiments, runs and models. Its methods may be called by many at
// once; those that change something return when the change is stored.
type Store struct {
	journal journal
	now     func() time.Time
	log     *slog.Logger
	seed    maphash.Seed

	mu sync.RWMutex // guards what follows; what cells hold is never changed and needs no lock
	x  *index

	// busy has one lock for each share of the names by which things are changed: a
	// change is checked, stored and taken in before the next one of that name is
	// checked.
	busy [256]sync.Mutex

	commits chan *commit
	workers sync.WaitGroup
	room    quota
	quit    chan struct{} // closed by Close
	closing sync.Once
	point   *checkpoints // nil without a bucket
}

// Config of a store. Conn and Bucket go together: without them the store goes
// with the process.
type Config struct {
	Conn   *nats.Conn       // to the broker that keeps the journal; best one of its own: histories are read over it
	Bucket kvstore.Bucket   // keeps checkpoints, for this store alone
	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: none
	// Checkpoint is how often what has changed is written down, DefaultCheckpoint if 0.
	Checkpoint time.Duration
	// KeepDeleted is for how long deleted runs can be restored, DefaultKeepDeleted
	// if 0.
	KeepDeleted time.Duration
	// MaxBytes bounds the journal, DefaultMaxBytes if 0. Beyond it nothing is
	// written any more and everything can be read.
	MaxBytes uint64
}

// Open returns the store of the broker behind cfg.Conn. ErrDamaged when the
// journal has lost records since the last checkpoint.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Conn == nil {
		return start(ctx, &memory{}, cfg)
	}
	j, err := openStream(ctx, cfg.Conn)
	if err != nil {
		return nil, err
	}
	return start(ctx, j, cfg)
}

// NewMemory is a store that goes with the process, for tests of other packages.
// Close ends its goroutine. A failure to make it is a fault of this package, so it panics.
func NewMemory() *Store {
	s, err := start(context.Background(), &memory{}, Config{})
	if err != nil {
		panic(err)
	}
	return s
}

// start reads a journal into a store and lets changes in.
func start(ctx context.Context, j journal, cfg Config) (*Store, error) {
	s := &Store{
		journal: j, now: cfg.Now, log: cfg.Logger, seed: maphash.MakeSeed(), x: newIndex(),
		commits: make(chan *commit), quit: make(chan struct{}), room: quota{most: cmp.Or(cfg.MaxBytes, DefaultMaxBytes)},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	err := s.load(ctx, cfg)
	if err == nil {
		err = s.room.count(ctx, j)
	}
	if err != nil {
		return nil, fmt.Errorf("open tracked runs: %w", err)
	}
	s.workers.Go(s.commitAll)
	if s.point != nil {
		s.workers.Go(s.keepCheckpoints)
	}
	if err := s.makeDefault(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	if cfg.Conn != nil {
		s.workers.Go(func() { s.keepPurged(cmp.Or(cfg.KeepDeleted, DefaultKeepDeleted)) })
	}
	return s, nil
}

// load restores the checkpoint and takes in what the journal has beyond it.
func (s *Store) load(ctx context.Context, cfg Config) (err error) {
	if cfg.Bucket != nil {
		if s.point, err = newCheckpoints(cfg.Bucket, cfg.Checkpoint); err != nil {
			return err
		}
		err := s.point.load(ctx, s.journal, s.x)
		if errors.Is(err, errTorn) {
			s.log.Warn("checkpoint of runs cannot be read, reading the whole journal", "error", err)
			s.x = newIndex()
			err = s.point.empty(ctx)
		}
		if err != nil {
			return err
		}
	}
	return s.catchUp(ctx)
}

// Close waits for what is being stored, writes the index down and ends. ctx
// bounds it.
func (s *Store) Close(ctx context.Context) (err error) {
	s.closing.Do(func() {
		close(s.quit)
		s.workers.Wait()
		if s.point != nil {
			err = s.point.write(ctx, s)
		}
	})
	return err
}

// hold waits until nobody else changes what has that name, and returns how to
// let others go on.
func (s *Store) hold(kind, name string) (release func()) {
	m := &s.busy[s.share(kind, name)]
	m.Lock()
	return m.Unlock
}

// share is the lock of a name.
func (s *Store) share(kind, name string) int {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(kind) // never fails
	_, _ = h.WriteString(name)
	return int(h.Sum64() % uint64(len(s.busy)))
}

// untilClosed is a context that ends when the store is closed.
func (s *Store) untilClosed() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-s.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Kinds of names that are held. The catalogs are small and change seldom: one
// name for each.
const (
	holdExperiments = "experiments"
	holdModels      = "models"
	holdRun         = "run "
	holdLogged      = "logged "
)

// nowMS is the server's clock in Unix milliseconds.
func (s *Store) nowMS() int64 { return s.now().UnixMilli() }

// newID is 32 random hex digits, as MLflow names runs.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Default is the experiment of runs that name none. MLflow's clients take it for
// granted.
const (
	DefaultID   = "0"
	DefaultName = "Default"
)

func (s *Store) makeDefault(ctx context.Context) error {
	if _, err := s.Experiment(DefaultID); err == nil {
		return nil
	}
	at := s.nowMS()
	return s.store(ctx, &record{AtMS: at, Experiment: &Experiment{
		ID: DefaultID, Name: DefaultName, ArtifactURI: experimentPlace(DefaultID), CreatedMS: at, UpdatedMS: at,
	}})
}

// artifactRoot is the scheme of the artifact proxy: clients turn it into the
// address of the tracking server.
const artifactRoot = "mlflow-artifacts:/"

func experimentPlace(id string) string { return artifactRoot + id }

// runPlace is where a run's artifacts are when nothing else was said.
func runPlace(e *Experiment, run string) string {
	return cmp.Or(e.ArtifactURI, experimentPlace(e.ID)) + "/" + run + "/artifacts"
}

func modelPlace(e *Experiment, model string) string {
	return cmp.Or(e.ArtifactURI, experimentPlace(e.ID)) + "/models/" + model + "/artifacts"
}
