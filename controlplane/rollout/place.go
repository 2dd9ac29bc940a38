package rollout

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math"
	"slices"
)

// A rank orders the devices of one rollout. The rollout's id is part of it, so
// that no device is the canary of every rollout, and anyone can compute it
// again.
func rank(rollout, purpose, device string) [sha256.Size]byte {
	var room [128]byte // most are shorter: no allocation
	b := append(room[:0], rollout...)
	b = append(append(b, 0), purpose...)
	b = append(append(b, 0), device...)
	return sha256.Sum256(b)
}

// Purposes of a rank. The control group has one of its own: whoever is in it
// says nothing about who would have been the canary.
const (
	forWaves   = "wave"
	forControl = "control"
)

// candidate is a device that could be placed.
type candidate struct {
	id, profile string
}

// choose takes n of the candidates: the firmware profiles share n in proportion
// to their sizes by largest remainder, and give their lowest ranks. The result
// is in order of rank.
func choose(rollout, purpose string, n int, from []candidate) []string {
	byProfile := map[string][]string{}
	for _, c := range from {
		byProfile[c.profile] = append(byProfile[c.profile], c.id)
	}
	sizes := map[string]int{}
	for profile, ids := range byProfile {
		sizes[profile] = len(ids)
		sortByRank(rollout, purpose, ids)
	}
	var out []string
	for profile, k := range apportion(n, sizes) {
		out = append(out, byProfile[profile][:k]...)
	}
	sortByRank(rollout, purpose, out)
	return out
}

func sortByRank(rollout, purpose string, ids []string) {
	type ranked struct {
		prefix uint64 // of the rank: it decides, but for one pair in 2^64
		id     string
	}
	all := make([]ranked, len(ids))
	for i, id := range ids {
		r := rank(rollout, purpose, id)
		all[i] = ranked{binary.BigEndian.Uint64(r[:]), id}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		x, y := rank(rollout, purpose, a.id), rank(rollout, purpose, b.id)
		return bytes.Compare(x[:], y[:])
	})
	for i, r := range all {
		ids[i] = r.id
	}
}

// apportion shares n out in proportion to sizes by largest remainder; ties go
// to the larger, then to the first by name. No share is above its size.
func apportion(n int, sizes map[string]int) map[string]int {
	total := 0
	for _, size := range sizes {
		total += size
	}
	n = min(n, total)
	shares := make(map[string]int, len(sizes))
	if n <= 0 {
		return shares
	}
	left := n
	for name, size := range sizes {
		shares[name] = n * size / total
		left -= shares[name]
	}
	remainder := func(name string) int { return n * sizes[name] % total }
	order := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int {
		return cmp.Or(cmp.Compare(remainder(b), remainder(a)), cmp.Compare(sizes[b], sizes[a]), cmp.Compare(a, b))
	})
	for _, name := range order[:left] {
		shares[name]++
	}
	return shares
}

// waveSize is how many devices a wave takes, of free ones that could be
// taken, when placed are in waves before and held are kept out for now. A wave
// takes at least one: an empty canary would protect nobody.
func waveSize(w WaveSpec, placed, free, held int) int {
	n := w.Count
	if w.Percent > 0 {
		// A percentage is rounded up; a hair of float error is not a device.
		n = int(math.Ceil(float64(placed+free+held)*w.Percent/100-1e-9)) - placed
	}
	return min(max(n, 1), free)
}

// controlSize is how many of n devices are held out: the share rounded to the
// nearest, and never all of them.
func controlSize(share float64, n int) int {
	return max(0, min(int(math.Round(share*float64(n))), n-1))
}
