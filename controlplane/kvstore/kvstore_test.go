package kvstore_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
)

// Every implementation has to pass the same tests.
func TestBuckets(t *testing.T) {
	nc := brokertest.Start(t).Conn()
	implementations := map[string]func(t *testing.T, name string) kvstore.Bucket{
		"memory": func(*testing.T, string) kvstore.Bucket { return kvstore.NewMemory() },
		"jetstream": func(t *testing.T, name string) kvstore.Bucket {
			t.Helper()
			b, err := kvstore.Open(t.Context(), nc, name)
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	}
	tests := map[string]func(*testing.T, kvstore.Bucket){
		"get":       testGet,
		"list":      testList,
		"create":    testCreate,
		"compare":   testCompareAndSet,
		"delete":    testDelete,
		"revisions": testRevisions,
		"refusals":  testRefusals,
		"watch":     testWatch,
		"watch_end": testWatchEnds,
		"writers":   testWriters,
		"copies":    testCopies,
		"put_all":   testPutAll,
	}
	for implementation, open := range implementations {
		for name, test := range tests {
			t.Run(implementation+"/"+name, func(t *testing.T) { test(t, open(t, name)) })
		}
	}
}

func put(t *testing.T, b kvstore.Bucket, key, value string) uint64 {
	t.Helper()
	revision, err := b.Put(t.Context(), key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func testGet(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	if _, err := b.Get(t.Context(), "a"); !errors.Is(err, kvstore.ErrNotFound) {
		t.Errorf("get of nothing: got %v, want ErrNotFound", err)
	}
	before := time.Now().Add(-time.Minute)
	revision := put(t, b, "a", "1")
	e, err := b.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if e.Key != "a" || string(e.Value) != "1" || e.Revision != revision || !e.At.After(before) {
		t.Errorf("got %+v, want key a, value 1, revision %d, a time", e, revision)
	}
}

func testList(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	for _, key := range []string{"b.2", "b.1", "b.1.x", "b", "bc.1", "a"} {
		put(t, b, key, key)
	}
	put(t, b, "b.3", "gone")
	if err := b.Delete(t.Context(), "b.3"); err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string][]string{
		"":     {"a", "b", "b.1", "b.1.x", "b.2", "bc.1"},
		"b":    {"b.1", "b.1.x", "b.2"},
		"b.1":  {"b.1.x"},
		"none": nil,
	} {
		entries, err := b.List(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Key)
			if string(e.Value) != e.Key {
				t.Errorf("list %q: %s has value %q", prefix, e.Key, e.Value)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("list %q: got %v, want %v", prefix, got, want)
		}
	}
}

func testCreate(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	if _, err := b.Create(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), "a", []byte("2")); !errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("second create: got %v, want ErrConflict", err)
	}
	if err := b.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), "a", []byte("3")); err != nil {
		t.Errorf("create after delete: %v", err)
	}
}

func testCompareAndSet(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	first, err := b.CompareAndSet(t.Context(), "a", []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.CompareAndSet(t.Context(), "a", []byte("x"), 0); !errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("revision 0 over a value: got %v, want ErrConflict", err)
	}
	put(t, b, "other", "moves the bucket's revision on")
	second, err := b.CompareAndSet(t.Context(), "a", []byte("2"), first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.CompareAndSet(t.Context(), "a", []byte("x"), first); !errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("old revision: got %v, want ErrConflict", err)
	}
	if _, err := b.CompareAndSet(t.Context(), "none", []byte("x"), second); !errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("revision of another key: got %v, want ErrConflict", err)
	}
	if e, err := b.Get(t.Context(), "a"); err != nil || string(e.Value) != "2" {
		t.Errorf("got %q, %v; want 2", e.Value, err)
	}
}

func testDelete(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	put(t, b, "a", "1")
	for range 2 {
		if err := b.Delete(t.Context(), "a"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if _, err := b.Get(t.Context(), "a"); !errors.Is(err, kvstore.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func testRevisions(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	var last uint64
	for _, key := range []string{"a", "b", "a", "c"} {
		revision := put(t, b, key, "v")
		if revision <= last {
			t.Errorf("revision %d after %d", revision, last)
		}
		last = revision
	}
}

func testRefusals(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	ctx := t.Context()
	for _, key := range []string{"", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "é", strings.Repeat("a", kvstore.MaxKey+1)} {
		if _, err := b.Put(ctx, key, nil); !errors.Is(err, kvstore.ErrKey) {
			t.Errorf("put %.20q: got %v, want ErrKey", key, err)
		}
		if _, err := b.Get(ctx, key); !errors.Is(err, kvstore.ErrKey) {
			t.Errorf("get %.20q: got %v, want ErrKey", key, err)
		}
		if err := b.Delete(ctx, key); !errors.Is(err, kvstore.ErrKey) {
			t.Errorf("delete %.20q: got %v, want ErrKey", key, err)
		}
		if _, err := b.List(ctx, key); key != "" && !errors.Is(err, kvstore.ErrKey) {
			t.Errorf("list %.20q: got %v, want ErrKey", key, err)
		}
	}
	largest := make([]byte, kvstore.MaxValue)
	if _, err := b.Put(ctx, "a", largest); err != nil {
		t.Errorf("largest value: %v", err)
	}
	if e, err := b.Get(ctx, "a"); err != nil || len(e.Value) != len(largest) {
		t.Errorf("largest value came back with %d bytes, %v", len(e.Value), err)
	}
	if _, err := b.Put(ctx, "a", make([]byte, kvstore.MaxValue+1)); !errors.Is(err, kvstore.ErrTooLarge) {
		t.Errorf("value over the limit: got %v, want ErrTooLarge", err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Get(over, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("get with an ended context: got %v", err)
	}
	if _, err := b.Put(over, "a", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("put with an ended context: got %v", err)
	}
}

// receive takes the next change; the test's deadline bounds the wait.
func receive(t *testing.T, changes <-chan kvstore.Change) kvstore.Change {
	t.Helper()
	select {
	case c, ok := <-changes:
		if !ok {
			t.Fatal("the watch ended")
		}
		return c
	case <-time.After(20 * time.Second):
		t.Fatal("no change came")
	}
	panic("unreachable")
}

func testWatch(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	put(t, b, "w.a", "1")
	put(t, b, "w.b", "2")
	put(t, b, "x.a", "not watched")
	changes, err := b.Watch(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for {
		c := receive(t, changes)
		if c.Synced {
			break
		}
		got[c.Key] = string(c.Value)
	}
	if len(got) != 2 || got["w.a"] != "1" || got["w.b"] != "2" {
		t.Errorf("first values: got %v", got)
	}
	revision := put(t, b, "w.a", "3")
	put(t, b, "x.a", "still not watched")
	if err := b.Delete(t.Context(), "w.b"); err != nil {
		t.Fatal(err)
	}
	if c := receive(t, changes); c.Key != "w.a" || string(c.Value) != "3" || c.Revision != revision || c.Deleted {
		t.Errorf("change: got %+v", c)
	}
	if c := receive(t, changes); c.Key != "w.b" || !c.Deleted || len(c.Value) != 0 {
		t.Errorf("deletion: got %+v", c)
	}
}

func testWatchEnds(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	for range 300 { // more than any buffer between bucket and watcher
		put(t, b, kvstore.Key("w", time.Now().String()), "v")
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := b.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	receive(t, changes)
	cancel()
	for range changes {
	}
}

// Writers that read, add one and compare-and-set lose no update.
func testWriters(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	const writers, rounds = 4, 10
	put(t, b, "count", "")
	errs := make(chan error, writers)
	for range writers {
		go func() { errs <- addMarks(t.Context(), b, rounds) }()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	e, err := b.Get(t.Context(), "count")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(e.Value), writers*rounds; got != want {
		t.Errorf("got %d marks, want %d", got, want)
	}
}

func addMarks(ctx context.Context, b kvstore.Bucket, n int) error {
	for n > 0 {
		e, err := b.Get(ctx, "count")
		if err != nil {
			return err
		}
		_, err = b.CompareAndSet(ctx, "count", append(slices.Clone(e.Value), 'x'), e.Revision)
		if errors.Is(err, kvstore.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		n--
	}
	return nil
}

// Whoever changes a value it gave or got changes nothing in the bucket.
func testCopies(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	value := []byte("one")
	if _, err := b.Put(t.Context(), "a", value); err != nil {
		t.Fatal(err)
	}
	value[0] = 'X'
	e, err := b.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	e.Value[1] = 'X'
	again, err := b.Get(t.Context(), "a")
	if err != nil || !bytes.Equal(again.Value, []byte("one")) {
		t.Errorf("got %q, %v; want one", again.Value, err)
	}
}

func testPutAll(t *testing.T, b kvstore.Bucket) {
	t.Helper()
	const many = 1203 // more than one batch, and the last not full
	values := map[string][]byte{}
	for n := range many {
		values["cam-"+strconv.Itoa(n)] = []byte(strconv.Itoa(n))
	}
	for n := range 6 { // more than a batch holds in bytes
		values["large-"+strconv.Itoa(n)] = bytes.Repeat([]byte{byte(n)}, kvstore.MaxValue)
	}
	before := put(t, b, "cam-7", "old")
	put(t, b, "other", "stays")
	for range 2 { // over what is there, too
		if err := kvstore.PutAll(t.Context(), b, values); err != nil {
			t.Fatal(err)
		}
	}
	if err := kvstore.PutAll(t.Context(), b, nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
	found, err := b.List(t.Context(), "")
	if err != nil || len(found) != len(values)+1 {
		t.Fatalf("got %d values, %v, want %d", len(found), err, len(values)+1)
	}
	for _, e := range found {
		if want := values[e.Key]; e.Key != "other" && !bytes.Equal(e.Value, want) {
			t.Errorf("%s: got %.20q, want %.20q", e.Key, e.Value, want)
		}
	}
	if e, err := b.Get(t.Context(), "cam-7"); err != nil || e.Revision <= before {
		t.Errorf("revision %d, %v, want more than %d", e.Revision, err, before)
	}
	if err := kvstore.PutAll(t.Context(), b, map[string][]byte{"good": nil, "bad key": nil}); !errors.Is(err, kvstore.ErrKey) {
		t.Errorf("a bad key: got %v, want %v", err, kvstore.ErrKey)
	}
	if _, err := b.Get(t.Context(), "good"); !errors.Is(err, kvstore.ErrNotFound) {
		t.Errorf("beside a bad key: got %v, want %v", err, kvstore.ErrNotFound)
	}
}

// A bucket that has taken batches is opened as any other, and takes them again.
func TestPutAllAfterARestart(t *testing.T) {
	nc := brokertest.Start(t).Conn()
	for _, value := range []string{"1", "2"} {
		b, err := kvstore.Open(t.Context(), nc, "CURSORS")
		if err != nil {
			t.Fatal(err)
		}
		if err := kvstore.PutAll(t.Context(), b, map[string][]byte{"cam-1": []byte(value), "cam-2": nil}); err != nil {
			t.Fatal(err)
		}
		if e, err := b.Get(t.Context(), "cam-1"); err != nil || string(e.Value) != value {
			t.Errorf("got %q, %v, want %q", e.Value, err, value)
		}
	}
}

func TestBucketOutlivesTheBroker(t *testing.T) {
	dir, ca := t.TempDir(), brokertest.CA(t)
	b := brokertest.StartAt(t, dir, ca)
	bucket, err := kvstore.Open(t.Context(), b.Conn(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	revision := put(t, bucket, "a", "1")
	b.Close()
	b = brokertest.StartAt(t, dir, ca)
	bucket, err = kvstore.Open(t.Context(), b.Conn(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := bucket.Get(t.Context(), "a"); err != nil || string(e.Value) != "1" || e.Revision != revision {
		t.Errorf("got %+v, %v; want value 1 at revision %d", e, err, revision)
	}
}

func TestKeysHoldAnyText(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{
		{"a"}, {"a", "b"}, {"a.b"}, {"a", ""}, {""}, {"=", "a=2e"}, {"model", "1.0.0-rc_1"}, {"é>*. /"}, {"a=", "b"},
	} {
		key := kvstore.Key(parts...)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have the same key %s", parts, other, key)
		}
		seen[key] = parts
		got, err := kvstore.Parts(key)
		if err != nil || !slices.Equal(got, parts) {
			t.Errorf("parts of %s: got %q, %v; want %q", key, got, err, parts)
		}
		if _, err := kvstore.NewMemory().Put(t.Context(), key, nil); err != nil {
			t.Errorf("key of %q: %v", parts, err)
		}
	}
	for _, key := range []string{"=4", "a.=zz", "=2"} {
		if parts, err := kvstore.Parts(key); err == nil {
			t.Errorf("parts of %s: got %q, want an error", key, parts)
		}
	}
}

// A bucket whose store lost a value is not opened, and the error names the key;
// a store that was closed and is whole is.
func TestOpenFindsDamage(t *testing.T) {
	dir, ca := t.TempDir(), brokertest.CA(t)
	b := brokertest.StartAt(t, dir, ca)
	bucket, err := kvstore.Open(t.Context(), b.Conn(), "some")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a.1", "a.2", "a.3"} {
		put(t, bucket, key, "the value of "+key)
	}
	b.Close()
	store := filepath.Join(dir, "jetstream", "$G", "streams", "KV_some", "msgs")
	block := filepath.Join(store, "1.blk")
	index, err := os.ReadFile(filepath.Join(store, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		old, broken string
		cut         int // bytes, from the end; the broker then takes the whole write off
		want        string
	}{
		{"", "", 0, ""},
		{"value of a.2", "eulav of a.2", 0, "value of a.2 cannot"},
		{"value of a.3", "eulav of a.3", 0, "value of a.3 cannot"},
		{"", "", 4, "write 3, the newest, cannot"},
	} {
		whole, err := os.ReadFile(block)
		if err != nil {
			t.Fatal(err)
		}
		broken := bytes.Replace(whole[:len(whole)-c.cut], []byte(c.old), []byte(c.broken), 1)
		if err := os.WriteFile(block, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		b = brokertest.StartAt(t, dir, ca)
		_, err = kvstore.Open(t.Context(), b.Conn(), "some")
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, kvstore.ErrDamaged) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q, %d bytes cut off: got %v, want %q", c.old, c.cut, err, c.want)
		}
		b.Close()
		if err := errors.Join(os.WriteFile(block, whole, 0o600), os.WriteFile(filepath.Join(store, "index.db"), index, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}
