package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Trim gives back what only the start needed: free heap, and the pages of the
// program that starting went through (flags, certificates, the graph's
// optimiser). They stay in the page cache while there is room; what is needed
// again is mapped again at a microsecond a page.
func Trim() error {
	debug.FreeOSMemory()
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("list mappings: %w", err)
	}
	defer smaps.Close()
	list, err := mappings(smaps)
	if err != nil {
		return err
	}
	for _, m := range list {
		if !m.comesBack(exe) {
			continue
		}
		if err := forget(m.from, m.size); err != nil {
			return fmt.Errorf("give back %s: %w", m.path, err)
		}
	}
	return nil
}

// mapping is one piece of this process's memory.
type mapping struct {
	from, size uintptr
	mode, path string
	own        bool // holds pages that were written, which no file has
}

// comesBack says whether every page of m can be read from its file again. That
// holds for code, and for the program's constants. Constants of a library are
// left alone: it could be unloaded, and another be relocated to the same place,
// before they are given back.
func (m *mapping) comesBack(exe string) bool {
	if m.own || !strings.HasPrefix(m.path, "/") {
		return false
	}
	return m.mode == "r-xp" || m.mode == "r--p" && m.path == exe
}

// mappings reads smaps of proc(5).
func mappings(smaps io.Reader) ([]mapping, error) {
	var list []mapping
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) >= 5 && !strings.HasSuffix(f[0], ":"):
			list = append(list, newMapping(f))
		case len(list) > 0 && len(f) > 1 && f[0] == "Anonymous:":
			list[len(list)-1].own = f[1] != "0"
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list mappings: %w", err)
	}
	return list, nil
}

// newMapping reads "from-to mode offset device inode path". A path with spaces
// is not one that this program or its libraries have.
func newMapping(f []string) mapping {
	m := mapping{mode: f[1], own: true}
	low, high, _ := strings.Cut(f[0], "-")
	from, err := strconv.ParseUint(low, 16, 64)
	to, err2 := strconv.ParseUint(high, 16, 64)
	if err == nil && err2 == nil && to > from && len(f) == 6 {
		m.from, m.size, m.path = uintptr(from), uintptr(to-from), f[5]
	}
	return m
}

// forget goes around unix.Madvise, which wants a Go slice over memory that is
// not Go's.
func forget(from, size uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, size, unix.MADV_DONTNEED); errno != 0 {
		return errno
	}
	return nil
}
