package agenttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// Script is what a scripted graph does. It is the content of the graph's file,
// as JSON, so it reaches a child process too.
type Script struct {
	// Name tells graphs apart that do the same.
	Name string `json:"name"`
	// OnLoad and OnRun are "" to work, or how not to.
	OnLoad Fault `json:"on_load,omitempty"`
	OnRun  Fault `json:"on_run,omitempty"`
	// AfterRuns is how many runs work before OnRun happens.
	AfterRuns int64 `json:"after_runs,omitempty"`
	// Shift is added to every floating-point output.
	Shift float64 `json:"shift,omitempty"`
	// Delay is how long a run takes.
	Delay time.Duration `json:"delay,omitempty"`
	// Bytes of memory taken while loading and kept.
	Bytes int `json:"bytes,omitempty"`
	// WrongShape gives every output a column too many.
	WrongShape bool `json:"wrong_shape,omitempty"`
	// ExceptIn names an environment variable: in processes that have it, OnLoad and
	// OnRun do not happen. A release may pass its trial and still not serve.
	ExceptIn string `json:"except_in,omitempty"`
	// On is what it does instead on an execution provider, by the provider's name.
	On map[string]Script `json:"on,omitempty"`
}

// Fault is a way not to work.
type Fault string

// Faults.
const (
	Refuse   Fault = "refuse"   // an error
	Panic    Fault = "panic"    // a Go panic
	Segfault Fault = "segfault" // killed by SIGSEGV, as native code would be
	Hang     Fault = "hang"     // never returns, whatever the context says
)

func (f Fault) happen(what string) error {
	switch f {
	case Refuse:
		return errors.New("scripted to refuse to " + what)
	case Panic:
		panic("scripted to panic on " + what)
	case Segfault:
		// The Go runtime turns a SIGSEGV sent by a process into a crash too.
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		select {}
	case Hang:
		for {
			time.Sleep(time.Hour)
		}
	}
	return nil
}

// Runtime runs graphs that are scripts. Its outputs are those of Row.
type Runtime struct {
	// Offers are the execution providers beside the CPU.
	Offers []string
	// Broken are those of Offers that are not there when asked for.
	Broken []string
}

var _ infer.Runtime = Runtime{}

// Info names the runtime "scripted".
func (r Runtime) Info() infer.RuntimeInfo {
	return infer.RuntimeInfo{Name: "scripted", Version: "1.0.0", Providers: append([]string{"CPU"}, r.Offers...)}
}

// provider is the one to run on, if it is there.
func (r Runtime) provider(name string) (string, error) {
	if release.SameProvider(name, "CPU") {
		return "CPU", nil
	}
	if !slices.Contains(r.Offers, name) || slices.Contains(r.Broken, name) {
		return "", fmt.Errorf("%w: scripted to lack %s", infer.ErrProvider, name)
	}
	return name, nil
}

// Load reads the script.
func (r Runtime) Load(_ context.Context, rel infer.Release) (infer.Session, error) {
	v, err := rel.Graph()
	if err != nil {
		return nil, err
	}
	provider, err := r.provider(rel.Provider)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(rel.Path(v.Graph))
	if err != nil {
		return nil, fmt.Errorf("read script: %w", err)
	}
	s := &session{schema: &rel.Manifest.Schema, provider: provider}
	if err := json.Unmarshal(raw, &s.script); err != nil {
		return nil, fmt.Errorf("read script: %w", err)
	}
	if on, ok := s.script.On[provider]; ok {
		s.script = on
	}
	if name := s.script.ExceptIn; name != "" && os.Getenv(name) != "" {
		s.script.OnLoad, s.script.OnRun = "", ""
	}
	if err := s.script.OnLoad.happen("load"); err != nil {
		return nil, err
	}
	s.held = hold(s.script.Bytes)
	return s, nil
}

// hold takes memory and touches it, a bit at a time as a loader would, so that
// whoever watches can see it grow.
func hold(n int) [][]byte {
	const step = 1 << 20
	var held [][]byte
	for n > 0 {
		page := make([]byte, min(n, step))
		for i := 0; i < len(page); i += 4096 {
			page[i] = 1
		}
		held = append(held, page)
		n -= len(page)
	}
	return held
}

// session is one loaded script.
type session struct {
	script   Script
	schema   *release.Schema
	provider string
	held     [][]byte
	runs     atomic.Int64
}

func (s *session) Provider() string { return s.provider }
func (s *session) Close() error     { return nil }

// Run computes Row for every row.
func (s *session) Run(_ context.Context, rows int, in, out []infer.Tensor) error {
	if s.runs.Add(1) > s.script.AfterRuns {
		if err := s.script.OnRun.happen("run"); err != nil {
			return err
		}
	}
	if s.script.Delay > 0 {
		time.Sleep(s.script.Delay)
	}
	sums := make([]float64, rows)
	for _, t := range in {
		v := t.Values()
		for i, x := range v.Data {
			sums[i*rows/len(v.Data)] += x
		}
	}
	for i := range out {
		values := Row(s.schema.Outputs[i], sums, s.script.Shift)
		if s.script.WrongShape {
			values.Shape = append(values.Shape, 1)
		}
		t, err := infer.FromValues(s.schema.Outputs[i], values)
		if err != nil {
			return err
		}
		out[i] = t
	}
	return nil
}

// Row is what a script computes of the sums of its input rows: column k of a
// floating-point output is sum/(k+1) + shift; an integer is the sum, rounded
// down, modulo ten.
func Row(t release.Tensor, sums []float64, shift float64) release.Values {
	width, _ := t.RowSize()
	v := release.Values{Name: t.Name, Shape: slices.Clone(t.Shape)}
	v.Shape[0] = int64(len(sums))
	for _, sum := range sums {
		for k := range max(width, 1) {
			if t.Datatype == "FP32" || t.Datatype == "FP64" {
				v.Data = append(v.Data, float64(float32(sum/float64(k+1)+shift)))
			} else {
				v.Data = append(v.Data, math.Mod(math.Floor(sum), 10))
			}
		}
	}
	return v
}
