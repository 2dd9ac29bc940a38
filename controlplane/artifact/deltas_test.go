package artifact_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/delta"
	"github.com/vedette-edge/vedette/protocol/release"
)

// weights are n numbers of a network after so many rounds of training: each
// round moves all of them a little.
func weights(n, rounds int) []byte {
	r, steps := rand.New(rand.NewPCG(1, 1)), rand.New(rand.NewPCG(2, 2))
	out := make([]byte, 0, 4*n)
	w := make([]float64, n)
	for i := range w {
		w[i] = r.NormFloat64() * 0.05
	}
	for range rounds {
		for i := range w {
			w[i] *= 1 + 1e-3*steps.NormFloat64()
		}
	}
	for _, v := range w {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(v)))
	}
	return out
}

// bench is a store with its deltas.
type bench struct {
	t      *testing.T
	broker *broker.Broker
	index  kvstore.Bucket
	dir    string
	store  *artifact.Store
	deltas *artifact.Deltas
	tried  chan struct{} // has a value when a pair was tried
	stop   func()
}

func newBench(t *testing.T, cfg artifact.DeltasConfig) *bench {
	t.Helper()
	b := &bench{t: t, broker: brokertest.Start(t), dir: t.TempDir(), stop: func() {}}
	var err error
	if b.index, err = kvstore.Open(t.Context(), b.broker.Conn(), "deltas"); err != nil {
		t.Fatal(err)
	}
	b.restart(cfg)
	t.Cleanup(func() { b.stop() })
	return b
}

// restart ends the server's part and starts it again from what it keeps.
func (b *bench) restart(cfg artifact.DeltasConfig) {
	b.t.Helper()
	b.stop()
	b.store = open(b.t, b.broker, artifact.Config{Dir: b.dir})
	tried := make(chan struct{}, 1)
	b.tried, cfg.Tried = tried, func() {
		select {
		case tried <- struct{}{}:
		default:
		}
	}
	var err error
	if b.deltas, err = artifact.OpenDeltas(b.t.Context(), b.store, b.index, cfg); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- b.deltas.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("run: %v", err)
		}
		b.stop = func() {}
	}
}

// settle waits until nothing is to be made any more.
func (b *bench) settle() artifact.DeltaStats {
	b.t.Helper()
	for {
		s := b.deltas.Stats()
		if s.Waiting == 0 {
			return s
		}
		select {
		case <-b.tried:
		case <-time.After(30 * time.Second):
			b.t.Fatalf("deltas are still being made: %+v", s)
		}
	}
}

// apply makes a file of what was offered.
func (b *bench) apply(offer protocol.DeltaOffer, old []byte, to release.Digest, size int64) []byte {
	b.t.Helper()
	d, err := release.ParseDigest(offer.Delta)
	if err != nil {
		b.t.Fatal(err)
	}
	f, n, err := b.store.Open(b.t.Context(), d)
	if err != nil || n != offer.Size {
		b.t.Fatalf("open delta: %d bytes, %v; %d were offered", n, err, offer.Size)
	}
	defer f.Close()
	var out bytes.Buffer
	err = delta.Decode(&out, f, bytes.NewReader(old), delta.Header{
		Old: delta.Ref{Digest: release.DigestOf(old), Size: int64(len(old))}, New: delta.Ref{Digest: to, Size: size},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out.Bytes()
}

func version(v int, graph, golden release.Digest) *release.Manifest {
	return &release.Manifest{
		Model: "digits", Sequence: uint64(v),
		Variants: []release.Variant{{Name: "fp32", Graph: release.File{Digest: graph}}},
		Golden:   release.File{Digest: golden}, Baseline: release.File{Digest: golden},
	}
}

func TestDeltasOfAVersion(t *testing.T) {
	b := newBench(t, artifact.DeltasConfig{Depth: 2})
	var files [][]byte
	var versions []*release.Manifest
	golden := upload(t, b.store, content(100_000))
	for i := range 4 {
		files = append(files, weights(100_000, i))
		versions = append([]*release.Manifest{version(i, upload(t, b.store, files[i]), golden)}, versions...)
	}
	b.deltas.Prepare(append([]*release.Manifest{versions[0], nil}, versions[1:]...)) // one cannot be read
	if s := b.settle(); s.Made != 1 || s.Held != 1 || s.Useless != 0 {
		t.Errorf("after a version that cannot be read: %+v", s)
	}
	b.deltas.Prepare(versions)
	if s := b.settle(); s.Made != 2 || s.Held != 2 {
		t.Fatalf("got %+v, want the two versions before the newest", s)
	}
	to := release.DigestOf(files[3])
	for from, want := range map[int]bool{0: false, 1: true, 2: true} {
		size, ok := b.deltas.Size(release.DigestOf(files[from]), to)
		if ok != want || ok && !delta.Pays(size, int64(len(files[3]))) {
			t.Errorf("from version %d: %d bytes, %v; want %v", from, size, ok, want)
		}
	}
	offer, ok := b.deltas.Offer(to, []release.Digest{golden, release.DigestOf(files[1]), release.DigestOf(files[2])})
	if !ok || offer.From != release.DigestOf(files[2]).String() {
		t.Errorf("offered %+v, %v; want the smallest, from version 2", offer, ok)
	}
	if got := b.apply(offer, files[2], to, int64(len(files[3]))); !bytes.Equal(got, files[3]) {
		t.Error("the delta makes another file")
	}
	b.deltas.Applied(offer.Delta)
	b.deltas.Applied(to.String()) // no delta
	b.deltas.Applied("x")
	if s := b.deltas.Stats(); s.Applied != 1 || s.SavedBytes != uint64(int64(len(files[3]))-offer.Size) {
		t.Errorf("got %+v, want %d bytes saved", s, int64(len(files[3]))-offer.Size)
	}
}

func TestDeltaOnDemand(t *testing.T) {
	b := newBench(t, artifact.DeltasConfig{})
	old, fresh := weights(50_000, 0), weights(50_000, 1)
	from, to := upload(t, b.store, old), upload(t, b.store, fresh)
	if offer, ok := b.deltas.Offer(to, []release.Digest{from}); ok {
		t.Errorf("offered before it was made: %+v", offer)
	}
	b.settle()
	offer, ok := b.deltas.Offer(to, []release.Digest{from})
	if !ok || !bytes.Equal(b.apply(offer, old, to, int64(len(fresh))), fresh) {
		t.Errorf("offered %+v, %v", offer, ok)
	}
}

func TestWhatGetsNoDelta(t *testing.T) {
	b := newBench(t, artifact.DeltasConfig{MaxFile: 300_000})
	put := func(data []byte) release.Digest { return upload(t, b.store, data) }
	random := content(400_000)
	base := put(random[:200_000])
	for name, c := range map[string]struct {
		from, to release.Digest
		useless  uint64
	}{
		"nothing in common":     {base, put(random[200_000:]), 1},
		"the same file":         {base, base, 0},
		"a small file":          {base, put(random[:1000]), 0},
		"a large file":          {base, put(random[:300_001]), 0},
		"from a far smaller":    {put(random[:40_000]), base, 0},
		"from nothing we know":  {release.DigestOf([]byte("x")), base, 0},
		"to nothing we know of": {base, release.DigestOf([]byte("x")), 0},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.settle()
			for range 2 { // the second time it is known
				if offer, ok := b.deltas.Offer(c.to, []release.Digest{c.from}); ok {
					t.Errorf("offered %+v", offer)
				}
				if s := b.settle(); s.Useless != before.Useless+c.useless || s.Made+s.Failed != 0 {
					t.Errorf("got %+v after %+v, want %d tried", s, before, c.useless)
				}
			}
		})
	}
	b.restart(artifact.DeltasConfig{})
	b.deltas.Offer(release.DigestOf(random[200_000:]), []release.Digest{base})
	if s := b.settle(); s.Useless != 0 {
		t.Errorf("%+v: what does not pay was tried again after a restart", s)
	}
}

func TestDeltasOutliveARestart(t *testing.T) {
	b := newBench(t, artifact.DeltasConfig{})
	old, fresh := weights(50_000, 0), weights(50_000, 1)
	from, to := upload(t, b.store, old), upload(t, b.store, fresh)
	b.deltas.Offer(to, []release.Digest{from})
	b.settle()
	for name, damage := range map[string]func() error{
		"nothing":    func() error { return nil },
		"cache lost": func() error { return os.RemoveAll(filepath.Join(b.dir, "sha256")) },
		"index damaged": func() error {
			_, err := b.index.Put(t.Context(), to.String()+"."+from.String(), []byte("{"))
			return err
		},
		"entry is none": func() error {
			_, err := b.index.Put(t.Context(), "x", []byte("{}"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			b.restart(artifact.DeltasConfig{})
			b.deltas.Offer(to, []release.Digest{from})
			b.settle()
			offer, ok := b.deltas.Offer(to, []release.Digest{from})
			if !ok || !bytes.Equal(b.apply(offer, old, to, int64(len(fresh))), fresh) {
				t.Errorf("offered %+v, %v", offer, ok)
			}
		})
	}
}

func TestDeltasGoWithTheirFiles(t *testing.T) {
	b := newBench(t, artifact.DeltasConfig{})
	from, to := upload(t, b.store, weights(50_000, 0)), upload(t, b.store, weights(50_000, 1))
	b.deltas.Offer(to, []release.Digest{from})
	b.settle()
	offer, _ := b.deltas.Offer(to, []release.Digest{from})
	if err := b.store.Remove(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	b.restart(artifact.DeltasConfig{})
	b.deltas.Offer(to, []release.Digest{upload(t, b.store, weights(50_000, 2))})
	b.settle() // it looks for what is gone before each
	if d, _ := release.ParseDigest(offer.Delta); b.store.Has(d) {
		t.Error("the delta is still there")
	}
	if _, ok := b.deltas.Offer(to, []release.Digest{from}); ok {
		t.Error("a delta from a file that is gone is offered")
	}
	if s := b.settle(); s.Held != 1 {
		t.Errorf("still held: %+v", s)
	}
}

func TestOldDeltasMakeRoom(t *testing.T) {
	files := [][]byte{weights(50_000, 0), weights(50_000, 1), weights(50_000, 2), weights(50_000, 3)}
	b := newBench(t, artifact.DeltasConfig{MaxTotal: 250_000}) // two of about 110,000 bytes
	var d []release.Digest
	for _, f := range files {
		d = append(d, upload(t, b.store, f))
	}
	before := b.store.Total()
	for i := range 3 {
		b.deltas.Offer(d[i+1], d[i:i+1])
		b.settle()
	}
	s := b.deltas.Stats()
	if s.Made != 3 || s.Held != 2 || s.HeldBytes > 250_000 || b.store.Total() != before+s.HeldBytes {
		t.Errorf("got %+v and %d bytes of blobs after %d", s, b.store.Total(), before)
	}
	if _, ok := b.deltas.Size(d[0], d[1]); ok {
		t.Error("the oldest is still there")
	}
}

func TestDeltasDoNotWaitForStorage(t *testing.T) {
	b := newBench(t, artifact.DeltasConfig{MaxTotal: 1})
	from, to := upload(t, b.store, weights(50_000, 0)), upload(t, b.store, weights(50_000, 1))
	for range 3 {
		if _, ok := b.deltas.Offer(to, []release.Digest{from}); ok {
			t.Error("offered without room")
		}
		if s := b.settle(); s.Failed != 1 || s.Held != 0 {
			t.Errorf("got %+v, want one try and patience", s)
		}
	}
	entries, err := os.ReadDir(filepath.Join(b.dir, "uploads"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestRemovedBlobIsGone(t *testing.T) {
	b := newBench(t, artifact.DeltasConfig{})
	data := content(1 << 20)
	d := upload(t, b.store, data)
	f, _, err := b.store.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // the second time it is no error
		if err := b.store.Remove(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data) {
		t.Errorf("an open reader got %d bytes, %v", len(got), err)
	}
	b.restart(artifact.DeltasConfig{})
	if b.store.Has(d) || b.store.Total() != 0 {
		t.Errorf("it is back, %d bytes in all", b.store.Total())
	}
	check(t, b.store, upload(t, b.store, data), data)
}
