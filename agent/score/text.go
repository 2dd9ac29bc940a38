package score

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// text is what the tables of CSV and JSON Lines have in common: records of an
// input that may be compressed.
type text struct {
	src   *source
	input *unpacked
	first []byte // a record that was looked at and is a row; nil for none
	blank func(rec []byte) bool
}

func openText(cfg *Config, csv bool, blank func([]byte) bool) (*text, error) {
	in, err := unpack(cfg.Input.Reader)
	if err != nil {
		return nil, err
	}
	return &text{src: newSource(in, csv), input: in, blank: blank}, nil
}

func (t *text) read() int64 { return t.input.packed.n }

func (t *text) close() error { return nil }

func (t *text) seek(p position) error {
	t.first = nil
	t.src.seekTo(p)
	return t.input.seek(p.Offset)
}

// record returns the next one that is not blank.
func (t *text) record() ([]byte, error) {
	for {
		rec, err := t.src.record()
		if err != nil || !t.blank(rec) {
			return rec, err
		}
	}
}

func (t *text) next(c *chunk) error {
	c.reset(t.src.pos)
	for c.n < c.capacity() {
		rec := t.first
		t.first = nil
		if rec == nil {
			var err error
			rec, err = t.record()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		from := len(c.raw)
		c.raw = append(c.raw, rec...)
		c.records = append(c.records, record{from, len(c.raw), t.src.pos.Line})
		c.n++
		t.src.pos.Row++
	}
	c.end = t.src.pos
	if c.n == 0 {
		return io.EOF
	}
	return nil
}

// row is the text of row r.
func (c *chunk) row(r int) []byte { return c.raw[c.records[r].from:c.records[r].to] }

// each parses the rows of text one after the other, good ones without a gap. A
// row that cannot be parsed is told by the column and the reason.
func (c *chunk) each(row func(rec []byte, to int) (column, reason string)) {
	for r := range c.n {
		c.place[r] = c.rows
		if column, reason := row(c.row(r), c.rows); reason != "" {
			c.reject(r, &RowError{Row: c.number(r), Line: c.records[r].line, Column: column, Reason: reason})
			continue
		}
		c.rows++
	}
}

// unpacked reads a file that is compressed with gzip or zstd, or is not, which
// its first bytes say: no table begins with them.
type unpacked struct {
	io.Reader
	from   io.Reader // the file itself
	packed *counted
}

// maxWindow bounds the memory that a zstd file may ask for.
const maxWindow = 128 << 20

func unpack(from io.Reader) (*unpacked, error) {
	u := &unpacked{from: from}
	return u, u.open()
}

func (u *unpacked) open() error {
	u.packed = &counted{r: u.from}
	br := bufio.NewReaderSize(u.packed, readSize)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read input: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		u.Reader, err = gzip.NewReader(br)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		u.Reader, err = zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	default:
		u.Reader, err = br, nil
	}
	if err != nil {
		return fmt.Errorf("%w: unpack: %w", ErrInput, err)
	}
	return nil
}

// seek goes to a place of the unpacked bytes. A compressed file is read again
// from its beginning.
func (u *unpacked) seek(offset int64) error {
	s, ok := u.from.(io.Seeker)
	if !ok {
		return fmt.Errorf("%w: the input is not a file", ErrCheckpoint)
	}
	if _, plain := u.Reader.(*bufio.Reader); plain {
		if _, err := s.Seek(offset, io.SeekStart); err != nil {
			return fmt.Errorf("seek input: %w", err)
		}
		u.packed.n = offset
		u.Reader = bufio.NewReaderSize(u.packed, readSize)
		return nil
	}
	if _, err := s.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("seek input: %w", err)
	}
	if err := u.open(); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, u.Reader, offset); err != nil {
		return fmt.Errorf("%w: the input is shorter than when it was interrupted: %w", ErrCheckpoint, err)
	}
	return nil
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
