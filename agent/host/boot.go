package host

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
)

// bootFile is the marker in the state directory. It exists from the first start
// on; its running field tells a clean stop from a kill or a power cut.
const bootFile = "boot"

// maxBootFile bounds what is read back; the real file has under 200 bytes.
const maxBootFile = 4096

// Boot is one start of the agent process. Its id ties the records of the start
// together, and its monotonic clock can be trusted when the wall clock cannot.
type Boot struct {
	ID      [protocol.BootSize]byte
	Count   uint64 // starts of this installation, this one included
	Unclean bool   // the start before did not end with End

	path  string
	start time.Time // carries the monotonic reading
	once  sync.Once
	err   error // of End
}

type bootMark struct {
	Count   uint64 `json:"count"`
	Running bool   `json:"running"`
	Boot    string `json:"boot"` // hex, for people
}

// ErrUnmarked says that a start could not be written down.
var ErrUnmarked = errors.New("this start is not written down")

// StartBoot counts a start in dir and marks it as running. A damaged marker
// counts as an unclean end: it can only come from a torn write. With ErrUnmarked
// the Boot is good to use: its id is new, but the next start will not know of it.
func StartBoot(dir string) (*Boot, error) {
	b := &Boot{path: filepath.Join(dir, bootFile), start: time.Now()}
	if _, err := rand.Read(b.ID[:]); err != nil {
		return nil, fmt.Errorf("make boot id: %w", err)
	}
	last, err := readMark(b.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		b.Unclean = last.Running
	}
	b.Count = last.Count + 1
	if err := writeMark(b.path, b.mark(true)); err != nil {
		return b, fmt.Errorf("%w: %w", ErrUnmarked, err)
	}
	return b, nil
}

// Stamp is the present moment on the device's two clocks.
func (b *Boot) Stamp() *protocol.Stamp {
	return b.StampAt(time.Now())
}

// StampAt is the moment t, which must come from time.Now in this process, on
// the device's two clocks.
func (b *Boot) StampAt(t time.Time) *protocol.Stamp {
	return &protocol.Stamp{
		Boot:        b.ID[:],
		MonotonicMs: uint64(max(t.Sub(b.start), 0).Milliseconds()), //nolint:gosec // not negative
		WallMs:      t.UnixMilli(),
	}
}

// Start is when the boot began, with its monotonic reading.
func (b *Boot) Start() time.Time { return b.start }

// End marks the boot as cleanly ended. Only the first call writes.
func (b *Boot) End() error {
	b.once.Do(func() { b.err = writeMark(b.path, b.mark(false)) })
	return b.err
}

func (b *Boot) mark(running bool) bootMark {
	return bootMark{Count: b.Count, Running: running, Boot: fmt.Sprintf("%x", b.ID)}
}

// readMark returns a running mark for a file that cannot be understood.
func readMark(path string) (bootMark, error) {
	f, err := os.Open(path)
	if err != nil {
		return bootMark{}, fmt.Errorf("open boot marker: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxBootFile))
	if err != nil {
		return bootMark{}, fmt.Errorf("read boot marker: %w", err)
	}
	var m bootMark
	if json.Unmarshal(raw, &m) != nil {
		return bootMark{Running: true}, nil
	}
	return m, nil
}

// writeMark replaces the marker.
func writeMark(path string, m bootMark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode boot marker: %w", err)
	}
	if err := atomicfile.Write(path, raw); err != nil {
		return fmt.Errorf("write boot marker: %w", err)
	}
	return nil
}
