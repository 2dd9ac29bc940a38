package slots

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// ErrDamaged says that a file or folder does not hold what was written there.
var ErrDamaged = errors.New("damaged on disk")

// FS is what power safety is made of. Names are slash-separated and relative,
// as in io/fs. Until Sync has returned for a file, its bytes may be lost, and
// until it has returned for a folder, so may what was created, renamed, linked
// or removed in it.
type FS interface {
	fs.FS // folders opened implement fs.ReadDirFile
	Create(name string) (File, error)
	Mkdir(name string) error // no error when it exists
	Link(oldname, newname string) error
	Rename(oldname, newname string) error
	RemoveAll(name string) error
	Sync(name string) error // a file or a folder
}

// File is a file being written.
type File interface {
	io.WriteCloser
	Sync() error
}

// OS is the file system below dir, which must exist. Nothing outside of dir can
// be reached through it, whatever the names.
func OS(dir string) (*Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	return &Root{root: root}, nil
}

// Root is a folder of the operating system.
type Root struct{ root *os.Root }

var _ FS = (*Root)(nil)

// Open opens a file or a folder for reading.
func (r *Root) Open(name string) (fs.File, error) { return r.root.Open(name) }

// Create makes a file, readable by its owner alone.
func (r *Root) Create(name string) (File, error) {
	return r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

// Mkdir makes a folder, for its owner alone.
func (r *Root) Mkdir(name string) error {
	if err := r.root.Mkdir(name, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Link gives a file a second name.
func (r *Root) Link(oldname, newname string) error { return r.root.Link(oldname, newname) }

// Rename moves a file or folder, replacing a file.
func (r *Root) Rename(oldname, newname string) error { return r.root.Rename(oldname, newname) }

// RemoveAll removes a file, or a folder with all in it.
func (r *Root) RemoveAll(name string) error { return r.root.RemoveAll(name) }

// Sync makes a file or the entries of a folder durable.
func (r *Root) Sync(name string) error {
	f, err := r.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close gives the folder back.
func (r *Root) Close() error { return r.root.Close() }

// sealPrefix begins the last line of a record: CRC-32C of all before it. Renaming keeps a
// record whole; the seal finds what the card changed afterwards.
const sealPrefix = "crc32c "

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func seal(data []byte) []byte {
	return fmt.Appendf(nil, "%s%08x\n", sealPrefix, crc32.Checksum(data, castagnoli))
}

// WriteRecord replaces a record as one step: a power cut leaves the old one or
// the new one. data is text that ends in a newline; its folder must exist. On a
// full disk it takes the reserve.
func WriteRecord(fsys FS, name string, data []byte) error {
	err := replace(fsys, name, data)
	if errors.Is(err, syscall.ENOSPC) && giveReserve(fsys) {
		return replace(fsys, name, data)
	}
	return err
}

func replace(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := writeFile(fsys, tmp, append(bytes.Clone(data), seal(data)...)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := fsys.Sync(path.Dir(name)); err != nil {
		return fmt.Errorf("sync folder of %s: %w", name, err)
	}
	return nil
}

func writeFile(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// ReadRecord reads what WriteRecord wrote. The error wraps fs.ErrNotExist, or
// ErrDamaged when the record is longer than limit bytes or its seal is wrong.
func ReadRecord(fsys fs.FS, name string, limit int64) ([]byte, error) {
	all, err := readFile(fsys, name, limit)
	if err != nil {
		return nil, err
	}
	cut := len(all) - len(seal(nil))
	if cut < 0 || !bytes.Equal(all[cut:], seal(all[:cut])) {
		return nil, fmt.Errorf("read %s: %w: its checksum is wrong", name, ErrDamaged)
	}
	return all[:cut], nil
}

// readFile reads a whole file of at most limit bytes.
func readFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	all, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(all)) > limit {
		return nil, fmt.Errorf("read %s: %w: over %d bytes", name, ErrDamaged, limit)
	}
	return all, nil
}
