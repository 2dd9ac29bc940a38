package onnx

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/graph"
	"github.com/vedette-edge/vedette/protocol/release"
)

// port is one input or output of the graph.
type port struct {
	name, datatype string
	source         string  // its name in the graph, when that is another
	batch          int64   // fixed first dimension, −1 when it is the rows
	rest           []int64 // dimensions after the first, −1 for those that vary
	size           int     // elements of one row, −1 when one of rest varies
	width          int     // bytes of one element, 0 for strings
	// columns is set on an output that the graph gives as maps from class to
	// score: the column of every class.
	columns map[string]int
}

func ports(ts []release.Tensor) []port {
	list := make([]port, len(ts))
	for i, t := range ts {
		p := port{name: t.Name, datatype: t.Datatype, batch: -1, size: -1, width: release.ElementSize(t.Datatype)}
		if len(t.Shape) > 0 {
			p.batch, p.rest = t.Shape[0], t.Shape[1:]
		}
		if n, fixed := t.RowSize(); fixed && len(t.Shape) > 0 {
			p.size = int(n)
		}
		list[i] = p
	}
	return list
}

func names(ps []port) []string {
	list := make([]string, len(ps))
	for i, p := range ps {
		list[i] = p.inGraph()
	}
	return list
}

func (p *port) inGraph() string { return cmp.Or(p.source, p.name) }

// shape is the port's for rows rows.
func (p *port) shape(rows int) []int64 {
	return append([]int64{int64(rows)}, p.rest...)
}

// fits compares a shape with the schema's, in which −1 varies.
func (p *port) fits(shape []int64) bool {
	return len(shape) == len(p.rest)+1 && (p.batch < 0 || shape[0] == p.batch) && within(p.rest, shape[1:])
}

func within(allowed, dims []int64) bool {
	return slices.EqualFunc(allowed, dims, func(a, d int64) bool { return a < 0 || a == d })
}

// as is the port of graphs called with tensors of this shape, false when no
// buffer can be kept for it.
func (p *port) as(shape []int64, rows int) (port, bool) {
	if len(shape) != len(p.rest)+1 || shape[0] != int64(rows) || p.width == 0 || p.columns != nil {
		return port{}, false
	}
	q := *p
	q.rest = slices.Clone(shape[1:])
	n, err := infer.Elements(q.rest)
	if err != nil || n == 0 || n*q.width > maxChunkBytes {
		return port{}, false
	}
	q.size = n
	return q, true
}

// markMaps finds the outputs that the graph gives as maps and returns those
// whose classes come in the schema's order. A file that is no ONNX model is left
// to the library, which says better why it cannot load it.
func markMaps(path string, outputs []port, classes []string) map[string]bool {
	g := header(path)
	if g == nil || len(classes) == 0 {
		return nil
	}
	ordered := map[string]bool{}
	for _, t := range g.Outputs {
		for i := range outputs {
			if outputs[i].name == t.Name && t.IsScores() {
				outputs[i].columns = columns(classes)
				if slices.Equal(t.Classes, classes) && outputs[i].size == len(classes) {
					ordered[t.Name] = true
				}
			}
		}
	}
	return ordered
}

// header is what a graph's file says of itself, nil when it cannot be read.
func header(path string) *graph.Graph {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	g, err := graph.Read(f, st.Size())
	if err != nil {
		return nil
	}
	return g
}

func columns(classes []string) map[string]int {
	m := make(map[string]int, len(classes))
	for k, class := range classes {
		m[class] = k
	}
	return m
}

// checkHalf refuses what the binding cannot give back: it miscounts the bytes
// of half floats that the library allocates (onnxruntime_go v1.27.0), so their
// shape has to be known.
func checkHalf(outputs []port) error {
	for _, p := range outputs {
		if (p.datatype == "FP16" || p.datatype == "BF16") && p.size < 0 {
			return fmt.Errorf("output %q: %s of a shape that varies cannot be returned: give its dimensions after the first in the schema", p.name, p.datatype)
		}
	}
	return nil
}

// column is where the score of a class goes.
func (p *port) column(class string) (int, error) {
	k, ok := p.columns[class]
	if !ok {
		return 0, fmt.Errorf("output %q has a score for class %s, which the schema does not name", p.name, strconv.Quote(class))
	}
	return k, nil
}
