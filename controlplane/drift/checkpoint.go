package drift

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Kinds of checkpoint records, the first token of their keys. Their layout is
// JSON under a format version in the key.
const (
	deviceRecord = "device-1"
	trackRecord  = "track-1"
	chunkRecord  = "chunk-1"
	watchRecord  = "watch-1"
)

func deviceKey(device string) string { return deviceRecord + "." + device }

func trackKey(device string, d release.Digest) string {
	return trackRecord + "." + device + "." + d.String()
}

func (c *chunk) key() string {
	// "c" keeps the token from being empty
	return strings.Join([]string{chunkRecord, c.Release.String(), "c" + hex.EncodeToString([]byte(c.Cohort)), strconv.FormatInt(c.Number, 10)}, ".")
}

func (s subject) key() string { return watchRecord + "." + s.hash("") }

// Dirty returns the checkpoint records changed since the last call, by key; an
// empty value means that the key is to be deleted. Each record holds the last
// sequence it includes, so they need not be written at once.
func (m *Monitor) Dirty() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]byte{}
	for key := range m.deleted {
		out[key] = nil
	}
	clear(m.deleted)
	for _, d := range m.devices {
		if d.dirty {
			d.dirty = false
			put(out, deviceKey(d.name), &d.state)
		}
		for _, t := range d.tracks {
			if t.dirty {
				t.dirty = false
				put(out, trackKey(d.name, t.digest), &t.state)
			}
		}
	}
	for _, s := range m.series {
		for _, c := range s.chunks {
			if c.dirty {
				c.dirty = false
				put(out, c.key(), c)
			}
		}
	}
	for s, w := range m.watches {
		if w.dirty {
			w.dirty = false
			put(out, s.key(), w)
		}
	}
	return out
}

func put(out map[string][]byte, key string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers, strings and slices of them: only a NaN could do this, and none is kept
	}
	out[key] = data
}

// Load restores checkpoint records. Call it once, after SetRelease and before
// the first Apply.
func (m *Monitor) Load(records map[string][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, data := range records {
		if err := m.load(key, data); err != nil {
			return fmt.Errorf("load checkpoint %s: %w", key, err)
		}
	}
	return nil
}

func (m *Monitor) load(key string, data []byte) error {
	kind, _, _ := strings.Cut(key, ".")
	switch kind {
	case deviceRecord:
		var s deviceState
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("decode device: %w", err)
		}
		m.device(strings.TrimPrefix(key, deviceRecord+".")).state = s
	case trackRecord:
		return m.loadTrack(data)
	case chunkRecord:
		return m.loadChunk(data)
	case watchRecord:
		w := new(watch)
		if err := json.Unmarshal(data, w); err != nil {
			return fmt.Errorf("decode alarm: %w", err)
		}
		m.watches[w.Subject] = w
	default:
		return fmt.Errorf("record of unknown kind %q: written by a newer version", kind)
	}
	return nil
}

func (m *Monitor) loadTrack(data []byte) error {
	var s trackState
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("decode track: %w", err)
	}
	t := m.track(m.device(s.Device), s.Release[:], s.Model)
	if t == nil {
		return fmt.Errorf("device %s has more than %d releases", s.Device, maxTracks)
	}
	t.state = s
	return nil
}

func (m *Monitor) loadChunk(data []byte) error {
	c := new(chunk)
	if err := json.Unmarshal(data, c); err != nil {
		return fmt.Errorf("decode series: %w", err)
	}
	if c.BucketMS != m.cfg.Bucket.Milliseconds() {
		m.deleted[c.key()] = true
		return nil
	}
	k := seriesKey{c.Release, c.Cohort}
	s := m.series[k]
	if s == nil {
		s = &series{chunks: map[int64]*chunk{}}
		m.series[k] = s
	}
	s.chunks[c.Number] = c
	if n := len(c.Points); n > 0 {
		s.newest = max(s.newest, c.Points[n-1].AtMS/c.BucketMS)
		m.prune(s)
	}
	return nil
}
