package history

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/controlplane/bootclock"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/sketch"
)

// Kinds of checkpoint records, the first token of their keys.
const (
	clockRecord = "clock-1"
	partRecord  = "part-1"
)

// clockState places one device's records in time.
type clockState struct {
	Seq   uint64          `json:"seq"` // of the last message in it
	Clock bootclock.Clock `json:"clock"`
	dirty bool
}

func (k partKey) record() string {
	return strings.Join([]string{partRecord, k.release.String(), strconv.FormatInt(k.hour, 10), strconv.Itoa(k.shard)}, ".")
}

func parsePartKey(key string) (k partKey, err error) {
	tokens := strings.Split(key, ".")
	if len(tokens) != 4 {
		return k, fmt.Errorf("checkpoint key %q has %d tokens, not 4", key, len(tokens))
	}
	if k.release, err = release.ParseDigest(tokens[1]); err != nil {
		return k, err
	}
	if k.hour, err = strconv.ParseInt(tokens[2], 10, 64); err != nil {
		return k, fmt.Errorf("checkpoint key %q: %w", key, err)
	}
	if k.shard, err = strconv.Atoi(tokens[3]); err != nil {
		return k, fmt.Errorf("checkpoint key %q: %w", key, err)
	}
	return k, nil
}

// Apply folds one message of the uplink stream. Every part skips what it
// includes already, so messages may come again after a restart.
func (h *History) Apply(seq uint64, a *protocol.Accepted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.applied = max(h.applied, seq)
	c := h.clock(a.GetDevice())
	if seq > c.Seq && (a.GetHello() != nil || a.GetReport() != nil) && c.Clock.Sync(seq, a.GetSent(), a.GetReceivedMs()) {
		c.Seq, c.dirty = seq, true
	}
	data := a.GetRecord().GetBody()
	if len(data) == 0 {
		return
	}
	body, err := sketch.DecodeBody(data)
	if err != nil {
		return // ingest has looked: a body of a later version
	}
	switch k := body.GetKind().(type) {
	case *protocol.Body_Window:
		if k.Window.GetRole() == protocol.RoleShadow {
			return // it answered nobody
		}
		start, _, sure := c.Clock.Window(seq, body.GetAt(), k.Window, a.GetReceivedMs())
		h.count(seq, a.GetDevice(), k.Window.GetRelease(), start, sure, func(t *Tally) { t.addWindow(bareWindow(k.Window)) })
	case *protocol.Body_Labels:
		if k.Labels.GetRole() == protocol.RoleShadow {
			return
		}
		start, _, sure := c.Clock.Labels(seq, body.GetAt(), k.Labels, a.GetReceivedMs())
		h.count(seq, a.GetDevice(), k.Labels.GetRelease(), start, sure, func(t *Tally) { t.addLabels(bareLabels(k.Labels)) })
	}
}

func (h *History) clock(device string) *clockState {
	c := h.clocks[device]
	if c == nil {
		c = &clockState{}
		h.clocks[device] = c
	}
	return c
}

// count adds to a device's cell in the hour in which something began.
func (h *History) count(seq uint64, device string, raw []byte, startMS int64, sure bool, add func(*Tally)) {
	digest, err := release.DigestFromBytes(raw)
	if err != nil || !sure {
		return
	}
	k := partKey{digest, startMS / hourMS, shardOf(device)}
	p := h.parts[k]
	if p == nil {
		p = &part{open: pack{}}
		h.parts[k] = p
	}
	if seq <= p.seq {
		return
	}
	if _, known := p.open[device]; !known && p.open.size() > maxPack {
		device = ""
	}
	t := newTally()
	if t.after(p.open[device]) != nil {
		return // what this process encoded can be read
	}
	t.Devices = 1
	add(t)
	c, err := t.cell()
	if err != nil {
		h.cfg.Logger.Error("window is in no hour of the history", "device", device, "error", err)
		return
	}
	p.open[device], p.seq, p.dirty = c, seq, true
}

// Dirty returns the checkpoint records changed since the last call, by key; an
// empty value deletes.
func (h *History) Dirty() map[string][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string][]byte{}
	for device, c := range h.clocks {
		if c.dirty {
			c.dirty = false
			data, err := json.Marshal(c)
			if err != nil {
				panic(err) // numbers and bytes
			}
			out[clockRecord+"."+device] = data
		}
	}
	for k, p := range h.parts {
		switch {
		case len(p.open) == 0 && len(p.sealed) == 0 && p.seq <= h.safe:
			out[k.record()] = nil
			delete(h.parts, k)
			continue
		case p.dirty:
			p.dirty = false
			out[k.record()] = p.encode()
		}
		if p.stage == sealed {
			p.stage = flushing
		}
	}
	h.flushed = h.applied
	return out
}

// Forget drops the clock of a device that was removed from the fleet. What it
// counted stays.
func (h *History) Forget(device string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.clocks[device] != nil {
		h.clocks[device] = &clockState{Seq: h.applied, dirty: true}
	}
}

// Written takes in that what Dirty has returned is durable.
func (h *History) Written() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.safe = h.flushed
	for _, p := range h.parts {
		if p.stage == flushing {
			p.stage = durable
		}
	}
}

// Load restores checkpoint records. Call it once, before the first Apply.
func (h *History) Load(records map[string][]byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, data := range records {
		if err := h.load(key, data); err != nil {
			return fmt.Errorf("load checkpoint %s: %w", key, err)
		}
	}
	return nil
}

func (h *History) load(key string, data []byte) error {
	kind, rest, _ := strings.Cut(key, ".")
	switch kind {
	case clockRecord:
		return json.Unmarshal(data, h.clock(rest))
	case partRecord:
		k, err := parsePartKey(key)
		if err != nil {
			return err
		}
		h.parts[k], err = decodePart(data)
		return err
	default:
		return fmt.Errorf("record of unknown kind %q: written by a newer version", kind)
	}
}
