package tracking

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// look reads a field of a thing. One of its functions is set.
type look[V any] struct {
	number func(V) (v float64, ok bool)
	text   func(V) (v string, ok bool)
	texts  func(V) []string // of which one has to pass; cannot be sorted by
}

// compile makes one test of a filter's clauses.
func compile[V any](clauses []clause, find func(field) (look[V], error)) (func(V) bool, error) {
	tests := make([]func(V) bool, len(clauses))
	for i, c := range clauses {
		l, err := find(c.field)
		if err == nil {
			tests[i], err = test(l, c)
		}
		if err != nil {
			return nil, err
		}
	}
	return func(v V) bool {
		for _, t := range tests {
			if !t(v) {
				return false
			}
		}
		return true
	}, nil
}

// test makes the test of one clause. What a thing does not have passes no test
// but IS NULL.
func test[V any](l look[V], c clause) (func(V) bool, error) {
	if c.op == isNull || c.op == isNotNull {
		return func(v V) bool { return l.has(v) == (c.op == isNotNull) }, nil
	}
	if l.number != nil {
		passes, err := numberTest(c)
		return func(v V) bool {
			n, ok := l.number(v)
			return ok && passes(n)
		}, err
	}
	passes, err := textTest(c)
	if l.texts != nil {
		return func(v V) bool { return slices.ContainsFunc(l.texts(v), passes) }, err
	}
	return func(v V) bool {
		s, ok := l.text(v)
		return ok && passes(s)
	}, err
}

func (l look[V]) has(v V) (ok bool) {
	switch {
	case l.number != nil:
		_, ok = l.number(v)
	case l.text != nil:
		_, ok = l.text(v)
	default:
		ok = len(l.texts(v)) > 0
	}
	return ok
}

func numberTest(c clause) (func(float64) bool, error) {
	if c.op == like || c.op == ilike || c.op == in || c.op == notIn {
		return nil, wrong(c.at, "%s is a number: compare it with =, !=, <, <=, > or >=", c.field.name())
	}
	t := c.values[0]
	want, err := strconv.ParseFloat(t.text, 64)
	if err != nil || t.kind == textKind {
		return nil, wrong(t.at, "got %s, expected a number without quotes: %s is a number", t, c.field.name())
	}
	return map[op]func(float64) bool{
		eq: func(v float64) bool { return v == want }, ne: func(v float64) bool { return v != want },
		lt: func(v float64) bool { return v < want }, le: func(v float64) bool { return v <= want },
		gt: func(v float64) bool { return v > want }, ge: func(v float64) bool { return v >= want },
	}[c.op], nil
}

func (f field) name() string {
	if f.entity == attributes {
		return f.key
	}
	return string(f.entity) + " " + strconv.Quote(f.key)
}

func textTest(c clause) (func(string) bool, error) {
	var values []string
	for _, t := range c.values {
		if t.kind != textKind {
			return nil, wrong(t.at, "got %s, expected a text in quotes: %s is text", t, c.field.name())
		}
		values = append(values, t.text)
	}
	switch c.op { //nolint:exhaustive // the others are not for text
	case eq, in:
		return func(v string) bool { return slices.Contains(values, v) }, nil
	case ne, notIn:
		return func(v string) bool { return !slices.Contains(values, v) }, nil
	case like:
		return func(v string) bool { return matches(values[0], v) }, nil
	case ilike:
		pattern := strings.ToLower(values[0])
		return func(v string) bool { return matches(pattern, strings.ToLower(v)) }, nil
	default:
		return nil, wrong(c.at, "%s is text: compare it with =, !=, LIKE, ILIKE, IN or NOT IN", c.field.name())
	}
}

// matches says whether a text is like a pattern of SQL: % stands for any text and
// _ for one character. It takes no more than the product of both lengths.
func matches(pattern, text string) bool {
	star, back := -1, 0 // where to go on when what follows the last % does not fit
	i := 0
	for j := 0; j < len(text); {
		switch {
		case i < len(pattern) && pattern[i] == '%':
			star, back = i, j
			i++
		case i < len(pattern) && pattern[i] == '_':
			i++
			j += runeLen(text[j:])
		case i < len(pattern) && pattern[i] == text[j]:
			i++
			j++
		case star >= 0:
			back += runeLen(text[back:])
			i, j = star+1, back
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "%") == ""
}

func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}
