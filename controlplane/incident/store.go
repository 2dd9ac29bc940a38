package incident

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// First tokens of the keys in the bucket; others are beside what they are for.
const incidentPrefix = "incident"

func incidentKey(id string) string { return kvstore.Key(incidentPrefix, id) }

// load reads what the bucket holds, and finishes what a crash broke off.
func (b *Board) load(ctx context.Context) error {
	if err := each(ctx, b.store, incidentPrefix, b.hold); err != nil {
		return err
	}
	if err := each(ctx, b.store, silencePrefix, func(s *Silence) { b.silences[s.ID] = s }); err != nil {
		return err
	}
	if err := each(ctx, b.store, noticePrefix, func(n *Notice) { b.notices[n.ID] = n }); err != nil {
		return err
	}
	e, err := b.store.Get(ctx, settingsKey())
	if err == nil {
		err = json.Unmarshal(e.Value, &b.settings)
	}
	if err != nil && !errors.Is(err, kvstore.ErrNotFound) {
		return fmt.Errorf("load notification settings: %w", err)
	}
	b.repair(ctx)
	return nil
}

// repair makes incidents know of the notices that were stored before a crash.
// What cannot be written now is known all the same, and repaired next time.
func (b *Board) repair(ctx context.Context) {
	for _, n := range slices.SortedFunc(maps.Values(b.notices), func(x, y *Notice) int { return cmp.Compare(x.AtMS, y.AtMS) }) {
		if err := b.mark(ctx, time.UnixMilli(n.AtMS), n); err != nil {
			b.cfg.Logger.Warn("an incident does not say yet whom it was told", "notice", n.ID, "error", err)
		}
		if n.State.Done || n.State.Dead() {
			b.finish(ctx, time.UnixMilli(n.State.LastMS), n)
		}
	}
}

// each decodes all values below a prefix.
func each[T any](ctx context.Context, store kvstore.Reader, prefix string, take func(*T)) error {
	entries, err := store.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("load %ss: %w", prefix, err)
	}
	for _, e := range entries {
		v := new(T)
		if err := json.Unmarshal(e.Value, v); err != nil {
			return fmt.Errorf("load %s: %w", e.Key, err)
		}
		take(v)
	}
	return nil
}

func (b *Board) put(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if _, err := b.store.Put(ctx, key, data); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}
