package pull

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/delta"
	"github.com/vedette-edge/vedette/protocol/release"
)

// upgrade is a world whose device already has an earlier version of the graph,
// and whose server has a delta.
type upgrade struct {
	*world
	old    release.File // here, at oldAt
	oldAt  string
	delta  []byte
	offer  protocol.DeltaOffer
	events []*protocol.Event
	puller *Puller
}

func newUpgrade(t *testing.T, size int) *upgrade {
	t.Helper()
	u := &upgrade{world: newWorld(t, size)}
	fresh := u.files[blobPath+u.graph().Digest.String()]
	old := bytes.Clone(fresh)
	random := rand.New(rand.NewPCG(3, 4))
	for i := 0; i < len(old); i += 4 {
		old[i] = byte(random.Uint32()) // a delta of a quarter
	}
	u.old = release.File{Name: "m.onnx", Digest: release.DigestOf(old), Size: int64(size)}
	u.oldAt = filepath.Join(t.TempDir(), u.old.Digest.String())
	u.write(old)
	u.offerDelta(u.encode(old, fresh))
	u.cfg.Deltas = u.cfg.Blobs.(DeltaSource)
	u.cfg.Events = func(e *protocol.Event) { u.events = append(u.events, e) }
	u.cfg.Held = func(model string) iter.Seq2[string, release.File] {
		if model != "digits" {
			t.Errorf("asked for files of %q", model)
		}
		return func(yield func(string, release.File) bool) {
			_ = yield("/no/such/file", release.File{Name: "small", Size: 10}) && yield(u.oldAt, u.old) && yield(u.oldAt, u.old)
		}
	}
	return u
}

func (u *upgrade) write(old []byte) {
	u.t.Helper()
	if err := os.WriteFile(u.oldAt, old, 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// encode makes a delta that says it leads from the old graph to the new one,
// whatever it really makes of what.
func (u *upgrade) encode(old, fresh []byte) []byte {
	u.t.Helper()
	var out bytes.Buffer
	h := delta.Header{Old: delta.Ref{Digest: u.old.Digest, Size: u.old.Size}, New: delta.Ref{Digest: u.graph().Digest, Size: u.graph().Size}}
	if err := delta.Encode(&out, h, bytes.NewReader(old), bytes.NewReader(fresh), delta.XOR4); err != nil {
		u.t.Fatal(err)
	}
	return out.Bytes()
}

func (u *upgrade) offerDelta(d []byte) {
	f := u.blob("delta", d)
	u.delta, u.offer = d, protocol.DeltaOffer{From: u.old.Digest.String(), Delta: f.Digest.String(), Size: f.Size}
	u.answer(u.offer)
}

// answer is what the server says when asked for a delta.
func (u *upgrade) answer(o protocol.DeltaOffer) {
	raw, err := json.Marshal(o)
	if err != nil {
		u.t.Fatal(err)
	}
	u.files[u.question()] = raw
}

func (u *upgrade) question() string {
	return blobPath + u.graph().Digest.String() + protocol.DeltaSuffix
}

func (u *upgrade) fetch(progress func(done, total int64)) error {
	u.t.Helper()
	u.puller = New(u.cfg)
	return u.puller.Fetch(u.t.Context(), u.manifest, u.dir, progress)
}

func (u *upgrade) rest() int64 { return u.manifest.Size() - u.graph().Size }

func TestDelta(t *testing.T) {
	for _, size := range []int{delta.MinFile, chunk, 3*chunk + 12345} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			u := newUpgrade(t, size)
			var steps []int64
			if err := u.fetch(func(done, total int64) {
				steps = append(steps, done)
				if total != u.manifest.Size() {
					t.Errorf("total is %d, want %d", total, u.manifest.Size())
				}
			}); err != nil {
				t.Fatal(err)
			}
			u.whole()
			if want := u.rest() + u.offer.Size + int64(len(u.files[u.question()])); u.sent != want || u.sent > int64(size)/2 {
				t.Errorf("%d bytes were sent, want %d of %d", u.sent, want, u.manifest.Size())
			}
			if !slices.IsSorted(steps) || steps[len(steps)-1] != u.manifest.Size() {
				t.Errorf("progress is %v", steps)
			}
			saved := u.graph().Size - u.offer.Size
			if got, want := u.puller.Stats(), (Stats{Deltas: 1, SavedBytes: uint64(saved)}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if len(u.events) != 1 || u.events[0].GetKind() != protocol.EventDeltaApplied || !bytes.Equal(u.events[0].GetRelease(), u.digest[:]) ||
				u.events[0].GetAttributes()[protocol.AttrDelta] != u.offer.Delta || u.events[0].GetAttributes()["saved_bytes"] != strconv.FormatInt(saved, 10) {
				t.Errorf("told %v", u.events)
			}
		})
	}
}

// TestDeltaThatFails is the catalogue of what can be wrong with a delta. Always
// the whole file is fetched, and nothing but what was signed gets its name.
func TestDeltaThatFails(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(u *upgrade)
		failed bool // counted and told; otherwise there just was none
	}{
		{"server without deltas", func(u *upgrade) { delete(u.files, u.question()) }, false},
		{"no delta was made", func(u *upgrade) {
			u.instead(func(res http.ResponseWriter, req *http.Request) {
				if req.URL.Path == u.question() {
					res.WriteHeader(http.StatusNoContent)
					return
				}
				u.file(res, req)
			})
		}, false},
		{"server that cannot answer", func(u *upgrade) {
			u.instead(func(res http.ResponseWriter, req *http.Request) {
				if req.URL.Path == u.question() {
					res.WriteHeader(http.StatusInternalServerError)
					return
				}
				u.file(res, req)
			})
		}, true},
		{"offer is not JSON", func(u *upgrade) { u.files[u.question()] = []byte("delta!") }, true},
		{"offer without end", func(u *upgrade) {
			u.files[u.question()] = append(bytes.Repeat([]byte(" "), 1<<20), u.files[u.question()]...)
		}, true},
		{"offer from a path", func(u *upgrade) {
			o := u.offer
			o.Delta = "../../../etc/passwd"
			u.answer(o)
		}, true},
		{"offer from a file not named", func(u *upgrade) {
			o := u.offer
			o.From = release.DigestOf([]byte("other")).String()
			u.answer(o)
		}, true},
		{"delta as large as the file", func(u *upgrade) {
			o := u.offer
			o.Size = u.graph().Size
			u.answer(o)
		}, true},
		{"delta of no size", func(u *upgrade) {
			o := u.offer
			o.Size = -1
			u.answer(o)
		}, true},
		{"delta missing", func(u *upgrade) { delete(u.files, blobPath+u.offer.Delta) }, false},
		{"delta damaged", func(u *upgrade) { u.files[blobPath+u.offer.Delta][u.offer.Size/2] ^= 1 }, true},
		{"delta longer than offered", func(u *upgrade) {
			u.files[blobPath+u.offer.Delta] = append(slices.Clone(u.delta), 0)
		}, true},
		{"delta is none", func(u *upgrade) { u.offerDelta([]byte(strings.Repeat("x", 1000))) }, true},
		{"delta of other files", func(u *upgrade) {
			d := slices.Clone(u.delta)
			d[10] ^= 1
			u.offerDelta(d)
		}, true},
		{"delta cut off", func(u *upgrade) { u.offerDelta(u.delta[:len(u.delta)-1]) }, true},
		{"delta that makes another file", func(u *upgrade) {
			old, _ := os.ReadFile(u.oldAt)
			u.offerDelta(u.encode(old, old))
		}, true},
		{"old file damaged", func(u *upgrade) {
			old, _ := os.ReadFile(u.oldAt)
			old[len(old)/2] ^= 1
			u.write(old)
		}, true},
		{"old file cut short", func(u *upgrade) { u.write(make([]byte, 10)) }, true},
		{"old file gone", func(u *upgrade) { os.Remove(u.oldAt) }, true},
		{"no room for both", func(u *upgrade) {
			u.cfg.Free = func(string) (int64, error) { return u.manifest.Size() + DefaultReserve, nil }
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpgrade(t, 2*chunk)
			u.cfg.Attempts = 2
			tt.spoil(u)
			if err := u.fetch(nil); err != nil {
				t.Fatal(err)
			}
			u.whole()
			if got, want := u.puller.Stats(), (Stats{Failed: map[bool]uint64{true: 1}[tt.failed]}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if told := len(u.events) == 1 && u.events[0].GetKind() == protocol.EventDeltaFailed; told != tt.failed {
				t.Errorf("told %v", u.events)
			}
		})
	}
}

// A delta that was wrong is not fetched again and again while the whole file
// comes over a bad link.
func TestWrongDeltaIsFetchedOnce(t *testing.T) {
	u := newUpgrade(t, 2*chunk)
	u.cfg.Attempts = 1
	old, _ := os.ReadFile(u.oldAt)
	u.offerDelta(u.encode(old, old))
	deltas := 0
	u.instead(func(res http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case blobPath + u.offer.Delta:
			deltas++
		case blobPath + u.graph().Digest.String():
			panic(http.ErrAbortHandler)
		}
		u.file(res, req)
	})
	p := New(u.cfg)
	for range 3 {
		reason(t, p.Fetch(t.Context(), u.manifest, u.dir, nil), ErrLink, "cut", true)
	}
	if deltas != 1 {
		t.Errorf("the delta was fetched %d times, want once", deltas)
	}
	u.handler.Store(nil)
	if err := p.Fetch(t.Context(), u.manifest, u.dir, nil); err != nil {
		t.Fatal(err)
	}
	u.whole()
}

// What hinders the whole file as well does not lead to fetching it.
func TestDeltaWaitsForTheLink(t *testing.T) {
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	portal := func(res http.ResponseWriter, _ *http.Request) {
		res.Header().Set("Content-Type", "text/html")
		io.WriteString(res, "<html>")
	}
	for name, c := range map[string]struct {
		path   func(u *upgrade) string
		answer http.HandlerFunc
		want   error
		code   string
	}{
		"link breaks at the question": {(*upgrade).question, abort, ErrLink, "cut"},
		"link breaks at the delta":    {func(u *upgrade) string { return blobPath + u.offer.Delta }, abort, ErrLink, "cut"},
		"portal at the question":      {(*upgrade).question, portal, ErrPortal, "captive_portal"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpgrade(t, 2*chunk)
			u.cfg.Attempts = 2
			u.instead(func(res http.ResponseWriter, req *http.Request) {
				if req.URL.Path == c.path(u) {
					c.answer(res, req)
					return
				}
				u.file(res, req)
			})
			reason(t, u.fetch(nil), c.want, c.code, true)
			u.handler.Store(nil)
			if err := u.fetch(nil); err != nil || u.puller.Stats().Deltas != 1 {
				t.Errorf("with a good link: %v, %+v", err, u.puller.Stats())
			}
			u.whole()
		})
	}
}

// TestDeltaCutCostsOneChunk ends the process at many places of a delta.
func TestDeltaCutCostsOneChunk(t *testing.T) {
	const size = 8 * chunk
	for _, cut := range []int64{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk - 3} {
		t.Run(strconv.FormatInt(cut, 10), func(t *testing.T) {
			u := newUpgrade(t, size)
			u.cfg.Attempts = 1
			u.instead(func(res http.ResponseWriter, req *http.Request) {
				if req.URL.Path != blobPath+u.offer.Delta {
					u.file(res, req)
					return
				}
				res.Header().Set("Content-Length", strconv.FormatInt(u.offer.Size, 10))
				res.Write(u.delta[:cut])
				panic(http.ErrAbortHandler)
			})
			reason(t, u.fetch(nil), ErrLink, "cut", true)
			u.handler.Store(nil)
			u.sent = 0
			if err := u.fetch(nil); err != nil {
				t.Fatal(err)
			}
			u.whole()
			question := int64(len(u.files[u.question()]))
			if again := u.sent - question - u.rest() - (u.offer.Size - cut); again > chunk {
				t.Errorf("%d bytes were sent again, want at most %d", again, chunk)
			}
		})
	}
}

// TestPowerCutInADelta cuts the power again and again, later each time: while
// the delta is fetched, and while it is applied.
func TestPowerCutInADelta(t *testing.T) {
	u := newUpgrade(t, 4*chunk)
	left := int64(100_000)
	u.cfg.openPart = func(path string) (partFile, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		return &killed{File: f, left: left}, err
	}
	tries := int64(0)
	for err := errKilled; err != nil; tries++ {
		if err = u.fetch(nil); err != nil && !errors.Is(err, errKilled) || tries > 50 {
			t.Fatalf("try %d: %v", tries, err)
		}
		if _, err := os.Stat(filepath.Join(u.dir, u.graph().Digest.String())); err == nil && intact(filepath.Join(u.dir, u.graph().Digest.String()), u.graph()) != true {
			t.Fatal("something unverified has the file's name")
		}
		left += 300_000
	}
	u.whole()
	question := int64(len(u.files[u.question()]))
	if most := u.rest() + u.offer.Size + tries*(chunk+question); u.sent > most || u.puller.Stats().Failed > 0 {
		t.Errorf("%d bytes were sent in %d tries, want at most %d; %+v", u.sent, tries, most, u.puller.Stats())
	}
	if tries < 5 {
		t.Errorf("the power was cut %d times only", tries)
	}
}

func TestDiskThatIsFullForADelta(t *testing.T) {
	u := newUpgrade(t, 2*chunk)
	u.cfg.openPart = func(path string) (partFile, error) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if strings.HasSuffix(path, deltaSuffix) {
			return f, err
		}
		return faulty{f, syscall.ENOSPC}, err
	}
	reason(t, u.fetch(nil), ErrDiskFull, "disk_full", true)
	u.cfg.openPart = nil
	u.sent = 0
	if err := u.fetch(nil); err != nil {
		t.Fatal(err)
	}
	u.whole()
	if most := u.rest() + 1000; u.sent > most {
		t.Errorf("%d bytes were sent for a delta that was here, want at most %d", u.sent, most)
	}
}

// What is left of a delta does not stand in the way of the file.
func TestDeltaMakesRoom(t *testing.T) {
	u := newUpgrade(t, 2*chunk)
	left := filepath.Join(u.dir, u.offer.Delta+deltaSuffix)
	if err := os.WriteFile(left, make([]byte, chunk), 0o600); err != nil {
		t.Fatal(err)
	}
	u.cfg.Free = func(string) (int64, error) {
		free := u.manifest.Size() + DefaultReserve
		if _, err := os.Stat(left); err == nil {
			free -= chunk
		}
		return free, nil
	}
	if err := u.fetch(nil); err != nil {
		t.Fatal(err)
	}
	u.whole()
}

// Once the whole file is on its way, a delta would throw away what came.
func TestNoDeltaHalfway(t *testing.T) {
	u := newUpgrade(t, 3*chunk)
	deltas := u.cfg.Deltas
	u.cfg.Deltas = nil
	ctx, cancel := context.WithCancel(t.Context())
	if err := New(u.cfg).Fetch(ctx, u.manifest, u.dir, func(done, _ int64) {
		if done > chunk+1000 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	u.cfg.Deltas = deltas
	if err := u.fetch(nil); err != nil || u.puller.Stats() != (Stats{}) {
		t.Errorf("got %v, %+v", err, u.puller.Stats())
	}
	u.whole()
	if len(u.ranges) != 1 || u.ranges[0] == "bytes=0-" {
		t.Errorf("asked for %v, want to go on where it stopped", u.ranges)
	}
}

// TestFileOfAnotherRelease: what is here under the same digest is copied.
func TestFileOfAnotherRelease(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"whole":   func(string) error { return nil },
		"damaged": func(path string) error { return os.WriteFile(path, make([]byte, 2*chunk), 0o600) },
		"too long": func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			return errors.Join(err, func() error { _, err := f.WriteString("x"); return err }(), f.Close())
		},
		"gone": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2*chunk)
			path := filepath.Join(t.TempDir(), "copy")
			if err := os.WriteFile(path, w.files[blobPath+w.graph().Digest.String()], 0o600); err != nil {
				t.Fatal(err)
			}
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			w.cfg.Held = func(string) iter.Seq2[string, release.File] {
				return func(yield func(string, release.File) bool) { yield(path, w.graph()) }
			}
			p := New(w.cfg)
			if err := p.Fetch(t.Context(), w.manifest, w.dir, nil); err != nil {
				t.Fatal(err)
			}
			w.whole()
			want, stats := w.manifest.Size(), Stats{}
			if name == "whole" {
				want, stats = want-w.graph().Size, Stats{Copied: 1, SavedBytes: uint64(w.graph().Size)}
			}
			if w.sent != want || p.Stats() != stats {
				t.Errorf("%d bytes were sent, want %d; %+v", w.sent, want, p.Stats())
			}
		})
	}
}

// What is named to the server: files alike in size, those of the same name
// first, not too many.
func TestCandidates(t *testing.T) {
	file := release.File{Name: "m.onnx", Size: 1 << 20}
	var held []heldFile
	add := func(name string, size int64) {
		held = append(held, heldFile{File: release.File{Name: name, Size: size}, path: strconv.Itoa(len(held))})
	}
	add("golden.json", 1000)
	add("m.int8.onnx", 300_000)
	add("tiny", 1<<18-1)
	add("huge", 1<<22+1)
	for range 9 {
		add("m.onnx", 1<<20)
	}
	var got []string
	for _, h := range candidates(held, file) {
		got = append(got, h.path)
	}
	if want := []string{"4", "5", "6", "7", "8", "9", "10", "11"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	got = nil
	for _, h := range candidates(held[:6], file) {
		got = append(got, h.path)
	}
	if want := []string{"4", "5", "1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
