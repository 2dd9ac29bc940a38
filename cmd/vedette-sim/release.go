package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/vedette-edge/vedette/controlplane/runner"
	"github.com/vedette-edge/vedette/protocol/release"
)

// candidate is one release of the model with what is wrong with it, on how many
// of a thousand devices.
type candidate struct {
	version   string
	digest    release.Digest
	sequence  uint64 // of its publication
	megabytes int64
	signed    bool

	wrong   int // golden vectors disagree
	unfit   int // it does not fit into the memory
	broken  int // it does not load
	crashes int // the process dies with it
	hangs   int // a call does not return
	failing int // of its rows fail, on all devices
	misses  int // of its labels are wrong, on all devices
}

// hits says whether something that is wrong on so many of a thousand devices is
// wrong on this one. The answer is always the same.
func (c *candidate) hits(d *device, perThousand int, what string) bool {
	if perThousand == 0 {
		return false
	}
	h := fnv.New64a()
	fmt.Fprint(h, d.w.seed, c.version, d.id, what)
	var sum [8]byte
	return binary.BigEndian.Uint64(h.Sum(sum[:0]))%1000 < uint64(perThousand) //nolint:gosec // positive
}

// flaws are the kinds of releases that are published, with how many of a hundred
// there are.
var flaws = []struct {
	share int
	set   func(w *world, c *candidate)
}{
	{40, func(*world, *candidate) {}},
	{8, func(w *world, c *candidate) { c.wrong = []int{1000, 300, 60}[w.rnd.IntN(3)] }},
	{8, func(w *world, c *candidate) { c.broken = []int{1000, 300, 60}[w.rnd.IntN(3)] }},
	{12, func(w *world, c *candidate) { c.crashes = []int{1000, 300, 60}[w.rnd.IntN(3)] }},
	{6, func(w *world, c *candidate) { c.hangs = []int{1000, 300}[w.rnd.IntN(2)] }},
	{6, func(w *world, c *candidate) { c.failing = 20 + w.rnd.IntN(200) }},
	{6, func(w *world, c *candidate) { c.misses = 40 + w.rnd.IntN(200) }},
	{4, func(w *world, c *candidate) { c.unfit = 300 }},
	{5, func(_ *world, c *candidate) { c.signed = false }},
	{5, func(_ *world, c *candidate) { c.sequence = 0 }}, // below every floor but the first
}

// makeReleases makes the releases: the first is good and what the fleet begins with.
func (w *world) makeReleases() []*candidate {
	var out []*candidate
	for i := range 5 {
		c := &candidate{version: fmt.Sprintf("v%d", i+1), sequence: uint64(i) + 1, megabytes: 1 + w.rnd.Int64N(20), signed: true}
		c.digest = release.DigestOf([]byte(c.version))
		if i > 0 {
			n := w.rnd.IntN(100)
			for _, f := range flaws {
				if n -= f.share; n < 0 {
					f.set(w, c)
					break
				}
			}
		}
		out = append(out, c)
	}
	return out
}

// release finds a release; one that nobody knows has nothing wrong with it.
func (w *world) release(d release.Digest) *candidate {
	for _, c := range w.releases {
		if c.digest == d {
			return c
		}
	}
	return &candidate{version: "nothing", digest: d}
}

func (w *world) version(d release.Digest) string { return w.release(d).version }

// floorToldTo is the floor that a device is told. A server that was broken into
// may show old metadata; a device keeps the highest floor it has seen.
func (w *world) floorToldTo(*device) uint64 {
	if w.often(w.trouble.rollbacks) {
		return 0
	}
	return w.check.floor
}

// digestOf reads a digest off the wire, empty for none.
func digestOf(raw []byte) release.Digest {
	d, err := release.DigestFromBytes(raw)
	if err != nil {
		return release.Digest{}
	}
	return d
}

// catalog is what the server knows as published.
type catalog world

var _ runner.Releases = (*catalog)(nil)

// Release implements runner.Releases.
func (c *catalog) Release(_ context.Context, name, version string) (release.Digest, *release.Manifest, error) {
	for _, r := range c.releases {
		if r.version == version && name == model {
			return r.digest, &release.Manifest{Model: model, Version: version}, nil
		}
	}
	return release.Digest{}, nil, fmt.Errorf("%s %s is not published", name, version)
}

// days is a number of days.
func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }
