package outbox

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tidwall/buntdb"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// store is the file. BuntDB appends and holds the values; syncing and shrinking
// are done here, because its own ignore the error of a sync and rename a file
// that was not synced.
type store struct {
	path string
	db   *buntdb.DB // nil when the file has to be written anew
	file *os.File   // the same file, for syncing and its size
	// inject fails a step in tests; nil otherwise.
	inject func(step string) error
}

func (s *store) step(name string) error {
	if s.inject == nil {
		return nil
	}
	return s.inject(name)
}

// open loads a file that is known to be good.
func (s *store) open() (err error) {
	if s.file, err = os.OpenFile(s.path, os.O_RDWR, 0); err != nil {
		return fmt.Errorf("open outbox file: %w", err)
	}
	if s.db, err = buntdb.Open(s.path); err != nil {
		s.db = nil
		return errors.Join(fmt.Errorf("load outbox file: %w", err), s.file.Close())
	}
	cfg := buntdb.Config{SyncPolicy: buntdb.Never, AutoShrinkDisabled: true}
	if err := s.db.SetConfig(cfg); err != nil {
		return fmt.Errorf("configure outbox file: %w", err)
	}
	return nil
}

func (s *store) close() error {
	if s.db == nil {
		return nil
	}
	err := errors.Join(s.db.Close(), s.file.Close())
	s.db, s.file = nil, nil
	return err
}

// write appends one frame and forgets keys. It is on disk after sync.
func (s *store) write(key, value string, drop []string) (err error) {
	if err := s.step("write"); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			// BuntDB gives up the process when it cannot take a torn write back. Its
			// lock is lost with it, so the handle is left behind.
			s.db = nil
			err = fmt.Errorf("append to outbox file: %v", r)
		}
	}()
	return s.db.Update(func(tx *buntdb.Tx) error {
		for _, k := range drop {
			if _, err := tx.Delete(k); err != nil && !errors.Is(err, buntdb.ErrNotFound) {
				return fmt.Errorf("delete %s: %w", k, err)
			}
		}
		_, _, err := tx.Set(key, value, nil)
		return err
	})
}

func (s *store) sync() error {
	if err := s.step("sync"); err != nil {
		return err
	}
	return s.file.Sync()
}

func (s *store) size() int64 {
	if s.file == nil {
		return 0
	}
	info, err := s.file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// get returns the value of a key, sharing BuntDB's memory.
func (s *store) get(key string) (value string, err error) {
	err = s.db.View(func(tx *buntdb.Tx) error {
		value, err = tx.Get(key)
		return err
	})
	return value, err
}

// replace makes the file hold exactly these frames: all of them or, after a
// power cut, what it held before. keep, if not empty, is where the old file stays.
func (s *store) replace(frames []Frame, keep string) error {
	if err := s.step("replace"); err != nil {
		return err
	}
	temp := s.path + ".new"
	if err := writeFrames(temp, frames); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if keep != "" {
		if err := quarantine(s.path, keep); err != nil {
			return errors.Join(err, os.Remove(temp))
		}
	}
	if err := atomicfile.Rename(temp, s.path); err != nil {
		return fmt.Errorf("put outbox file in place: %w", err)
	}
	if err := s.close(); err != nil {
		s.db, s.file = nil, nil // the old file is gone from its folder in any case
	}
	return s.open()
}

func writeFrames(path string, frames []Frame) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make outbox file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var buf []byte
	for i := range frames {
		buf = appendSet(buf[:0], frames[i].key(), frames[i].Encode())
		if _, err := f.Write(buf); err != nil {
			return fmt.Errorf("write outbox file: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync outbox file: %w", err)
	}
	return nil
}

// quarantine keeps the file under a second name, in place of an earlier one.
func quarantine(path, keep string) error {
	if err := os.Remove(keep); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove older damaged file: %w", err)
	}
	if err := os.Link(path, keep); err != nil {
		return fmt.Errorf("keep damaged file: %w", err)
	}
	return nil
}

// readBounded reads a file up to limit bytes; what is beyond is not ours.
func readBounded(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit))
	return string(raw), errors.Join(err, f.Close())
}
