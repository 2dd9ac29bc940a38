package score

import (
	"bytes"

	"github.com/vedette-edge/vedette/agent/infer"
)

// parsePlain is the fast way for a flat object whose names have no escapes and
// whose values are numbers, or other scalars where the model takes none. It
// gives up at anything else: encoding/json decides then.
func (p *jsonParser) parsePlain(floats [][]float32, rec []byte, row int) bool {
	s := jsonScanner{rec: rec, at: 1}
	p.rows++
	for missing := len(p.columns); ; {
		name, ok := s.name()
		if !ok {
			return false
		}
		value, ok := s.scalar()
		if !ok {
			return false
		}
		if i, known := p.byName[string(name)]; known {
			if !p.place(i, floats[i], value, row) {
				return false
			}
			missing--
		}
		if s.take(',') {
			continue
		}
		return s.take('}') && s.at == len(rec) && missing == 0
	}
}

// place puts a number where column i has it, false when it is none, is out of
// range or was there already.
func (p *jsonParser) place(i int, to []float32, value []byte, row int) bool {
	f := &p.plain[i]
	v, n := infer.ScanFloat32(value)
	if wide := float64(v); n != len(value) || wide < f.min || wide > f.max || p.seen[i] == p.rows {
		return false
	}
	p.seen[i] = p.rows
	to[row*f.size+f.index] = v
	return true
}

// jsonScanner cuts a record into names and scalars.
type jsonScanner struct {
	rec []byte
	at  int
}

func (s *jsonScanner) space() {
	for s.at < len(s.rec) && (s.rec[s.at] == ' ' || s.rec[s.at] == '\t') {
		s.at++
	}
}

// take passes over spaces and the byte c, when it comes next.
func (s *jsonScanner) take(c byte) bool {
	s.space()
	if s.at >= len(s.rec) || s.rec[s.at] != c {
		return false
	}
	s.at++
	return true
}

// text returns what stands between two quotes, if that has no escapes.
func (s *jsonScanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.rec[s.at:], '"')
	if end < 0 {
		return nil, false
	}
	text := s.rec[s.at : s.at+end]
	s.at += end + 1
	for _, c := range text {
		if c == '\\' || c < ' ' || c >= 0x80 {
			return nil, false
		}
	}
	return text, true
}

// name returns the name of a member and passes over its colon.
func (s *jsonScanner) name() ([]byte, bool) {
	text, ok := s.text()
	return text, ok && s.take(':')
}

// scalar returns a number, or a text with its quotes, which is none.
func (s *jsonScanner) scalar() ([]byte, bool) {
	s.space()
	from := s.at
	if from < len(s.rec) && s.rec[from] == '"' {
		_, ok := s.text()
		return s.rec[from:s.at], ok
	}
	for s.at < len(s.rec) && s.rec[s.at] != ',' && s.rec[s.at] != '}' && s.rec[s.at] > ' ' {
		s.at++
	}
	value := s.rec[from:s.at]
	return value, isJSONNumber(value)
}

// isJSONNumber checks the grammar of RFC 8259, section 6.
func isJSONNumber(b []byte) bool {
	b = bytes.TrimPrefix(b, []byte{'-'})
	whole := digits(b)
	if whole == 0 || whole > 1 && b[0] == '0' {
		return false
	}
	b = b[whole:]
	if len(b) > 0 && b[0] == '.' {
		n := digits(b[1:])
		if n == 0 {
			return false
		}
		b = b[1+n:]
	}
	if len(b) > 0 && b[0]|0x20 == 'e' {
		b = b[1:]
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		n := digits(b)
		return n > 0 && n == len(b)
	}
	return len(b) == 0
}

// digits counts those that b begins with.
func digits(b []byte) int {
	for i, c := range b {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(b)
}
