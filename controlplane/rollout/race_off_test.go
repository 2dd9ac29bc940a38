//go:build !race

package rollout

// raced says that the race detector watches, under which what only computes is
// ten times as slow: much of it is left to the run without.
const raced = false
