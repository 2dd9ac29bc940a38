package pull

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

var day0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const year = 365 * 24 * time.Hour

// world is a publisher, a control plane that answers over HTTP, and a device.
type world struct {
	t       *testing.T
	files   map[string][]byte // by path
	server  *httptest.Server
	handler atomic.Pointer[http.HandlerFunc] // takes the place of the server, when set

	mu     sync.Mutex // guards sent and ranges
	sent   int64      // bytes of blobs
	ranges []string

	dir      string
	manifest *release.Manifest
	digest   release.Digest
	cfg      Config
	waits    []time.Duration

	targetsKey, snapshotKey, timestampKey *trust.Key
	targets                               []byte
	version                               int64
}

// newWorld has one signed release, whose graph has size bytes.
func newWorld(t *testing.T, size int) *world {
	t.Helper()
	w := &world{t: t, files: map[string][]byte{}, dir: t.TempDir()}
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.server.Close)
	pin := w.publish(size)
	store, err := trust.Open(t.TempDir(), pin)
	if err != nil {
		t.Fatal(err)
	}
	api := &HTTP{Client: w.server.Client(), Base: w.server.URL}
	w.cfg = Config{
		Blobs: api, Metadata: api, Trust: store,
		Now:  func() time.Time { return day0 },
		Free: func(string) (int64, error) { return 1 << 40, nil },
		Wait: func(ctx context.Context, d time.Duration) error {
			w.waits = append(w.waits, d)
			return ctx.Err()
		},
	}
	return w
}

func (w *world) publish(size int) release.Digest {
	w.t.Helper()
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	w.manifest = &release.Manifest{
		Format: release.Format, Model: "digits", Version: "v1", Sequence: 1,
		Variants: []release.Variant{{Name: "fp32", Precision: "fp32", Graph: w.blob("m.onnx", content)}},
		Schema: release.Schema{
			Inputs:  []release.Tensor{{Name: "X", Datatype: "FP32", Shape: []int64{-1, 4}}},
			Outputs: []release.Tensor{{Name: "y", Datatype: "INT64", Shape: []int64{-1}}},
		},
		Baseline: w.blob("baseline.json", []byte("a baseline")), Golden: w.blob("golden.json", []byte("golden vectors")),
		Lineage: release.Lineage{Created: day0},
	}
	raw, err := w.manifest.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.digest = w.blob("manifest.json", raw).Digest
	return w.signAll()
}

func (w *world) blob(name string, b []byte) release.File {
	d := release.DigestOf(b)
	w.files[blobPath+d.String()] = b
	return release.File{Name: name, Digest: d, Size: int64(len(b))}
}

func (w *world) signAll() release.Digest {
	w.t.Helper()
	rootKey := w.key()
	w.targetsKey, w.snapshotKey, w.timestampKey = w.key(), w.key(), w.key()
	holder := func(k *trust.Key) trust.Holders {
		return trust.Holders{Keys: []trust.PublicKey{k.Public()}, Threshold: 1}
	}
	root, targets, err := trust.Init(trust.Plan{
		Root: holder(rootKey), Targets: holder(w.targetsKey),
		Snapshot: w.snapshotKey.Public(), Timestamp: w.timestampKey.Public(), Expires: day0.Add(year),
	}, day0.Add(year))
	root = w.must(trust.Sign(w.must(root, err), rootKey))
	w.files[trustPath+"root.1.json"] = root
	w.serveTargets(w.must(trust.AddRelease(targets, w.manifest, day0.Add(year))))
	return release.DigestOf(root)
}

// serveTargets signs targets and makes them the newest.
func (w *world) serveTargets(targets []byte) {
	w.t.Helper()
	w.targets = w.must(trust.Sign(targets, w.targetsKey))
	w.version++
	h, err := trust.ReadHeader(w.targets)
	if err != nil {
		w.t.Fatal(err)
	}
	w.files[fmt.Sprintf("%stargets.%d.json", trustPath, h.Version)] = w.targets
	snapshot := w.must(trust.SignSnapshot(w.snapshotKey, w.version, [][]byte{w.targets}, day0.Add(year)))
	w.files[fmt.Sprintf("%ssnapshot.%d.json", trustPath, w.version)] = snapshot
	w.files[trustPath+"timestamp.json"] = w.must(trust.SignTimestamp(w.timestampKey, w.version, snapshot, day0.Add(24*time.Hour)))
}

func (w *world) key() *trust.Key {
	w.t.Helper()
	k, err := trust.GenerateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) must(b []byte, err error) []byte {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// serve is the device API: files with ranges.
func (w *world) serve(res http.ResponseWriter, req *http.Request) {
	if h := w.handler.Load(); h != nil {
		(*h)(res, req)
		return
	}
	w.file(res, req)
}

func (w *world) file(res http.ResponseWriter, req *http.Request) {
	b, ok := w.files[req.URL.Path]
	if !ok {
		http.NotFound(res, req)
		return
	}
	res.Header().Set("Content-Type", "application/octet-stream")
	if r := req.Header.Get("Range"); r != "" {
		w.mu.Lock()
		w.ranges = append(w.ranges, r)
		w.mu.Unlock()
	}
	http.ServeContent(&counting{res, w, strings.HasPrefix(req.URL.Path, blobPath)}, req, "", time.Time{}, bytes.NewReader(b))
}

// counting adds up what is sent of blobs.
type counting struct {
	http.ResponseWriter
	w    *world
	blob bool
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	if c.blob {
		c.w.mu.Lock()
		c.w.sent += int64(n)
		c.w.mu.Unlock()
	}
	return n, err
}

// instead answers in the place of the server.
func (w *world) instead(h http.HandlerFunc) { w.handler.Store(&h) }

func (w *world) graph() release.File { return w.manifest.Variants[0].Graph }

func (w *world) fetch(progress func(done, total int64)) error {
	w.t.Helper()
	return New(w.cfg).Fetch(w.t.Context(), w.manifest, w.dir, progress)
}

// whole fails the test unless the release is there as Fetch promises.
func (w *world) whole() {
	w.t.Helper()
	var want []string
	for _, f := range w.manifest.Files() {
		want = append(want, f.Digest.String())
	}
	want = append(want, release.ManifestName)
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
		b, err := os.ReadFile(filepath.Join(w.dir, e.Name()))
		if err != nil {
			w.t.Fatal(err)
		}
		if d := release.DigestOf(b); e.Name() != release.ManifestName && d.String() != e.Name() || e.Name() == release.ManifestName && d != w.digest {
			w.t.Errorf("%s has digest %v", e.Name(), d)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("the folder holds %v, want %v", got, want)
	}
}

// reason checks code, retry and sentinel of an error at once.
func reason(t *testing.T, err, want error, code string, retry bool) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, want) || e.Code() != code || e.Retryable() != retry {
		t.Errorf("got %v (%+v), want %v, code %s, retry %v", err, e, want, code, retry)
	}
}

func TestFetch(t *testing.T) {
	for _, size := range []int{1, 1000, chunk - 1, chunk, chunk + 1, 3*chunk + 12345} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			w := newWorld(t, size)
			var steps []int64
			if err := w.fetch(func(done, total int64) {
				steps = append(steps, done)
				if total != w.manifest.Size() {
					t.Errorf("total is %d, want %d", total, w.manifest.Size())
				}
			}); err != nil {
				t.Fatal(err)
			}
			w.whole()
			if !slices.IsSorted(steps) || steps[0] != 0 || steps[len(steps)-1] != w.manifest.Size() {
				t.Errorf("progress is %v", steps)
			}
			w.sent = 0
			if err := w.fetch(nil); err != nil || w.sent != 0 {
				t.Errorf("a second fetch: %v, %d bytes", err, w.sent)
			}
		})
	}
}

// errKilled stands for the end of the process.
var errKilled = errors.New("killed")

// killed is a part file whose power is cut after so many bytes written. What
// was not synced by then is lost: it reads as zeros, as on flash.
type killed struct {
	*os.File
	left     int64
	unsynced [][2]int64 // offset and length of each write
}

func (k *killed) WriteAt(b []byte, off int64) (int, error) {
	if k.left -= int64(len(b)); k.left >= 0 {
		k.unsynced = append(k.unsynced, [2]int64{off, int64(len(b))})
		return k.File.WriteAt(b, off)
	}
	for _, w := range k.unsynced {
		if _, err := k.File.WriteAt(make([]byte, w[1]), w[0]); err != nil {
			return 0, err
		}
	}
	return 0, errKilled
}

func (k *killed) Sync() error {
	k.unsynced = nil
	return k.File.Sync()
}

// TestPowerCutAtAnyByte cuts the power again and again until the release is
// there. No try may begin more than one chunk before the end of the last.
func TestPowerCutAtAnyByte(t *testing.T) {
	for _, every := range []int64{chunk + 200, chunk + chunk/2, 2*chunk + 77, 3 * chunk} {
		t.Run(strconv.FormatInt(every, 10), func(t *testing.T) {
			w := newWorld(t, 5*chunk+4321)
			w.cfg.openPart = func(path string) (partFile, error) {
				f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
				return &killed{File: f, left: every}, err
			}
			var done int64
			tries := 0
			for ; ; tries++ {
				var steps []int64
				err := w.fetch(func(d, _ int64) { steps = append(steps, d) })
				if lost := done - steps[1]; lost > chunk {
					t.Errorf("try %d begins %d bytes before the end of the last one, want at most %d", tries, lost, chunk)
				}
				done = slices.Max(steps)
				if err == nil {
					break
				}
				if !errors.Is(err, errKilled) || tries > 20 {
					t.Fatalf("try %d: %v", tries, err)
				}
			}
			w.whole()
			if tries < 1 {
				t.Error("the power was never cut")
			}
		})
	}
}

// TestCutCostsOneChunk ends a download at many places by ending the process
// (files stay as they are) and counts what the next one asks for.
func TestCutCostsOneChunk(t *testing.T) {
	const size = 4*chunk + 999
	for _, cut := range []int64{0, 1, 1000, chunk - 1, chunk, chunk + 1, 2*chunk + 5, 3*chunk - 1, 4 * chunk, size - 1} {
		t.Run(strconv.FormatInt(cut, 10), func(t *testing.T) {
			w := newWorld(t, size)
			w.cfg.Attempts = 1
			w.instead(func(res http.ResponseWriter, req *http.Request) {
				if !strings.HasSuffix(req.URL.Path, w.graph().Digest.String()) {
					w.file(res, req)
					return
				}
				res.Header().Set("Content-Length", strconv.Itoa(size))
				res.Write(w.files[req.URL.Path][:cut])
				panic(http.ErrAbortHandler)
			})
			reason(t, w.fetch(nil), ErrLink, "cut", true)
			w.handler.Store(nil)
			w.sent = 0
			if err := w.fetch(nil); err != nil {
				t.Fatal(err)
			}
			w.whole()
			small := w.manifest.Size() - size
			if again := w.sent - small - (size - cut); again > chunk {
				t.Errorf("%d bytes were sent again, want at most %d", again, chunk)
			}
		})
	}
}

// TestBrokenLinkCostsNothing cuts every connection after a while; the same
// Fetch goes on at the byte where it stopped.
func TestBrokenLinkCostsNothing(t *testing.T) {
	const size = 3 * chunk
	w := newWorld(t, size)
	w.instead(func(res http.ResponseWriter, req *http.Request) {
		if !strings.HasSuffix(req.URL.Path, w.graph().Digest.String()) {
			w.file(res, req)
			return
		}
		var from int
		fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from)
		part := w.files[req.URL.Path][from:]
		res.Header().Set("Content-Length", strconv.Itoa(len(part)))
		if from > 0 {
			res.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
			res.WriteHeader(http.StatusPartialContent)
		}
		n, _ := res.Write(part[:min(len(part), 700_001)])
		w.mu.Lock()
		w.sent += int64(n)
		w.mu.Unlock()
		if n < len(part) {
			panic(http.ErrAbortHandler)
		}
	})
	if err := w.fetch(nil); err != nil {
		t.Fatal(err)
	}
	w.whole()
	if w.sent != w.manifest.Size() {
		t.Errorf("%d bytes were sent, want %d", w.sent, w.manifest.Size())
	}
	if len(w.waits) == 0 {
		t.Error("it did not pause between attempts")
	}
}

func TestServerThatIgnoresRanges(t *testing.T) {
	w := newWorld(t, 2*chunk+5)
	w.cfg.Attempts = 2
	first := true
	w.instead(func(res http.ResponseWriter, req *http.Request) {
		req.Header.Del("Range")
		if first && strings.HasSuffix(req.URL.Path, w.graph().Digest.String()) {
			first = false
			res.Header().Set("Content-Length", strconv.Itoa(2*chunk+5))
			res.Write(w.files[req.URL.Path][:chunk+1])
			panic(http.ErrAbortHandler)
		}
		w.file(res, req)
	})
	if err := w.fetch(nil); err != nil {
		t.Fatal(err)
	}
	w.whole()
}

// TestServerFaults is the catalogue of what can come instead of a file.
func TestServerFaults(t *testing.T) {
	answer := func(code int, kind, body string) http.HandlerFunc {
		return func(res http.ResponseWriter, _ *http.Request) {
			res.Header().Set("Content-Type", kind)
			res.WriteHeader(code)
			io.WriteString(res, body)
		}
	}
	tests := []struct {
		name    string
		handler func(w *world) http.HandlerFunc
		want    error
		code    string
		retry   bool
	}{
		{"captive portal", func(*world) http.HandlerFunc {
			return answer(200, "text/html; charset=utf-8", "<html>please log in</html>")
		}, ErrPortal, "captive_portal", true},
		{"captive portal that asks to log in", func(*world) http.HandlerFunc {
			return answer(511, "text/html", "<html>please log in</html>")
		}, ErrServer, "server", true},
		{"captive portal with the wrong type", func(w *world) http.HandlerFunc {
			return answer(200, "application/octet-stream", "<html>"+strings.Repeat(" ", int(w.graph().Size)))
		}, ErrDigest, "digest_mismatch", false},
		{"wrong bytes", func(w *world) http.HandlerFunc {
			return answer(200, "application/octet-stream", strings.Repeat("x", int(w.graph().Size)))
		}, ErrDigest, "digest_mismatch", false},
		{"one byte too many", func(w *world) http.HandlerFunc {
			return answer(200, "application/octet-stream", string(w.files[blobPath+w.graph().Digest.String()])+"x")
		}, ErrDigest, "digest_mismatch", false},
		{"short body", func(w *world) http.HandlerFunc {
			return answer(200, "application/octet-stream", strings.Repeat("x", int(w.graph().Size)-1))
		}, ErrLink, "link", true},
		{"empty body", func(*world) http.HandlerFunc { return answer(200, "application/octet-stream", "") }, ErrLink, "link", true},
		{"internal error", func(*world) http.HandlerFunc { return answer(500, "text/plain", "oops") }, ErrServer, "server", true},
		{"bad gateway page", func(*world) http.HandlerFunc { return answer(502, "text/html", "<html>") }, ErrServer, "server", true},
		{"too many requests", func(*world) http.HandlerFunc { return answer(429, "text/plain", "") }, ErrServer, "server", true},
		{"not found", func(*world) http.HandlerFunc { return answer(404, "application/json", "{}") }, ErrNotFound, "not_found", false},
		{"forbidden", func(*world) http.HandlerFunc { return answer(403, "application/json", "{}") }, ErrRefused, "refused", false},
		{"part without a range", func(*world) http.HandlerFunc { return answer(206, "application/octet-stream", "x") }, ErrServer, "server", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 5000)
			w.cfg.Attempts = 3
			w.instead(tt.handler(w))
			err := w.fetch(nil)
			reason(t, err, tt.want, tt.code, tt.retry)
			if _, err := os.Stat(filepath.Join(w.dir, w.graph().Digest.String())); !errors.Is(err, os.ErrNotExist) {
				t.Error("something unverified has the file's name")
			}
			if got, want := len(w.waits), map[bool]int{true: 2, false: 0}[tt.retry]; got != want {
				t.Errorf("paused %d times, want %d", got, want)
			}
			w.handler.Store(nil)
			if err := w.fetch(nil); err != nil {
				t.Errorf("with a good server: %v", err)
			}
		})
	}
}

func TestServerSaysWhenToComeBack(t *testing.T) {
	w := newWorld(t, 100)
	first := true
	w.instead(func(res http.ResponseWriter, req *http.Request) {
		if first {
			first = false
			res.Header().Set("Retry-After", "90")
			res.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.file(res, req)
	})
	if err := w.fetch(nil); err != nil {
		t.Fatal(err)
	}
	if want := []time.Duration{90 * time.Second}; !slices.Equal(w.waits, want) {
		t.Errorf("paused %v, want %v", w.waits, want)
	}
}

func TestPausesGrowAndAreSpread(t *testing.T) {
	seen := map[time.Duration]bool{}
	for n := 1; n < 20; n++ {
		top := min(firstPause<<(n-1), maxPause)
		d := pause(n)
		if d < top/2 || d > top {
			t.Errorf("pause %d is %v, want %v to %v", n, d, top/2, top)
		}
		seen[d] = true
	}
	if len(seen) < 15 {
		t.Errorf("only %d different pauses of 19", len(seen))
	}
}

// TestStandstill has a server that sends half and then nothing, for ever.
func TestStandstill(t *testing.T) {
	w := newWorld(t, 5000)
	w.cfg.Stall, w.cfg.Attempts = 50*time.Millisecond, 1
	w.instead(func(res http.ResponseWriter, req *http.Request) {
		res.Write(w.files[req.URL.Path][:2500])
		res.(http.Flusher).Flush()
		<-req.Context().Done()
	})
	reason(t, w.fetch(nil), ErrLink, "timeout", true)
}

func TestServerThatIsGone(t *testing.T) {
	w := newWorld(t, 100)
	w.cfg.Attempts = 1
	w.server.Close()
	reason(t, w.fetch(nil), ErrLink, "unreachable", true)
	_, err := New(w.cfg).Resolve(t.Context(), "digits", w.digest)
	reason(t, err, trust.ErrUnavailable, "unreachable", true)
}

func TestStrangersCertificate(t *testing.T) {
	w := newWorld(t, 100)
	secure := httptest.NewTLSServer(http.HandlerFunc(w.serve))
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(secure.Close)
	w.cfg.Attempts = 1
	w.cfg.Blobs = &HTTP{Client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13}}}, Base: secure.URL}
	reason(t, w.fetch(nil), ErrLink, "tls_authority", true)
}

func TestCancelled(t *testing.T) {
	w := newWorld(t, 3*chunk)
	ctx, cancel := context.WithCancel(t.Context())
	err := New(w.cfg).Fetch(ctx, w.manifest, w.dir, func(done, _ int64) {
		if done > chunk {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || is[*Error](err) {
		t.Errorf("got %v, want only %v", err, context.Canceled)
	}
}

func TestDamagedFileIsFetchedAgain(t *testing.T) {
	w := newWorld(t, 5000)
	if err := w.fetch(nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.dir, w.graph().Digest.String())
	if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.fetch(nil); err != nil {
		t.Fatal(err)
	}
	w.whole()
}

// TestDamagedPart spoils one byte of each chunk of an unfinished download in
// turn: all before it is kept.
func TestDamagedPart(t *testing.T) {
	const size = 3*chunk + 10
	for bad := range int64(3) {
		w := newWorld(t, size)
		content := w.files[blobPath+w.graph().Digest.String()]
		path := filepath.Join(w.dir, w.graph().Digest.String()+partSuffix)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := openPart(f, size, w.graph().Digest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(content[:3*chunk]); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{content[bad*chunk+77] ^ 1}, bad*chunk+77); err != nil {
			t.Fatal(err)
		}
		f.Close()
		first := int64(-1)
		if err := w.fetch(func(done, _ int64) {
			if first < 0 && done > 0 {
				first = done
			}
		}); err != nil {
			t.Fatal(err)
		}
		w.whole()
		if bad > 0 && first != bad*chunk {
			t.Errorf("chunk %d damaged: went on at %d, want %d", bad, first, bad*chunk)
		}
	}
}

// TestPowerCutBeforeTheName: the file is whole and its sums are cut off, only
// the name is missing.
func TestPowerCutBeforeTheName(t *testing.T) {
	w := newWorld(t, 3*chunk+10)
	content := w.files[blobPath+w.graph().Digest.String()]
	if err := os.WriteFile(filepath.Join(w.dir, w.graph().Digest.String()+partSuffix), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.fetch(nil); err != nil {
		t.Fatal(err)
	}
	w.whole()
	if want := w.manifest.Size() - w.graph().Size; w.sent != want {
		t.Errorf("%d bytes were sent, want %d", w.sent, want)
	}
}

// faulty is a part file on a disk that gives an error.
type faulty struct {
	partFile
	err error
}

func (f faulty) WriteAt([]byte, int64) (int, error) { return 0, &os.PathError{Op: "write", Err: f.err} }

func TestDiskThatIsFull(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want error
		code string
	}{
		{"no space", syscall.ENOSPC, ErrDiskFull, "disk_full"},
		{"quota", syscall.EDQUOT, ErrDiskFull, "disk_full"},
		{"bad sector", syscall.EIO, ErrDisk, "disk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 5000)
			w.cfg.openPart = func(path string) (partFile, error) {
				f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
				return faulty{f, tt.err}, err
			}
			reason(t, w.fetch(nil), tt.want, tt.code, true)
			if len(w.waits) > 0 {
				t.Error("it tried again at once")
			}
			w.cfg.openPart = nil
			if err := w.fetch(nil); err != nil {
				t.Errorf("after room was made: %v", err)
			}
		})
	}
}

func TestRoomIsLookedForFirst(t *testing.T) {
	w := newWorld(t, 2*chunk)
	need := w.manifest.Size() + DefaultReserve
	w.cfg.Free = func(string) (int64, error) { return need - 1, nil }
	reason(t, w.fetch(nil), ErrDiskFull, "disk_full", true)
	if w.sent != 0 {
		t.Errorf("%d bytes were asked for", w.sent)
	}
	w.cfg.Free = func(string) (int64, error) { return need, nil }
	if err := w.fetch(nil); err != nil {
		t.Error(err)
	}
	if free, err := freeSpace(w.dir); err != nil || free <= 0 {
		t.Errorf("free space is %d, %v", free, err)
	}
}

func TestResolve(t *testing.T) {
	w := newWorld(t, 100)
	m, err := New(w.cfg).Resolve(t.Context(), "digits", w.digest)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := m.Digest(); err != nil || d != w.digest {
		t.Errorf("got %v, %v, want %v", d, err, w.digest)
	}
}

func TestResolveRefuses(t *testing.T) {
	manifestPath := func(w *world) string { return blobPath + w.digest.String() }
	tests := []struct {
		name  string
		spoil func(w *world)
		model string
		want  error
		code  string
		retry bool
	}{
		{"unsigned release", func(w *world) { w.digest = release.DigestOf([]byte("x")) }, "digits", trust.ErrUnknownRelease, "unsigned_release", false},
		{"release of another model", func(*world) {}, "wine", trust.ErrUnknownRelease, "unsigned_release", false},
		{"release below the floor", func(w *world) {
			m := *w.manifest
			m.Version, m.Sequence = "v2", 2
			added := w.must(trust.AddRelease(w.targets, &m, day0.Add(year)))
			w.serveTargets(w.must(trust.RaiseFloor(added, "digits", 2, day0.Add(year))))
		}, "digits", trust.ErrBelowFloor, "below_floor", false},
		{"manifest changed", func(w *world) {
			w.files[manifestPath(w)] = bytes.Replace(w.files[manifestPath(w)], []byte("v1"), []byte("v2"), 1)
		}, "digits", ErrDigest, "digest_mismatch", false},
		{"manifest too long", func(w *world) {
			w.files[manifestPath(w)] = append(slices.Clone(w.files[manifestPath(w)]), ' ')
		}, "digits", ErrDigest, "digest_mismatch", false},
		{"manifest cut off", func(w *world) {
			w.files[manifestPath(w)] = w.files[manifestPath(w)][:100]
		}, "digits", ErrLink, "link", true},
		{"manifest of another version than signed", func(w *world) {
			next := w.must(trust.Extend(w.targets, day0.Add(year)))
			w.serveTargets(bytes.Replace(next, []byte(`"version": "v1"`), []byte(`"version": "v9"`), 1))
		}, "digits", ErrManifest, "manifest", false},
		{"manifest missing", func(w *world) { delete(w.files, manifestPath(w)) }, "digits", ErrNotFound, "not_found", false},
		{"metadata frozen", func(w *world) { w.cfg.Now = func() time.Time { return day0.Add(48 * time.Hour) } }, "digits", trust.ErrExpired, "metadata_expired", true},
		{"metadata from a captive portal", func(w *world) {
			w.instead(func(res http.ResponseWriter, _ *http.Request) {
				res.Header().Set("Content-Type", "text/html")
				io.WriteString(res, "<html>")
			})
		}, "digits", ErrPortal, "captive_portal", true},
		{"metadata without end", func(w *world) {
			w.files[trustPath+"timestamp.json"] = make([]byte, 10<<20)
		}, "digits", trust.ErrTampered, "metadata_tampered", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 100)
			tt.spoil(w)
			_, err := New(w.cfg).Resolve(t.Context(), tt.model, w.digest)
			reason(t, err, tt.want, tt.code, tt.retry)
		})
	}
}

// TestTrustCannotBeKept: what is not written down is not believed, and the
// reason is the disk.
func TestTrustCannotBeKept(t *testing.T) {
	w := newWorld(t, 100)
	dir := filepath.Join(t.TempDir(), "trust")
	store, err := trust.Open(dir, release.DigestOf(w.files[trustPath+"root.1.json"]))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.cfg.Trust = store
	_, err = New(w.cfg).Resolve(t.Context(), "digits", w.digest)
	reason(t, err, ErrDisk, "disk", true)
}

func TestServerWithoutMetadataYet(t *testing.T) {
	w := newWorld(t, 100)
	delete(w.files, trustPath+"timestamp.json")
	_, err := New(w.cfg).Resolve(t.Context(), "digits", w.digest)
	reason(t, err, trust.ErrUnavailable, "metadata_unavailable", true)
}

// TestGoingBackWhileFrozen: a release that ran here before is resolved although
// the server has nothing fresh to say.
func TestGoingBackWhileFrozen(t *testing.T) {
	w := newWorld(t, 100)
	if _, err := New(w.cfg).Resolve(t.Context(), "digits", w.digest); err != nil {
		t.Fatal(err)
	}
	w.cfg.Now = func() time.Time { return day0.Add(48 * time.Hour) }
	if _, err := New(w.cfg).Resolve(t.Context(), "digits", w.digest); err != nil {
		t.Error(err)
	}
}
