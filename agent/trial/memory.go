package trial

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watch weighs a process. What is shared with others is counted by its share
// (PSS), so that a runtime library used by the agent too does not count twice;
// between two looks the kernel keeps the high-water mark of resident memory.
type watch struct {
	pid   int
	every time.Duration

	limit       uint64 // bytes above bare
	barePSS     uint64
	bareRSS     uint64
	peak        atomic.Uint64 // bytes above bare
	exceeded    atomic.Bool
	quit        chan struct{}
	wg          sync.WaitGroup
	quitOnce    sync.Once
	haveBegun   bool
	haveRSSMark bool
}

func newWatch(pid int, every time.Duration) *watch {
	return &watch{pid: pid, every: every, quit: make(chan struct{})}
}

// begin weighs the bare process and watches it from then on. over is called
// once, when it has grown by more than limit bytes.
func (w *watch) begin(limit uint64, over func()) {
	w.limit, w.haveBegun = limit, true
	// "5" resets the high-water mark to what is resident now.
	w.haveRSSMark = os.WriteFile(w.file("clear_refs"), []byte("5"), 0) == nil
	w.barePSS, w.bareRSS, _ = w.now()
	w.wg.Go(func() {
		tick := time.NewTicker(w.every)
		defer tick.Stop()
		for {
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
			if w.sample(); limit > 0 && w.peak.Load() > limit {
				w.exceeded.Store(true)
				over()
				return
			}
		}
	})
}

// last takes the final weight, while the child still waits.
func (w *watch) last() {
	if !w.haveBegun {
		return
	}
	w.sample()
	if mark, err := field(w.file("status"), "VmHWM:"); err == nil && w.haveRSSMark {
		w.raise(mark, w.bareRSS)
	}
}

func (w *watch) stop() {
	w.quitOnce.Do(func() { close(w.quit) })
	w.wg.Wait()
}

func (w *watch) sample() {
	if pss, _, err := w.now(); err == nil {
		w.raise(pss, w.barePSS)
	}
}

func (w *watch) raise(now, bare uint64) {
	if now <= bare {
		return
	}
	for {
		old := w.peak.Load()
		if now-bare <= old || w.peak.CompareAndSwap(old, now-bare) {
			return
		}
	}
}

func (w *watch) file(name string) string { return "/proc/" + strconv.Itoa(w.pid) + "/" + name }

// now is the process's memory in bytes.
func (w *watch) now() (pss, rss uint64, err error) {
	if pss, err = field(w.file("smaps_rollup"), "Pss:"); err != nil {
		return 0, 0, err
	}
	rss, err = field(w.file("smaps_rollup"), "Rss:")
	return pss, rss, err
}

// field reads one line such as "Pss:  123 kB" of a file of /proc, in bytes.
func field(name, key string) (uint64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", name, key)
}

// memoryLimit is what a candidate may take: the manifest's limit, or less where
// the device has less.
func (t *Trier) memoryLimit(manifest uint64) uint64 {
	limit := t.cfg.MemoryBytes
	if limit == 0 {
		if available, err := field("/proc/meminfo", "MemAvailable:"); err == nil {
			limit = available / 4 * 3
		}
	}
	if manifest > 0 && (limit == 0 || manifest < limit) {
		limit = manifest
	}
	return limit
}

// dataSlack is what a child's data may grow beyond its limit before the kernel
// refuses it more: mappings that are never touched count here, such as the
// stacks of threads.
const dataSlack = 256 << 20

// confine makes the kernel refuse memory far above the limit at once, for the
// candidate that would take the device down between two looks. It is the data
// limit, not that of addresses: a Go program reserves more addresses than any
// device has memory.
func confine(limit uint64) error {
	if limit == 0 {
		return nil
	}
	data, err := field("/proc/self/status", "VmData:")
	if err != nil {
		return nil //nolint:nilerr // no /proc, no limit: the parent's looks remain
	}
	most := data + limit + dataSlack
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: most, Max: most}); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	return nil
}
