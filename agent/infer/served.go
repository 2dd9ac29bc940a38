package infer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

// served is one loaded release. It is closed when nobody refers to it any more:
// the lane holds one reference, every call another.
type served struct {
	digest   release.Digest
	manifest *release.Manifest
	release  Release
	variant  string
	session  Session
	check    *checker
	// batchable says that rows of different calls can share a run.
	batchable bool
	since     time.Time

	refs    atomic.Int64
	onClose func(*served)
	done    chan struct{} // closed with the session

	calls, rows, failed, refused atomic.Uint64
}

func newServed(r Release) (*served, error) {
	if r.Manifest == nil {
		return nil, fmt.Errorf("release %s has no manifest", r.Digest.Short())
	}
	v, err := r.Graph()
	if err != nil {
		return nil, err
	}
	check, err := newChecker(&r.Manifest.Schema)
	if err != nil {
		return nil, fmt.Errorf("schema of %s %s: %w", r.Manifest.Model, r.Manifest.Version, err)
	}
	s := &served{
		digest: r.Digest, manifest: r.Manifest, release: r, variant: v.Name,
		check: check, batchable: batchable(&r.Manifest.Schema), since: time.Now(), done: make(chan struct{}),
	}
	s.refs.Store(1)
	return s, nil
}

func (s *served) same(o *served) bool {
	return s.digest == o.digest && s.variant == o.variant && s.release.Dir == o.release.Dir
}

// ref takes a reference unless the release is already being closed.
func (s *served) ref() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *served) unref() {
	if s.refs.Add(-1) == 0 {
		s.onClose(s)
	}
}

// warm runs the first golden row, or zeros when there is none, so that the
// first caller does not pay for the library's first run.
func (s *served) warm(ctx context.Context) error {
	in, rows, err := s.warmInputs()
	if err != nil {
		return err
	}
	return s.session.Run(ctx, rows, in, s.emptyOutputs())
}

func (s *served) warmInputs() ([]Tensor, int, error) {
	if g, err := s.golden(); err == nil && g.Rows > 0 {
		if in, err := GoldenInputs(&s.manifest.Schema, g); err == nil {
			return firstRow(&s.manifest.Schema, in, g.Rows)
		}
	}
	return zeroInputs(&s.manifest.Schema)
}

func (s *served) golden() (*release.Golden, error) {
	f, err := os.Open(s.release.Path(s.manifest.Golden))
	if err != nil {
		return nil, fmt.Errorf("open golden vectors: %w", err)
	}
	defer f.Close()
	return release.DecodeGolden(f)
}

// deadline of a run. The trial measures one row; a batch may take that for each.
func (s *served) deadline(rows int) time.Duration {
	return max(MinDeadline, DeadlineFactor*s.release.P95*time.Duration(max(rows, 1)))
}

func (s *served) emptyOutputs() []Tensor {
	out := make([]Tensor, len(s.manifest.Schema.Outputs))
	for i, o := range s.manifest.Schema.Outputs {
		out[i].Name, out[i].Datatype = o.Name, o.Datatype
	}
	return out
}

// outputs are what resp holds from an earlier answer, made to fit this release.
func (s *served) outputs(resp *Response) []Tensor {
	specs := s.manifest.Schema.Outputs
	if len(resp.all) != len(specs) {
		resp.all = s.emptyOutputs()
		return resp.all
	}
	for i, o := range specs {
		resp.all[i].Name, resp.all[i].Datatype = o.Name, o.Datatype
	}
	return resp.all
}

// respond turns a finished call into the answer with the outputs asked for.
func (s *served) respond(req *Request, c *Call, resp *Response) {
	*resp = Response{
		Model: c.Model, Version: s.manifest.Version, Release: s.digest, Role: c.Role, ID: c.ID, Rows: c.Rows,
		Latency: c.Latency, Waited: c.Waited, all: resp.all, chosen: resp.chosen[:0],
	}
	switch {
	case errors.Is(c.Err, ErrHung):
		resp.all, resp.Held = nil, true // the run still writes there
	case c.Err != nil:
	case len(req.Outputs) == 0:
		resp.Outputs = resp.all
	default:
		for _, name := range req.Outputs {
			resp.chosen = append(resp.chosen, c.Outputs[s.check.output(name)])
		}
		resp.Outputs = resp.chosen
	}
}

func (s *served) status(l *lane) Status {
	return Status{
		Model: s.manifest.Model, Version: s.manifest.Version, Release: s.digest, Role: RolePrimary,
		Variant: s.variant, Provider: s.session.Provider(), Since: s.since,
		Calls: s.calls.Load(), Rows: s.rows.Load(), Failed: s.failed.Load(), Refused: s.refused.Load(),
		Running: l.running(), Waiting: int(l.waiting.Load()), Hung: int(l.hung.Load()),
		Deadline: s.deadline(1),
	}
}
