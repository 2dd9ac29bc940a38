package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Defaults of Config.
const (
	// DefaultTimeout is for one variant on one provider: a large graph on a slow
	// card loads in minutes, TensorRT takes as long to build its engine, and the
	// golden vectors of a hung one never end.
	DefaultTimeout = 5 * time.Minute
	// DefaultTotal is for all of them, once one has passed. It and one more
	// timeout stay below the 30 minutes of an update's trial.
	DefaultTotal = 20 * time.Minute
	// DefaultSample is how often the child's memory is looked at. The kernel's
	// own high-water mark fills the gaps; this is for ending it in time.
	DefaultSample = 10 * time.Millisecond
)

const (
	maxReplies = 64 << 10 // bytes a child may answer
	maxStderr  = 2 << 10  // bytes of what it printed last that are kept
)

// Config of a Trier. The zero value runs this very program with the argument
// "trial".
type Config struct {
	Exe  string   // program to run, empty for this one
	Args []string // its arguments, nil for "trial"
	Env  []string // added to the environment

	// Providers are the execution providers to try, best guess first, nil for the
	// CPU alone; see infer.Candidates.
	Providers []string
	Timeout   time.Duration // for one variant on one provider, 0 for DefaultTimeout
	Total     time.Duration // after which nothing more is tried if something passed, 0 for DefaultTotal
	Sample    time.Duration // between two looks at the child's memory, 0 for DefaultSample
	// MemoryBytes a candidate may take above the bare process, 0 for three
	// quarters of what the device has available.
	MemoryBytes uint64
	// AgentVersion is compared with the manifest's minimum; empty skips that.
	AgentVersion string
	Log          *slog.Logger
}

// Trier holds trials in child processes.
type Trier struct{ cfg Config }

// New makes a Trier.
func New(cfg Config) *Trier {
	if cfg.Args == nil {
		cfg.Args = []string{"trial"}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Total == 0 {
		cfg.Total = DefaultTotal
	}
	if len(cfg.Providers) == 0 {
		cfg.Providers = []string{release.CPUProvider}
	}
	if cfg.Sample == 0 {
		cfg.Sample = DefaultSample
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Trier{cfg: cfg}
}

// Try runs every variant on every provider that may be for this device, each
// pair in a child of its own, and takes the fastest that passes. The verdict is
// that of the first pair when none passes. An error says that no trial could be
// held; it says nothing about the candidate.
func (t *Trier) Try(ctx context.Context, c Candidate) (Verdict, error) {
	if need := c.Manifest.Limits.MinAgent; older(t.cfg.AgentVersion, need) {
		return refusal(c, CodeLoad, fmt.Sprintf("the release needs agent %s, this is %s: update the agent", need, t.cfg.AgentVersion)), nil
	}
	if c.Providers == nil {
		c.Providers = t.cfg.Providers
	}
	todo, unfit := pairs(c)
	b := &board{end: time.Now().Add(t.cfg.Total)}
	for _, p := range todo {
		if why := b.skips(p, time.Now()); why != nil {
			b.tried = append(b.tried, why)
			continue
		}
		verdict, err := t.pair(ctx, c, p)
		if err != nil {
			return Verdict{}, fmt.Errorf("try variant %s on %s: %w", p.variant, p.provider, err)
		}
		t.cfg.Log.Info("variant tried", "model", c.Manifest.Model, "version", c.Manifest.Version, "variant", p.variant,
			"provider", p.provider, "ok", verdict.OK, "code", verdict.Code, "p95", verdict.P95)
		b.add(p, verdict)
	}
	if len(b.verdicts) == 0 {
		return refusal(c, CodeLoad, unfit), nil
	}
	return b.decide(), nil
}

func refusal(c Candidate, code, message string) Verdict {
	return Verdict{Code: code, Message: message, Report: &protocol.Trial{Release: c.Digest.Bytes()}}
}

// pair tries one variant on one provider and judges what came of it.
func (t *Trier) pair(ctx context.Context, c Candidate, p pair) (Verdict, error) {
	limit := t.memoryLimit(c.Manifest.Limits.MemoryBytes)
	limited, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	child, err := t.start(limited, request{Digest: c.Digest, Dir: c.Dir, Variant: p.variant, Provider: p.provider, MemoryBytes: limit})
	if err != nil {
		return Verdict{}, err
	}
	res, failure := child.talk(limit)
	exit := child.end()
	if ctx.Err() != nil {
		return Verdict{}, ctx.Err()
	}
	if failure != nil {
		res = t.autopsy(child, exit, limited.Err() != nil)
	}
	return judge(c, p, res, child.peak()), nil
}

// autopsy says why a child gave no result.
func (t *Trier) autopsy(c *child, exit error, late bool) *result {
	said := c.stderr.String()
	switch {
	case c.memory.exceeded.Load(), outOfMemory(said):
		return &result{Code: CodeMemory, Message: fmt.Sprintf("the candidate took over %d MiB while %s", c.memory.limit>>20, c.stage)}
	case late:
		return &result{Code: CodeHang, Message: fmt.Sprintf("no result within %v, the candidate was still %s", t.cfg.Timeout, c.stage)}
	}
	message := fmt.Sprintf("the trial process died while %s: %v", c.stage, exit)
	if last := lastLine(said); last != "" {
		message += "; it said: " + last
	}
	return &result{Code: CodeCrash, Message: message}
}

// outOfMemory says whether a process's last words are those of one that the
// kernel refused memory.
func outOfMemory(said string) bool {
	for _, words := range []string{"out of memory", "cannot allocate memory", "bad_alloc"} {
		if strings.Contains(said, words) {
			return true
		}
	}
	return false
}

// lastLine is the first line of a Go panic, or else the last line printed.
func lastLine(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.HasPrefix(line, "SIG") {
			return line
		}
	}
	return lines[len(lines)-1]
}

// judge holds the measurements against the manifest's limits.
func judge(c Candidate, p pair, r *result, peak uint64) Verdict {
	if r.Provider == "" {
		r.Provider = p.provider
	}
	v := Verdict{
		Code: r.Code, Message: r.Message, Variant: p.variant, Provider: r.Provider, P95: time.Duration(r.P95), PeakBytes: peak,
		Report: &protocol.Trial{
			Release: c.Digest.Bytes(), GoldenRows: uint32(min(max(r.Rows, 0), 1<<30)), GoldenWorst: r.Worst, GoldenWrong: uint32(min(max(r.Wrong, 0), 1<<30)),
			P95Us: uint64(max(time.Duration(r.P95).Microseconds(), 0)), PeakBytes: peak, Provider: r.Provider, RuntimeVersion: r.Runtime,
		},
	}
	limits := c.Manifest.Limits
	switch {
	case v.Code != "":
	case limits.P95 > 0 && v.P95 > time.Duration(limits.P95):
		v.Code = CodeSlow
		v.Message = fmt.Sprintf("95 of 100 single predictions took up to %v on this device, the release allows %v", v.P95, time.Duration(limits.P95))
	case limits.MemoryBytes > 0 && peak > limits.MemoryBytes:
		v.Code = CodeMemory
		v.Message = fmt.Sprintf("the candidate took %d KiB of memory, the release allows %d KiB", peak>>10, limits.MemoryBytes>>10)
	default:
		v.OK = true
	}
	return v
}

// child is one trial process.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  *json.Decoder
	stderr *tail
	memory *watch
	stage  string
}

func (t *Trier) start(ctx context.Context, r request) (*child, error) {
	exe := t.cfg.Exe
	if exe == "" {
		var err error
		if exe, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
	}
	c := &child{cmd: exec.CommandContext(ctx, exe, t.cfg.Args...), stderr: &tail{max: maxStderr}, stage: "starting"}
	c.cmd.Env = append(os.Environ(), t.cfg.Env...)
	c.cmd.Stderr = c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The whole group: a runtime may have started helpers that hold the pipes.
	c.cmd.Cancel = func() error { return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }
	c.cmd.WaitDelay = 5 * time.Second
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	c.lines = json.NewDecoder(io.LimitReader(stdout, maxReplies))
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start trial process: %w", err)
	}
	c.memory = newWatch(c.cmd.Process.Pid, t.cfg.Sample)
	_ = json.NewEncoder(c.stdin).Encode(r) // a child that is gone already is found out by talk
	return c, nil
}

// talk leads the child to its result. Any error means that there is none.
func (c *child) talk(limit uint64) (*result, error) {
	for {
		var r reply
		if err := c.lines.Decode(&r); err != nil {
			return nil, fmt.Errorf("read reply: %w", err)
		}
		if r.Result != nil {
			c.memory.last()
			return r.Result, nil
		}
		c.stage = r.Stage
		if r.Stage != stageReady {
			continue
		}
		c.memory.begin(limit, func() { _ = c.cmd.Cancel() })
		if err := json.NewEncoder(c.stdin).Encode(permit{Go: true}); err != nil {
			return nil, fmt.Errorf("let the child begin: %w", err)
		}
	}
}

// end closes the child's input, which ends it, or waits for its killing.
func (c *child) end() error {
	c.memory.stop()
	closed := c.stdin.Close()
	err := c.cmd.Wait()
	_ = c.cmd.Cancel() // what it may have left behind in its group
	if err == nil && closed != nil && !errors.Is(closed, os.ErrClosed) {
		return closed
	}
	return err
}

func (c *child) peak() uint64 { return c.memory.peak.Load() }

// tail keeps the first and the last bytes of a stream, half each: a panic says
// what it is at its beginning, a library at its end.
type tail struct {
	max        int
	head, rest []byte
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if room := t.max/2 - len(t.head); room > 0 {
		k := min(room, len(p))
		t.head, p = append(t.head, p[:k]...), p[k:]
	}
	t.rest = append(t.rest, p...)
	if over := len(t.rest) - t.max/2; over > 0 {
		t.rest = append(t.rest[:0], t.rest[over:]...)
	}
	return n, nil
}

func (t *tail) String() string { return string(t.head) + string(t.rest) }
