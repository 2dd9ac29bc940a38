package pull

import (
	"io/fs"
	"syscall"
)

// freeSpace is how many bytes an ordinary user may still write in dir.
func freeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil //nolint:gosec // no disk has 2^63 bytes
}

// onDisk is how many bytes a file takes on disk; a part has holes.
func onDisk(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}
