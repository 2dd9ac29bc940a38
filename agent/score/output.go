package score

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// partSuffix marks a result that is not finished. The name without it appears
// only when every row is in.
const partSuffix = ".part"

// encoder turns chunks into the bytes of a format.
type encoder interface {
	// encode prepares a chunk. Workers do it at once for different chunks.
	encode(c *chunk) error
	// begin, write and end give w the bytes before all rows, of a chunk, and
	// after all rows, in this order, on one goroutine. write may hold rows back.
	begin(w io.Writer) error
	write(w io.Writer, c *chunk) error
	end(w io.Writer) error
	// settled reports whether no rows are held back; settle gives them to w.
	settled() bool
	settle(w io.Writer) error
	// state is what a later encoder needs to go on after what was settled.
	state() ([]byte, error)
}

// output writes the result and what is rejected.
type output struct {
	cfg     *Config
	encoder encoder
	w       io.Writer
	file    *partFile // nil for a stream
	rejects *partFile // nil for none
	job     string    // digest
	begun   bool
	broken  bool       // something was written in part: only an earlier checkpoint holds
	saved   bool       // there is a checkpoint
	at      time.Time  // of it, or of the beginning
	storing chan error // receives when the checkpoint being written is; nil for none
}

// openOutput creates the unfinished result or goes on with it.
func openOutput(cfg *Config, t table, cp *checkpoint) (_ *output, err error) {
	o := &output{cfg: cfg, w: cfg.Stdout, at: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.abandon())
		}
	}()
	at := checkpoint{}
	if cp != nil {
		at = *cp
	}
	if o.encoder, err = newEncoder(cfg, t, at.State); err != nil {
		return nil, err
	}
	if cfg.Output != "-" {
		if o.job, err = jobDigest(cfg); err != nil {
			return nil, err
		}
		if cp == nil {
			if err := removeCheckpoint(cfg); err != nil {
				return nil, err
			}
		}
		if o.file, err = openPart(cfg.Output, at.Output); err != nil {
			return nil, err
		}
		o.w, o.begun, o.saved = o.file, at.Output > 0, cp != nil
	}
	if cfg.Rejects != "" {
		o.rejects, err = openPart(cfg.Rejects, at.Rejects)
	}
	return o, err
}

func newEncoder(cfg *Config, t table, state []byte) (encoder, error) {
	if cfg.OutFormat == Parquet {
		return newParquetEncoder(cfg, t, state)
	}
	return newTextEncoder(cfg), nil
}

// begin writes what comes before all rows, once.
func (o *output) begin() error {
	if o.begun {
		return nil
	}
	o.begun = true
	return o.encoder.begin(o.w)
}

// write writes the rows of one chunk.
func (o *output) write(c *chunk) error {
	err := o.begin()
	if err == nil {
		err = o.encoder.write(o.w, c)
	}
	if err == nil && o.rejects != nil {
		err = writeRejects(o.rejects, c.bad)
	}
	return o.failed(err)
}

// failed remembers that a write went wrong, and says what to do.
func (o *output) failed(err error) error {
	if err == nil {
		return nil
	}
	o.broken = true
	if errors.Is(err, errWrite) {
		return fmt.Errorf("%w; free some room and go on with --resume", err)
	}
	return err
}

func writeRejects(w io.Writer, bad []*RowError) error {
	for _, e := range bad {
		raw, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode rejected row: %w", err)
		}
		if _, err := w.Write(append(raw, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// finish gives the result its name. Where there is a checkpoint it says first
// that nothing else is left to do: a kill between two renames would leave one
// that knows of files that are gone.
func (o *output) finish(in position, s *Summary) error {
	err := o.begin()
	if err == nil {
		err = o.encoder.end(o.w)
	}
	if err == nil {
		err = o.complete(in, s)
	}
	err = o.failed(err)
	if err = errors.Join(err, o.abandon()); err != nil {
		return err
	}
	cp := &checkpoint{}
	if o.file != nil {
		cp.Output = o.file.offset
	}
	if o.rejects != nil {
		cp.Rejects = o.rejects.offset
	}
	return cp.publish(o.cfg)
}

// complete makes the files durable before they get their names.
func (o *output) complete(in position, s *Summary) error {
	if !o.saved {
		return o.sync()
	}
	if _, err := o.collect(true); err != nil {
		return err
	}
	cp, err := o.snapshot(in, s, nil)
	if err != nil {
		return err
	}
	cp.Complete = true
	return o.store(cp)
}

// sync makes what was written durable.
func (o *output) sync() error {
	for _, f := range []*partFile{o.file, o.rejects} {
		if f == nil {
			continue
		}
		if err := f.f.Sync(); err != nil {
			return fmt.Errorf("%w: %w", errWrite, err)
		}
	}
	return nil
}

// abandon leaves the unfinished result to a later --resume.
func (o *output) abandon() error {
	_, err := o.collect(true)
	errs := []error{err}
	for _, f := range []*partFile{o.file, o.rejects} {
		if f != nil {
			errs = append(errs, f.f.Close())
		}
	}
	return errors.Join(errs...)
}

// part is a file that is complete but for its name.
type part struct {
	path string
	size int64
}

// publish gives the file its name, unless it has it already.
func (p part) publish() error {
	err := atomicfile.Rename(p.path+partSuffix, p.path)
	if errors.Is(err, os.ErrNotExist) {
		if st, err := os.Stat(p.path); err == nil && st.Size() == p.size {
			return nil
		}
		return fmt.Errorf("%w: neither %s nor %s is what the interrupted run wrote; start anew without --resume", ErrCheckpoint, p.path, p.path+partSuffix)
	}
	if err != nil {
		return fmt.Errorf("name output: %w", err)
	}
	return nil
}

// errWrite says that the result could not be written.
var errWrite = errors.New("write output")

// partFile is a file under its unfinished name. It has no method of os.File that
// would write without counting.
type partFile struct {
	f      *os.File
	offset int64 // bytes written
}

// openPart creates the file, or cuts it to what a checkpoint knows of it and
// goes on there.
func openPart(path string, offset int64) (*partFile, error) {
	f, err := os.OpenFile(path+partSuffix, os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // the operator's own file, for others to read
	if err != nil {
		return nil, fmt.Errorf("create output: %w", err)
	}
	p := &partFile{f: f, offset: offset}
	if err := p.cut(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

// cut removes what was written after the checkpoint.
func (p *partFile) cut() error {
	st, err := p.f.Stat()
	if err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	if st.Size() < p.offset {
		return fmt.Errorf("%w: %s is shorter than when it was interrupted; start anew without --resume", ErrCheckpoint, p.f.Name())
	}
	if st.Size() > p.offset && st.Mode().IsRegular() {
		if err := p.f.Truncate(p.offset); err != nil {
			return fmt.Errorf("cut output: %w", err)
		}
	}
	if _, err := p.f.Seek(p.offset, io.SeekStart); err != nil {
		return fmt.Errorf("cut output: %w", err)
	}
	return nil
}

// Write counts what is written.
func (p *partFile) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	p.offset += int64(n)
	if err != nil {
		return n, fmt.Errorf("%w: %w", errWrite, err)
	}
	return n, nil
}
