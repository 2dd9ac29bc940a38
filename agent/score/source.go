package score

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// source cuts text into records: lines, or for CSV lines whose quotes are
// closed. A record is valid until the next one is read.
type source struct {
	r          io.Reader
	csv        bool
	buf        []byte
	start, end int // of what is read and not yet given out
	pos        position
	eof        bool
}

// readSize is how much is read at once: enough that reading is not felt.
const readSize = 256 << 10

func newSource(r io.Reader, csv bool) *source {
	return &source{r: r, csv: csv, buf: make([]byte, readSize)}
}

// seekTo continues at a position of an input that was not read yet.
func (s *source) seekTo(p position) {
	s.pos, s.start, s.end, s.eof = p, 0, 0, false
}

// record returns the next record without its line end; io.EOF after the last.
func (s *source) record() ([]byte, error) {
	scanned, lines, quotes := 0, int64(0), 0
	for {
		window := s.buf[s.start+scanned : s.end]
		if i := bytes.IndexByte(window, '\n'); i >= 0 {
			lines++
			if s.csv {
				quotes += bytes.Count(window[:i], []byte{'"'})
			}
			scanned += i + 1
			if quotes%2 == 0 {
				return s.take(scanned, lines), nil
			}
			continue
		}
		if s.eof {
			return s.last(scanned, quotes, lines)
		}
		if s.csv {
			quotes += bytes.Count(window, []byte{'"'})
		}
		scanned = s.end - s.start
		if err := s.more(); err != nil {
			return nil, err
		}
	}
}

// take gives out n bytes as one record.
func (s *source) take(n int, lines int64) []byte {
	rec := s.buf[s.start : s.start+n]
	s.start += n
	s.pos.Offset += int64(n)
	s.pos.Line += lines
	if n := len(rec); n > 0 && rec[n-1] == '\n' {
		rec = rec[:n-1]
	}
	if n := len(rec); n > 0 && rec[n-1] == '\r' {
		rec = rec[:n-1]
	}
	return rec
}

// last gives out what follows the last line end.
func (s *source) last(scanned, quotes int, lines int64) ([]byte, error) {
	if s.csv {
		quotes += bytes.Count(s.buf[s.start+scanned:s.end], []byte{'"'})
	}
	if s.start == s.end {
		return nil, io.EOF
	}
	if quotes%2 != 0 {
		return nil, fmt.Errorf("%w: line %d opens a quote that is never closed", ErrInput, s.pos.Line+1)
	}
	return s.take(s.end-s.start, lines+1), nil
}

// more reads on, growing the buffer for a record that does not fit.
func (s *source) more() error {
	if s.start > 0 {
		copy(s.buf, s.buf[s.start:s.end])
		s.start, s.end = 0, s.end-s.start
	}
	if s.end == len(s.buf) {
		if len(s.buf) >= MaxLine {
			return fmt.Errorf("%w: line %d is longer than %d bytes", ErrInput, s.pos.Line+1, MaxLine)
		}
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.r.Read(s.buf[s.end:])
	s.end += n
	if errors.Is(err, io.EOF) {
		s.eof = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read input: %w", err)
	}
	return nil
}
