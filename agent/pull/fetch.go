package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/agent/link"
	"github.com/vedette-edge/vedette/protocol/atomicfile"
	"github.com/vedette-edge/vedette/protocol/release"
)

// partSuffix marks what has not been verified.
const partSuffix = ".part"

// Fetch brings the files of m into dir, which must exist: each under the hex of
// its digest, and manifest.json last, when all others are there and verified.
// It goes on with what an earlier Fetch left. progress, which may be nil, is
// told how many bytes of the release are there: first those of earlier tries,
// then after every few that arrive.
func (p *Puller) Fetch(ctx context.Context, m *release.Manifest, dir string, progress func(done, total int64)) error {
	raw, err := m.Encode()
	if err != nil {
		return classify(fmt.Errorf("fetch release: %w: %w", ErrManifest, err))
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	f := &fetch{p: p, dir: dir, model: m.Model, release: release.DigestOf(raw), total: m.Size(), progress: progress}
	if err := f.run(ctx, m.Files()); err != nil {
		return classify(fmt.Errorf("fetch %s %s: %w", m.Model, m.Version, err))
	}
	if err := diskError("write manifest", writeWhole(filepath.Join(dir, release.ManifestName), raw)); err != nil {
		return err
	}
	progress(f.total, f.total)
	return nil
}

// fetch is one Fetch under way.
type fetch struct {
	p           *Puller
	dir         string
	model       string
	release     release.Digest
	held        []heldFile // what is here of other releases
	done, total int64      // bytes; done counts finished files
	progress    func(done, total int64)
}

func (f *fetch) run(ctx context.Context, files []release.File) error {
	var missing []release.File
	for _, file := range files {
		if intact(filepath.Join(f.dir, file.Digest.String()), file) {
			f.done += file.Size
			continue
		}
		missing = append(missing, file)
	}
	if err := f.room(missing); err != nil {
		return err
	}
	f.progress(f.done, f.total)
	f.look(missing)
	for _, file := range missing {
		if err := f.file(ctx, file); err != nil {
			return fmt.Errorf("file %s: %w", file.Name, err)
		}
		f.done += file.Size
	}
	return diskError("sync release folder", atomicfile.SyncDir(f.dir))
}

// look finds out what files are here, unless nothing is missing.
func (f *fetch) look(missing []release.File) {
	if len(missing) == 0 {
		return
	}
	seen := map[release.Digest]bool{}
	for path, file := range f.p.cfg.Held(f.model) {
		if !seen[file.Digest] {
			seen[file.Digest] = true
			f.held = append(f.held, heldFile{File: file, path: path})
		}
	}
}

// room refuses a release that would fill the disk: the outbox needs some too.
// Unfinished parts already have theirs.
func (f *fetch) room(missing []release.File) error {
	if len(missing) == 0 {
		return nil
	}
	need := f.p.cfg.Reserve
	for _, file := range missing {
		need += file.Size
		if info, err := os.Stat(f.part(file)); err == nil {
			need -= min(onDisk(info), file.Size)
		}
	}
	free, err := f.p.cfg.Free(f.dir)
	if err == nil && free < need && f.removeDeltas() == nil { // they are not worth failing for
		free, err = f.p.cfg.Free(f.dir)
	}
	if err != nil {
		return diskError("look for room", err)
	}
	if free < need {
		return classify(fmt.Errorf("%w: %d MiB are free, the download and a reserve need %d MiB", ErrDiskFull, free>>20, need>>20))
	}
	return nil
}

func (f *fetch) part(file release.File) string {
	return filepath.Join(f.dir, file.Digest.String()+partSuffix)
}

// file brings one file to its final name.
func (f *fetch) file(ctx context.Context, file release.File) (err error) {
	path := f.part(file)
	raw, err := f.p.cfg.openPart(path)
	if err != nil {
		return diskError("open download", err)
	}
	defer func() {
		err = errors.Join(err, diskError("close download", raw.Close()))
		if errors.Is(err, ErrDigest) { // nothing of it can be trusted
			err = errors.Join(err, os.Remove(path))
		}
	}()
	part, err := openPart(raw, file.Size, file.Digest)
	if err != nil {
		return err
	}
	f.progress(f.done+part.done, f.total)
	if err := f.spare(ctx, file, part); err != nil {
		return err
	}
	if err := f.download(ctx, file.Name, file.Digest, part, f.done); err != nil {
		return err
	}
	if err := part.finish(file.Digest); err != nil {
		return err
	}
	if err := diskError("name download", os.Rename(path, filepath.Join(f.dir, file.Digest.String()))); err != nil {
		return err
	}
	return f.removeDeltas()
}

// removeDeltas removes deltas that were applied, or that failed.
func (f *fetch) removeDeltas() error {
	entries, err := os.ReadDir(f.dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), deltaSuffix) {
			err = errors.Join(err, os.Remove(filepath.Join(f.dir, e.Name())))
		}
	}
	return diskError("remove deltas", err)
}

// download brings a blob into its part, over as many connections as it takes.
// base is how many bytes of the release are there beside it.
func (f *fetch) download(ctx context.Context, name string, d release.Digest, part *part, base int64) error {
	return f.p.retry(ctx, name, func() (bool, error) {
		before := part.done
		err := f.transfer(ctx, d, part, base)
		return part.done-before >= lively, err
	})
}

// transfer reads from one connection until the part is whole or it breaks.
func (f *fetch) transfer(ctx context.Context, d release.Digest, part *part, base int64) error {
	if part.done == part.size {
		return nil
	}
	ctx, stall := newStall(ctx, f.p.cfg.Stall)
	defer stall.stop()
	body, err := f.p.cfg.Blobs.Open(ctx, d, part.done)
	if err != nil {
		return err
	}
	defer body.Close()
	unverified := io.LimitReader(stall.watch(body), part.size-part.done+1)
	buf := make([]byte, 64<<10)
	for {
		n, err := unverified.Read(buf)
		if _, werr := part.Write(buf[:n]); werr != nil {
			return werr
		}
		if n > 0 {
			f.progress(base+part.done, f.total)
		}
		switch {
		case errors.Is(err, io.EOF) && part.done == part.size:
			return nil
		case errors.Is(err, io.EOF) && ctx.Err() == nil:
			return classify(fmt.Errorf("%w: it ended after %d of %d bytes", ErrLink, part.done, part.size))
		case err != nil:
			return linkError(ctx, "download", err)
		}
	}
}

// errStalled is the cause of a context that a stall has cancelled.
var errStalled = classify(fmt.Errorf("%w: %w", ErrLink, link.ErrSilent))

// lively is how many bytes have to come within the limit of a stall: a server
// that sends one a second holds a device up as one that sends none.
const lively = 1 << 10

// stall cancels a context when a reader stands still.
type stall struct {
	ctx    context.Context // the one that it cancels
	timer  *time.Timer
	limit  time.Duration
	cancel context.CancelCauseFunc
}

func newStall(ctx context.Context, limit time.Duration) (context.Context, *stall) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &stall{ctx: ctx, limit: limit, cancel: cancel, timer: time.AfterFunc(limit, func() { cancel(errStalled) })}
}

func (s *stall) stop() {
	s.timer.Stop()
	s.cancel(nil)
}

// watch is r, with the time spent reading as the link's.
func (s *stall) watch(r io.Reader) io.Reader { return &watched{r: r, s: s, left: s.limit} }

type watched struct {
	r    io.Reader
	s    *stall
	left time.Duration // until lively bytes have come
	got  int           // of them
}

func (w *watched) Read(b []byte) (int, error) {
	began := time.Now()
	w.s.timer.Reset(w.left) // what happened since the last read was not the link's fault
	n, err := w.r.Read(b)
	w.s.timer.Stop()
	w.left -= time.Since(began)
	w.got += n
	if w.got >= lively || n == 0 { // nothing at all is a reader that drops what comes
		w.left, w.got = w.s.limit, 0
	}
	if err == io.EOF && w.s.ctx.Err() != nil { //nolint:errorlint // a Reader's own
		err = context.Cause(w.s.ctx) // the server has seen the connection closed, and ended its answer
	}
	return n, err
}
