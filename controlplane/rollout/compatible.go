package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Codes of devices that cannot run a release, found without asking them.
const (
	CodeAgent   = "agent_too_old"
	CodeRuntime = "runtime_too_old"
	CodeMemory  = "memory_too_small"
	CodeVariant = "no_variant"
)

// Refuses says why a device with these facts cannot run the release; the empty
// code means that it may try. What is not known refuses nothing: the device
// checks again before it downloads.
func (r Requirements) Refuses(f DeviceFacts) (code, message string) {
	switch {
	case older(f.Agent, r.MinAgent):
		return CodeAgent, fmt.Sprintf("agent is %s, the release needs %s", f.Agent, r.MinAgent)
	case older(f.Runtime, r.MinRuntime):
		return CodeRuntime, fmt.Sprintf("runtime is %s, the release needs %s", f.Runtime, r.MinRuntime)
	case f.MemoryBytes > 0 && f.MemoryBytes < r.MemoryBytes:
		return CodeMemory, fmt.Sprintf("device has %d bytes of memory, the release needs %d", f.MemoryBytes, r.MemoryBytes)
	case len(r.Variants) > 0 && len(r.fitting(f)) == 0:
		return CodeVariant, fmt.Sprintf("no variant of the release runs on %s with %s", f.Arch, strings.Join(f.Providers, ", "))
	}
	return "", ""
}

// fitting are the variants that the device could take.
func (r Requirements) fitting(f DeviceFacts) []Variant {
	return slices.DeleteFunc(slices.Clone(r.Variants), func(v Variant) bool { return !v.fits(f) })
}

func (v Variant) fits(f DeviceFacts) bool {
	arch := len(v.Arch) == 0 || f.Arch == "" || slices.Contains(v.Arch, f.Arch)
	provider := len(v.Providers) == 0 || len(f.Providers) == 0 ||
		slices.ContainsFunc(v.Providers, func(needs string) bool {
			return slices.ContainsFunc(f.Providers, func(has string) bool { return release.SameProvider(needs, has) })
		})
	return arch && provider
}

// bytes is the most that a device with these facts may have to download when
// it has nothing of the release.
func (r Requirements) bytes(f DeviceFacts) int64 { return r.Download(&f, nil) }

// Download is the most that a device with these facts may have to download,
// with less for the variants of which less is known to be enough: which of them
// it takes the device finds out by measuring. Sizes are bytes by variant name.
func (r Requirements) Download(f *DeviceFacts, less map[string]int64) int64 {
	var most int64
	for _, v := range r.fitting(*f) {
		size := v.Bytes
		if l, ok := less[v.Name]; ok {
			size = min(size, l)
		}
		most = max(most, size)
	}
	return most
}

// older says that a version is below the least one. Versions are dotted
// numbers, a leading "v" and anything from '-' or '+' on aside; one that is not
// (a development build) is not older than anything.
func older(version, least string) bool {
	v, ok := parseVersion(version)
	l, okLeast := parseVersion(least)
	return ok && okLeast && slices.Compare(v, l) < 0
}

func parseVersion(s string) ([]int, bool) {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "+")
	s, _, _ = strings.Cut(s, "-")
	var out []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, false
		}
		out = append(out, n)
	}
	return out, true
}
