package ingest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// storageFresh is how long a look at the stream serves: pages and scrapes ask
// often, and the broker counts subjects for every answer.
const storageFresh = time.Second

// Storage is what the uplink stream holds.
type Storage struct {
	Messages    uint64
	Bytes       uint64
	Limit       uint64        // bytes at which nothing more is taken
	MaxAge      time.Duration // after which messages go
	First, Last time.Time     // when the oldest and the newest message were stored; zero when empty
	// Behind is how many messages each fold has not taken in yet, by its name.
	Behind map[string]uint64
}

// minHistory is the least time from which a rate is told: a shorter one says
// more of how the fleet started than of how it goes on.
const minHistory = time.Hour

// Lasts tells how long the stream can go on growing as it has, with free bytes
// left on the disk. ok is false when it never comes to its end, because messages
// go by age first, and when it is too young to tell.
func (s Storage) Lasts(free uint64) (left time.Duration, ok bool) {
	history := s.Last.Sub(s.First)
	if history < minHistory || s.Bytes == 0 {
		return 0, false
	}
	room := min(float64(free), float64(s.Limit)-float64(s.Bytes))
	seconds := max(0, room) * history.Seconds() / float64(s.Bytes)
	if seconds > max(0, s.MaxAge-history).Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// storageCache keeps the last look.
type storageCache struct {
	mu   sync.Mutex // guards all fields, and lets one caller ask at a time
	at   time.Time
	last *jetstream.StreamInfo
}

// positions are how far the folds have come.
type positions struct {
	mu sync.Mutex // guards at
	at map[string]uint64
}

func (p *positions) set(fold string, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		p.at = map[string]uint64{}
	}
	p.at[fold] = seq
}

// behind is how far the folds are from the end of the stream. One that has gone
// on since last was read is not behind.
func (p *positions) behind(last uint64) map[string]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]uint64, len(p.at))
	for fold, seq := range p.at {
		out[fold] = last - min(last, seq)
	}
	return out
}

// Storage tells what the stream holds, at most a second late.
func (i *Ingest) Storage(ctx context.Context) (Storage, error) {
	info, err := i.look(ctx)
	if err != nil {
		return Storage{}, err
	}
	return Storage{
		Messages: info.State.Msgs, Bytes: info.State.Bytes, Limit: uint64(max(info.Config.MaxBytes, 0)), MaxAge: info.Config.MaxAge,
		First: info.State.FirstTime, Last: info.State.LastTime, Behind: i.folds.behind(info.State.LastSeq),
	}, nil
}

func (i *Ingest) look(ctx context.Context) (*jetstream.StreamInfo, error) {
	c := &i.storage
	c.mu.Lock()
	defer c.mu.Unlock()
	now := i.cfg.Now()
	if c.last != nil && now.Sub(c.at) < storageFresh {
		return c.last, nil
	}
	info, err := i.stream.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the uplink stream: %w", err)
	}
	c.at, c.last = now, info
	return info, nil
}
