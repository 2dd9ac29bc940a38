package score

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// partSuffix marks a result that is not finished. The name without it appears
// only when every row is in.
const partSuffix = ".part"

// output formats batches and writes them.
type output struct {
	cfg     *Config
	w       io.Writer
	file    *os.File // nil for a stream
	offset  int64    // bytes written
	buf     []byte
	json    bool
	header  bool // still to be written
	label   int  // index of the label output, −1 for none
	at      time.Time
	columns [][]string // names by output, known with the first batch
}

// openOutput creates the unfinished result or goes on with it.
func openOutput(cfg *Config, cp *checkpoint) (*output, error) {
	o := &output{cfg: cfg, json: cfg.OutFormat == JSONLines, header: true, at: time.Now()}
	o.label = slices.IndexFunc(cfg.Schema.Outputs, func(t release.Tensor) bool { return t.Name == cfg.Schema.Label && t.Name != "" })
	if cfg.Output == "-" {
		o.w = cfg.Stdout
		return o, nil
	}
	flags := os.O_RDWR | os.O_CREATE
	if cp == nil {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(cfg.Output+partSuffix, flags, 0o644) //nolint:gosec // the operator's own file, for others to read
	if err != nil {
		return nil, fmt.Errorf("create output: %w", err)
	}
	o.w, o.file = f, f
	if cp != nil {
		o.header, o.offset = cp.Output == 0, cp.Output
		if err := o.cut(cp.Output); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return o, nil
}

// cut removes what was written after the checkpoint.
func (o *output) cut(offset int64) error {
	st, err := o.file.Stat()
	if err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	if st.Size() < offset {
		return fmt.Errorf("%w: %s is shorter than when it was interrupted; start anew without --resume", ErrCheckpoint, o.file.Name())
	}
	if err := o.file.Truncate(offset); err != nil {
		return fmt.Errorf("cut output: %w", err)
	}
	if _, err := o.file.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("cut output: %w", err)
	}
	return nil
}

// batch writes the rows of one batch.
func (o *output) batch(b *batch) error {
	o.buf = o.buf[:0]
	if o.columns == nil {
		o.columns = o.names()
	}
	if o.header && !o.json {
		o.buf = o.appendHeader(o.buf)
	}
	o.header = false
	for r := range b.rows {
		if b.null[r] && o.cfg.OnError == OnErrorSkip {
			continue
		}
		var err error
		if o.json {
			o.buf, err = o.appendJSON(o.buf, b, r)
		} else {
			o.buf, err = o.appendCSV(o.buf, b, r)
		}
		if err != nil {
			return err
		}
	}
	n, err := o.w.Write(o.buf)
	o.offset += int64(n)
	if err != nil {
		return fmt.Errorf("write output: %w; free some room and go on with --resume", err)
	}
	return nil
}

// names of the columns of every output: the output's own when a row has one
// value, else with the class or the place.
func (o *output) names() [][]string {
	list := make([][]string, len(o.cfg.Schema.Outputs))
	for i, t := range o.cfg.Schema.Outputs {
		n, fixed := t.RowSize()
		switch {
		case !fixed || n == 1:
			list[i] = []string{t.Name}
			continue
		case t.Name == o.cfg.Schema.Scores && int64(len(o.cfg.Schema.Classes)) == n:
			for _, class := range o.cfg.Schema.Classes {
				list[i] = append(list[i], t.Name+"_"+class)
			}
			continue
		}
		for k := range n {
			list[i] = append(list[i], t.Name+"_"+strconv.FormatInt(k, 10))
		}
	}
	return list
}

func (o *output) hasClass() bool { return o.label >= 0 && len(o.cfg.Schema.Classes) > 0 }

func (o *output) appendHeader(b []byte) []byte {
	b = append(b, "row"...)
	for _, k := range o.cfg.Keep {
		b = appendField(append(b, ','), k)
	}
	if o.hasClass() {
		b = append(b, ",class"...)
	}
	for _, names := range o.columns {
		for _, n := range names {
			b = appendField(append(b, ','), n)
		}
	}
	return append(b, '\n')
}

func (o *output) appendCSV(b []byte, bt *batch, r int) ([]byte, error) {
	b = strconv.AppendInt(b, bt.numbers[r], 10)
	for _, v := range bt.keptOf(r, len(o.cfg.Keep)) {
		b = appendField(append(b, ','), v)
	}
	if o.hasClass() {
		b = append(b, ',')
		if !bt.null[r] {
			class, err := o.class(bt, r)
			if err != nil {
				return nil, err
			}
			b = appendField(b, class)
		}
	}
	for i := range bt.out {
		if bt.null[r] {
			b = append(b, strings.Repeat(",", len(o.columns[i]))...)
			continue
		}
		size := bt.rowSize(i)
		if size != len(o.columns[i]) {
			return nil, fmt.Errorf("output %q has %d values a row, a table needs a fixed number; write JSON Lines instead", bt.out[i].Name, size)
		}
		for k := range size {
			b = appendElement(append(b, ','), bt.out[i].Data, r*size+k, false)
		}
	}
	return append(b, '\n'), nil
}

func (o *output) appendJSON(b []byte, bt *batch, r int) ([]byte, error) {
	b = append(b, `{"row":`...)
	b = strconv.AppendInt(b, bt.numbers[r], 10)
	for i, v := range bt.keptOf(r, len(o.cfg.Keep)) {
		b = appendMember(b, o.cfg.Keep[i])
		b = appendString(b, v)
	}
	if o.hasClass() && !bt.null[r] {
		class, err := o.class(bt, r)
		if err != nil {
			return nil, err
		}
		b = appendString(appendMember(b, "class"), class)
	}
	for i := range bt.out {
		b = appendMember(b, bt.out[i].Name)
		size := bt.rowSize(i)
		switch {
		case bt.null[r]:
			b = append(b, "null"...)
		case size == 1:
			b = appendElement(b, bt.out[i].Data, r, true)
		default:
			b = append(b, '[')
			for k := range size {
				if k > 0 {
					b = append(b, ',')
				}
				b = appendElement(b, bt.out[i].Data, r*size+k, true)
			}
			b = append(b, ']')
		}
	}
	return append(b, '}', '\n'), nil
}

// class is the name of the predicted class.
func (o *output) class(bt *batch, r int) (string, error) {
	switch d := bt.out[o.label].Data.(type) {
	case []int64:
		if k := d[r]; k >= 0 && k < int64(len(o.cfg.Schema.Classes)) {
			return o.cfg.Schema.Classes[k], nil
		}
		return "", fmt.Errorf("row %d: the model answers class %d, the schema has %d", bt.numbers[r], d[r], len(o.cfg.Schema.Classes))
	case []string:
		return d[r], nil
	}
	return "", nil
}

// keptOf are the kept fields of row r.
func (b *batch) keptOf(r, n int) []string {
	if n == 0 {
		return nil
	}
	return b.kept[r*n : (r+1)*n]
}

// rowSize is how many values of output i a row has.
func (b *batch) rowSize(i int) int {
	if len(b.out[i].Shape) == 0 || b.out[i].Shape[0] == 0 {
		return 0
	}
	n := 1
	for _, d := range b.out[i].Shape[1:] {
		n *= int(d)
	}
	return n
}

func appendMember(b []byte, name string) []byte {
	b = append(b, ',')
	b = appendString(b, name)
	return append(b, ':')
}

func appendString(b []byte, s string) []byte {
	raw, err := json.Marshal(s)
	if err != nil {
		return append(b, `""`...) // cannot happen: a string always encodes
	}
	return append(b, raw...)
}

// appendField writes a CSV field, quoted when it has to be.
func appendField(b []byte, s string) []byte {
	if !strings.ContainsAny(s, ",\"\r\n") {
		return append(b, s...)
	}
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `""`)...)
	return append(b, '"')
}

// appendElement writes element i. In JSON a number that is none is null.
func appendElement(b []byte, data any, i int, isJSON bool) []byte {
	switch d := data.(type) {
	case []float32:
		return appendNumber(b, float64(d[i]), 32, isJSON)
	case []float64:
		return appendNumber(b, d[i], 64, isJSON)
	case []int64:
		return strconv.AppendInt(b, d[i], 10)
	case []bool:
		return strconv.AppendBool(b, d[i])
	case []string:
		if isJSON {
			return appendString(b, d[i])
		}
		return appendField(b, d[i])
	case []int32:
		return strconv.AppendInt(b, int64(d[i]), 10)
	case []int16:
		return strconv.AppendInt(b, int64(d[i]), 10)
	case []int8:
		return strconv.AppendInt(b, int64(d[i]), 10)
	case []uint64:
		return strconv.AppendUint(b, d[i], 10)
	case []uint32:
		return strconv.AppendUint(b, uint64(d[i]), 10)
	case []uint16:
		return strconv.AppendUint(b, uint64(d[i]), 10)
	case []uint8:
		return strconv.AppendUint(b, uint64(d[i]), 10)
	}
	return b
}

// appendNumber writes the shortest text that reads back the same, without an
// exponent as long as a person would.
func appendNumber(b []byte, v float64, size int, isJSON bool) []byte {
	if isJSON && (math.IsNaN(v) || math.IsInf(v, 0)) {
		return append(b, "null"...)
	}
	form := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(b, v, form, -1, size)
}

// finish gives the result its name.
func (o *output) finish() error {
	if o.header && !o.json {
		o.columns = o.names()
		if _, err := o.w.Write(o.appendHeader(nil)); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
	if o.file == nil {
		return nil
	}
	if err := errors.Join(o.file.Sync(), o.file.Close()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if err := os.Rename(o.file.Name(), o.cfg.Output); err != nil {
		return fmt.Errorf("name output: %w", err)
	}
	if err := os.Remove(checkpointPath(o.cfg)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove checkpoint: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(o.cfg.Output))
}

// abandon leaves the unfinished result to a later --resume.
func (o *output) abandon() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

func elementsOf(t infer.Tensor) int {
	if n, err := infer.Elements(t.Shape); err == nil {
		return n
	}
	return 0
}

// copyRow copies the elements of one row into place at of a whole.
func copyRow(to *infer.Tensor, at int, from *infer.Tensor) error {
	ok := false
	switch d := to.Data.(type) {
	case []float32:
		ok = copyInto(d, at, from.Data)
	case []float64:
		ok = copyInto(d, at, from.Data)
	case []int64:
		ok = copyInto(d, at, from.Data)
	case []int32:
		ok = copyInto(d, at, from.Data)
	case []int16:
		ok = copyInto(d, at, from.Data)
	case []int8:
		ok = copyInto(d, at, from.Data)
	case []uint64:
		ok = copyInto(d, at, from.Data)
	case []uint32:
		ok = copyInto(d, at, from.Data)
	case []uint16:
		ok = copyInto(d, at, from.Data)
	case []uint8:
		ok = copyInto(d, at, from.Data)
	case []bool:
		ok = copyInto(d, at, from.Data)
	case []string:
		ok = copyInto(d, at, from.Data)
	}
	if !ok {
		return fmt.Errorf("output %q is %T in one row and %T in another", to.Name, from.Data, to.Data)
	}
	return nil
}

func copyInto[T any](to []T, at int, from any) bool {
	d, ok := from.([]T)
	if ok {
		copy(to[at:], d)
	}
	return ok
}

func readAll(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	_, err = io.Copy(&b, io.LimitReader(f, limit))
	return b.Bytes(), err
}
