package tracking

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// maxInterned is the longest text, in bytes, that is looked for among recent ones.
const maxInterned = 64

// recent are values that were seen not long ago. Runs repeat each other: with
// their values shared they take less memory, and a search finds them in the
// cache. It is of a fixed size, so it keeps little that is gone.
var (
	recent     [4096]atomic.Pointer[string]
	recentSeed = maphash.MakeSeed()
)

// intern is the text, if possible at the place where it lies already.
func intern(s string) string {
	if s == "" || len(s) > maxInterned {
		return s
	}
	at := &recent[maphash.String(recentSeed, s)%uint64(len(recent))]
	if have := at.Load(); have != nil && *have == s {
		return *have
	}
	s = strings.Clone(s) // it may be part of a large message
	at.Store(&s)
	return s
}
