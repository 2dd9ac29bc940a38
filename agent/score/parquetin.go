package score

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// errDamaged says that a Parquet file cannot be read.
var errDamaged = errors.New("the Parquet file is damaged")

// parquetTable is a Parquet file. Columns are found by the model's features; of
// each only the pages at hand are in memory.
type parquetTable struct {
	columns []column
	leaves  []leaf
	order   [][]int // leaf → columns of the model, or nothing for one that is kept
	kept    []int   // leaves to keep, in the order of Config.Keep
	nodes   []parquet.Node
	rows    int64
	size    int64
	pos     position
}

var (
	_ table  = (*parquetTable)(nil)
	_ parser = (*parquetParser)(nil)
)

// openParquet reads the footer and maps the columns.
func openParquet(cfg *Config, columns []column) (_ *parquetTable, err error) {
	in, ok := cfg.Input.Reader.(io.ReaderAt)
	if !ok || cfg.Input.Size == 0 {
		return nil, fmt.Errorf("%w: Parquet is read from its end: name a file that is not empty instead of a stream", ErrInput)
	}
	defer recovered(&err)
	f, err := parquet.OpenFile(in, cfg.Input.Size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(readSize/4))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInput, cfg.Input.Name, err)
	}
	t := &parquetTable{columns: columns, rows: f.NumRows(), size: cfg.Input.Size}
	if err := t.mapColumns(f, cfg.Keep); err != nil {
		return nil, err
	}
	return t, nil
}

// recovered turns a panic into an error: the library has some for files whose
// parts contradict each other.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %w: %v", ErrInput, errDamaged, p)
	}
}

// mapColumns finds every column of the model, and those to keep, by name.
func (t *parquetTable) mapColumns(f *parquet.File, keep []string) error {
	at := map[string]int{} // name → leaf
	open := func(name string) (int, error) {
		if i, ok := at[name]; ok {
			return i, nil
		}
		top := f.Root().Column(name)
		if top == nil {
			return -1, nil
		}
		l, err := openLeaf(f, top)
		if err != nil {
			return -1, err
		}
		t.leaves, t.order, t.nodes = append(t.leaves, l), append(t.order, nil), append(t.nodes, top)
		at[name] = len(t.leaves) - 1
		return at[name], nil
	}
	var lacking []string
	for ci := range t.columns {
		i, err := open(t.columns[ci].name)
		if err != nil {
			return err
		}
		if i < 0 {
			lacking = append(lacking, t.columns[ci].name)
			continue
		}
		if err := fits(t.leaves[i], t.nodes[i], &t.columns[ci]); err != nil {
			return err
		}
		t.order[i] = append(t.order[i], ci)
	}
	if len(lacking) > 0 {
		return fmt.Errorf("%w: %s; it has %s", ErrInput, lackingNames(lacking, len(t.columns)), namesOf(f.Root()))
	}
	for _, name := range keep {
		i, err := open(name)
		if err != nil {
			return err
		}
		if i < 0 {
			return fmt.Errorf("%w: there is no column %q to keep", ErrInput, name)
		}
		t.kept = append(t.kept, i)
	}
	return nil
}

// namesOf lists some columns of a file.
func namesOf(root *parquet.Column) string {
	var names []string
	for _, c := range root.Columns() {
		names = append(names, strconv.Quote(c.Name()))
	}
	if len(names) > 8 {
		names = append(names[:8], "…")
	}
	return strings.Join(names, ", ")
}

// fits reports whether the leaf's values can be the model's.
func fits(l leaf, n parquet.Node, c *column) error {
	if l.isText() == (c.datatype == "BYTES") {
		return nil
	}
	return fmt.Errorf("%w: column %q is %s, the model takes %s", ErrInput, c.name, n.Type(), c.datatype)
}

func (t *parquetTable) close() error {
	var errs []error
	for _, l := range t.leaves {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// read tells bytes of the file in proportion to the rows.
func (t *parquetTable) read() int64 {
	return int64(float64(t.size) * float64(t.pos.Row) / float64(max(t.rows, 1)))
}

func (t *parquetTable) seek(p position) (err error) {
	defer recovered(&err)
	t.pos = p
	for _, l := range t.leaves {
		if err := l.skip(p.Row); err != nil {
			return err
		}
	}
	return nil
}

func (t *parquetTable) next(c *chunk) (err error) {
	defer recovered(&err)
	c.reset(t.pos)
	c.n = int(min(int64(c.capacity()), t.rows-t.pos.Row))
	if c.n <= 0 {
		return io.EOF
	}
	if c.cells == nil {
		c.cells = make([]cells, len(t.leaves))
	}
	for i, l := range t.leaves {
		if err := l.read(c.n, &c.cells[i]); err != nil {
			return err
		}
	}
	t.pos.Row += int64(c.n)
	c.end = t.pos
	return nil
}

// parquetParser has no state of its own.
type parquetParser struct{ *parquetTable }

func (t *parquetTable) parser() parser { return &parquetParser{t} }

// parse turns columns into rows.
func (p *parquetParser) parse(c *chunk) error {
	for r := range c.n {
		c.place[r] = r
	}
	c.rows = c.n
	for i, columns := range p.order {
		for _, ci := range columns {
			p.columns[ci].transpose(c, &c.cells[i])
		}
	}
	p.keep(c)
	if len(c.bad) == 0 {
		return nil
	}
	return c.drop(func(r, to int) (bool, error) {
		c.moveRow(to, r)
		return true, nil
	})
}

func (p *parquetParser) keep(c *chunk) {
	if len(p.kept) == 0 {
		return
	}
	c.kept = slices.Grow(c.kept, c.n*len(p.kept))
	for r := range c.n {
		for _, i := range p.kept {
			c.kept = append(c.kept, c.cells[i].field(r))
		}
	}
}
