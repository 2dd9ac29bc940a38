package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vedette-edge/vedette/agent"
	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/serve"
)

// An agent that holds the state and does not answer is not called absent.
func TestSilenceIsExplained(t *testing.T) {
	state := t.TempDir()
	refused := errors.New("connection refused")
	late := fmt.Errorf("ask the agent: %w", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded})
	found(t, "no agent", judgeSilence(state, "here", late), checkSkipped, "none answers at here", "start it: vedette-agent run --state "+state)

	lock, err := os.Create(filepath.Join(state, agent.LockFile))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	found(t, "stopped agent", judgeSilence(state, "here", late), checkSkipped, "none answers at here", "start it")
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if locks, err := os.ReadFile("/proc/locks"); err != nil || holder(string(locks), lock.Name()) != os.Getpid() {
		t.Skipf("the kernel does not list this process's locks here: %v\n%s", err, locks)
	}
	held := fmt.Sprintf("process %d holds %s", os.Getpid(), state)
	found(t, "hung agent", judgeSilence(state, "here", late), checkFailed, held+", but does not answer at here: it hangs", "end process")
	found(t, "elsewhere", judgeSilence(state, "here", refused), checkWarning, held+", but nothing listens at here", "--config FILE")
}

// Each line of the kernel's list that is not the lock is passed over.
func TestHolderOfALock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	for text, want := range map[string]int{
		"": 0,
		fmt.Sprintf("1: FLOCK  ADVISORY  WRITE 17 08:01:%d 0 EOF\n", inode):                                     17,
		fmt.Sprintf("1: POSIX  ADVISORY  WRITE 17 08:01:%d 0 EOF\n", inode):                                     0,
		fmt.Sprintf("1: FLOCK  ADVISORY  WRITE 17 08:01:1%d 0 EOF\n2: FLOCK\n", inode):                          0,
		fmt.Sprintf("1: FLOCK  ADVISORY  WRITE 9 08:01:1 0 EOF\n2: FLOCK ADVISORY WRITE 5 0:2:%d 0 EOF", inode): 5,
		fmt.Sprintf("1: FLOCK  ADVISORY  WRITE -1 08:01:%d 0 EOF\n", inode):                                     0,
	} {
		if got := holder(text, path); got != want {
			t.Errorf("%q: process %d, want %d", text, got, want)
		}
	}
	if got := holder("1: FLOCK ADVISORY WRITE 5 0:2:3 0 EOF", path+".none"); got != 0 {
		t.Errorf("a file that is not there is held by %d", got)
	}
}

// The figures of another device's agent are not told as this one's.
func TestAgentOfAnotherDevice(t *testing.T) {
	s := serve.New(nothing{}, serve.Config{
		Listen: "127.0.0.1:0", Runtime: infer.RuntimeInfo{Name: "onnxruntime"},
		Agent: func() *serve.Agent { return &serve.Agent{Device: "cam-a1"} },
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Stop(context.Background())
	here := settings{State: t.TempDir(), Listen: s.Addr().String()}
	checks := checkAgent(t.Context(), &here, nil)
	if len(checks) != 1 {
		t.Fatalf("got %+v", checks)
	}
	found(t, "another device", checks[0], checkSkipped, "is that of another device, cam-a1", "--config FILE")
	here.State = defaultState // whose identity only the service can read
	if checks := checkAgent(t.Context(), &here, nil); len(checks) != 3 || checks[0].Name != "models" {
		t.Errorf("the packaged agent: %+v", checks)
	}
}

// Who opens predictions to the network is told so, and may mean it.
func TestOpenAddressIsPointedOut(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // empty for nothing
	}{
		{[]string{"--listen", "127.0.0.1:8100", "--grpc", "localhost:8101"}, ""},
		{[]string{"--listen", "[::1]:8100"}, ""},
		{[]string{"--listen", "-", "--socket", "s"}, ""},
		{[]string{"--listen", "0.0.0.0:8100"}, "warning: listen: 0.0.0.0:8100 can be reached from the network"},
		{[]string{"--listen", ":8100"}, "warning: listen: :8100 can"},
		{[]string{"--grpc", "[::]:8101"}, "warning: grpc: [::]:8101 can"},
	} {
		code, out, errOut := command(t, append([]string{"run", "--check"}, c.args...)...)
		if code != exitOK || out == "" || !strings.HasPrefix(errOut, c.want) || (c.want == "") != (errOut == "") {
			t.Errorf("%q: %d %s", c.args, code, errOut)
		}
	}
	t.Setenv(envProgram, "1") // doctor calls its own program
	path := write(t, "agent.yaml", "listen: 0.0.0.0:8100\n")
	_, out, _ := command(t, "doctor", "--offline", "--config", path, "--state", t.TempDir())
	if !strings.Contains(out, "listen: 0.0.0.0:8100 can be reached from the network, and asks nobody") || !strings.Contains(out, "→ listen on 127.0.0.1") {
		t.Errorf("doctor:\n%s", out)
	}
}
