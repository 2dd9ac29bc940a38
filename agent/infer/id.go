package infer

import (
	"crypto/rand"
	"encoding/base32"
	"strconv"
	"strings"
	"sync/atomic"
)

// idSource makes prediction ids that are unique over restarts and devices:
// 80 random bits drawn once, then a counter, which costs no randomness a call.
type idSource struct {
	prefix string
	n      atomic.Uint64
}

func newIDSource() *idSource {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return &idSource{prefix: strings.ToLower(base32.StdEncoding.EncodeToString(b[:])) + "-"}
}

// IDPrefix is what the ids of predictions begin with, in this start of the
// process, unless their callers named them.
func (e *Engine) IDPrefix() string { return e.ids.prefix }

func (s *idSource) next() string {
	var room [64]byte
	return string(strconv.AppendUint(append(room[:0], s.prefix...), s.n.Add(1), 36))
}
