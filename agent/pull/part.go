package pull

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// chunk is how much is synced at once, and so the most that a power cut costs.
const chunk = 1 << 20

// partFile is what a download is written to. *os.File is one.
type partFile interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

var _ partFile = (*os.File)(nil)

// part is a file on its way. Its bytes lie where they will lie at the end;
// behind them, from size on, lies the SHA-256 of every whole chunk. One sync
// makes a chunk and its sum durable, in whatever order the disk writes them: a
// torn one does not match. The sums are cut off before the file gets its name.
type part struct {
	file partFile
	size int64 // of the file
	done int64 // bytes from the beginning that are there
	all  hash.Hash
	sum  hash.Hash // of the chunk under way
}

// openPart finds out how much of an earlier try is whole.
func openPart(file partFile, size int64, want release.Digest) (*part, error) {
	p := &part{file: file, size: size, all: sha256.New(), sum: sha256.New()}
	if whole, err := p.finished(want); err != nil || whole {
		return p, err
	}
	buf := make([]byte, min(size, chunk))
	for size-p.done >= chunk {
		whole, err := p.check(buf)
		if err != nil {
			return nil, err
		}
		if !whole {
			break
		}
	}
	return p, nil
}

// finished takes a file that only lacks its name: its sums are cut off already,
// or it is smaller than a chunk and never had any.
func (p *part) finished(want release.Digest) (bool, error) {
	var probe [2]byte // the last byte, and nothing after it
	if n, err := p.file.ReadAt(probe[:], p.size-1); n != 1 || !errors.Is(err, io.EOF) {
		return false, nil // a disk that fails says so again below
	}
	if _, err := io.Copy(p.all, io.NewSectionReader(p.file, 0, p.size)); err != nil {
		return false, diskError("read unfinished download", err)
	}
	if bytes.Equal(p.all.Sum(nil), want[:]) {
		p.done = p.size
		return true, nil
	}
	p.all.Reset()
	return false, nil
}

// check takes the next chunk if its bytes match its sum.
func (p *part) check(buf []byte) (whole bool, err error) {
	var want release.Digest
	for _, read := range []struct {
		into []byte
		at   int64
	}{{want[:], p.sumAt(p.done)}, {buf, p.done}} {
		if _, err := p.file.ReadAt(read.into, read.at); errors.Is(err, io.EOF) {
			return false, nil
		} else if err != nil {
			return false, diskError("read unfinished download", err)
		}
	}
	if release.DigestOf(buf) != want {
		return false, nil
	}
	p.all.Write(buf)
	p.done += chunk
	return true, nil
}

// sumAt is where the sum of the chunk that begins at off lies.
func (p *part) sumAt(off int64) int64 { return p.size + off/chunk*sha256.Size }

// Write appends what arrived and syncs at the end of every chunk.
func (p *part) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		k := min(int64(len(b)), chunk-p.done%chunk)
		if err := p.add(b[:k]); err != nil {
			return n, err
		}
		n += int(k)
		b = b[k:]
	}
	return n, nil
}

// add writes bytes that do not cross the end of a chunk.
func (p *part) add(b []byte) error {
	if int64(len(b)) > p.size-p.done {
		return classify(fmt.Errorf("%w: the server sends more than %d bytes", ErrDigest, p.size))
	}
	if _, err := p.file.WriteAt(b, p.done); err != nil {
		return diskError("write download", err)
	}
	p.all.Write(b)
	p.sum.Write(b)
	p.done += int64(len(b))
	if p.done%chunk != 0 {
		return nil
	}
	if _, err := p.file.WriteAt(p.sum.Sum(nil), p.sumAt(p.done-chunk)); err != nil {
		return diskError("write download", err)
	}
	p.sum.Reset()
	return diskError("sync download", p.file.Sync())
}

// whole says whether all is there and what was wanted.
func (p *part) whole(want release.Digest) bool {
	return p.done == p.size && bytes.Equal(p.all.Sum(nil), want[:])
}

// rebuild fills the part in another way than from the link: with what fill
// writes, from the beginning on. It leaves no sums, so that after a power cut
// nothing of it passes for downloaded. The part is empty after an error.
func (p *part) rebuild(want release.Digest, fill func(w io.Writer) error) error {
	if err := p.reset(); err != nil {
		return err
	}
	err := fill(rebuilt{p})
	if err == nil && !p.whole(want) {
		err = ErrDigest
	}
	if err != nil {
		return errors.Join(err, p.reset())
	}
	return nil
}

func (p *part) reset() error {
	p.done = 0
	p.all.Reset()
	p.sum.Reset()
	return diskError("empty download", p.file.Truncate(0))
}

// rebuilt writes a part without sums.
type rebuilt struct{ p *part }

// Write implements io.Writer.
func (r rebuilt) Write(b []byte) (int, error) {
	if int64(len(b)) > r.p.size-r.p.done {
		return 0, fmt.Errorf("%w: it is longer than %d bytes", ErrDigest, r.p.size)
	}
	if _, err := r.p.file.WriteAt(b, r.p.done); err != nil {
		return 0, diskError("write file", err)
	}
	r.p.all.Write(b)
	r.p.done += int64(len(b))
	return len(b), nil
}

// finish verifies the whole and cuts the sums off.
func (p *part) finish(want release.Digest) error {
	if !p.whole(want) {
		return classify(fmt.Errorf("verify download: %w", ErrDigest))
	}
	if err := p.file.Truncate(p.size); err != nil {
		return diskError("finish download", err)
	}
	return diskError("sync download", p.file.Sync())
}

// intact reports whether the file at path already is what f says.
func intact(path string, f release.File) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(file, f.Size+1))
	return err == nil && n == f.Size && bytes.Equal(h.Sum(nil), f.Digest[:])
}

// writeWhole writes a small file as one step: temp, sync, rename, sync of the folder.
func writeWhole(path string, b []byte) error {
	temp := path + partSuffix
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return atomicfile.Rename(temp, path)
}
