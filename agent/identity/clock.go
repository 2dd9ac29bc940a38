package identity

import (
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// saveEvery bounds the wear of writing the trusted time down.
const saveEvery = 5 * time.Minute

// oldest is before any agent was built.
var oldest = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

// buildTime is when the agent's sources were committed, as far as the build
// knows. A device cannot be at an earlier time.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return oldest
	}
	for _, s := range info.Settings {
		if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && t.After(oldest) {
			return t
		}
	}
	return oldest
}

// maxAhead is how far the device's clock may be ahead of the time that the
// control plane told and the monotonic clock has carried on. The monotonic clock
// stands still while a device sleeps; beyond this its clock was set wrong.
const maxAhead = 30 * 24 * time.Hour

// clock tells a time that never goes back before what is known to have passed.
type clock struct {
	path  string
	cfg   Config
	limit time.Time // what is later is no believable time

	mu      sync.Mutex
	trusted time.Time // guarded by mu: latest time told, or the floor
	heard   time.Time // guarded by mu: when it was told, by the monotonic clock
	told    bool      // guarded by mu: in this process, by the control plane
	trying  bool      // guarded by mu: the last connection believed the device's clock
	saved   time.Time // guarded by mu: trusted as it is on disk
}

func openClock(dir string, cfg Config, limit time.Time) *clock {
	c := &clock{path: filepath.Join(dir, timeFile), cfg: cfg, limit: limit, trusted: buildTime(), heard: time.Now()}
	data, err := readFile(c.path)
	if err != nil {
		return c // none yet
	}
	ms, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if t := time.UnixMilli(ms).UTC(); err == nil && t.After(c.trusted) && t.Before(limit) {
		c.trusted, c.saved = t, t
	}
	return c
}

// Now is the later of the device's clock and the trusted time, which goes on by
// the monotonic clock, so that a device without a clock ages too. A clock far
// ahead of what the control plane told in this process is not believed.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	own, known := c.cfg.Now(), c.known()
	if known.After(own) || own.After(c.limit) || c.told && own.Sub(known) > maxAhead {
		return known
	}
	return own
}

func (c *clock) known() time.Time { return c.trusted.Add(time.Since(c.heard)) }

// ForConnection is the time to judge the server's certificate by. While nobody
// has told the time, a clock far ahead of the trusted one may be right, after
// years in a drawer, or wrong for good: every other connection doubts it.
func (c *clock) ForConnection() time.Time {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.known()
	doubt := c.trying && !c.told && now.Sub(known) > maxAhead
	c.trying = !c.trying
	if doubt {
		return known
	}
	return now
}

// Trust takes in the server's time. A time before what is known, or after the
// end of the CA, says nothing.
func (c *clock) Trust(ms int64) {
	t := time.UnixMilli(ms).UTC()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.Before(c.limit) {
		return
	}
	c.told = c.told || !t.Before(c.trusted)
	if !t.After(c.trusted) {
		return
	}
	c.trusted, c.heard = t, time.Now()
	if t.Sub(c.saved) < saveEvery {
		return
	}
	if err := writeFile(c.path, strconv.AppendInt(nil, ms, 10)); err != nil {
		c.cfg.Logger.Warn("trusted time not saved", slog.Any("error", err))
		return
	}
	c.saved = t
}
