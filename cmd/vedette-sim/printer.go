package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// printer shows simulations to people, or to programs as JSON.
type printer struct {
	out, err io.Writer
	verbose  bool
	json     bool
	scenario string
	runs     int
	events   int
	virtual  time.Duration
	total    map[string]int
}

// lastLines is how many lines are shown of a simulation that failed.
const lastLines = 60

// begin shows what happens as it happens.
func (p *printer) begin(w *world) {
	if p.verbose {
		out := p.out
		if p.json {
			out = p.err
		}
		w.trace.live = func(l line) { fmt.Fprintln(out, l) }
		for i := range w.trace.lines {
			fmt.Fprintln(out, w.trace.lines[i])
		}
		return
	}
	if len(w.devices) >= manyDevices {
		w.progress = func() {
			fmt.Fprintf(p.err, "%s  %d events, %s\n", stamp(w.t), w.events, w.check.standing())
		}
	}
}

// manyDevices is from which size of a fleet its progress is shown.
const manyDevices = 500

// end shows how a simulation ended.
func (p *printer) end(w *world, err error) {
	p.runs++
	p.events += w.events
	p.virtual += w.t
	for what, n := range w.tally {
		p.total[what] += n
	}
	if err == nil {
		return
	}
	if p.json {
		p.print(map[string]any{"seed": w.seed, "scenario": w.scenario.name, "at": stamp(w.t), "failure": err.Error(), "again": w.again()})
		return
	}
	fmt.Fprintf(p.out, "seed %d, %s: %v\n", w.seed, stamp(w.t), err)
	if !p.verbose {
		fmt.Fprintf(p.out, "what happened last:\n  %s\n", strings.Join(w.trace.about(err.Error(), lastLines), "\n  "))
	}
	fmt.Fprintf(p.out, "see it again: %s\n", w.again())
}

func (p *printer) print(v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		raw = []byte(err.Error()) // cannot be: texts and numbers
	}
	fmt.Fprintf(p.out, "%s\n", raw)
}

// summary shows what all simulations came through.
func (p *printer) summary() error {
	if p.json {
		p.print(map[string]any{"scenario": p.scenario, "simulations": p.runs, "events": p.events, "virtual_hours": p.virtual.Hours(), "happened": p.total})
		return nil
	}
	fmt.Fprintf(p.out, "%d simulations of %q, %d events in %.1f days of virtual time\n", p.runs, p.scenario, p.events, p.virtual.Hours()/24)
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, what := range slices.Sorted(maps.Keys(p.total)) {
		fmt.Fprintf(w, "%d\t  %s\n", p.total[what], what)
	}
	return w.Flush()
}
