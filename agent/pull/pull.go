// Package pull brings releases onto the device: metadata, manifest, files.
// Nothing unverified leaves it. What arrives is written under a name that says
// so (.part), held against the digest that publishers signed, and only then
// gets the name under which anything else looks for it.
//
// Downloads go on where they stopped. Every mebibyte is synced together with
// its own checksum, so after a power cut at most one mebibyte comes again; a
// connection that breaks while the program runs costs nothing.
//
// A file that resembles one of another release here is made of that by a delta,
// which is fetched in the same way. A delta proves nothing: the result is held
// against the signed digest, and whatever fails leads to the whole file.
package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/vedette-edge/vedette/protocol"
	"github.com/vedette-edge/vedette/protocol/release"
	"github.com/vedette-edge/vedette/protocol/trust"
)

// Defaults of Config.
const (
	// DefaultAttempts without a single new byte end a Fetch: at the longest
	// pauses that is about two minutes. The updater decides what comes then.
	DefaultAttempts = 6
	// DefaultStall is how long a connection may stand still. Mobile links pause
	// for seconds while they change cells.
	DefaultStall = 30 * time.Second
	// DefaultReserve is what a download leaves free for the outbox and the rest
	// of the device, in bytes.
	DefaultReserve = 32 << 20

	firstPause = time.Second
	maxPause   = time.Minute
)

// BlobSource reads content by digest from an offset on. What it returns is not
// verified; an error may carry Code and Retryable as *Error does.
type BlobSource interface {
	Open(ctx context.Context, d release.Digest, offset int64) (io.ReadCloser, error)
}

// Config is what a Puller works with. Blobs, Metadata and Trust are required.
type Config struct {
	Blobs    BlobSource
	Metadata trust.Fetcher
	Trust    *trust.Store

	// Deltas offers deltas, and Held knows what they may start from: all
	// verified files here, those of the model itself first. nil for neither.
	Deltas DeltaSource
	Held   func(model string) iter.Seq2[string, release.File]
	// Events takes what is worth telling. It must not block for long.
	Events func(e *protocol.Event)

	Now      func() time.Time // trusted time; time.Now when nil
	Attempts int              // DefaultAttempts when 0
	Stall    time.Duration    // DefaultStall when 0
	Reserve  int64            // bytes; DefaultReserve when 0
	// Free tells the bytes that may still be written in a folder. It asks the
	// operating system when nil.
	Free func(dir string) (int64, error)
	// Wait pauses between attempts; a timer when nil.
	Wait func(ctx context.Context, d time.Duration) error
	Log  *slog.Logger // discards when nil

	openPart func(path string) (partFile, error) // a file of the system when nil
}

// Puller brings releases onto the device. It is safe for concurrent use, as
// long as no two Fetches share a folder.
type Puller struct {
	cfg Config

	mu    sync.Mutex
	stats Stats                       // guarded by mu
	wrong map[release.Digest]struct{} // guarded by mu: deltas that made something else than signed
}

// New fills in the defaults of cfg.
func New(cfg Config) *Puller {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = DefaultAttempts
	}
	if cfg.Stall == 0 {
		cfg.Stall = DefaultStall
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = DefaultReserve
	}
	if cfg.Free == nil {
		cfg.Free = freeSpace
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	if cfg.Held == nil {
		cfg.Held = func(string) iter.Seq2[string, release.File] { return func(func(string, release.File) bool) {} }
	}
	if cfg.Events == nil {
		cfg.Events = func(*protocol.Event) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.openPart == nil {
		cfg.openPart = func(path string) (partFile, error) {
			return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		}
	}
	return &Puller{cfg: cfg, wrong: map[release.Digest]struct{}{}}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Resolve asks the server for the newest metadata and returns the manifest of
// the release if it may run here. When metadata cannot be refreshed, a release
// that was accepted before is still resolved: that is how a device goes back
// while the server is frozen or expired.
func (p *Puller) Resolve(ctx context.Context, model string, d release.Digest) (*release.Manifest, error) {
	target, err := p.target(ctx, model, d)
	if err != nil {
		return nil, classify(fmt.Errorf("resolve %s %s: %w", model, d.Short(), err))
	}
	var m *release.Manifest
	err = p.retry(ctx, "manifest", func() (progress bool, err error) {
		m, err = p.manifest(ctx, target)
		return false, err
	})
	if err != nil {
		return nil, classify(fmt.Errorf("resolve %s %s: %w", model, d.Short(), err))
	}
	return m, nil
}

func (p *Puller) target(ctx context.Context, model string, d release.Digest) (trust.Target, error) {
	err := p.cfg.Trust.Refresh(ctx, p.cfg.Metadata, p.cfg.Now(), model)
	if err == nil {
		return p.cfg.Trust.Release(model, d)
	}
	target, known := p.cfg.Trust.Accepted(model, d)
	if known != nil || ctx.Err() != nil {
		return trust.Target{}, err
	}
	p.cfg.Log.Warn("metadata not refreshed, release accepted before is used", "model", model, "release", d.Short(), "error", err)
	return target, nil
}

// manifest fetches, verifies and reads a manifest.
func (p *Puller) manifest(ctx context.Context, t trust.Target) (*release.Manifest, error) {
	ctx, stall := newStall(ctx, p.cfg.Stall)
	defer stall.stop()
	body, err := p.cfg.Blobs.Open(ctx, t.Digest, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	unverified, err := io.ReadAll(io.LimitReader(stall.watch(body), t.Length+1))
	if err != nil {
		return nil, linkError(ctx, "read manifest", err)
	}
	if int64(len(unverified)) < t.Length {
		return nil, classify(fmt.Errorf("read manifest: %w: %d of %d bytes came", ErrLink, len(unverified), t.Length))
	}
	if release.DigestOf(unverified) != t.Digest {
		return nil, classify(fmt.Errorf("read manifest: %w", ErrDigest))
	}
	m, err := release.Decode(unverified)
	if err != nil {
		return nil, classify(fmt.Errorf("read manifest: %w: %w", ErrManifest, err))
	}
	if m.Model != t.Model || m.Version != t.Version || m.Sequence != t.Sequence {
		return nil, classify(fmt.Errorf("read manifest: %w: it is of %s %s (%d), signed as %s %s (%d)", ErrManifest, m.Model, m.Version, m.Sequence, t.Model, t.Version, t.Sequence))
	}
	return m, nil
}

// retry calls try until it succeeds, fails for good, or has failed as often as
// allowed without any progress in between. It logs the first failure and the
// recovery only.
func (p *Puller) retry(ctx context.Context, what string, try func() (progress bool, err error)) error {
	failures, logged := 0, false
	for {
		progress, err := try()
		if err == nil {
			if logged {
				p.cfg.Log.Info("download goes on", "what", what)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failures++; progress {
			failures = 1
		}
		var reason *Error
		if !errors.As(err, &reason) || !reason.retry || errors.Is(err, ErrDisk) || errors.Is(err, ErrDiskFull) || failures >= p.cfg.Attempts {
			return err
		}
		if !logged {
			p.cfg.Log.Warn("download interrupted", "what", what, "error", err)
			logged = true
		}
		if err := p.cfg.Wait(ctx, max(pause(failures), reason.after)); err != nil {
			return err
		}
	}
}

// pause doubles with every failure, capped, of which the second half is random:
// a site's devices lose the link together and must not come back together.
func pause(failures int) time.Duration {
	d := min(firstPause<<(failures-1), maxPause)
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreads load, keeps no secret
}
