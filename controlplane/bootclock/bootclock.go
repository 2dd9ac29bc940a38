// Package bootclock places what devices say on the server's clock. A device may
// have booted in 1970: its records carry the boot and monotonic time, and every
// hello and report shows how far that is from the time of its arrival.
package bootclock

import (
	"bytes"
	"slices"

	"github.com/vedette-edge/vedette/protocol"
)

// MaxBoots bounds the boots a device is remembered by. Records of an older one
// are time-uncertain.
const MaxBoots = 16

// boot places the monotonic clock of one start of an agent on the server's.
type boot struct {
	ID      []byte   `json:"id"`
	Offsets []offset `json:"offsets"` // each better than the one before
}

// offset is server time minus monotonic time, and the message that showed it:
// messages before it are placed without it, also when they are folded again
// after a restart that had already written it down.
type offset struct {
	Seq uint64 `json:"seq"`
	MS  int64  `json:"ms"`
}

// An offset is replaced by one with less delay in it, if that is worth it.
const (
	betterMS   = 100
	maxOffsets = 8
)

// Clock knows the boots of one device, oldest first. It belongs to a fold's
// checkpoint, and is not for concurrent use.
type Clock struct {
	Boots []boot `json:"boots,omitempty"`
}

// Sync takes the stamp of a message that was sent the moment before it arrived
// and tells whether anything was learned. The smallest difference is the one
// with the least delay in it.
func (c *Clock) Sync(seq uint64, sent *protocol.Stamp, receivedMS int64) bool {
	if len(sent.GetBoot()) != protocol.BootSize || receivedMS <= 0 {
		return false
	}
	o := offset{seq, receivedMS - int64(sent.GetMonotonicMs())} //nolint:gosec // 292 million years
	i := slices.IndexFunc(c.Boots, func(b boot) bool { return bytes.Equal(b.ID, sent.GetBoot()) })
	if i < 0 {
		c.Boots = append(c.Boots, boot{bytes.Clone(sent.GetBoot()), []offset{o}})
		c.Boots = c.Boots[max(0, len(c.Boots)-MaxBoots):]
		return true
	}
	b := &c.Boots[i]
	if o.MS > b.Offsets[len(b.Offsets)-1].MS-betterMS || len(b.Offsets) >= maxOffsets {
		return false
	}
	b.Offsets = append(b.Offsets, o)
	return true
}

// at returns the offset of a boot as it was known when message seq arrived.
func (c *Clock) at(seq uint64, id []byte) (ms int64, ok bool) {
	for i := range c.Boots {
		if !bytes.Equal(c.Boots[i].ID, id) {
			continue
		}
		for _, o := range c.Boots[i].Offsets {
			if o.Seq <= seq {
				ms, ok = o.MS, true
			}
		}
	}
	return ms, ok
}

// Window returns when a window was open in server time. ok is false when its
// boot was never heard of.
func (c *Clock) Window(seq uint64, at *protocol.Stamp, w *protocol.Window, receivedMS int64) (start, end int64, ok bool) {
	zero, ok := c.at(seq, at.GetBoot())
	if !ok {
		return 0, 0, false
	}
	start = zero + int64(w.GetStartMonotonicMs()) //nolint:gosec // checked next
	end = zero + int64(w.GetEndMonotonicMs())     //nolint:gosec // checked next
	return bound(start, end, receivedMS)
}

// Labels returns when the predictions were made that labels were joined to. A
// prediction of a former boot has no monotonic time in this one; then only the
// distance on the device's own clock is left, which may have been set since.
func (c *Clock) Labels(seq uint64, at *protocol.Stamp, l *protocol.Labels, receivedMS int64) (start, end int64, ok bool) {
	zero, ok := c.at(seq, at.GetBoot())
	if !ok || l.GetMatched() == 0 {
		return 0, 0, false
	}
	if l.GetEndMonotonicMs() > 0 {
		start = zero + int64(l.GetStartMonotonicMs()) //nolint:gosec // checked next
		end = zero + int64(l.GetEndMonotonicMs())     //nolint:gosec // checked next
		return bound(start, end, receivedMS)
	}
	closed := zero + int64(at.GetMonotonicMs()) //nolint:gosec // checked next
	return bound(closed-(at.GetWallMs()-l.GetStartWallMs()), closed-(at.GetWallMs()-l.GetEndWallMs()), receivedMS)
}

// tolerance is how far a corrected time may lie beyond the moment of arrival.
const tolerance = 60_000

// bound refuses spans that cannot be: backwards, before the epoch or from the future.
func bound(start, end, receivedMS int64) (int64, int64, bool) {
	if start <= 0 || end < start || end > receivedMS+tolerance {
		return 0, 0, false
	}
	return start, min(end, receivedMS), true
}
