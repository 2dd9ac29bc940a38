package incident

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol/operator"
)

// Bounds of silences.
const (
	maxSilence = 90 * 24 * time.Hour
	maxActive  = 200
	// keepSilences is how long an ended silence is listed.
	keepSilences = 7 * 24 * time.Hour
)

// ErrSilence says that a silence cannot be made.
var ErrSilence = errors.New("silence is not valid")

// Silence keeps messages of what it matches back. Empty fields match all.
type Silence struct {
	ID      string `json:"id"`
	Model   string `json:"model,omitempty"`
	Kind    string `json:"kind,omitempty"`
	Cohort  string `json:"cohort,omitempty"`
	Device  string `json:"device,omitempty"`
	Key     string `json:"key,omitempty"`
	FromMS  int64  `json:"from_ms"`
	UntilMS int64  `json:"until_ms"`
	Who     string `json:"who"`
	Reason  string `json:"reason"`
}

const silencePrefix = "silence"

func silenceKey(id string) string { return kvstore.Key(silencePrefix, id) }

// Active tells whether it holds now.
func (s *Silence) Active(now time.Time) bool {
	return s.FromMS <= now.UnixMilli() && now.UnixMilli() < s.UntilMS
}

func (s *Silence) matches(c *Cause) bool {
	for _, m := range [][2]string{{s.Model, c.Model}, {s.Kind, c.Kind}, {s.Cohort, c.Cohort}, {s.Device, c.Device}, {s.Key, c.Key}} {
		if m[0] != "" && m[0] != m[1] {
			return false
		}
	}
	return true
}

// silencing returns the silence that keeps a cause quiet the longest, nil for none.
func silencing(all map[string]*Silence, c *Cause, now time.Time) *Silence {
	var longest *Silence
	for _, s := range all {
		if s.Active(now) && s.matches(c) && (longest == nil || s.UntilMS > longest.UntilMS) {
			longest = s
		}
	}
	return longest
}

// Silence keeps messages of what it matches back for a time.
func (b *Board) Silence(ctx context.Context, now time.Time, who string, c operator.SilenceCreate) (Silence, error) {
	s := Silence{
		Model: line(c.Model, maxName), Kind: line(c.Kind, maxName), Cohort: line(c.Cohort, maxName), Device: line(c.Device, maxName), Key: line(c.Key, maxKey),
		FromMS: now.UnixMilli(), UntilMS: now.Add(time.Duration(c.For)).UnixMilli(), Who: line(who, maxName), Reason: text(c.Reason, operator.MaxReason),
	}
	switch {
	case s.Model+s.Kind+s.Cohort+s.Device+s.Key == "":
		return s, fmt.Errorf("%w: it would keep everything quiet; name a model, kind, cohort, device or key", ErrSilence)
	case c.For <= 0 || time.Duration(c.For) > maxSilence:
		return s, fmt.Errorf("%w: it lasts %v, must be above zero and at most %v", ErrSilence, time.Duration(c.For), maxSilence)
	}
	h := sha256.Sum256([]byte(strings.Join([]string{s.Model, s.Kind, s.Cohort, s.Device, s.Key, s.Who, strconv.FormatInt(s.FromMS, 10)}, "\x00")))
	s.ID = "sil-" + hex.EncodeToString(h[:5])
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.activeSilences(now) >= maxActive {
		return s, fmt.Errorf("%w: %d are active already; expire some", ErrSilence, maxActive)
	}
	return s, b.putSilence(ctx, s)
}

// Expire ends a silence now.
func (b *Board) Expire(ctx context.Context, now time.Time, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.silences[id]
	if held == nil || !held.Active(now) {
		return fmt.Errorf("%w: no silence %.64q is active", ErrNotFound, id)
	}
	s := *held
	s.UntilMS = now.UnixMilli()
	return b.putSilence(ctx, s)
}

func (b *Board) putSilence(ctx context.Context, s Silence) error {
	if err := b.put(ctx, silenceKey(s.ID), &s); err != nil {
		return err
	}
	b.silences[s.ID] = &s
	b.cfg.Change(s.ID)
	b.nudge()
	return nil
}

func (b *Board) activeSilences(now time.Time) int {
	n := 0
	for _, s := range b.silences {
		if s.Active(now) {
			n++
		}
	}
	return n
}

// Silences returns those that hold or ended lately, the newest first.
func (b *Board) Silences() []Silence {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Silence, 0, len(b.silences))
	for _, s := range b.silences {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(x, y Silence) int {
		return cmp.Or(cmp.Compare(y.FromMS, x.FromMS), cmp.Compare(x.ID, y.ID))
	})
	return out
}

// SilenceOf returns the id of the silence that keeps an incident quiet now, "" for none.
func (b *Board) SilenceOf(i *Incident, now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := silencing(b.silences, &i.Cause, now); s != nil {
		return s.ID
	}
	return ""
}

// forgetSilences drops those that ended long ago.
func (b *Board) forgetSilences(ctx context.Context, now time.Time) {
	for id, s := range b.silences {
		if now.UnixMilli()-s.UntilMS < keepSilences.Milliseconds() {
			continue
		}
		if err := b.store.Delete(ctx, silenceKey(id)); err != nil {
			b.cfg.Logger.Warn("an old silence stays", "silence", id, "error", err)
			continue
		}
		delete(b.silences, id)
	}
}
