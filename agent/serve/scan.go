package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/vedette-edge/vedette/agent/infer"
)

// errJSON says that a body is not JSON, or nested deeper than any request is.
var errJSON = errors.New("the body is not valid JSON")

// maxDepth bounds nesting of what is skipped, and so the stack.
const maxDepth = 32

// scanner reads JSON in place. The standard decoder would turn every number
// into a float64 by way of a string; here a tensor's numbers go straight into
// the slice that the model reads.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) fail(what string) error {
	return fmt.Errorf("%w: %s at byte %d", errJSON, what, s.i)
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.peek() != c {
		return s.fail("expected " + strconv.QuoteRune(rune(c)))
	}
	s.i++
	return nil
}

// next steps over a comma and reports whether another element follows; at the
// closing byte it steps over that and reports false.
func (s *scanner) next(first bool, closing byte) (bool, error) {
	c := s.peek()
	if c == closing {
		s.i++
		return false, nil
	}
	if first {
		return true, nil
	}
	if c != ',' {
		return false, s.fail("expected ',' or " + strconv.QuoteRune(rune(closing)))
	}
	s.i++
	if s.peek() == closing {
		return false, s.fail("comma before " + strconv.QuoteRune(rune(closing)))
	}
	return true, nil
}

// object calls field for every member; field must read the value and not keep
// the key.
func (s *scanner) object(field func(key []byte) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.next(first, '}')
		if err != nil || !more {
			return err
		}
		key, err := s.key()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := field(key); err != nil {
			return err
		}
	}
}

// array calls element before every element; element must read the value.
func (s *scanner) array(element func() error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.next(first, ']')
		if err != nil || !more {
			return err
		}
		if err := element(); err != nil {
			return err
		}
	}
}

// key reads a string that is used at once.
func (s *scanner) key() ([]byte, error) {
	raw, plain, err := s.rawText()
	switch {
	case err != nil:
		return nil, err
	case plain:
		return raw[1 : len(raw)-1], nil
	}
	text, err := s.decode(raw)
	return []byte(text), err
}

// textLike is text that likely is the one given, which then is returned.
func (s *scanner) textLike(guess string) (string, error) {
	raw, plain, err := s.rawText()
	switch {
	case err != nil:
		return "", err
	case !plain:
		return s.decode(raw)
	case string(raw[1:len(raw)-1]) == guess:
		return guess, nil
	}
	return string(raw[1 : len(raw)-1]), nil
}

// text reads a string.
func (s *scanner) text() (string, error) { return s.textLike("") }

// decode reads a string in which something is escaped.
func (s *scanner) decode(raw []byte) (string, error) {
	var v string
	if err := json.Unmarshal(raw, &v); err != nil {
		return "", s.fail("bad string")
	}
	return v, nil
}

// rawText returns a string with its quotes; plain says that nothing in it needs
// decoding.
func (s *scanner) rawText() (raw []byte, plain bool, err error) {
	if s.peek() != '"' {
		return nil, false, s.fail("expected a string")
	}
	plain = true
	for i := s.i + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			raw = s.b[s.i : i+1]
			s.i = i + 1
			return raw, plain, nil
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return nil, false, s.fail("control character in a string")
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return nil, false, s.fail("string without an end")
}

// literal reads true, false or null.
func (s *scanner) literal() (string, error) {
	s.peek()
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(s.b[s.i:], []byte(word)) {
			s.i += len(word)
			return word, nil
		}
	}
	return "", s.fail("expected a value")
}

func (s *scanner) boolean() (bool, error) {
	word, err := s.literal()
	if err == nil && word == "null" {
		err = s.fail("expected true or false")
	}
	return word == "true", err
}

// integer reads a whole number that fits an int64.
func (s *scanner) integer() (int64, error) {
	s.peek()
	n := s.numberEnd()
	v, err := strconv.ParseInt(string(s.b[s.i:s.i+n]), 10, 64)
	if err != nil {
		return 0, s.fail("expected a whole number")
	}
	s.i += n
	return v, nil
}

// numberEnd is the length of the number at the place, by JSON's grammar; 0 when
// there is none.
func (s *scanner) numberEnd() int {
	b := s.b[s.i:]
	i := 0
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i+1 < len(b) && b[i] == '0' && b[i+1]-'0' <= 9 {
		return 0 // no leading zeros
	}
	start := i
	i += digits(b[i:])
	if i == start {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		n := digits(b[i+1:])
		if n == 0 {
			return 0
		}
		i += 1 + n
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		k := i + 1
		if k < len(b) && (b[k] == '+' || b[k] == '-') {
			k++
		}
		n := digits(b[k:])
		if n == 0 {
			return 0
		}
		i = k + n
	}
	return i
}

func digits(b []byte) int {
	n := 0
	for n < len(b) && b[n]-'0' <= 9 {
		n++
	}
	return n
}

// skip steps over a value and returns its bytes.
func (s *scanner) skip(depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, s.fail("nested too deeply")
	}
	c := s.peek()
	start := s.i
	var err error
	switch {
	case c == '{':
		err = s.object(func([]byte) error { _, err := s.skip(depth + 1); return err })
	case c == '[':
		err = s.array(func() error { _, err := s.skip(depth + 1); return err })
	case c == '"':
		_, _, err = s.rawText()
	case c == '-' || c-'0' <= 9:
		n := s.numberEnd()
		if n == 0 {
			return nil, s.fail("bad number")
		}
		s.i += n
	default:
		_, err = s.literal()
	}
	return s.b[start:s.i], err
}

// end refuses anything after the value.
func (s *scanner) end() error {
	if s.peek(); s.i != len(s.b) {
		return s.fail("something follows the value")
	}
	return nil
}

// missing reads a null, which stands for a missing number.
func (s *scanner) missing() bool {
	if s.i+4 <= len(s.b) && string(s.b[s.i:s.i+4]) == "null" {
		s.i += 4
		return true
	}
	return false
}

// float32 reads a number or null at the very place.
func (s *scanner) float32() (float32, bool) {
	v, n := infer.ScanFloat32(s.b[s.i:])
	if n == 0 {
		return float32(math.NaN()), s.missing()
	}
	if n != s.numberEnd() || math.IsInf(float64(v), 0) {
		return 0, false
	}
	s.i += n
	return v, true
}

func (s *scanner) float64() (float64, bool) {
	v, n := infer.ScanFloat64(s.b[s.i:])
	if n == 0 {
		return math.NaN(), s.missing()
	}
	if n != s.numberEnd() || math.IsInf(v, 0) {
		return 0, false
	}
	s.i += n
	return v, true
}

func (s *scanner) signed(bits int) (int64, bool) {
	n := s.numberEnd()
	v, err := strconv.ParseInt(string(s.b[s.i:s.i+n]), 10, bits)
	s.i += n
	return v, err == nil
}

func (s *scanner) unsigned(bits int) (uint64, bool) {
	n := s.numberEnd()
	v, err := strconv.ParseUint(string(s.b[s.i:s.i+n]), 10, bits)
	s.i += n
	return v, err == nil
}
