// Package atomicfile changes files in one step: whoever reads one, also after a
// power cut, finds what was there before or what was written, never a part.
// Devices lose power at any moment and keep their keys and counters in files.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Write puts data in the place of the file at path, readable by the owner
// alone. The folder must be there. When Write returns nil the content has
// reached the disk.
func Write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what stays is litter, not an error of its own
	}
	return err
}

// Rename gives a synced file or folder another name, durably.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir makes changes of names in a folder durable: a rename may be undone by
// a power cut until then. Some file systems cannot, and say that it is no valid
// request; nothing better can be done there.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err = d.Sync(); errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
