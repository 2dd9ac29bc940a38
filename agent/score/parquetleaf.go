package score

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

// cells are the values of one column of a file for the rows of a chunk.
type cells struct {
	// values is a []float32, []float64, []int32, []uint32, []int64, []uint64,
	// []bool or []string with one element a row.
	values any
	null   []bool // rows without a value; empty for none
}

func (c *cells) isNull(r int) bool { return len(c.null) > 0 && c.null[r] }

// field is row r as a value to keep.
func (c *cells) field(r int) field {
	if c.isNull(r) {
		return field{kind: nullField}
	}
	switch v := c.values.(type) {
	case []string:
		return field{text: v[r]}
	case []float32:
		return numberField(float64(v[r]), 32)
	case []float64:
		return numberField(v[r], 64)
	case []int32:
		return field{strconv.FormatInt(int64(v[r]), 10), literalField}
	case []int64:
		return field{strconv.FormatInt(v[r], 10), literalField}
	case []uint32:
		return field{strconv.FormatUint(uint64(v[r]), 10), literalField}
	case []uint64:
		return field{strconv.FormatUint(v[r], 10), literalField}
	case []bool:
		return field{strconv.FormatBool(v[r]), literalField}
	}
	return field{kind: nullField}
}

// numberField is text where JSON has no word for the number.
func numberField(v float64, bits int) field {
	f := field{text: string(appendNumber(nil, v, bits, false)), kind: literalField}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		f.kind = textField
	}
	return f
}

// leaf reads one column of a file, page by page. One goroutine uses it.
type leaf interface {
	// read puts the next n rows into to.
	read(n int, to *cells) error
	// skip passes over n rows.
	skip(n int64) error
	isText() bool
	close() error
}

// openLeaf opens a column for its type. Page values of the types that share a
// physical one differ in how they are looked at.
func openLeaf(f *parquet.File, c *parquet.Column) (leaf, error) {
	refuse := func(what string) (leaf, error) {
		return nil, fmt.Errorf("%w: column %q %s", ErrInput, c.Name(), what)
	}
	if !c.Leaf() || c.Repeated() {
		return refuse("is nested: store every number in a column of its own, named as the model's feature")
	}
	if notNumber(c) {
		return refuse(fmt.Sprintf("is of type %s: store it as the number that the model was trained on", c.Type()))
	}
	p := newPages(f, c)
	switch c.Type().Kind() {
	case parquet.Float:
		return &leafOf[float32]{pages: p, view: func(v encoding.Values, _ int) []float32 { return v.Float() }}, nil
	case parquet.Double:
		return &leafOf[float64]{pages: p, view: func(v encoding.Values, _ int) []float64 { return v.Double() }}, nil
	case parquet.Int32:
		if unsigned(c) {
			return &leafOf[uint32]{pages: p, view: func(v encoding.Values, _ int) []uint32 { return v.Uint32() }}, nil
		}
		return &leafOf[int32]{pages: p, view: func(v encoding.Values, _ int) []int32 { return v.Int32() }}, nil
	case parquet.Int64:
		if unsigned(c) {
			return &leafOf[uint64]{pages: p, view: func(v encoding.Values, _ int) []uint64 { return v.Uint64() }}, nil
		}
		return &leafOf[int64]{pages: p, view: func(v encoding.Values, _ int) []int64 { return v.Int64() }}, nil
	case parquet.Boolean:
		return &leafOf[bool]{pages: p, view: viewBooleans}, nil
	case parquet.ByteArray:
		return &leafOf[string]{pages: p, view: viewTexts}, nil
	case parquet.Int96, parquet.FixedLenByteArray:
	}
	return refuse(fmt.Sprintf("is of type %s, which no model takes", c.Type()))
}

// notNumber reports whether an integer of the column stands for something whose
// number depends on a scale or unit.
func notNumber(c *parquet.Column) bool {
	t := c.Type().LogicalType()
	if t == nil {
		return false
	}
	switch t.Value.(type) {
	case *format.DecimalType, *format.DateType, *format.TimeType, *format.TimestampType:
		return true
	}
	return false
}

func unsigned(c *parquet.Column) bool {
	t := c.Type().LogicalType()
	if t == nil {
		return false
	}
	i, ok := t.Value.(*format.IntType)
	return ok && !i.IsSigned
}

// viewBooleans unpacks bits, least significant first.
func viewBooleans(v encoding.Values, n int) []bool {
	bits := v.Boolean()
	list := make([]bool, min(n, 8*len(bits)))
	for i := range list {
		list[i] = bits[i/8]>>(i%8)&1 != 0
	}
	return list
}

// viewTexts copies the texts of a page at once: pages are used again.
func viewTexts(v encoding.Values, _ int) []string {
	data, offsets := v.ByteArray()
	if len(offsets) == 0 {
		return nil
	}
	all := string(data)
	list := make([]string, len(offsets)-1)
	for i := range list {
		list[i] = all[offsets[i]:offsets[i+1]]
	}
	return list
}

// leafOf is a leaf whose values are of type T.
type leafOf[T any] struct {
	*pages
	view func(v encoding.Values, n int) []T // the first n values of a page

	values  []T     // of the page at hand, without nulls, or
	index   []int32 // their places in
	dict    []T     // the dictionary
	dictFor parquet.Dictionary
}

func (l *leafOf[T]) isText() bool {
	_, ok := any(l.values).([]string)
	return ok
}

func (l *leafOf[T]) skip(n int64) error {
	n -= l.passGroups(n)
	for n > 0 {
		k, _, err := l.take(int(min(n, math.MaxInt32)))
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

func (l *leafOf[T]) read(n int, to *cells) error {
	d, _ := to.values.([]T)
	d, to.null = slices.Grow(d[:0], n), to.null[:0]
	for len(d) < n {
		k, defined, err := l.take(n - len(d))
		if err != nil {
			return err
		}
		from := len(d)
		d = d[:from+k]
		if defined == nil {
			if err := l.copy(d[from:], l.at-k); err != nil {
				return err
			}
			continue
		}
		if len(to.null) == 0 {
			to.null = append(to.null[:0], make([]bool, n)...)
		}
		if err := l.spread(d[from:], to.null[from:], defined); err != nil {
			return err
		}
	}
	to.values = d
	return nil
}

// copy fetches values from place at on.
func (l *leafOf[T]) copy(to []T, at int) error {
	if l.index == nil {
		if at+len(to) > len(l.values) {
			return l.damaged("a page has fewer values than it says")
		}
		copy(to, l.values[at:])
		return nil
	}
	if at+len(to) > len(l.index) {
		return l.damaged("a page has fewer values than it says")
	}
	for i, k := range l.index[at : at+len(to)] {
		if int(k) >= len(l.dict) || k < 0 {
			return l.damaged("a value is not in the dictionary")
		}
		to[i] = l.dict[k]
	}
	return nil
}

// spread puts the values that are there at their rows.
func (l *leafOf[T]) spread(to []T, null, defined []bool) error {
	at := l.at - countTrue(defined)
	for r, ok := range defined {
		if null[r] = !ok; !ok {
			var none T
			to[r] = none
			continue
		}
		if err := l.copy(to[r:r+1], at); err != nil {
			return err
		}
		at++
	}
	return nil
}

// take passes over at most n rows of the page at hand, the next one when it is
// used up, and tells which of them have a value; nil means all.
func (l *leafOf[T]) take(n int) (int, []bool, error) {
	for l.row == l.rows {
		if err := l.nextPage(); err != nil {
			return 0, nil, err
		}
		l.look()
	}
	k, defined := l.advance(n)
	return k, defined, nil
}

// look takes the values of a new page.
func (l *leafOf[T]) look() {
	n := int(l.page.NumValues() - l.page.NumNulls())
	l.values, l.index = nil, nil
	d := l.page.Dictionary()
	switch {
	case n == 0:
	case d != nil:
		data := l.page.Data()
		l.index = data.Int32()
		if d != l.dictFor {
			l.dict, l.dictFor = slices.Clone(l.view(d.Page().Data(), d.Len())), d
		}
	default:
		l.values = l.view(l.page.Data(), n)
	}
}

// pages walks over the pages of one column through all row groups.
type pages struct {
	name   string
	groups []parquet.RowGroup
	column int
	most   byte // definition level of a value that is there

	group   int // the next to be opened
	open    parquet.Pages
	page    parquet.Page
	levels  []byte // of definition, by row of the page; empty when all are there
	row     int    // of the page that comes next
	rows    int    // of the page
	at      int    // values passed
	defined []bool // what advance returns
}

func newPages(f *parquet.File, c *parquet.Column) *pages {
	return &pages{name: c.Name(), groups: f.RowGroups(), column: c.Index(), most: byte(c.MaxDefinitionLevel())} //nolint:gosec // a byte in the file too
}

func (p *pages) damaged(what string) error {
	return fmt.Errorf("%w: %w: column %q: %s", ErrInput, errDamaged, p.name, what)
}

// passGroups passes over whole row groups of a column that was not read yet and
// returns their rows, at most n.
func (p *pages) passGroups(n int64) int64 {
	var passed int64
	for p.group < len(p.groups) && passed+p.groups[p.group].NumRows() <= n {
		passed += p.groups[p.group].NumRows()
		p.group++
	}
	return passed
}

// nextPage loads the next page, if need be of the next row group.
func (p *pages) nextPage() error {
	p.drop()
	for {
		if p.open == nil {
			if p.group == len(p.groups) {
				return p.damaged("it has fewer rows than the file")
			}
			p.open = p.groups[p.group].ColumnChunks()[p.column].Pages()
			p.group++
		}
		page, err := p.open.ReadPage()
		if err == nil {
			p.page, p.levels, p.row, p.rows, p.at = page, page.DefinitionLevels(), 0, int(page.NumRows()), 0
			return nil
		}
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: column %q: %w", ErrInput, p.name, err)
		}
		if err := p.open.Close(); err != nil {
			return fmt.Errorf("read input: %w", err)
		}
		p.open = nil
	}
}

// advance passes over at most n rows of the page.
func (p *pages) advance(n int) (int, []bool) {
	k := min(n, p.rows-p.row)
	from := p.row
	p.row += k
	if len(p.levels) == 0 {
		p.at += k
		return k, nil
	}
	levels := p.levels[from : from+k]
	p.defined = p.defined[:0]
	there := 0
	for _, l := range levels {
		p.defined = append(p.defined, l == p.most)
		if l == p.most {
			there++
		}
	}
	p.at += there
	if there == k {
		return k, nil
	}
	return k, p.defined
}

func (p *pages) drop() {
	if p.page != nil {
		parquet.Release(p.page)
	}
	p.page, p.levels, p.row, p.rows = nil, nil, 0, 0
}

func (p *pages) close() error {
	p.drop()
	if p.open == nil {
		return nil
	}
	err := p.open.Close()
	p.open = nil
	return err
}

func countTrue(list []bool) int {
	n := 0
	for _, v := range list {
		if v {
			n++
		}
	}
	return n
}
