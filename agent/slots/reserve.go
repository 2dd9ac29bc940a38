package slots

import (
	"crypto/rand"
	"fmt"
	"io/fs"
)

// reserveName is the file below the root that holds the reserve.
const reserveName = "reserve"

// reserveBytes is enough for some dozen records and the blocks of their folders.
const reserveBytes = 64 << 10

// KeepReserve sets some room aside for records, if it is not set aside already.
// WriteRecord takes it when the disk is full: a release that takes the process
// down has to be noted then too, or it would do so for ever.
func KeepReserve(fsys FS) error {
	if info, err := fs.Stat(fsys, reserveName); err == nil && info.Size() == reserveBytes {
		return nil
	}
	room := make([]byte, reserveBytes)
	_, _ = rand.Read(room) // no error is possible; a file system that compresses would keep zeros for nothing
	if err := writeFile(fsys, reserveName, room); err != nil {
		_ = fsys.RemoveAll(reserveName) // a part of it is of no use
		return fmt.Errorf("keep a reserve: %w", err)
	}
	return nil
}

// giveReserve reports whether there is more room now.
func giveReserve(fsys FS) bool {
	_, err := fs.Stat(fsys, reserveName)
	return err == nil && fsys.RemoveAll(reserveName) == nil
}
