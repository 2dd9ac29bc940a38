package score

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// parquetMagic begins and ends a file.
const parquetMagic = "PAR1"

// maxHeld bounds the bytes of a row group that waits to be complete.
const maxHeld = 64 << 20

// parquetEncoder writes row groups one by one. The library can neither stop in
// the middle of a file nor go on with one, so every row group is made as a small
// file in memory; its pages are copied to the result, and what the footer will
// say of them is kept, in checkpoints too.
type parquetEncoder struct {
	layout
	fields   []parquetField
	rowGroup int // rows

	buf    bytes.Buffer
	rows   *parquet.GenericWriter[any]
	held   int // rows that wait
	weight int // bytes of them, about
	footer format.FileMetaData
	offset int64 // bytes written
}

var _ encoder = (*parquetEncoder)(nil)

// parquetField is one column of the result.
type parquetField struct {
	name string
	node parquet.Node
	// fill appends the values of a chunk's rows that are written.
	fill func(c *chunk, to []parquet.Value) ([]parquet.Value, error)
}

func newParquetEncoder(cfg *Config, t table, state []byte) (*parquetEncoder, error) {
	e := &parquetEncoder{layout: newLayout(cfg), rowGroup: cfg.RowGroup}
	e.addRow()
	e.addKept(t)
	if e.hasClass() {
		e.addClass()
	}
	for i, out := range cfg.Schema.Outputs {
		if err := e.addOutput(i, out.Datatype); err != nil {
			return nil, err
		}
	}
	schema, err := e.parquetSchema()
	if err != nil {
		return nil, err
	}
	options := []parquet.WriterOption{parquet.Compression(&parquet.Snappy), parquet.CreatedBy("vedette-agent", "1.0.0", "parquet-go")}
	for _, f := range e.fields {
		// Bounds are for the page indexes, which are left out.
		options = append(options, parquet.SkipPageBounds(f.name), parquet.SkipPageStatistics(f.name))
	}
	e.rows = parquet.NewGenericWriter[any](&e.buf, append(options, schema)...)
	if err := e.start(); err != nil {
		return nil, fmt.Errorf("encode Parquet: %w", err)
	}
	if len(state) > 0 {
		e.footer = format.FileMetaData{} // the library adds to what is there
		if err := thrift.Unmarshal(new(thrift.CompactProtocol), state, &e.footer); err != nil {
			return nil, fmt.Errorf("%w: read row groups: %w", ErrCheckpoint, err)
		}
		e.offset = endOf(&e.footer)
	}
	return e, nil
}

// start takes what the footer says of the whole file from an empty one.
func (e *parquetEncoder) start() error {
	meta, err := e.file()
	if err != nil {
		return err
	}
	e.footer = format.FileMetaData{Version: meta.Version, Schema: meta.Schema, CreatedBy: meta.CreatedBy, ColumnOrders: meta.ColumnOrders}
	e.restart()
	return nil
}

// restart begins the next small file.
func (e *parquetEncoder) restart() {
	e.held, e.weight = 0, 0
	e.buf.Reset()
	e.rows.Reset(&e.buf)
}

// file ends the small file and returns what its footer says.
func (e *parquetEncoder) file() (*format.FileMetaData, error) {
	if err := e.rows.Close(); err != nil {
		return nil, err
	}
	raw := e.buf.Bytes()
	f, err := parquet.OpenFile(bytes.NewReader(raw), int64(len(raw)), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, err
	}
	return f.Metadata(), nil
}

// endOf is where the last row group of a file ends.
func endOf(f *format.FileMetaData) int64 {
	if len(f.RowGroups) == 0 {
		return int64(len(parquetMagic))
	}
	last := f.RowGroups[len(f.RowGroups)-1]
	return last.FileOffset + last.TotalCompressedSize
}

func (e *parquetEncoder) add(name string, n parquet.Node, fill func(c *chunk, to []parquet.Value) ([]parquet.Value, error)) {
	e.fields = append(e.fields, parquetField{name, n, fill})
}

// placer makes a value one of the column that is added next. A column that has a
// value in every row needs no levels.
func (e *parquetEncoder) placer(optional bool) (value func(v parquet.Value) parquet.Value, null parquet.Value) {
	column := len(e.fields)
	if !optional {
		return func(v parquet.Value) parquet.Value { return v }, parquet.Value{}
	}
	return func(v parquet.Value) parquet.Value { return v.Level(0, 1, column) }, parquet.Value{}.Level(0, 0, column)
}

func (e *parquetEncoder) addRow() {
	n := parquet.Encoded(parquet.Int(64), &parquet.DeltaBinaryPacked)
	e.add("row", n, func(c *chunk, to []parquet.Value) ([]parquet.Value, error) {
		for r := range c.n {
			if c.place[r] >= 0 || e.nulls {
				to = append(to, parquet.Int64Value(c.number(r)))
			}
		}
		return to, nil
	})
}

// addKept adds the columns to keep: as they were in a Parquet file, else as text.
func (e *parquetEncoder) addKept(t table) {
	in, _ := t.(*parquetTable)
	for k, name := range e.keep {
		node, parse := parquet.String(), parseText
		if in != nil {
			leaf := in.nodes[in.kept[k]]
			node, parse = parquet.Leaf(leaf.Type()), parserOf(leaf.Type().Kind())
		}
		value, null := e.placer(true)
		e.add(name, parquet.Optional(node), func(c *chunk, to []parquet.Value) ([]parquet.Value, error) {
			for r := range c.n {
				f := c.keptOf(r, len(e.keep))[k]
				switch {
				case c.place[r] < 0 && !e.nulls:
				case f.kind == nullField:
					to = append(to, null)
				default:
					v, err := parse(f.text)
					if err != nil {
						return nil, err
					}
					c.weight += len(f.text)
					to = append(to, value(v))
				}
			}
			return to, nil
		})
	}
}

func parseText(s string) (parquet.Value, error) { return parquet.ByteArrayValue([]byte(s)), nil }

// parserOf reads what cells.field wrote.
func parserOf(k parquet.Kind) func(s string) (parquet.Value, error) {
	switch k {
	case parquet.Boolean:
		return func(s string) (parquet.Value, error) {
			v, err := strconv.ParseBool(s)
			return parquet.BooleanValue(v), err
		}
	case parquet.Float:
		return func(s string) (parquet.Value, error) {
			v, err := strconv.ParseFloat(s, 32)
			return parquet.FloatValue(float32(v)), err
		}
	case parquet.Double:
		return func(s string) (parquet.Value, error) {
			v, err := strconv.ParseFloat(s, 64)
			return parquet.DoubleValue(v), err
		}
	case parquet.Int32:
		return func(s string) (parquet.Value, error) {
			v, err := strconv.ParseInt(s, 10, 64)
			return parquet.Int32Value(int32(v)), err //nolint:gosec // an unsigned one has the same bits
		}
	case parquet.Int64:
		return func(s string) (parquet.Value, error) {
			v, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				var u uint64
				u, err = strconv.ParseUint(s, 10, 64)
				v = int64(u) //nolint:gosec // the same bits
			}
			return parquet.Int64Value(v), err
		}
	case parquet.ByteArray, parquet.Int96, parquet.FixedLenByteArray: // only texts among them are kept
	}
	return parseText
}

// textNode is a column of few different texts.
func textNode() parquet.Node { return parquet.Encoded(parquet.String(), &parquet.RLEDictionary) }

func (e *parquetEncoder) addClass() {
	value, null := e.placer(e.nulls)
	var known []parquet.Value
	for _, name := range e.schema.Classes {
		known = append(known, value(textValue(name)))
	}
	e.add("class", e.nullable(textNode()), func(c *chunk, to []parquet.Value) ([]parquet.Value, error) {
		labels, _ := c.out[e.label].Data.([]int64)
		for r := range c.n {
			p := c.place[r]
			switch {
			case p < 0:
				to = e.appendNull(to, null)
				continue
			case p < len(labels) && labels[p] >= 0 && labels[p] < int64(len(known)):
				to = append(to, known[labels[p]])
				continue
			}
			class, err := e.class(c, r, p)
			if err != nil {
				return nil, err
			}
			to = append(to, value(textValue(class)))
		}
		return to, nil
	})
}

// textValue lends a text to the library, which copies it.
func textValue(s string) parquet.Value {
	return parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// appendNull writes a bad row, unless such rows are left out.
func (e *parquetEncoder) appendNull(to []parquet.Value, null parquet.Value) []parquet.Value {
	if e.nulls {
		return append(to, null)
	}
	return to
}

func (e *parquetEncoder) addOutput(i int, datatype string) error {
	n, err := nodeOf(datatype)
	if err != nil {
		return fmt.Errorf("output %q: %w", e.schema.Outputs[i].Name, err)
	}
	for k, name := range e.columns[i] {
		value, null := e.placer(e.nulls)
		o := outputField{e, i, k, value, null}
		e.add(name, e.nullable(n), o.fill)
	}
	return nil
}

// outputField is value k of a row of output i.
type outputField struct {
	e     *parquetEncoder
	i, k  int
	value func(v parquet.Value) parquet.Value
	null  parquet.Value
}

func (o outputField) fill(c *chunk, to []parquet.Value) ([]parquet.Value, error) {
	switch d := c.out[o.i].Data.(type) {
	case []float32:
		return fillOutput(o, c, to, d, parquet.FloatValue), nil
	case []float64:
		return fillOutput(o, c, to, d, parquet.DoubleValue), nil
	case []int64:
		return fillOutput(o, c, to, d, parquet.Int64Value), nil
	case []uint64:
		return fillOutput(o, c, to, d, integer64[uint64]), nil
	case []int32:
		return fillOutput(o, c, to, d, parquet.Int32Value), nil
	case []uint32:
		return fillOutput(o, c, to, d, integer32[uint32]), nil
	case []int16:
		return fillOutput(o, c, to, d, integer32[int16]), nil
	case []uint16:
		return fillOutput(o, c, to, d, integer32[uint16]), nil
	case []int8:
		return fillOutput(o, c, to, d, integer32[int8]), nil
	case []uint8:
		return fillOutput(o, c, to, d, integer32[uint8]), nil
	case []bool:
		return fillOutput(o, c, to, d, parquet.BooleanValue), nil
	case []string:
		return fillOutput(o, c, to, d, textValue), nil
	}
	return fillOutput(o, c, to, nil, parquet.BooleanValue), nil // a chunk without any good row
}

func fillOutput[T any](o outputField, c *chunk, to []parquet.Value, data []T, value func(T) parquet.Value) []parquet.Value {
	size := len(o.e.columns[o.i])
	if c.rows == c.n && !o.e.nulls { // the common case, in a loop that does little
		to = slices.Grow(to, c.n)[:c.n]
		for r := range to {
			to[r] = value(data[r*size+o.k])
		}
		return to
	}
	for r := range c.n {
		if p := c.place[r]; p >= 0 {
			to = append(to, o.value(value(data[p*size+o.k])))
		} else {
			to = o.e.appendNull(to, o.null)
		}
	}
	return to
}

func integer32[T int8 | int16 | uint8 | uint16 | uint32](v T) parquet.Value {
	return parquet.Int32Value(int32(v)) // of an unsigned one the bits
}

func integer64[T uint64](v T) parquet.Value {
	return parquet.Int64Value(int64(v)) // the bits
}

// nullable makes a column of outputs optional where bad rows are written too.
func (e *parquetEncoder) nullable(n parquet.Node) parquet.Node {
	if e.nulls {
		return parquet.Optional(n)
	}
	return n
}

// floatNode is a column of what a model computes. Snappy takes a quarter off such
// numbers and a tenth of the time of a small model's whole run: not worth it.
func floatNode(t parquet.Type) parquet.Node {
	return parquet.Compressed(parquet.Leaf(t), &parquet.Uncompressed)
}

// nodeOf is the column type for a datatype of the Open Inference Protocol.
func nodeOf(datatype string) (parquet.Node, error) {
	switch datatype {
	case "BOOL":
		return parquet.Leaf(parquet.BooleanType), nil
	case "FP32":
		return floatNode(parquet.FloatType), nil
	case "FP64":
		return floatNode(parquet.DoubleType), nil
	case "BYTES":
		return textNode(), nil
	case "INT8", "INT16", "INT32", "INT64":
		return parquet.Encoded(parquet.Int(bits(datatype)), &parquet.DeltaBinaryPacked), nil
	case "UINT8", "UINT16", "UINT32", "UINT64":
		return parquet.Encoded(parquet.Uint(bits(datatype)), &parquet.DeltaBinaryPacked), nil
	}
	return nil, fmt.Errorf("datatype %s cannot be written as Parquet", datatype)
}

// ordered is a group whose fields keep their order; the library sorts them.
type ordered struct {
	parquet.Group
	fields []parquet.Field
}

// Fields are the columns from left to right.
func (o ordered) Fields() []parquet.Field { return o.fields }

func (e *parquetEncoder) parquetSchema() (*parquet.Schema, error) {
	o := ordered{Group: parquet.Group{}}
	for _, c := range e.fields {
		if _, twice := o.Group[c.name]; twice {
			return nil, fmt.Errorf("%w: two columns of the result would be named %q, which Parquet cannot have", ErrInput, c.name)
		}
		o.Group[c.name] = c.node
	}
	for _, c := range e.fields {
		all := o.Group.Fields()
		o.fields = append(o.fields, all[slices.IndexFunc(all, func(f parquet.Field) bool { return f.Name() == c.name })])
	}
	return parquet.NewSchema("predictions", o), nil
}

func (e *parquetEncoder) encode(c *chunk) error {
	for i := range c.out {
		if c.rows > 0 {
			if err := e.sized(c, i); err != nil {
				return err
			}
		}
	}
	if c.values == nil {
		c.values = make([][]parquet.Value, len(e.fields))
	}
	c.weight = 0
	for k := range e.fields {
		var err error
		if c.values[k], err = e.fields[k].fill(c, c.values[k][:0]); err != nil {
			return fmt.Errorf("column %q: %w", e.fields[k].name, err)
		}
		c.weight += 8 * len(c.values[k])
	}
	return nil
}

func (e *parquetEncoder) begin(w io.Writer) error {
	e.offset = int64(len(parquetMagic))
	_, err := io.WriteString(w, parquetMagic)
	return err
}

func (e *parquetEncoder) write(w io.Writer, c *chunk) error {
	for k, column := range e.rows.ColumnWriters() {
		if _, err := column.WriteRowValues(c.values[k]); err != nil {
			return fmt.Errorf("encode Parquet: %w", err)
		}
	}
	e.held += len(c.values[0])
	e.weight += c.weight
	if e.held >= e.rowGroup || e.weight >= maxHeld {
		return e.settle(w)
	}
	return nil
}

func (e *parquetEncoder) settled() bool { return e.held == 0 }

// settle ends the row group.
func (e *parquetEncoder) settle(w io.Writer) error {
	if e.held == 0 {
		return nil
	}
	pages, group, err := e.group()
	if err != nil {
		return fmt.Errorf("encode Parquet: %w", err)
	}
	if _, err := w.Write(pages); err != nil {
		return err
	}
	shift(group, e.offset-int64(len(parquetMagic)), len(e.footer.RowGroups))
	e.footer.RowGroups = append(e.footer.RowGroups, *group)
	e.footer.NumRows += group.NumRows
	e.offset += int64(len(pages))
	e.restart()
	return nil
}

// group ends the small file and takes its row group out of it.
func (e *parquetEncoder) group() (pages []byte, group *format.RowGroup, err error) {
	meta, err := e.file()
	if err != nil {
		return nil, nil, err
	}
	if len(meta.RowGroups) != 1 || len(e.footer.RowGroups) == parquet.MaxRowGroups {
		return nil, nil, fmt.Errorf("%d row groups at once after %d", len(meta.RowGroups), len(e.footer.RowGroups))
	}
	group = &meta.RowGroups[0]
	e.name(group)
	return e.buf.Bytes()[len(parquetMagic) : group.FileOffset+group.TotalCompressedSize], group, nil
}

// name says of each column of a row group which one it is. The library forgets the
// paths of its columns with the first reset, and readers refuse a chunk without.
func (e *parquetEncoder) name(g *format.RowGroup) {
	for i := range g.Columns {
		g.Columns[i].MetaData.PathInSchema = thrift.Slice[string]{e.fields[i].name}
	}
}

// shift moves what the footer says of a row group. The page indexes, which also
// name places, are left behind: readers do without.
func shift(g *format.RowGroup, by int64, ordinal int) {
	g.FileOffset += by
	g.Ordinal = int16(ordinal) //nolint:gosec // below MaxRowGroups
	for i := range g.Columns {
		c := &g.Columns[i]
		c.FileOffset += by
		c.OffsetIndexOffset, c.OffsetIndexLength, c.ColumnIndexOffset, c.ColumnIndexLength = 0, 0, 0, 0
		c.MetaData.DataPageOffset += by
		if c.MetaData.DictionaryPageOffset > 0 {
			c.MetaData.DictionaryPageOffset += by
		}
	}
}

func (e *parquetEncoder) state() ([]byte, error) {
	raw, err := thrift.Marshal(new(thrift.CompactProtocol), &e.footer)
	if err != nil {
		return nil, fmt.Errorf("encode footer: %w", err)
	}
	return raw, nil
}

// end writes the last row group and the footer.
func (e *parquetEncoder) end(w io.Writer) error {
	if err := e.settle(w); err != nil {
		return err
	}
	raw, err := e.state()
	if err != nil {
		return err
	}
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(raw))) //nolint:gosec // far below 4 GiB
	_, err = w.Write(append(raw, parquetMagic...))
	return err
}
