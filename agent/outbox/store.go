package outbox

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tidwall/buntdb"

	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// store is the file. BuntDB appends and holds the values; syncing and shrinking
// are done here, because its own ignore the error of a sync and rename a file
// that was not synced.
type store struct {
	path     string
	db       *buntdb.DB // nil when the file is not open
	file     *os.File   // the same file, for syncing and its size
	reserved int64      // bytes of disk set aside for the next file
	// inject fails a step in tests; nil otherwise.
	inject func(step string) error
	// flush is (*os.File).Sync, but for tests that write for a simulated month.
	flush func(*os.File) error
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
	return s.flush(s.file)
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

// frames are the values by key, sharing BuntDB's memory.
func (s *store) frames() (map[string]*Frame, error) {
	found := map[string]*Frame{}
	err := s.db.View(func(tx *buntdb.Tx) error {
		var bad error
		err := tx.Ascend("", func(key, value string) bool {
			found[key], _, bad = decodeFrame(value)
			return bad == nil
		})
		return errors.Join(err, bad)
	})
	return found, err
}

// next is the file under way, and before that the space set aside for it.
func (s *store) next() string { return s.path + ".new" }

// reserve sets so many bytes of disk aside for the next file, so that a full
// disk can be shrunk, and in a shrunk file there is room to go on.
func (s *store) reserve(n int64) error {
	if n <= s.reserved && s.reserved <= 4*n {
		return nil
	}
	if err := s.step("reserve"); err != nil {
		return err
	}
	n = (n + reserveStep - 1) / reserveStep * reserveStep
	if err := s.setAside(n); err != nil {
		return fmt.Errorf("set disk space aside: %w", err)
	}
	s.reserved = n
	return nil
}

// found takes over what an earlier process has set aside.
func (s *store) found() {
	if info, err := os.Stat(s.next()); err == nil && info.Size() == 0 {
		if disk, ok := info.Sys().(*syscall.Stat_t); ok {
			s.reserved = disk.Blocks * 512
		}
	}
}

// reserveStep keeps the space from being set aside anew for every record, in bytes.
const reserveStep = 1 << 20

func (s *store) setAside(n int64) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(s.path), &disk); err != nil {
		return err
	}
	if free := int64(disk.Bavail) * disk.Bsize; free < n-s.reserved { //nolint:gosec // no disk has 2^63 bytes
		return syscall.ENOSPC // trying would take the last of it from others
	}
	f, err := os.OpenFile(s.next(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if s.reserved == 0 || s.reserved > n { // what a cut has left there, or too much
		s.reserved = 0
		err = f.Truncate(0)
	}
	return errors.Join(err, allocate(f, n), f.Close())
}

// replace makes the file hold exactly these frames, of about size bytes: all of
// them or, after a power cut, what it held before. keep, if not empty, is where
// the old file stays. The new one is to be opened. Nothing is written when
// there is no room: a full disk must not be worn out by trying.
func (s *store) replace(frames iter.Seq[*Frame], size int64, keep string) error {
	if err := s.step("replace"); err != nil {
		return err
	}
	if err := s.reserve(size); err != nil {
		return err
	}
	if err := s.writeFrames(frames); err != nil {
		s.reserved = 0
		return errors.Join(err, os.Remove(s.next()))
	}
	if keep != "" {
		if err := quarantine(s.path, keep); err != nil {
			return err
		}
	}
	s.reserved = 0
	if err := atomicfile.Rename(s.next(), s.path); err != nil {
		return fmt.Errorf("put outbox file in place: %w", err)
	}
	_ = s.close() // the old file is gone from its folder in any case
	return nil
}

func (s *store) writeFrames(frames iter.Seq[*Frame]) (err error) {
	f, err := os.OpenFile(s.next(), os.O_WRONLY|os.O_CREATE, 0o600) // not truncated: that would give the space back
	if err != nil {
		return fmt.Errorf("make outbox file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var buf []byte
	var size int64
	for fr := range frames {
		buf = appendSet(buf[:0], fr.key(), fr.Encode())
		if _, err := f.Write(buf); err != nil {
			return fmt.Errorf("write outbox file: %w", err)
		}
		size += int64(len(buf))
	}
	if err := f.Truncate(size); err != nil { // of what was set aside only the room to go on stays
		return fmt.Errorf("cut outbox file: %w", err)
	}
	if err := allocate(f, size+room(size)); err != nil && !isFull(err) {
		return fmt.Errorf("set disk space aside: %w", err)
	}
	if err := s.flush(f); err != nil {
		return fmt.Errorf("sync outbox file: %w", err)
	}
	return nil
}

// room is what a file of so many bytes needs to go on while the disk is full:
// for numbering, acknowledging and the open windows until it is shrunk again.
func room(size int64) int64 { return size/4 + 1<<20 }

// allocate gives a file so many bytes of disk from its beginning on without
// changing its size. File systems that cannot do without.
func allocate(f *os.File, n int64) error {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	if n <= 0 {
		return nil
	}
	err := syscall.Fallocate(int(f.Fd()), keepSize, 0, n)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENOSYS) {
		return nil
	}
	return err
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

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
