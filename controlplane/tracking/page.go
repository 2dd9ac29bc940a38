package tracking

import (
	"cmp"
	"container/heap"
	"encoding/base64"
	"hash/fnv"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// sortKey is what a thing is sorted by, in one part of an order. What has no
// value comes last whichever way the rest goes, after what is not a number.
type sortKey struct {
	_      struct{} `cbor:",toarray"`
	Rank   uint8
	Number float64
	Text   string
}

const (
	rankValue uint8 = iota
	rankNaN
	rankNone
)

// by is one part of an order.
type by[V any] struct {
	look look[V]
	desc bool
}

func (b by[V]) key(v V) sortKey {
	if b.look.number != nil {
		n, ok := b.look.number(v)
		switch {
		case !ok:
			return sortKey{Rank: rankNone}
		case math.IsNaN(n):
			return sortKey{Rank: rankNaN}
		}
		return sortKey{Number: n}
	}
	s, ok := b.look.text(v)
	if !ok {
		return sortKey{Rank: rankNone}
	}
	return sortKey{Text: s}
}

// compare says which of two keys comes first in a part of an order.
func (b by[V]) compare(x, y sortKey) int {
	if c := cmp.Compare(x.Rank, y.Rank); c != 0 {
		return c
	}
	c := cmp.Compare(x.Number, y.Number)
	if c == 0 {
		c = strings.Compare(x.Text, y.Text)
	}
	if b.desc {
		return -c
	}
	return c
}

// compareKeys says which of two things comes first in an order.
func compareKeys[V any](order []by[V], a, b []sortKey) int {
	for i := range order {
		if c := order[i].compare(a[i], b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// found is a thing that passed, with what it is sorted by.
type found[V any] struct {
	v    V
	keys []sortKey
}

// ranking keeps the first things of an order: a heap with the last of them on
// top.
type ranking[V any] struct {
	order []by[V] // the last part names a thing, so no two are equal
	after []sortKey
	most  int
	items []found[V]
}

func (r *ranking[V]) Len() int { return len(r.items) }
func (r *ranking[V]) Less(i, j int) bool {
	return compareKeys(r.order, r.items[i].keys, r.items[j].keys) > 0
}
func (r *ranking[V]) Swap(i, j int) { r.items[i], r.items[j] = r.items[j], r.items[i] }
func (r *ranking[V]) Push(x any)    { r.items = append(r.items, x.(found[V])) } //nolint:forcetypeassert // of this file alone

func (r *ranking[V]) Pop() any {
	last := r.items[len(r.items)-1]
	r.items = r.items[:len(r.items)-1]
	return last
}

// offer takes a thing if it is among the first after the page before, and says
// whether it is after that page.
func (r *ranking[V]) offer(v V) bool {
	full := len(r.items) >= r.most
	if full && r.compare(v, r.items[0].keys) >= 0 {
		return true
	}
	if r.after != nil && r.compare(v, r.after) <= 0 {
		return false
	}
	if !full {
		keys := make([]sortKey, len(r.order))
		r.read(v, keys)
		heap.Push(r, found[V]{v, keys})
		return true
	}
	r.items[0].v = v
	r.read(v, r.items[0].keys)
	heap.Fix(r, 0)
	return true
}

// compare says whether a thing comes before what has those keys. It looks at no
// more of the thing than it has to: most are told apart by the first key.
func (r *ranking[V]) compare(v V, keys []sortKey) int {
	for i, b := range r.order {
		if c := b.compare(b.key(v), keys[i]); c != 0 {
			return c
		}
	}
	return 0
}

func (r *ranking[V]) read(v V, keys []sortKey) {
	for i, b := range r.order {
		keys[i] = b.key(v)
	}
}

// search is what is looked for among things of one kind.
type search[V any] struct {
	matches func(V) bool
	order   []by[V]
	max     int
	after   []sortKey
	query   uint64 // names the search in tokens
}

// space is a kind of things that can be searched.
type space[V any] struct {
	name         string
	usual, most  int // page sizes: by default, and at most
	look         func(field) (look[V], error)
	order        []string     // after what was asked for
	id           look[V]      // names a thing
	extraOfQuery []string     // what else the search depends on
	only         func(V) bool // what is found at all, whatever the filter says; nil for everything
}

// find searches lists of things; sorted as for run.
func (sp space[V]) find(q Search, lists iter.Seq[iter.Seq[V]], sorted bool) (found []V, next string, err error) {
	s, err := sp.prepare(q)
	if err != nil {
		return nil, "", err
	}
	return s.run(lists, sorted)
}

// maxOrder bounds the parts of an order: a page token holds what each of them
// looked at last.
const maxOrder = 32

// prepare reads a search.
func (sp space[V]) prepare(s Search) (*search[V], error) {
	if len(s.OrderBy) > maxOrder {
		return nil, refuse(Invalid, "order_by has %d parts, at most %d are allowed", len(s.OrderBy), maxOrder)
	}
	out := &search[V]{max: cmp.Or(s.Max, sp.usual), query: sp.hash(s)}
	if out.max < 0 || out.max > sp.most {
		return nil, refuse(Invalid, "max_results %d must be 1 to %d", s.Max, sp.most)
	}
	clauses, err := parseFilter(s.Filter)
	if err == nil {
		out.matches, err = compile(clauses, sp.look)
	}
	if err != nil {
		return nil, explain("filter", s.Filter, err)
	}
	if matches := out.matches; sp.only != nil {
		out.matches = func(v V) bool { return sp.only(v) && matches(v) }
	}
	for _, text := range slices.Concat(s.OrderBy, sp.order) {
		b, err := sp.sortBy(text)
		if err != nil {
			return nil, explain("order_by", text, err)
		}
		out.order = append(out.order, b)
	}
	out.order = append(out.order, by[V]{look: sp.id})
	out.after, err = out.read(s.Page)
	return out, err
}

func (sp space[V]) sortBy(text string) (by[V], error) {
	o, err := parseOrder(text)
	if err != nil {
		return by[V]{}, err
	}
	l, err := sp.look(o.field)
	if err == nil && l.texts != nil {
		err = wrong(o.field.at, "%s can have many values: it cannot be sorted by", o.field.name())
	}
	return by[V]{look: l, desc: o.desc}, err
}

// explain names the query in which an error is.
func explain(what, text string, err error) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // made in this package and never wrapped
		return refuse(e.Code, "%s %.200q: %s", what, text, e.Message)
	}
	return err
}

// hash names all that decides what a search finds, but not how much at a time.
func (sp space[V]) hash(s Search) uint64 {
	h := fnv.New64a()
	for _, part := range slices.Concat([]string{sp.name, s.Filter, string(s.View)}, s.OrderBy, sp.extraOfQuery) {
		_, _ = h.Write([]byte(part)) // never fails
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

// pageToken says after what the next page begins. It names a place in the order
// and no number of things, so what is added meanwhile moves nothing.
type pageToken struct {
	_     struct{} `cbor:",toarray"`
	Query uint64
	After []sortKey
}

func (s *search[V]) read(page string) ([]sortKey, error) {
	if page == "" {
		return nil, nil
	}
	var t pageToken
	raw, err := base64.RawURLEncoding.DecodeString(page)
	if err == nil {
		err = cbor.Unmarshal(raw, &t)
	}
	if err != nil || t.Query != s.query || len(t.After) != len(s.order) {
		return nil, refuse(Invalid, "page token %.60q is not of this search: search without it from the first page", page)
	}
	return t.After, nil
}

// run searches lists of things. Sorted says that each list is in the order of
// the search, so that a list needs to be read only as far as the page goes.
func (s *search[V]) run(lists iter.Seq[iter.Seq[V]], sorted bool) (out []V, next string, err error) {
	r := &ranking[V]{order: s.order, after: s.after, most: s.max + 1}
	for list := range lists {
		taken := 0
		for v := range list {
			if s.matches(v) && r.offer(v) {
				taken++
			}
			if sorted && taken > s.max {
				break
			}
		}
	}
	slices.SortFunc(r.items, func(a, b found[V]) int { return compareKeys(s.order, a.keys, b.keys) })
	if len(r.items) > s.max {
		r.items = r.items[:s.max]
		raw, err := cbor.Marshal(pageToken{Query: s.query, After: r.items[s.max-1].keys})
		if err != nil {
			return nil, "", err
		}
		next = base64.RawURLEncoding.EncodeToString(raw)
	}
	for _, i := range r.items {
		out = append(out, i.v)
	}
	return out, next, nil
}
