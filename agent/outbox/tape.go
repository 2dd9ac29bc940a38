package outbox

import (
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// tapeWindow is how much of a file is in memory while it is read through, in bytes.
	tapeWindow = 256 << 10
	// diskPage is what a disk that fails in one place cannot read, in bytes.
	diskPage = 4 << 10
)

// tape is a file read from front to back, a window at a time: reading it must
// not cost its size in memory.
type tape struct {
	src    io.ReaderAt
	size   int64
	at     int64  // where window begins
	window string // what of the file is in memory
	buf    []byte
}

// openTape opens a file for reading, at most limit bytes of it: what is beyond
// is not ours. Close the file that comes with it.
func openTape(path string, limit int64) (*tape, io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("look at outbox file: %w", err), f.Close())
	}
	return &tape{src: f, size: min(info.Size(), limit)}, f, nil
}

// from is what begins at a place: want bytes at least, or all that follow.
func (t *tape) from(at int64, want int) string {
	if skip := at - t.at; skip >= 0 && skip <= int64(len(t.window)) {
		if rest := t.window[skip:]; len(rest) >= want || at+int64(len(rest)) == t.size {
			return rest
		}
	}
	t.load(at, min(max(int64(want), tapeWindow), t.size-at))
	return t.window
}

func (t *tape) load(at, n int64) {
	if int64(cap(t.buf)) < n {
		t.buf = make([]byte, n)
	}
	buf := t.buf[:n]
	if _, err := t.src.ReadAt(buf, at); err != nil {
		t.loadPages(buf, at)
	}
	t.at, t.window = at, string(buf)
}

// loadPages reads what can be read: a bad sector is a page of zeros, damage like
// any other.
func (t *tape) loadPages(buf []byte, at int64) {
	for len(buf) > 0 {
		page := buf[:min(int64(len(buf)), diskPage-at%diskPage)]
		if _, err := t.src.ReadAt(page, at); err != nil {
			clear(page)
		}
		buf, at = buf[len(page):], at+int64(len(page))
	}
}
