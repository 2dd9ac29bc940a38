package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/graph"
	"github.com/vedette-edge/vedette/protocol/release"
)

// ErrAbandoned says that the parent went away before the trial had a result.
var ErrAbandoned = errors.New("the process that asked for this trial is gone")

// maxRequest bounds what a child reads of its parent.
const maxRequest = 64 << 10

// Child is the other half of a Trier: it reads a request from in, tries the
// candidate with rt and writes the result to out. It returns when in closes,
// and its process should end then, whatever the candidate is still doing.
func Child(ctx context.Context, rt infer.Runtime, in io.Reader, out io.Writer) error {
	lines := json.NewDecoder(io.LimitReader(in, maxRequest))
	var r request
	if err := lines.Decode(&r); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	say := func(m reply) error { return json.NewEncoder(out).Encode(m) }
	if err := say(reply{Stage: stageReady}); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	var p permit
	if err := lines.Decode(&p); err != nil || !p.Go {
		return errors.Join(ErrAbandoned, err)
	}
	done := make(chan error, 1)
	go func() { done <- examine(ctx, rt, r, say) }()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = lines.Decode(&p) // nothing more is said: it ends when in closes
	}()
	select {
	case err := <-done:
		if err == nil {
			<-closed // the parent weighs this process once more
		}
		return err
	case <-closed:
		return ErrAbandoned
	}
}

// examine tries the candidate and says the result.
func examine(ctx context.Context, rt infer.Runtime, r request, say func(reply) error) error {
	if err := confine(r.MemoryBytes); err != nil {
		return err
	}
	e := &exam{rt: rt, say: say}
	err := e.run(ctx, r)
	var v *verdictError
	switch {
	case errors.As(err, &v):
		e.result.Code, e.result.Message = v.code, v.message
	case err != nil:
		return err
	}
	if err := say(reply{Result: &e.result}); err != nil {
		return fmt.Errorf("say result: %w", err)
	}
	return nil
}

// verdictError ends an exam with a code.
type verdictError struct{ code, message string }

func (e *verdictError) Error() string { return e.code + ": " + e.message }

func verdict(code, format string, args ...any) error {
	return &verdictError{code: code, message: fmt.Sprintf(format, args...)}
}

// exam is one candidate before the board.
type exam struct {
	rt      infer.Runtime
	say     func(reply) error
	result  result
	release infer.Release
	session infer.Session
	golden  *release.Golden
	inputs  []infer.Tensor // golden ones
}

func (e *exam) run(ctx context.Context, r request) error {
	if err := e.prepare(r); err != nil {
		return err
	}
	if err := e.fits(); err != nil {
		return err
	}
	if err := e.say(reply{Stage: stageLoad}); err != nil {
		return err
	}
	session, err := e.rt.Load(ctx, e.release)
	switch {
	case errors.Is(err, infer.ErrProvider):
		return verdict(CodeProvider, "%v", err)
	case err != nil:
		return verdict(CodeLoad, "the runtime could not load the graph: %v", err)
	}
	defer session.Close()
	e.session, e.result.Provider = session, session.Provider()
	if err := e.say(reply{Stage: stageGolden}); err != nil {
		return err
	}
	if err := e.prove(ctx); err != nil {
		return err
	}
	if err := e.say(reply{Stage: stageTime}); err != nil {
		return err
	}
	return e.clock(ctx)
}

// prepare reads what the release says about itself.
func (e *exam) prepare(r request) error {
	raw, err := readFile(filepath.Join(r.Dir, release.ManifestName), release.MaxManifest)
	if err != nil {
		return err
	}
	if release.DigestOf(raw) != r.Digest {
		return fmt.Errorf("manifest in %s is not that of release %s", r.Dir, r.Digest.Short())
	}
	m, err := release.Decode(raw)
	if err != nil {
		return err
	}
	e.release = infer.Release{Digest: r.Digest, Manifest: m, Variant: r.Variant, Provider: r.Provider, Dir: r.Dir}
	f, err := os.Open(e.release.Path(m.Golden))
	if err != nil {
		return fmt.Errorf("open golden vectors: %w", err)
	}
	defer f.Close()
	if e.golden, err = release.DecodeGolden(f); err != nil {
		return verdict(CodeSchema, "the golden vectors cannot be read: %v", err)
	}
	if err := e.golden.Check(&m.Schema); err != nil {
		return verdict(CodeSchema, "%v", err)
	}
	if e.inputs, err = infer.GoldenInputs(&m.Schema, e.golden); err != nil {
		return verdict(CodeSchema, "%v", err)
	}
	return nil
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// fits says whether the variant is for this device and its graph for the schema.
func (e *exam) fits() error {
	info, m := e.rt.Info(), e.release.Manifest
	e.result.Runtime = info.Version
	if need := m.Limits.MinRuntime; older(info.Version, need) {
		return verdict(CodeLoad, "the release needs %s %s, this device has %s: update the agent", info.Name, need, info.Version)
	}
	v, err := e.release.Graph()
	if err != nil {
		return verdict(CodeLoad, "%v", err)
	}
	return checkGraph(e.release.Path(v.Graph), &m.Schema)
}

// checkGraph holds an ONNX file's header against the schema. What is not ONNX is
// left to the runtime, which says better why it cannot load it.
func checkGraph(name string, s *release.Schema) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open graph: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at graph: %w", err)
	}
	g, err := graph.Read(f, info.Size())
	if err != nil {
		return nil
	}
	if err := graph.Check(g, s); err != nil {
		return verdict(CodeSchema, "%v", err)
	}
	return nil
}

// older says whether version have is below need, both like 1.30.0; anything
// after the third number counts for nothing. An unknown one is not.
func older(have, need string) bool {
	var h, n [3]int
	if _, err := fmt.Sscanf(strings.TrimPrefix(have, "v"), "%d.%d.%d", &h[0], &h[1], &h[2]); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(need, "%d.%d.%d", &n[0], &n[1], &n[2]); err != nil {
		return false
	}
	return slices.Compare(h[:], n[:]) < 0
}

// Bounds of the latency measurement: enough runs that 5 in 100 are not one, and
// an end in sight for slow models.
const (
	warmRuns  = 10
	timedRuns = 400
	leastRuns = 40
	timedFor  = 2 * time.Second
	// rounds is how often a candidate that is too slow may show that something
	// else was in its way: the device goes on serving meanwhile.
	rounds = 3
)
