package score

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// jsonParser reads one JSON value a line: an object with the model's features
// as members, or an array of them in order.
type jsonParser struct {
	src     *source
	columns []column
	keep    []string
}

var _ parser = (*jsonParser)(nil)

func (p *jsonParser) position() position { return p.src.pos }

func (p *jsonParser) seek(to position) { p.src.seekTo(to) }

func (p *jsonParser) row(b *batch) error {
	var rec []byte
	for len(rec) == 0 {
		var err error
		if rec, err = p.src.record(); err != nil {
			return err
		}
		rec = bytes.TrimSpace(rec)
	}
	p.src.pos.Row++
	if rec[0] == '[' {
		return p.array(b, rec)
	}
	return p.object(b, rec)
}

func (p *jsonParser) bad(column, format string, args ...any) error {
	return &RowError{Row: p.src.pos.Row, Line: p.src.pos.Line, Column: column, Reason: fmt.Sprintf(format, args...)}
}

func (p *jsonParser) array(b *batch, rec []byte) error {
	var values []json.RawMessage
	if err := json.Unmarshal(rec, &values); err != nil {
		return p.bad("", "is not valid JSON: %v", err)
	}
	if len(values) != len(p.columns) {
		return p.bad("", "has %d values, the model takes %d", len(values), len(p.columns))
	}
	if len(p.keep) > 0 {
		return p.bad("", "is an array, which has no %q to keep", p.keep[0])
	}
	for i := range p.columns {
		if err := p.set(b, &p.columns[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *jsonParser) object(b *batch, rec []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(rec, &members); err != nil {
		return p.bad("", "is not valid JSON: %v", err)
	}
	for i := range p.columns {
		c := &p.columns[i]
		raw, ok := members[c.name]
		if !ok {
			return p.bad(c.name, "is missing")
		}
		if err := p.set(b, c, raw); err != nil {
			return err
		}
	}
	for _, name := range p.keep {
		raw, ok := members[name]
		if !ok {
			return p.bad(name, "is missing")
		}
		b.kept = append(b.kept, unquoted(raw))
	}
	return nil
}

// set gives a JSON value to the column as the text that CSV would have.
func (p *jsonParser) set(b *batch, c *column, raw json.RawMessage) error {
	isText := raw[0] == '"'
	if !isText && slices.Contains([]byte("[{"), raw[0]) || isText != (c.datatype == "BYTES") {
		return p.bad(c.name, "%.40q is no %s", raw, c.datatype)
	}
	if reason := c.set(b, b.rows, []byte(unquoted(raw))); reason != "" {
		return p.bad(c.name, "%s", reason)
	}
	return nil
}

func unquoted(raw json.RawMessage) string {
	var s string
	if raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return s
	}
	return strings.TrimSpace(string(raw))
}
