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

// clock tells a time that never goes back before what is known to have passed.
type clock struct {
	path  string
	cfg   Config
	limit time.Time // what is later is no believable time

	mu      sync.Mutex
	trusted time.Time // guarded by mu: latest time told, or the floor
	heard   time.Time // guarded by mu: own clock when it was told
	saved   time.Time // guarded by mu: trusted as it is on disk
}

func openClock(dir string, cfg Config, limit time.Time) *clock {
	c := &clock{path: filepath.Join(dir, timeFile), cfg: cfg, limit: limit, trusted: buildTime(), heard: cfg.Now()}
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

// Now is the later of the device's clock and the trusted time. The trusted time
// goes on by the monotonic clock, so that a device without a clock ages too.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.cfg.Now()
	if known := c.trusted.Add(max(own.Sub(c.heard), 0)); known.After(own) {
		return known
	}
	return own
}

// Trust takes in the server's time. A time before what is known, or after the
// end of the CA, says nothing.
func (c *clock) Trust(ms int64) {
	t := time.UnixMilli(ms).UTC()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.After(c.trusted) || !t.Before(c.limit) {
		return
	}
	c.trusted, c.heard = t, c.cfg.Now()
	if t.Sub(c.saved) < saveEvery {
		return
	}
	if err := writeFile(c.path, strconv.AppendInt(nil, ms, 10)); err != nil {
		c.cfg.Logger.Warn("trusted time not saved", slog.Any("error", err))
		return
	}
	c.saved = t
}
