package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopWithin is how long a program may take to end when asked to.
const stopWithin = 15 * time.Second

// errEnded stands for a program's end without an error.
var errEnded = errors.New("it said nothing was wrong")

// process is one program of Vedette that the demo started.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// start runs a program with its output appended to dir/name.log.
func start(dir, name, binary string, args ...string) (*process, error) {
	path := filepath.Join(dir, name+".log")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer out.Close() // the child holds its own copy
	//nolint:noctx // they outlive the context that cancels, to be stopped in order
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own, so that Ctrl-C reaches the demo alone, and an end
	// with the demo, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: path, cmd: cmd, done: make(chan struct{})}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	return p, nil
}

// kill ends the program as a power cut would: without a word.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// stop asks the program to end and waits.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(stopWithin):
		p.kill()
		return fmt.Errorf("%s did not end within %s; its log is %s", p.name, stopWithin, p.log)
	}
}

// died says how a program ended that should be running, or nil.
func (p *process) died() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself: %w\n%s", p.name, cmp.Or(p.err, errEnded), tail(p.log))
	default:
		return nil
	}
}

// tail is the last kilobytes of a log, for an error message.
func tail(path string) string {
	const most = 4 << 10
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// call runs a program to its end and returns what it printed. Its error holds
// what it wrote to standard error.
func call(ctx context.Context, env []string, binary string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out, fmt.Errorf("%s %s: %w: %s", filepath.Base(binary), strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return out, fmt.Errorf("run %s: %w", filepath.Base(binary), err)
	}
	return out, nil
}
