package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/agent/observe"
	"github.com/vedette-edge/vedette/agent/score"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// surveyor compares a graph's outputs with the expected ones and makes of the
// rows what a release needs.
type surveyor struct {
	flags    *profileFlags
	schema   *release.Schema
	inputs   *release.Schema // of the rows
	outputs  *release.Schema // of the expected outputs, which are read as inputs
	builder  *sketch.Builder
	computed []infer.Tensor
	rows     int64
	worst    float64
	picks    []pick // one for every row, then the chosen ones
	golden   *release.Golden
}

// pick is a row that may become golden.
type pick struct {
	row        int64 // counted from 1
	class      int64
	confidence float32
}

// batchPlace says where a batch of rows lies.
type batchPlace struct {
	n          int
	first      int64    // row, counted from 1
	conditions []string // one for each row, or none
}

func newSurveyor(schema *release.Schema, f *profileFlags) (*surveyor, error) {
	b, err := sketch.NewBuilder(schema)
	if err != nil {
		return nil, fmt.Errorf("make baseline: %w", err)
	}
	p := &surveyor{flags: f, schema: schema, inputs: &release.Schema{}, outputs: expectedSchema(schema), builder: b}
	// Training rows tell what is normal: an empty field in them is a missing
	// value like on a device, and their range is what they have.
	for _, t := range schema.Inputs {
		t.Features = slices.Clone(t.Features)
		for i := range t.Features {
			t.Features[i].Min, t.Features[i].Max = nil, nil
			if t.Features[i].Missing == "" {
				t.Features[i].Missing = "nan"
			}
		}
		p.inputs.Inputs = append(p.inputs.Inputs, t)
	}
	p.computed = make([]infer.Tensor, len(schema.Outputs))
	for i, o := range schema.Outputs {
		p.computed[i] = infer.Tensor{Name: o.Name, Datatype: o.Datatype}
	}
	return p, nil
}

// expectedSchema turns the outputs into what a table of them has. Numbers are
// read as float64: a training framework may compute with more digits, and NaN
// where a graph does.
func expectedSchema(s *release.Schema) *release.Schema {
	e := &release.Schema{}
	for _, t := range s.Outputs {
		if fractional(t.Datatype) {
			t.Datatype = "FP64"
		}
		n, _ := t.RowSize()
		t.Features = make([]release.Feature, min(n, math.MaxInt16))
		for i := range t.Features {
			t.Features[i] = release.Feature{Name: t.Name, Missing: "nan"}
			if n > 1 {
				t.Features[i].Name = fmt.Sprintf("%s[%d]", t.Name, i)
			}
		}
		e.Inputs = append(e.Inputs, t)
	}
	return e
}

// each reads rows and expected outputs side by side.
func (p *surveyor) each(fn func(rows, expected []infer.Tensor, at batchPlace) error) error {
	var keep []string
	if p.flags.condition != "" {
		keep = []string{p.flags.condition}
	}
	rows, closeRows, err := openTable(p.flags.rows, p.inputs, score.HeaderYes, keep)
	if err != nil {
		return err
	}
	defer closeRows()
	if p.flags.expected == "" {
		return p.eachAlone(rows, fn)
	}
	expected, closeExpected, err := openTable(p.flags.expected, p.outputs, score.HeaderSkip, nil)
	if err != nil {
		return err
	}
	defer closeExpected()
	for {
		r, err := rows.Next()
		e, err2 := expected.Next()
		switch {
		case errors.Is(err, io.EOF) && errors.Is(err2, io.EOF):
			return nil
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("%s: %w", p.flags.rows, err)
		case err2 != nil && !errors.Is(err2, io.EOF):
			return fmt.Errorf("%s: %w", p.flags.expected, err2)
		case err != nil || err2 != nil || r.N != e.N:
			return fmt.Errorf("%s and %s do not have the same number of rows", p.flags.rows, p.flags.expected)
		}
		if err := fn(r.Tensors, e.Tensors, batchPlace{n: r.N, first: r.First, conditions: r.Kept}); err != nil {
			return err
		}
	}
}

// eachAlone reads rows of which no outputs are known.
func (p *surveyor) eachAlone(rows *score.Reader, fn func(rows, expected []infer.Tensor, at batchPlace) error) error {
	for {
		r, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.flags.rows, err)
		}
		if err := fn(r.Tensors, nil, batchPlace{n: r.N, first: r.First, conditions: r.Kept}); err != nil {
			return err
		}
	}
}

func openTable(name string, s *release.Schema, header string, keep []string) (*score.Reader, func(), error) {
	in, closeFile, err := openInput(name)
	if err != nil {
		return nil, nil, err
	}
	form := format("", name)
	if form != score.CSV {
		header = ""
	}
	r, err := score.NewReader(score.Config{Schema: s, Input: in, InFormat: form, Header: header, Keep: keep})
	if err != nil {
		closeFile()
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, closeFile, nil
}

// compare runs one batch, holds it against training and counts it.
func (p *surveyor) compare(ctx context.Context, session infer.Session, rows, expected []infer.Tensor, at batchPlace) error {
	if err := session.Run(ctx, at.n, rows, p.computed); err != nil {
		return fmt.Errorf("rows from %d on: %w", at.first, err)
	}
	for i := range expected {
		if err := p.compareOutput(&p.computed[i], &expected[i], at); err != nil {
			return err
		}
	}
	for from := 0; from < at.n; {
		to := at.sameCondition(from)
		if err := p.count(rows, from, to, at); err != nil {
			return err
		}
		from = to
	}
	p.rows += int64(at.n)
	return nil
}

// sameCondition is the end of the run of rows that share the condition of from.
func (at batchPlace) sameCondition(from int) int {
	if len(at.conditions) == 0 {
		return at.n
	}
	to := from + 1
	for to < at.n && at.conditions[to] == at.conditions[from] {
		to++
	}
	return to
}

// count adds rows [from, to) to the baseline and remembers them as candidates.
func (p *surveyor) count(rows []infer.Tensor, from, to int, at batchPlace) error {
	cut := func(ts []infer.Tensor) ([]infer.Tensor, error) {
		out := make([]infer.Tensor, len(ts))
		for i := range ts {
			var err error
			if out[i], err = ts[i].Slice(from, to, at.n); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	in, err := cut(rows)
	if err != nil {
		return err
	}
	out, err := cut(p.computed)
	if err != nil {
		return err
	}
	b := observe.Batch(p.schema, to-from, in, out)
	if len(at.conditions) > 0 {
		b.Condition = at.conditions[from]
	}
	if err := p.builder.Add(b); err != nil {
		return fmt.Errorf("rows from %d on: %w", at.first+int64(from), err)
	}
	for r := range to - from {
		p.picks = append(p.picks, newPick(b, r, at.first+int64(from+r)))
	}
	return nil
}

func newPick(b *sketch.Batch, r int, row int64) pick {
	k := pick{row: row}
	if len(b.Class) > r {
		k.class = b.Class[r]
	}
	if b.Classes > 0 && len(b.Scores) >= (r+1)*b.Classes {
		line := b.Scores[r*b.Classes : (r+1)*b.Classes]
		k.confidence = slices.Max(line)
		if len(b.Class) <= r {
			k.class = int64(slices.Index(line, k.confidence))
		}
	}
	return k
}

// compareOutput names the first number that is not what training computed.
func (p *surveyor) compareOutput(got, want *infer.Tensor, at batchPlace) error {
	g, w := got.Values(), want.Values()
	if len(g.Data) != len(w.Data) || len(g.Strings) != len(w.Strings) {
		return fmt.Errorf("output %q has %d values for %d rows, %d are expected", got.Name, g.Len(), at.n, w.Len())
	}
	width := max(1, g.Len()/at.n)
	abs, rel := p.tolerance(got.Datatype)
	for i, x := range g.Data {
		diff := difference(x, w.Data[i])
		p.worst = max(p.worst, diff)
		if diff > abs+rel*math.Abs(w.Data[i]) {
			return p.disagrees(at.first+int64(i/width), got.Name, i%width, x, w.Data[i], abs+rel*math.Abs(w.Data[i]))
		}
	}
	for i, s := range g.Strings {
		if s != w.Strings[i] {
			return p.disagrees(at.first+int64(i/width), got.Name, i%width, s, w.Strings[i], 0)
		}
	}
	return nil
}

func (p *surveyor) disagrees(row int64, output string, element int, got, want any, tolerance float64) error {
	return fmt.Errorf("%w\n  row %d, output %q, element %d%s: got %v, want %v, tolerance %.3g",
		errDisagrees, row, output, element, p.className(output, element), got, want, tolerance)
}

func (p *surveyor) className(output string, element int) string {
	if output != p.schema.Scores || element >= len(p.schema.Classes) {
		return ""
	}
	return fmt.Sprintf(" (class %q)", p.schema.Classes[element])
}

// tolerance is the flags' for numbers and none for what is counted or named.
func (p *surveyor) tolerance(datatype string) (abs, rel float64) {
	if fractional(datatype) {
		return p.flags.abs, p.flags.rel
	}
	return 0, 0
}

// fractional says whether a datatype's numbers have fractions.
func fractional(datatype string) bool {
	return slices.Contains([]string{"FP16", "BF16", "FP32", "FP64"}, datatype)
}

// difference is |a − b|; one value that is no number and one that is are
// infinitely far apart.
func difference(a, b float64) float64 {
	switch {
	case math.IsNaN(a) && math.IsNaN(b), a == b:
		return 0
	case math.IsNaN(a), math.IsNaN(b):
		return math.Inf(1)
	}
	return math.Abs(a - b)
}

// choose keeps n rows: of every class in turn, from the least confident to the
// most, evenly. Unsure rows are the first to change when weights are damaged;
// sure ones of every class show that no class was lost.
func (p *surveyor) choose(n int) {
	slices.SortStableFunc(p.picks, func(a, b pick) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.confidence, b.confidence))
	})
	var classes [][]pick
	for rest := p.picks; len(rest) > 0; {
		end := 1
		for end < len(rest) && rest[end].class == rest[0].class {
			end++
		}
		classes, rest = append(classes, rest[:end]), rest[end:]
	}
	quota := shares(classes, n)
	var chosen []pick
	for c, list := range classes {
		for k := range quota[c] {
			chosen = append(chosen, list[k*(len(list)-1)/max(quota[c]-1, 1)])
		}
	}
	slices.SortFunc(chosen, func(a, b pick) int { return cmp.Compare(a.row, b.row) })
	p.picks = slices.CompactFunc(chosen, func(a, b pick) bool { return a.row == b.row })
}

// shares gives n places to the classes, one each in turn, none more than it has.
func shares(classes [][]pick, n int) []int {
	quota := make([]int, len(classes))
	for given := true; given && n > 0; {
		given = false
		for c := range classes {
			if n > 0 && quota[c] < len(classes[c]) {
				quota[c]++
				n--
				given = true
			}
		}
	}
	return quota
}

// collect puts the chosen rows of a batch into the golden vectors.
func (p *surveyor) collect(rows, expected []infer.Tensor, at batchPlace) error {
	if p.golden == nil {
		p.golden = &release.Golden{Source: p.flags.source}
	}
	for _, k := range p.picks {
		r := int(k.row - at.first)
		if r < 0 || r >= at.n {
			continue
		}
		if err := p.addGolden(rows, expected, r, at.n); err != nil {
			return err
		}
	}
	return nil
}

func (p *surveyor) addGolden(rows, expected []infer.Tensor, r, of int) error {
	g := p.golden
	first := g.Rows == 0
	for i := range rows {
		v, err := rowValues(&rows[i], r, of)
		if err != nil {
			return err
		}
		if first {
			g.Inputs = append(g.Inputs, v)
			continue
		}
		appendRow(&g.Inputs[i], v)
	}
	for i := range expected {
		v, err := rowValues(&expected[i], r, of)
		if err != nil {
			return err
		}
		if first {
			abs, rel := p.tolerance(p.schema.Outputs[i].Datatype)
			g.Outputs = append(g.Outputs, release.Expected{Values: v, Abs: abs, Rel: rel})
			continue
		}
		appendRow(&g.Outputs[i].Values, v)
	}
	g.Rows++
	return nil
}

func rowValues(t *infer.Tensor, r, of int) (release.Values, error) {
	one, err := t.Slice(r, r+1, of)
	if err != nil {
		return release.Values{}, err
	}
	v := one.Values()
	v.Strings = slices.Clone(v.Strings) // they are the table's, which goes on
	return v, nil
}

func appendRow(v *release.Values, row release.Values) {
	v.Shape[0]++
	v.Data = append(v.Data, row.Data...)
	v.Strings = append(v.Strings, row.Strings...)
}
