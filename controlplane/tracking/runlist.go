package tracking

import (
	"cmp"
	"iter"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of a stretch.
const (
	maxStretch = 512 // runs
	maxColumns = 32
)

// stretch is some runs of an experiment in the order of their starts. Which runs
// they are never changes; what they are does.
type stretch struct {
	cells   []*cell[run]
	changes atomic.Uint64 // counts changes of its runs
	columns sync.Map      // field → *column, of fields that were searched by
	held    atomic.Int32  // about how many columns there are
}

// column is one field of all runs of a stretch, side by side: a search that
// looked at each run would spend its time waiting for memory.
type column struct {
	changes uint64 // of the stretch when it was read
	numbers []float64
	texts   []string
	ok      []bool
}

// column reads a field of all runs, or takes what was read since the last change.
func (s *stretch) column(f field, l look[*run]) *column {
	f.at = 0
	// Count first: what changes while it is read makes it old at once.
	changes := s.changes.Load()
	if have, ok := s.columns.Load(f); ok && have.(*column).changes == changes { //nolint:forcetypeassert // of this function alone
		return have.(*column) //nolint:forcetypeassert // of this function alone
	}
	c := &column{changes: changes, ok: make([]bool, len(s.cells))}
	if l.number != nil {
		c.numbers = make([]float64, len(s.cells))
		for i, cell := range s.cells {
			c.numbers[i], c.ok[i] = l.number(cell.get())
		}
	} else {
		c.texts = make([]string, len(s.cells))
		for i, cell := range s.cells {
			c.texts[i], c.ok[i] = l.text(cell.get())
		}
	}
	if _, had := s.columns.Swap(f, c); !had && s.held.Add(1) > maxColumns {
		s.columns.Clear()
		s.held.Store(0)
	}
	return c
}

// runList are the runs of an experiment: the oldest start first, and the greatest
// id among equals. It is never changed, so readers hold it without a lock.
type runList []*stretch

// compareStarts is that order. Read backwards it is MLflow's.
func compareStarts(a, b *run) int {
	return cmp.Or(cmp.Compare(a.started, b.started), strings.Compare(b.id, a.id))
}

func newRunList(cells []*cell[run]) (out runList) {
	slices.SortFunc(cells, func(a, b *cell[run]) int { return compareStarts(a.get(), b.get()) })
	for some := range slices.Chunk(cells, maxStretch/2) {
		out = append(out, &stretch{cells: some})
	}
	return out
}

// stretchOf is the stretch in which a run lies or belongs. Starts and ids of runs
// never change.
func (l runList) stretchOf(r *run) int {
	n := sort.Search(len(l), func(n int) bool { return compareStarts(l[n].cells[0].get(), r) > 0 })
	return max(0, n-1)
}

// with is the list with another run. A stretch that is full is halved, or
// followed by a new one where runs come in order.
func (l runList) with(c *cell[run]) runList {
	if len(l) == 0 {
		return runList{{cells: []*cell[run]{c}}}
	}
	n := l.stretchOf(c.get())
	cells := l[n].cells
	i := sort.Search(len(cells), func(i int) bool { return compareStarts(cells[i].get(), c.get()) > 0 })
	cells = slices.Concat(cells[:i], []*cell[run]{c}, cells[i:])
	switch {
	case len(cells) <= maxStretch:
		return slices.Concat(l[:n], runList{{cells: cells}}, l[n+1:])
	case i == maxStretch:
		return slices.Concat(l[:n+1], runList{{cells: cells[i:]}}, l[n+1:])
	default:
		half := len(cells) / 2
		return slices.Concat(l[:n], runList{{cells: cells[:half]}, {cells: cells[half:]}}, l[n+1:])
	}
}

// without is the list without some runs.
func (l runList) without(gone map[*cell[run]]bool) (out runList) {
	for _, s := range l {
		if !slices.ContainsFunc(s.cells, func(c *cell[run]) bool { return gone[c] }) {
			out = append(out, s)
			continue
		}
		left := slices.DeleteFunc(slices.Clone(s.cells), func(c *cell[run]) bool { return gone[c] })
		if len(left) > 0 {
			out = append(out, &stretch{cells: left})
		}
	}
	return out
}

// touch notes that a run of the list has changed.
func (l runList) touch(r *run) {
	if len(l) > 0 {
		l[l.stretchOf(r)].changes.Add(1)
	}
}

// row is a run in a search: a place in the columns that the search looks at.
type row struct {
	*rows

	i int
}

// rows are the runs of one stretch in a search.
type rows struct {
	stretch *stretch
	columns []*column
}

func (r row) run() *run { return r.stretch.cells[r.i].get() }

// runColumns are the fields that a search looks at.
type runColumns struct {
	fields []field
	looks  []look[*run]
}

// look reads a field by its column.
func (c *runColumns) look(f field, l look[*run]) look[row] {
	if l.texts != nil {
		return look[row]{texts: func(r row) []string { return l.texts(r.run()) }}
	}
	n := len(c.fields)
	c.fields, c.looks = append(c.fields, f), append(c.looks, l)
	if l.number != nil {
		return look[row]{number: func(r row) (float64, bool) { c := r.columns[n]; return c.numbers[r.i], c.ok[r.i] }}
	}
	return look[row]{text: func(r row) (string, bool) { c := r.columns[n]; return c.texts[r.i], c.ok[r.i] }}
}

// newestFirst are the rows of a list.
func (c *runColumns) newestFirst(l runList) iter.Seq[row] {
	return func(yield func(row) bool) {
		for _, s := range slices.Backward(l) {
			r := &rows{stretch: s, columns: make([]*column, len(c.fields))}
			for n, f := range c.fields {
				r.columns[n] = s.column(f, c.looks[n])
			}
			for i := range slices.Backward(s.cells) {
				if !yield(row{r, i}) {
					return
				}
			}
		}
	}
}
