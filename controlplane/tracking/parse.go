package tracking

import (
	"strconv"
	"strings"
)

// entity is what a field belongs to.
type entity string

const (
	attributes entity = "attribute"
	metrics    entity = "metric"
	params     entity = "param"
	tags       entity = "tag"
	datasets   entity = "dataset"
)

// entities are the names by which MLflow's clients call them.
var entities = map[string]entity{
	"attribute": attributes, "attributes": attributes, "attr": attributes, "run": attributes,
	"metric": metrics, "metrics": metrics,
	"param": params, "params": params, "parameter": params, "parameters": params,
	"tag": tags, "tags": tags,
	"dataset": datasets, "datasets": datasets,
}

// field names what is looked at.
type field struct {
	entity entity
	key    string
	at     int // in the query, for errors
}

// op compares.
type op string

const (
	eq        op = "="
	ne        op = "!="
	lt        op = "<"
	le        op = "<="
	gt        op = ">"
	ge        op = ">="
	like      op = "LIKE"
	ilike     op = "ILIKE"
	in        op = "IN"
	notIn     op = "NOT IN"
	isNull    op = "IS NULL"
	isNotNull op = "IS NOT NULL"
)

// clause is one condition of a filter. All of them must hold.
type clause struct {
	field  field
	op     op
	at     int // of the operator
	values []token
}

// parser reads tokens one after the other.
type parser struct {
	tokens []token
	next   int
}

func (p *parser) peek() token { return p.tokens[p.next] }

// take returns the next token; the end again and again.
func (p *parser) take() token {
	t := p.tokens[p.next]
	if t.kind != endKind {
		p.next++
	}
	return t
}

// parseFilter reads conditions joined by AND; nothing is no condition.
func parseFilter(text string) ([]clause, error) {
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	if p.peek().kind == endKind {
		return nil, nil
	}
	var out []clause
	for {
		c, err := p.clause()
		if err != nil {
			return nil, err
		}
		out = append(out, c)
		switch t := p.take(); {
		case t.kind == endKind:
			return out, nil
		case t.is("OR"):
			return nil, wrong(t.at, "OR is not part of the search language: search twice")
		case !t.is("AND"):
			return nil, wrong(t.at, "got %s, expected AND or the end", t)
		}
	}
}

func (p *parser) clause() (c clause, err error) {
	if c.field, err = p.field(); err != nil {
		return c, err
	}
	c.at = p.peek().at
	if c.op, err = p.op(); err != nil {
		return c, err
	}
	switch c.op { //nolint:exhaustive // the others take one value
	case isNull, isNotNull:
	case in, notIn:
		c.values, err = p.list()
	default:
		var v token
		v, err = p.value()
		c.values = []token{v}
	}
	return c, err
}

// field reads ENTITY.KEY, with the key quoted or not, or the name of an attribute.
func (p *parser) field() (field, error) {
	t := p.take()
	if t.kind == textKind && t.quote != '\'' {
		return field{attributes, t.text, t.at}, nil
	}
	if t.kind != wordKind {
		return field{}, wrong(t.at, "got %s, expected a field such as metrics.accuracy, params.\"learning rate\", tags.`mlflow.user` or attributes.start_time", t)
	}
	before, key, dotted := strings.Cut(t.text, ".")
	if !dotted {
		return field{attributes, t.text, t.at}, nil
	}
	e, ok := entities[strings.ToLower(before)]
	if !ok {
		return field{}, wrong(t.at, "%q is none of attributes, metrics, params, tags, datasets", before)
	}
	if q := p.peek(); key == "" && q.kind == textKind && q.at == t.at+len(t.text) {
		p.take()
		key = q.text
	}
	if key == "" {
		return field{}, wrong(t.at, "a key has to follow %q", t.text)
	}
	return field{e, key, t.at}, nil
}

func (p *parser) op() (op, error) {
	switch t := p.take(); {
	case t.kind == opKind:
		return map[string]op{"=": eq, "==": eq, "!=": ne, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}[t.text], nil
	case t.is("LIKE"):
		return like, nil
	case t.is("ILIKE"):
		return ilike, nil
	case t.is("IN"):
		return in, nil
	case t.is("NOT") && p.peek().is("IN"):
		p.take()
		return notIn, nil
	case t.is("IS"):
		return p.null()
	default:
		return "", wrong(t.at, "got %s, expected =, !=, <, <=, >, >=, LIKE, ILIKE, IN, NOT IN, IS NULL or IS NOT NULL", t)
	}
}

func (p *parser) null() (op, error) {
	found := isNull
	if p.peek().is("NOT") {
		p.take()
		found = isNotNull
	}
	if t := p.take(); !t.is("NULL") {
		return "", wrong(t.at, "got %s, expected NULL", t)
	}
	return found, nil
}

// value reads a number or a text in quotes.
func (p *parser) value() (token, error) {
	t := p.take()
	if t.kind == textKind && t.quote != '`' {
		return t, nil
	}
	if t.kind == wordKind {
		if _, err := strconv.ParseFloat(t.text, 64); err == nil {
			return t, nil
		}
	}
	return t, wrong(t.at, "got %s, expected a number or a text in quotes", t)
}

// list reads values in parentheses.
func (p *parser) list() (out []token, err error) {
	if t := p.take(); t.text != "(" || t.kind != signKind {
		return nil, wrong(t.at, "got %s, expected ( and a list of values", t)
	}
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		switch t := p.take(); {
		case t.kind == signKind && t.text == ")":
			return out, nil
		case t.kind != signKind || t.text != ",":
			return nil, wrong(t.at, "got %s, expected a comma or )", t)
		}
	}
}

// sorting is one part of an order.
type sorting struct {
	field field
	desc  bool
}

// parseOrder reads FIELD, FIELD ASC or FIELD DESC.
func parseOrder(text string) (sorting, error) {
	tokens, err := lex(text)
	if err != nil {
		return sorting{}, err
	}
	p := &parser{tokens: tokens}
	s := sorting{}
	if s.field, err = p.field(); err != nil {
		return s, err
	}
	switch t := p.peek(); {
	case t.is("DESC"):
		s.desc = true
		p.take()
	case t.is("ASC"):
		p.take()
	}
	if t := p.take(); t.kind != endKind {
		return s, wrong(t.at, "got %s, expected ASC, DESC or the end", t)
	}
	return s, nil
}
