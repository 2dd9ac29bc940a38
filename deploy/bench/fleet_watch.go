package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// watch samples what a process uses, from /proc.
type watch struct {
	pid  int
	quit chan struct{}
	done chan struct{}

	mu   sync.Mutex // guards peak
	peak float64    // resident bytes since the last reset
}

// ticks is the unit of CPU time in /proc: USER_HZ is 100 on every Linux.
const ticks = 100

func watchProcess(pid int) *watch {
	w := &watch{pid: pid, quit: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *watch) run() {
	defer close(w.done)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-tick.C:
		}
		if now, err := w.resident(); err == nil {
			w.mu.Lock()
			w.peak = max(w.peak, now)
			w.mu.Unlock()
		}
	}
}

func (w *watch) close() {
	close(w.quit)
	<-w.done
}

// peaked is the most memory that was resident since the last call.
func (w *watch) peaked() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	peak := w.peak
	w.peak = 0
	return peak
}

// resident is the memory in bytes that the process has now.
func (w *watch) resident() (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil {
		return 0, fmt.Errorf("look at the control plane: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
			return kib * 1024, err
		}
	}
	return 0, errors.New("the control plane's memory is not known")
}

// cpu is the processor time that the process has used.
func (w *watch) cpu() (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.pid))
	if err != nil {
		return 0, fmt.Errorf("look at the control plane: %w", err)
	}
	// The name in parentheses may hold anything; user and system time are the
	// 12th and 13th field after it.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("the control plane's processor time is not known")
	}
	var sum time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read processor time: %w", err)
		}
		sum += time.Duration(n) * time.Second / ticks
	}
	return sum, nil
}

// gauge is one reading of the server: what it has used and taken so far.
type gauge struct {
	at     time.Time
	cpu    time.Duration
	stored float64 // messages
}

// fleetAndGauge is the standing fleet with what its server has used so far, its
// peak of memory counted from now on.
func (b *bench) fleetAndGauge(ctx context.Context) (*fleet, gauge, error) {
	f, err := b.standingFleet(ctx)
	if err != nil {
		return nil, gauge{}, err
	}
	f.server.peaked()
	g, err := f.gauge(ctx)
	return f, g, err
}

func (f *fleet) gauge(ctx context.Context) (g gauge, err error) {
	g.at = time.Now()
	if g.cpu, err = f.server.cpu(); err != nil {
		return g, err
	}
	g.stored, err = f.metric(ctx, `vedette_ingest_messages_total{outcome="stored"}`)
	return g, err
}

// core is the share of one processor core that was used since an earlier
// reading, in percent.
func (g gauge) core(before gauge) float64 {
	return 100 * (g.cpu - before.cpu).Seconds() / g.at.Sub(before.at).Seconds()
}

func (g gauge) rate(before gauge) float64 {
	return (g.stored - before.stored) / g.at.Sub(before.at).Seconds()
}

// metric reads one value that the server tells Prometheus.
func (f *fleet) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.plant.http+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+f.plant.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(rest, 64)
		}
	}
	return 0, fmt.Errorf("read metrics: %s: there is no %s", res.Status, name)
}
