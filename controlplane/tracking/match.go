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
// _ for one character. Without _ it reads the text about once; with it no more
// than the product of both lengths.
func matches(pattern, text string) bool {
	first, rest, more := strings.Cut(pattern, "%")
	n, ok := begins(first, text)
	if !more {
		return ok && n == len(text)
	}
	for ok {
		text = text[n:]
		part, after, more := strings.Cut(rest, "%")
		if !more {
			return ends(part, text)
		}
		n, ok = within(part, text)
		rest = after
	}
	return false
}

// begins says whether a text begins like a part of a pattern that has no %, and
// how many bytes of it that takes.
func begins(part, text string) (n int, ok bool) {
	for i := range len(part) {
		switch {
		case n >= len(text):
			return 0, false
		case part[i] == '_':
			n += runeLen(text[n:])
		case part[i] == text[n]:
			n++
		default:
			return 0, false
		}
	}
	return n, true
}

// within finds the first place in a text that is like a part, and tells where
// it ends.
func within(part, text string) (end int, ok bool) {
	if !strings.Contains(part, "_") {
		at := strings.Index(text, part)
		return at + len(part), at >= 0
	}
	for at := 0; at < len(text); at += runeLen(text[at:]) {
		if n, ok := begins(part, text[at:]); ok {
			return at + n, true
		}
	}
	return 0, false
}

// ends says whether the last characters of a text are like a part.
func ends(part, text string) bool {
	if !strings.Contains(part, "_") {
		return strings.HasSuffix(text, part)
	}
	at := len(text)
	for range utf8.RuneCountInString(part) {
		if at == 0 {
			return false
		}
		_, n := utf8.DecodeLastRuneInString(text[:at])
		at -= n
	}
	n, ok := begins(part, text[at:])
	return ok && at+n == len(text)
}

func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}
