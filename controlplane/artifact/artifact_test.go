package artifact_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/vedette-edge/vedette/controlplane/artifact"
	"github.com/vedette-edge/vedette/controlplane/broker"
	"github.com/vedette-edge/vedette/controlplane/brokertest"
	"github.com/vedette-edge/vedette/protocol/release"
)

// content is so many bytes that no two parts of are alike.
func content(n int) []byte {
	var seed [32]byte
	copy(seed[:], "artifact")
	out := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(out)
	return out
}

func open(t *testing.T, b *broker.Broker, cfg artifact.Config) *artifact.Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := artifact.Open(t.Context(), b.Conn(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func upload(t *testing.T, s *artifact.Store, data []byte) release.Digest {
	t.Helper()
	d := release.DigestOf(data)
	up, err := s.Write(t.Context(), d, int64(len(data)), 0, bytes.NewReader(data))
	if err != nil || !up.Complete {
		t.Fatalf("upload: %+v, %v", up, err)
	}
	return d
}

// check reads a blob back, also from the middle.
func check(t *testing.T, s *artifact.Store, d release.Digest, want []byte) {
	t.Helper()
	f, size, err := s.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if size != int64(len(want)) {
		t.Errorf("size is %d, want %d", size, len(want))
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
	middle := int64(len(want) / 2)
	if _, err := f.Seek(middle, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want[middle:]) {
		t.Errorf("from the middle: got %d bytes, %v", len(got), err)
	}
}

func TestBlobComesBack(t *testing.T) {
	s := open(t, brokertest.Start(t), artifact.Config{})
	for _, n := range []int{0, 1, 512 << 10, 512<<10 + 1, 3 << 20} {
		data := content(n)
		check(t, s, upload(t, s, data), data)
	}
	if got, want := s.Total(), int64(1+512<<10+512<<10+1+3<<20); got != want {
		t.Errorf("total is %d, want %d", got, want)
	}
	if _, _, err := s.Open(t.Context(), release.DigestOf([]byte("none"))); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("unknown blob: got %v, want ErrNotFound", err)
	}
}

func TestUploadGoesOnWhereItBroke(t *testing.T) {
	dir, b := t.TempDir(), brokertest.Start(t)
	s := open(t, b, artifact.Config{Dir: dir})
	data := content(100_000)
	d, size := release.DigestOf(data), int64(len(data))
	broken := io.MultiReader(bytes.NewReader(data[:30_000]), iotest.ErrReader(errors.New("link lost")))
	up, err := s.Write(t.Context(), d, size, 0, broken)
	if err == nil || up.Offset != 30_000 || up.Complete {
		t.Fatalf("broken off: %+v, %v; want 30000 bytes held and an error", up, err)
	}
	s.Close()
	s = open(t, b, artifact.Config{Dir: dir}) // as after a restart
	if up, err := s.Status(d); err != nil || up.Offset != 30_000 {
		t.Fatalf("after a restart: %+v, %v", up, err)
	}
	for _, offset := range []int64{0, 29_999, 30_001, size} {
		up, err := s.Write(t.Context(), d, size, offset, bytes.NewReader(data[offset:]))
		if !errors.Is(err, artifact.ErrOffset) || up.Offset != 30_000 {
			t.Errorf("at %d: %+v, %v; want ErrOffset and 30000", offset, up, err)
		}
	}
	for offset := int64(30_000); offset < size; offset += 35_000 {
		if up, err = s.Write(t.Context(), d, size, offset, bytes.NewReader(data[offset:min(offset+35_000, size)])); err != nil {
			t.Fatal(err)
		}
	}
	if !up.Complete || up.Offset != size {
		t.Errorf("at the end: %+v", up)
	}
	check(t, s, d, data)
	if up, err := s.Write(t.Context(), d, size, 0, bytes.NewReader(nil)); err != nil || !up.Complete {
		t.Errorf("again: %+v, %v; want complete at once", up, err)
	}
}

func TestForeignContentIsRefused(t *testing.T) {
	s := open(t, brokertest.Start(t), artifact.Config{})
	data, foreign := content(10_000), content(20_000)[10_000:]
	d := release.DigestOf(data)
	up, err := s.Write(t.Context(), d, 10_000, 0, bytes.NewReader(foreign))
	if !errors.Is(err, artifact.ErrDigest) || up.Offset != 0 || s.Has(d) {
		t.Fatalf("foreign content: %+v, %v", up, err)
	}
	if _, _, err := s.Open(t.Context(), d); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("open: got %v, want ErrNotFound", err)
	}
	check(t, s, upload(t, s, data), data) // and the right one is taken after it
}

func TestUploadRefuses(t *testing.T) {
	s := open(t, brokertest.Start(t), artifact.Config{MaxBlob: 1000, MaxTotal: 2500})
	data := content(1000)
	d := release.DigestOf(data)
	for name, c := range map[string]struct {
		size int64
		data []byte
		want error
	}{
		"announced too large": {1001, data, artifact.ErrTooLarge},
		"announced negative":  {-1, data, artifact.ErrTooLarge},
		"more than announced": {500, data, artifact.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Write(t.Context(), d, c.size, 0, bytes.NewReader(c.data)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if s.Has(d) {
		t.Error("something refused became a blob")
	}
	for i := range 2 {
		upload(t, s, append(content(900), byte(i)))
	}
	rest := content(700)
	if _, err := s.Write(t.Context(), release.DigestOf(rest), 700, 0, bytes.NewReader(rest)); !errors.Is(err, artifact.ErrFull) {
		t.Errorf("over the quota: got %v, want ErrFull", err)
	}
}

// gate is a reader that the test holds.
type gate struct {
	entered chan struct{}
	leave   chan struct{}
	once    sync.Once
}

func (g *gate) Read([]byte) (int, error) {
	g.once.Do(func() { close(g.entered) })
	<-g.leave
	return 0, io.EOF
}

func TestOneUploaderPerBlob(t *testing.T) {
	s := open(t, brokertest.Start(t), artifact.Config{MaxTotal: 1500})
	data := content(1000)
	d := release.DigestOf(data)
	g := &gate{entered: make(chan struct{}), leave: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := s.Write(t.Context(), d, 1000, 0, g)
		done <- err
	}()
	<-g.entered
	if _, err := s.Write(t.Context(), d, 1000, 0, bytes.NewReader(data)); !errors.Is(err, artifact.ErrBusy) {
		t.Errorf("second uploader: got %v, want ErrBusy", err)
	}
	other := content(600)
	if _, err := s.Write(t.Context(), release.DigestOf(other), 600, 0, bytes.NewReader(other)); !errors.Is(err, artifact.ErrFull) {
		t.Errorf("announced room is not kept: got %v, want ErrFull", err)
	}
	close(g.leave)
	if err := <-done; err != nil {
		t.Errorf("an empty part: %v", err)
	}
	check(t, s, upload(t, s, data), data)
}

func TestCacheIsMadeAgain(t *testing.T) {
	dir, b := t.TempDir(), brokertest.Start(t)
	data := content(2 << 20)
	d := upload(t, open(t, b, artifact.Config{Dir: dir}), data)
	path := filepath.Join(dir, "sha256", d.String())
	for name, damage := range map[string]func() error{
		"file gone":      func() error { return os.Remove(path) },
		"directory gone": func() error { return os.RemoveAll(dir) },
		"file cut short": func() error { return os.Truncate(path, 1000) },
		"file empty":     func() error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			s := open(t, b, artifact.Config{Dir: dir})
			var wg sync.WaitGroup
			for range 4 { // all of them wait for one fetch
				wg.Go(func() { check(t, s, d, data) })
			}
			wg.Wait()
		})
	}
}

func TestBlobsOutliveTheBroker(t *testing.T) {
	dir, ca, data := t.TempDir(), brokertest.CA(t), content(100_000)
	b := brokertest.StartAt(t, dir, ca)
	d := upload(t, open(t, b, artifact.Config{}), data)
	b.Close()
	s := open(t, brokertest.StartAt(t, dir, ca), artifact.Config{}) // another, empty cache
	check(t, s, d, data)
}

// An upload that was whole when the broker failed is finished by an empty part.
func TestCompletionIsTriedAgain(t *testing.T) {
	store, ca, dir := t.TempDir(), brokertest.CA(t), t.TempDir()
	b := brokertest.StartAt(t, store, ca)
	s := open(t, b, artifact.Config{Dir: dir})
	data := content(10_000)
	d := release.DigestOf(data)
	b.Close()
	if up, err := s.Write(t.Context(), d, 10_000, 0, bytes.NewReader(data)); err == nil || up.Complete || up.Offset != 10_000 {
		t.Fatalf("without a broker: %+v, %v", up, err)
	}
	s = open(t, brokertest.StartAt(t, store, ca), artifact.Config{Dir: dir})
	if up, err := s.Write(t.Context(), d, 10_000, 10_000, bytes.NewReader(nil)); err != nil || !up.Complete {
		t.Errorf("again: %+v, %v", up, err)
	}
	check(t, s, d, data)
}

func TestBytes(t *testing.T) {
	s := open(t, brokertest.Start(t), artifact.Config{})
	data := content(300 << 10)
	for range 2 {
		if err := s.PutBytes(t.Context(), data); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.GetBytes(t.Context(), release.Digest(sha256.Sum256(data)).String())
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if _, err := s.GetBytes(t.Context(), "x"); err == nil {
		t.Error("a name that is no digest was taken")
	}
}

func TestStaleUploadsAreRemoved(t *testing.T) {
	dir, b := t.TempDir(), brokertest.Start(t)
	s := open(t, b, artifact.Config{Dir: dir})
	old, young := release.DigestOf([]byte("old")), release.DigestOf([]byte("young"))
	for _, d := range []release.Digest{old, young} {
		if _, err := s.Write(t.Context(), d, 100, 0, bytes.NewReader([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-artifact.UploadTTL - time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "uploads", old.String()), past, past); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(dir, "uploads", "tmp-1")
	if err := os.WriteFile(torn, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, b, artifact.Config{Dir: dir})
	for d, want := range map[release.Digest]int64{old: 0, young: 1} {
		if up, err := s.Status(d); err != nil || up.Offset != want {
			t.Errorf("upload at %d, %v; want %d", up.Offset, err, want)
		}
	}
	if _, err := os.Stat(torn); !os.IsNotExist(err) {
		t.Errorf("temporary file is still there: %v", err)
	}
}
