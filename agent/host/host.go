// Package host knows the machine the agent runs on: what it is (processor,
// memory, disk, kernel), which firmware profile that matches, and the agent's
// own starts on it.
package host

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	profiles "github.com/vedette-edge/vedette/firmware-profiles"
	"github.com/vedette-edge/vedette/protocol"
)

// maxProc bounds what is read of a file under /proc or /sys.
const maxProc = 1 << 20

// Facts says what the device is. dir is the agent's state directory: its file
// system is the disk meant. The runtime's fields are left to the caller, who
// knows them. What cannot be found out stays zero; that is no reason not to
// start.
func Facts(dir string) *protocol.Facts {
	f := &protocol.Facts{
		Os:     runtime.GOOS,
		Arch:   runtime.GOARCH,
		Cpus:   uint32(runtime.NumCPU()), //nolint:gosec // a count of processors
		Kernel: kernel(),
	}
	cpuinfo, board := readProc("/proc/cpuinfo"), readProc("/proc/device-tree/model")
	f.CpuModel = cpuModel(cpuinfo, board)
	if p, ok := Profile(); ok {
		f.Profile = p.Name
	}
	f.MemoryBytes = Memory()
	f.Hostname, _ = os.Hostname()
	f.TimeZone = TimeZone()
	if d, err := Disk(dir); err == nil {
		f.DiskBytes = d.Total
	}
	return f
}

// Profile is the firmware profile that this machine matches, false for none.
func Profile() (profiles.Profile, bool) {
	list, err := profiles.All()
	if err != nil {
		return profiles.Profile{}, false // a test keeps embedded profiles valid
	}
	return profiles.Find(list, Device())
}

// Device is what firmware profiles recognise this machine by.
func Device() profiles.Device {
	return profiles.Device{
		Arch:  runtime.GOARCH,
		Board: strings.TrimRight(readProc("/proc/device-tree/model"), "\x00\n"),
		CPU:   cpuModel(readProc("/proc/cpuinfo"), ""),
		GPUs:  gpuDrivers("/sys/class/drm"),
	}
}

// Memory is the machine's memory in bytes, 0 when not known.
func Memory() uint64 { return memInfo(readProc("/proc/meminfo"), "MemTotal") }

// gpuDrivers lists the kernel drivers of graphics devices, each once.
func gpuDrivers(dir string) []string {
	links, err := filepath.Glob(filepath.Join(dir, "*", "device", "driver"))
	if err != nil {
		return nil
	}
	var drivers []string
	for _, l := range links {
		target, err := os.Readlink(l)
		if name := filepath.Base(target); err == nil && !slices.Contains(drivers, name) {
			drivers = append(drivers, name)
		}
	}
	return drivers
}

// DiskUse is the room of a file system, in bytes.
type DiskUse struct {
	Total uint64
	Free  uint64 // that an ordinary process may use
}

// Disk measures the file system that holds dir.
func Disk(dir string) (DiskUse, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return DiskUse{}, fmt.Errorf("measure disk of %s: %w", dir, err)
	}
	size := uint64(max(st.Bsize, 0))
	return DiskUse{Total: st.Blocks * size, Free: st.Bavail * size}, nil
}

// RSS is the resident memory of this process in bytes, 0 when not known.
func RSS() uint64 {
	fields := strings.Fields(readProc("/proc/self/statm"))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize()) //nolint:gosec // a page size
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// cpuModel prefers the board's name from the device tree, which is what tells
// ARM boards apart; x86 machines have none and name their processor.
func cpuModel(cpuinfo, board string) string {
	if board = strings.TrimRight(board, "\x00\n"); board != "" {
		return board
	}
	for _, key := range []string{"model name", "Hardware", "cpu model", "Model"} {
		if v := procField(cpuinfo, key); v != "" {
			return v
		}
	}
	return ""
}

// memInfo reads one line of /proc/meminfo, which counts in KiB, as bytes.
func memInfo(meminfo, key string) uint64 {
	kib, err := strconv.ParseUint(strings.TrimSuffix(procField(meminfo, key), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// procField finds the first "key : value" line.
func procField(text, key string) string {
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		k, v, ok := strings.Cut(sc.Text(), ":")
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func readProc(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxProc))
	if err != nil {
		return ""
	}
	return string(raw)
}
