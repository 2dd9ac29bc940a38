package host

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Trim gives back what only the start needed: free heap, and the pages of code
// that starting went through (flags, certificates, the graph's optimiser). The
// code stays in the page cache while there is room; what runs again is mapped
// again at a microsecond a page.
func Trim() error {
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("list mappings: %w", err)
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		if from, size, ok := code(lines.Text()); ok {
			if err := forget(from, size); err != nil {
				return fmt.Errorf("give back code: %w", err)
			}
		}
	}
	return lines.Err()
}

// code picks the mappings of code from files: they are private and read-only,
// so their pages are those of the file. Relocated data is not: it was written.
func code(line string) (from, size uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[1] != "r-xp" || !strings.HasPrefix(f[5], "/") {
		return 0, 0, false
	}
	low, high, _ := strings.Cut(f[0], "-")
	start, err := strconv.ParseUint(low, 16, 64)
	if err != nil {
		return 0, 0, false
	}
	end, err := strconv.ParseUint(high, 16, 64)
	if err != nil || end <= start {
		return 0, 0, false
	}
	return uintptr(start), uintptr(end - start), true
}

// forget goes around unix.Madvise, which wants a Go slice over memory that is
// not Go's.
func forget(from, size uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, size, unix.MADV_DONTNEED); errno != 0 {
		return errno
	}
	return nil
}
