package score

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"

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
	values []parquet.Value
	footer format.FileMetaData
	offset int64 // bytes written
}

var _ encoder = (*parquetEncoder)(nil)

// parquetField is one column of the result.
type parquetField struct {
	name string
	node parquet.Node
	// value is that of row r as read, which is row p of the tensors; p is −1
	// for a bad row.
	value func(c *chunk, r, p int) (parquet.Value, error)
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
	e.rows = parquet.NewGenericWriter[any](&e.buf, schema, parquet.Compression(&parquet.Zstd), parquet.CreatedBy("vedette-agent", "", ""))
	if err := e.start(); err != nil {
		return nil, fmt.Errorf("encode Parquet: %w", err)
	}
	if len(state) > 0 {
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

func (e *parquetEncoder) add(name string, n parquet.Node, value func(c *chunk, r, p int) (parquet.Value, error)) {
	e.fields = append(e.fields, parquetField{name, n, value})
}

func (e *parquetEncoder) addRow() {
	n := parquet.Encoded(parquet.Int(64), &parquet.DeltaBinaryPacked)
	e.add("row", n, func(c *chunk, r, _ int) (parquet.Value, error) {
		return parquet.Int64Value(c.number(r)), nil
	})
}

// addKept adds the columns to keep: as they were in a Parquet file, else as text.
func (e *parquetEncoder) addKept(t table) {
	in, _ := t.(*parquetTable)
	for k, name := range e.keep {
		node, parse := parquet.Node(parquet.String()), parseText
		if in != nil {
			leaf := in.nodes[in.kept[k]]
			node, parse = parquet.Leaf(leaf.Type()), parserOf(leaf.Type().Kind())
		}
		e.add(name, parquet.Optional(node), func(c *chunk, r, _ int) (parquet.Value, error) {
			f := c.keptOf(r, len(e.keep))[k]
			if f.kind == nullField {
				return parquet.Value{}, nil
			}
			return parse(f.text)
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
	default:
		return parseText
	}
}

// textNode is a column of few different texts.
func textNode() parquet.Node { return parquet.Encoded(parquet.String(), &parquet.RLEDictionary) }

func (e *parquetEncoder) addClass() {
	e.add("class", e.nullable(textNode()), func(c *chunk, r, p int) (parquet.Value, error) {
		if p < 0 {
			return parquet.Value{}, nil
		}
		class, err := e.class(c, r, p)
		return parquet.ByteArrayValue([]byte(class)), err
	})
}

func (e *parquetEncoder) addOutput(i int, datatype string) error {
	n, err := nodeOf(datatype)
	if err != nil {
		return fmt.Errorf("output %q: %w", e.schema.Outputs[i].Name, err)
	}
	size := len(e.columns[i])
	for k, name := range e.columns[i] {
		e.add(name, e.nullable(n), func(c *chunk, _, p int) (parquet.Value, error) {
			if p < 0 {
				return parquet.Value{}, nil
			}
			return elementValue(c.out[i].Data, p*size+k), nil
		})
	}
	return nil
}

// nullable makes a column of outputs optional where bad rows are written too.
func (e *parquetEncoder) nullable(n parquet.Node) parquet.Node {
	if e.nulls {
		return parquet.Optional(n)
	}
	return n
}

// nodeOf is the column type for a datatype of the Open Inference Protocol.
func nodeOf(datatype string) (parquet.Node, error) {
	switch datatype {
	case "BOOL":
		return parquet.Leaf(parquet.BooleanType), nil
	case "FP32":
		return parquet.Leaf(parquet.FloatType), nil
	case "FP64":
		return parquet.Leaf(parquet.DoubleType), nil
	case "BYTES":
		return textNode(), nil
	case "INT8", "INT16", "INT32", "INT64":
		return parquet.Int(bits(datatype)), nil
	case "UINT8", "UINT16", "UINT32", "UINT64":
		return parquet.Uint(bits(datatype)), nil
	}
	return nil, fmt.Errorf("datatype %s cannot be written as Parquet", datatype)
}

// elementValue is element i of a tensor.
func elementValue(data any, i int) parquet.Value {
	switch d := data.(type) {
	case []float32:
		return parquet.FloatValue(d[i])
	case []float64:
		return parquet.DoubleValue(d[i])
	case []int64:
		return parquet.Int64Value(d[i])
	case []int32:
		return parquet.Int32Value(d[i])
	case []int16:
		return parquet.Int32Value(int32(d[i]))
	case []int8:
		return parquet.Int32Value(int32(d[i]))
	case []uint64:
		return parquet.Int64Value(int64(d[i])) //nolint:gosec // the same bits
	case []uint32:
		return parquet.Int32Value(int32(d[i])) //nolint:gosec // the same bits
	case []uint16:
		return parquet.Int32Value(int32(d[i]))
	case []uint8:
		return parquet.Int32Value(int32(d[i]))
	case []bool:
		return parquet.BooleanValue(d[i])
	case []string:
		return parquet.ByteArrayValue([]byte(d[i]))
	}
	return parquet.Value{}
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
	return nil
}

func (e *parquetEncoder) begin(w io.Writer) error {
	e.offset = int64(len(parquetMagic))
	_, err := io.WriteString(w, parquetMagic)
	return err
}

func (e *parquetEncoder) write(w io.Writer, c *chunk) error {
	writers := e.rows.ColumnWriters()
	n := 0
	for k := range e.fields {
		var err error
		if n, err = e.fill(k, c); err != nil {
			return err
		}
		if _, err := writers[k].WriteRowValues(e.values); err != nil {
			return fmt.Errorf("encode Parquet: %w", err)
		}
	}
	e.held += n
	if e.held >= e.rowGroup || e.weight >= maxHeld {
		return e.settle(w)
	}
	return nil
}

// fill makes the values of one column and returns how many there are.
func (e *parquetEncoder) fill(k int, c *chunk) (int, error) {
	column := &e.fields[k]
	there := 0
	if column.node.Optional() {
		there = 1
	}
	e.values = e.values[:0]
	for r := range c.n {
		p := c.place[r]
		if p < 0 && !e.nulls {
			continue
		}
		v, err := column.value(c, r, p)
		if err != nil {
			return 0, fmt.Errorf("column %q: %w", column.name, err)
		}
		level := there
		if v.IsNull() {
			level = 0
		}
		e.values = append(e.values, v.Level(0, level, k))
		e.weight += 8
		if v.Kind() == parquet.ByteArray {
			e.weight += len(v.ByteArray())
		}
	}
	return len(e.values), nil
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
	return e.buf.Bytes()[len(parquetMagic) : group.FileOffset+group.TotalCompressedSize], group, nil
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
