package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/identity"
	"github.com/vedette-edge/vedette/agent/pull"
	"github.com/vedette-edge/vedette/agent/slots"
	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/deviceapi"
	"github.com/vedette-edge/vedette/controlplane/kvstore"
	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// depot is a control plane's part in deltas, as it is, with two versions of a
// model of which the second was trained from the first.
type depot struct {
	*doors
	deltas   *artifact.Deltas
	cache    string // the folder of the blobs
	device   *identity.Identity
	versions [2]*release.Manifest
}

func openDepot(t *testing.T) *depot {
	t.Helper()
	d := &depot{doors: openDoors(t), cache: t.TempDir()}
	blobs, err := artifact.Open(t.Context(), d.broker.Conn(), artifact.Config{Dir: d.cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(blobs.Close)
	d.blobs = blobs
	index, err := kvstore.Open(t.Context(), d.broker.Conn(), "deltas")
	if err != nil {
		t.Fatal(err)
	}
	tried := make(chan struct{}, 1)
	d.deltas, err = artifact.OpenDeltas(t.Context(), blobs, index, artifact.DeltasConfig{Tried: func() { tried <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	if d.device, err = identity.Enrol(t.Context(), t.TempDir(), d.token(operator.EnrolTokenCreate{Device: "cam-1"}), identity.Options{Root: release.DigestOf(rootJSON)}); err != nil {
		t.Fatal(err)
	}
	for i := range d.versions {
		d.versions[i] = d.version(i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error, 1)
	go func() { running <- d.deltas.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-running })
	d.deltas.Prepare([]*release.Manifest{d.versions[1], d.versions[0]})
	<-tried
	return d
}

// version is a version whose graph was trained for so many rounds, each of which
// changes all of a million weights by one per mille.
func (d *depot) version(rounds int) *release.Manifest {
	d.t.Helper()
	initial, steps := rand.New(rand.NewPCG(1, 1)), rand.New(rand.NewPCG(2, 2))
	graph := []byte("an exporter's header, version " + string(rune('a'+rounds)))
	for range 1_000_000 {
		w := initial.NormFloat64() * 0.05
		for range rounds {
			w *= 1 + 1e-3*steps.NormFloat64()
		}
		graph = binary.LittleEndian.AppendUint32(graph, math.Float32bits(float32(w)))
	}
	file := func(name string, data []byte) release.File {
		if err := d.blobs.PutBytes(d.t.Context(), data); err != nil {
			d.t.Fatal(err)
		}
		return release.File{Name: name, Digest: release.DigestOf(data), Size: int64(len(data))}
	}
	return &release.Manifest{
		Format: release.Format, Model: "meter", Version: "v" + string(rune('1'+rounds)), Sequence: uint64(rounds) + 1,
		Variants: []release.Variant{{Name: "fp32", Precision: "fp32", Graph: file("m.onnx", graph)}},
		Schema: release.Schema{
			Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 4}}},
			Outputs: []release.Tensor{{Name: "y", Datatype: "INT64", Shape: []int64{-1}}},
		},
		Baseline: file("baseline.json", []byte("a baseline")), Golden: file("golden.json", []byte("golden vectors")),
		Lineage: release.Lineage{Created: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)},
	}
}

func (d *depot) graph(version int) release.File { return d.versions[version].Variants[0].Graph }

// deltaBlob is the file in which the server keeps its delta.
func (d *depot) deltaBlob() (path string, size int64) {
	d.t.Helper()
	offer, ok := d.deltas.Offer(d.graph(1).Digest, []release.Digest{d.graph(0).Digest})
	if !ok {
		d.t.Fatal("there is no delta")
	}
	return filepath.Join(d.cache, "sha256", offer.Delta), offer.Size
}

// serve serves the depot's blobs, with deltas or as servers before them did.
func (d *depot) serve(withDeltas bool) (base string) {
	d.t.Helper()
	cfg := deviceapi.Config{CA: d.ca, Access: d.authority, Fleet: acquaintances{}, Trust: rootJSON, Blobs: d.blobs}
	if withDeltas {
		cfg.Deltas = d.deltas
	}
	api := deviceapi.New(cfg)
	if err := api.Start(d.t.Context(), "127.0.0.1:0"); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := api.Stop(context.Background()); err != nil {
			d.t.Error(err)
		}
	})
	return "https://" + api.Addr()
}

// link counts what a device reads, and breaks every connection after some of it.
type link struct {
	mu    sync.Mutex
	read  int64 // guarded by mu: bytes, TLS and all
	limit int64 // of one connection; 0 for none
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return &measured{Conn: conn, link: l}, err
}

func (l *link) total() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read
}

// measured is a connection of a link.
type measured struct {
	net.Conn
	link *link
	read int64
}

var errLinkCut = errors.New("the link is cut")

func (m *measured) Read(b []byte) (int, error) {
	if m.link.limit > 0 && m.read > m.link.limit {
		return 0, errors.Join(errLinkCut, m.Close())
	}
	n, err := m.Conn.Read(b)
	m.read += int64(n)
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	m.link.read += int64(n)
	return n, err
}

// fieldDevice is a device's part: its slots, and what brings releases there.
type fieldDevice struct {
	t      *testing.T
	slots  *slots.Slots
	puller *pull.Puller
	link   *link
}

func (d *depot) newDevice(base string, deltas bool) *fieldDevice {
	d.t.Helper()
	dir := d.t.TempDir()
	root, err := slots.OS(dir)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { root.Close() })
	f := &fieldDevice{t: d.t, link: &link{}}
	if f.slots, err = slots.Open(root, dir); err != nil {
		d.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: d.device.TLS(), DialContext: f.link.dial}
	d.t.Cleanup(transport.CloseIdleConnections)
	source := &pull.HTTP{Client: &http.Client{Transport: transport}, Base: base}
	cfg := pull.Config{
		Blobs: source, Held: f.slots.Files, Wait: func(context.Context, time.Duration) error { return nil },
		Events: func(e *protocol.Event) { d.deltas.Applied(e.GetAttributes()[protocol.AttrDelta]) },
	}
	if deltas {
		cfg.Deltas = source
	}
	f.puller = pull.New(cfg)
	return f
}

// update brings a version all the way, and returns the bytes that it took.
func (f *fieldDevice) update(m *release.Manifest) (read int64) {
	f.t.Helper()
	before := f.link.total()
	dir, err := f.slots.Stage("meter", m)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.puller.Fetch(f.t.Context(), m, dir, nil); err != nil {
		f.t.Fatal(err)
	}
	d, err := m.Digest()
	if err := errors.Join(err, f.slots.Verify("meter", d), f.slots.Activate("meter", d), f.slots.Check("meter", d)); err != nil {
		f.t.Fatal(err)
	}
	return f.link.total() - before
}

// spoil flips a bit in the middle of a file.
func spoil(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateByDelta(t *testing.T) {
	d := openDepot(t)
	cache, size := d.deltaBlob()
	full := d.graph(1).Size
	t.Logf("the file has %d bytes, its delta %d: %.1f%%", full, size, 100*float64(size)/float64(full))
	const overhead = 64 << 10 // handshakes, headers, small files
	for _, c := range []struct {
		name    string
		server  bool // knows deltas
		agent   bool
		limit   int64 // bytes of a connection
		prepare func(f *fieldDevice)
		byDelta bool
		failed  uint64
	}{
		{name: "both know deltas", server: true, agent: true, byDelta: true},
		{name: "an older server", agent: true},
		{name: "an older agent", server: true},
		{name: "link cut again and again", server: true, agent: true, limit: 400_000, byDelta: true},
		{name: "old file damaged on the device", server: true, agent: true, failed: 1, prepare: func(f *fieldDevice) {
			active := f.slots.Dir("meter", f.slots.Get("meter").Active.Release)
			spoil(f.t, filepath.Join(active, d.graph(0).Digest.String()))
		}},
		{name: "server's cache lost", server: true, agent: true, byDelta: true, prepare: func(f *fieldDevice) {
			if err := os.RemoveAll(filepath.Dir(cache)); err != nil {
				f.t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Dir(cache), 0o700); err != nil {
				f.t.Fatal(err)
			}
		}},
		{name: "server's cache damaged", server: true, agent: true, failed: 1, prepare: func(f *fieldDevice) { spoil(f.t, cache) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := d.newDevice(d.serve(c.server), c.agent)
			f.t = t
			f.update(d.versions[0])
			if c.prepare != nil {
				c.prepare(f)
			}
			f.link.limit = c.limit
			before := d.deltas.Stats()
			read := f.update(d.versions[1])
			stats, after := f.puller.Stats(), d.deltas.Stats()
			if !c.byDelta {
				if read < full || stats.Deltas != 0 || stats.Failed != c.failed {
					t.Errorf("%d bytes were read of a file of %d, %+v", read, full, stats)
				}
				return
			}
			most := size + overhead
			if c.limit > 0 {
				most += (size/c.limit + 1) * overhead // what was under way at each cut, and a handshake
			}
			if read > most || stats.Deltas != 1 || stats.SavedBytes != uint64(full-size) || stats.Failed != 0 {
				t.Errorf("%d bytes were read, want at most %d; %+v", read, most, stats)
			}
			if after.Applied != before.Applied+1 || after.SavedBytes != before.SavedBytes+uint64(full-size) {
				t.Errorf("the server counts %+v after %+v", after, before)
			}
		})
	}
}
