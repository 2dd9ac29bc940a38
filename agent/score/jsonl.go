package score

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// jsonTable is a file of one JSON value a line: an object with the model's
// features as members, or an array of them in order.
type jsonTable struct {
	*text
	columns []column
	byName  map[string]int // of columns
	keep    []string
	plain   []plainField // by column; nil without a fast way
}

var (
	_ table  = (*jsonTable)(nil)
	_ parser = (*jsonParser)(nil)
)

func openJSONLines(cfg *Config, columns []column) (*jsonTable, error) {
	text, err := openText(cfg, false, func(rec []byte) bool { return len(bytes.TrimSpace(rec)) == 0 })
	if err != nil {
		return nil, err
	}
	t := &jsonTable{text: text, columns: columns, keep: cfg.Keep, byName: map[string]int{}}
	order := make([]int, len(columns))
	for i := range columns {
		t.byName[columns[i].name] = i
		order[i] = i
	}
	if len(cfg.Keep) == 0 {
		t.plain = plainFields(columns, order)
	}
	return t, nil
}

func (t *jsonTable) parser() parser {
	return &jsonParser{jsonTable: t, seen: make([]int, len(t.columns))}
}

// jsonParser parses rows straight into tensors.
type jsonParser struct {
	*jsonTable
	seen []int // by column: the row, counted from 1 over all, that had it last
	rows int
}

func (p *jsonParser) parse(c *chunk) error {
	floats := plainPlaces(p.plain, p.columns, c)
	c.each(func(rec []byte, to int) (string, string) {
		rec = bytes.TrimSpace(rec)
		if floats != nil && rec[0] == '{' && p.parsePlain(floats, rec, to) {
			return "", ""
		}
		if rec[0] == '[' {
			return p.array(c, rec, to)
		}
		return p.object(c, rec, to)
	})
	return nil
}

func (p *jsonParser) array(c *chunk, rec []byte, to int) (column, reason string) {
	c.kept = append(c.kept, make([]field, len(p.keep))...)
	var values []json.RawMessage
	if err := json.Unmarshal(rec, &values); err != nil {
		return "", fmt.Sprintf("is not valid JSON: %v", err)
	}
	if len(values) != len(p.columns) {
		return "", fmt.Sprintf("has %d values, the model takes %d", len(values), len(p.columns))
	}
	if len(p.keep) > 0 {
		return "", fmt.Sprintf("is an array, which has no %q to keep", p.keep[0])
	}
	for i := range p.columns {
		if reason := p.set(c, &p.columns[i], values[i], to); reason != "" {
			return p.columns[i].name, reason
		}
	}
	return "", ""
}

func (p *jsonParser) object(c *chunk, rec []byte, to int) (column, reason string) {
	var members map[string]json.RawMessage
	err := json.Unmarshal(rec, &members)
	lacks := ""
	for _, name := range p.keep {
		raw, ok := members[name]
		if !ok {
			lacks = name
		}
		c.kept = append(c.kept, keptJSON(raw))
	}
	if err != nil {
		return "", fmt.Sprintf("is not valid JSON: %v", err)
	}
	for i := range p.columns {
		name := p.columns[i].name
		raw, ok := members[name]
		if !ok {
			return name, "is missing"
		}
		if reason := p.set(c, &p.columns[i], raw, to); reason != "" {
			return name, reason
		}
	}
	if lacks != "" {
		return lacks, "is missing"
	}
	return "", ""
}

// keptJSON is a member to keep, as it was written unless it is text.
func keptJSON(raw json.RawMessage) field {
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return field{kind: nullField}
	case raw[0] == '"':
		return field{text: unquoted(raw)}
	}
	return field{text: string(raw), kind: literalField}
}

// set gives a JSON value to the column as the text that CSV would have.
func (p *jsonParser) set(c *chunk, to *column, raw json.RawMessage, row int) string {
	isText := raw[0] == '"'
	if !isText && slices.Contains([]byte("[{"), raw[0]) || isText != (to.datatype == "BYTES") {
		return fmt.Sprintf("%.40q is no %s", raw, to.datatype)
	}
	return to.set(c, row, []byte(unquoted(raw)))
}

func unquoted(raw json.RawMessage) string {
	var s string
	if raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return s
	}
	return strings.TrimSpace(string(raw))
}
