package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/delta"
	"github.com/vedette-edge/vedette/protocol/release"
)

// deltaSuffix marks a delta under way. Its name begins with its own digest.
const deltaSuffix = ".delta" + partSuffix

// unlike is how many times larger a file or the one to fetch may be than the
// other before it is not named as one to start from.
const unlike = 4

// Offer says how to make a file of one that is here [P-7.1].
type Offer struct {
	From  release.Digest // the file to start from
	Delta release.Digest // a blob
	Size  int64          // of the delta, in bytes
}

// DeltaSource knows of deltas. An error that wraps ErrNotFound says that there
// is none.
type DeltaSource interface {
	Delta(ctx context.Context, to release.Digest, from []release.Digest) (Offer, error)
}

// Stats counts what did not have to be fetched since the start.
type Stats struct {
	Copied     uint64 // files that were here already
	Deltas     uint64 // files made by a delta
	Failed     uint64 // deltas that came to nothing, so that the whole file was fetched
	SavedBytes uint64 // by copies and deltas
}

// Stats tells what deltas and copies saved.
func (p *Puller) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

func (p *Puller) count(change func(s *Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
}

// bad notes a delta that was wrong.
func (p *Puller) bad(d release.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong[d] = struct{}{}
}

func (p *Puller) isBad(d release.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, bad := p.wrong[d]
	return bad
}

// heldFile is a verified file somewhere on this device.
type heldFile struct {
	release.File
	path string
}

// spare fills a part without fetching the whole file, if it can: with the same
// file of another release, or with a delta. Whatever goes wrong with that is
// left to fetching the whole file; an error returned would stop that too. Once
// the whole file is on its way there is no turning back: a delta that fails
// would throw away what came.
func (f *fetch) spare(ctx context.Context, file release.File, part *part) error {
	if part.done > 0 {
		return nil
	}
	if copied, err := f.copy(file, part); copied || err != nil {
		return err
	}
	near := candidates(f.held, file)
	if f.p.cfg.Deltas == nil || len(near) == 0 {
		return nil
	}
	err := f.byDelta(ctx, file, part, near)
	if err == nil || stops(ctx, err) {
		return err
	}
	if !errors.Is(err, ErrNotFound) {
		f.p.count(func(s *Stats) { s.Failed++ })
		f.p.cfg.Log.Warn("delta not used, the whole file is fetched", "what", file.Name, "error", err)
		f.tell(protocol.EventDeltaFailed, file, err.Error(), nil)
	}
	f.progress(f.done, f.total)
	return nil
}

// stops says whether an error would hinder fetching the whole file as well.
func stops(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, ErrLink) || errors.Is(err, ErrPortal) ||
		errors.Is(err, ErrDisk) || errors.Is(err, ErrDiskFull)
}

// candidates are the files worth naming as ones to start from, those that play
// the same part in another release first.
func candidates(held []heldFile, file release.File) []heldFile {
	var near, others []heldFile
	for _, h := range held {
		switch {
		case min(h.Size, file.Size) < delta.MinFile, h.Size > file.Size*unlike, file.Size > h.Size*unlike:
		case h.Name == file.Name:
			near = append(near, h)
		default:
			others = append(others, h)
		}
	}
	near = append(near, others...)
	return near[:min(len(near), protocol.MaxDeltaFrom)]
}

// copy fills a part with the same file from elsewhere.
func (f *fetch) copy(file release.File, part *part) (copied bool, err error) {
	i := slices.IndexFunc(f.held, func(h heldFile) bool { return h.Digest == file.Digest })
	if i < 0 {
		return false, nil
	}
	src, err := os.Open(f.held[i].path)
	if err != nil {
		return false, nil // removed since: fetched instead
	}
	defer src.Close()
	err = part.rebuild(file.Digest, func(w io.Writer) error {
		_, err := io.Copy(w, src)
		return err
	})
	switch {
	case errors.Is(err, ErrDisk), errors.Is(err, ErrDiskFull):
		return false, err
	case err != nil:
		f.p.cfg.Log.Warn("copy on the disk is damaged, the file is fetched", "what", file.Name, "error", err)
		return false, nil
	}
	f.p.count(func(s *Stats) { s.Copied++; s.SavedBytes += uint64(file.Size) }) //nolint:gosec // a file's size
	return true, nil
}

// byDelta asks for a delta, fetches and applies it. What a cut leaves of it is
// gone on with as long as the server offers the same one. One that turned out to
// be wrong is not fetched again by this process.
func (f *fetch) byDelta(ctx context.Context, file release.File, part *part, near []heldFile) error {
	offer, from, err := f.ask(ctx, file, near)
	if err != nil {
		return err
	}
	if f.p.isBad(offer.Delta) {
		return fmt.Errorf("%w: the delta was wrong before", ErrNotFound)
	}
	raw, err := f.p.cfg.openPart(f.deltaPart(offer))
	if err != nil {
		return diskError("open delta", err)
	}
	d, err := f.fetchDelta(ctx, file, offer, raw)
	if err == nil {
		if err = apply(file, part, from, io.NewSectionReader(raw, 0, d.size)); err == nil {
			f.saved(file, offer)
		} else if !stops(ctx, err) {
			f.p.bad(offer.Delta)
			err = fmt.Errorf("apply delta to %s: %w", from.Digest.Short(), err)
		}
	}
	return errors.Join(err, diskError("close delta", raw.Close()))
}

// ask has the server choose among the files that are here [P-7.3].
func (f *fetch) ask(ctx context.Context, file release.File, near []heldFile) (offer Offer, from heldFile, err error) {
	names := make([]release.Digest, len(near))
	for i, h := range near {
		names[i] = h.Digest
	}
	err = f.p.retry(ctx, "delta of "+file.Name, func() (bool, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, f.p.cfg.Stall, errStalled)
		defer cancel()
		offer, err = f.p.cfg.Deltas.Delta(ctx, file.Digest, names)
		return false, err
	})
	if err != nil {
		return offer, from, err
	}
	i := slices.Index(names, offer.From)
	switch {
	case i < 0:
		return offer, from, fmt.Errorf("%w: it starts from %s, which was not named", errOffer, offer.From.Short())
	case offer.Size <= 0 || offer.Size >= file.Size:
		return offer, from, fmt.Errorf("%w: the delta has %d bytes, the file %d", errOffer, offer.Size, file.Size)
	case !f.fits(file, offer):
		return offer, from, fmt.Errorf("%w: there is no room for delta and file at once", errOffer)
	}
	return offer, near[i], nil
}

// errOffer says that an offer is not what a device takes.
var errOffer = errors.New("offer refused")

// fits says whether there is room for a delta and for what it makes at once.
func (f *fetch) fits(file release.File, offer Offer) bool {
	need := f.p.cfg.Reserve + file.Size + offer.Size
	if info, err := os.Stat(f.deltaPart(offer)); err == nil {
		need -= min(onDisk(info), offer.Size)
	}
	free, err := f.p.cfg.Free(f.dir)
	return err == nil && free >= need
}

func (f *fetch) deltaPart(offer Offer) string {
	return filepath.Join(f.dir, offer.Delta.String()+deltaSuffix)
}

// fetchDelta brings all of a delta into raw. Of the release, what is still to
// come of this file is the delta.
func (f *fetch) fetchDelta(ctx context.Context, file release.File, offer Offer, raw partFile) (*part, error) {
	d, err := openPart(raw, offer.Size, offer.Delta)
	if err != nil {
		return nil, err
	}
	base := f.done + file.Size - offer.Size
	f.progress(base+d.done, f.total)
	if err := f.download(ctx, "delta of "+file.Name, offer.Delta, d, base); err != nil {
		return nil, err
	}
	if !d.whole(offer.Delta) {
		f.p.bad(offer.Delta)
		return nil, fmt.Errorf("verify delta: %w", ErrDigest)
	}
	return d, nil
}

// apply makes the file in its part. Only the signed result counts [P-7.4].
func apply(file release.File, part *part, from heldFile, d io.Reader) error {
	old, err := os.Open(from.path)
	if err != nil {
		return fmt.Errorf("open old file: %w", err)
	}
	defer old.Close()
	return part.rebuild(file.Digest, func(w io.Writer) error {
		return delta.Decode(w, d, old, delta.Header{
			Old: delta.Ref{Digest: from.Digest, Size: from.Size},
			New: delta.Ref{Digest: file.Digest, Size: file.Size},
		})
	})
}

func (f *fetch) saved(file release.File, offer Offer) {
	saved := file.Size - offer.Size
	f.p.count(func(s *Stats) { s.Deltas++; s.SavedBytes += uint64(saved) }) //nolint:gosec // not negative: see ask
	f.p.cfg.Log.Info("file made by a delta", "what", file.Name, "delta_bytes", offer.Size, "saved_bytes", saved)
	f.tell(protocol.EventDeltaApplied, file, "fetched as a delta", map[string]string{
		protocol.AttrDelta: offer.Delta.String(),
		"delta_bytes":      strconv.FormatInt(offer.Size, 10), "saved_bytes": strconv.FormatInt(saved, 10),
	})
}

func (f *fetch) tell(kind string, file release.File, message string, attributes map[string]string) {
	f.p.cfg.Events(&protocol.Event{
		Kind: kind, Model: f.model, Release: f.release[:], Message: file.Name + ": " + message, Attributes: attributes,
	})
}
