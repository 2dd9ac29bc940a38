package retrain

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/vedette-edge/vedette/controlplane/delivery"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// First tokens of the keys in the bucket.
const (
	policyPrefix  = "policy"
	requestPrefix = "request"
	memoryPrefix  = "memory"
)

func policyKey(model string) string { return kvstore.Key(policyPrefix, model) }

func memoryKey(model string) string { return kvstore.Key(memoryPrefix, model) }

func requestKey(r *Request) string { return kvstore.Key(requestPrefix, r.Model, r.ID) }

// requestID makes one finding ask once.
func requestID(finding string) string { return "retrain-" + finding }

func newestFirst(a, b Request) int {
	return cmp.Or(cmp.Compare(b.AtMS, a.AtMS), cmp.Compare(a.ID, b.ID))
}

func (t *Trigger) load(ctx context.Context) error {
	err := each(ctx, t.store, policyPrefix, func(_ string, data []byte) error {
		p, err := decodePolicy(data)
		t.policies[p.Model] = p
		return err
	})
	if err != nil {
		return err
	}
	err = each(ctx, t.store, memoryPrefix, func(key string, data []byte) error {
		var m Memory
		parts, err := kvstore.Parts(key)
		if err == nil {
			err = json.Unmarshal(data, &m)
		}
		if err == nil {
			t.memories[parts[len(parts)-1]] = m
		}
		return err
	})
	if err != nil {
		return err
	}
	return each(ctx, t.store, requestPrefix, t.loadRequest)
}

func (t *Trigger) loadRequest(_ string, data []byte) error {
	s := new(stored)
	if err := json.Unmarshal(data, s); err != nil {
		return err
	}
	if len(s.Targets) != len(s.Request.Deliveries) {
		return fmt.Errorf("%d targets for %d deliveries", len(s.Targets), len(s.Request.Deliveries))
	}
	t.requests[s.Request.ID] = s
	return nil
}

// each hands over all values below a prefix.
func each(ctx context.Context, store kvstore.Reader, prefix string, take func(key string, data []byte) error) error {
	entries, err := store.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("load retrain %s: %w", prefix, err)
	}
	for _, e := range entries {
		if err := take(e.Key, e.Value); err != nil {
			return fmt.Errorf("load retrain %s: %w", e.Key, err)
		}
	}
	return nil
}

func (t *Trigger) put(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if _, err := t.store.Put(ctx, key, data); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// mustJSON encodes a value of plain fields, which cannot fail.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("retrain: " + err.Error())
	}
	return data
}

// name is the destination for people: no credentials, no query.
func (to *target) name() string {
	if to.URL == "" {
		return "nats:" + to.Subject
	}
	return delivery.Name(to.URL)
}
