package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// patient is a device that stops answering.
type patient struct{ stuck atomic.Bool }

func (p *patient) Alive(ctx context.Context) error {
	if !p.stuck.Load() {
		return nil
	}
	<-ctx.Done()
	return errors.New("the updater does not answer")
}

func (p *patient) Summary() string { return "serving digits 2" }

// A watchdog is served while the device answers, and only then.
func TestWatchdogIsServedWhileTheAgentLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan string, 100)
		p := &patient{}
		s := &supervisor{
			every: 20 * time.Second, log: slog.New(slog.DiscardHandler), serving: make(chan struct{}, 1),
			notify: func(state string) { told <- state },
		}
		ctx, cancel := context.WithCancel(t.Context())
		stop := s.watch(ctx, p)
		said := func(want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for len(told) > 0 {
				got = append(got, strings.ReplaceAll(<-told, "\n", " "))
			}
			if strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("told %q, want %q", got, want)
			}
		}
		s.onServing()()
		said("READY=1 STATUS=serving digits 2")
		time.Sleep(40 * time.Second)
		said("WATCHDOG=1 STATUS=serving digits 2", "WATCHDOG=1 STATUS=serving digits 2")
		p.stuck.Store(true)
		time.Sleep(40 * time.Second)
		said("STATUS=the updater does not answer")
		p.stuck.Store(false)
		time.Sleep(21 * time.Second)
		said("STATUS=the updater does not answer", "WATCHDOG=1 STATUS=serving digits 2")
		cancel()
		said("STOPPING=1 STATUS=stopping")
		stop()
		s.watch(t.Context(), p)()
		said() // it replaces itself
	})
}

// What systemd gives a service is understood; without it nobody is told.
func TestSupervisorKnowsSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	log := slog.New(slog.DiscardHandler)
	nobody := newSupervisor(log)
	nobody.watch(t.Context(), &patient{})()
	if nobody != nil || nobody.onServing() != nil {
		t.Error("there is a supervisor without systemd")
	}
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("WATCHDOG_USEC", "15000000")
	s := newSupervisor(log)
	if s == nil || s.every != 5*time.Second {
		t.Fatalf("supervisor %+v, want one that gives a sign every 5 s", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.run(ctx, nil)
	buf := make([]byte, 1024)
	for _, want := range []string{"STATUS=starting", "STOPPING=1\nSTATUS=stopping"} {
		if n, err := socket.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("systemd hears %q, %v; want %q", buf[:n], err, want)
		}
	}
}
