//go:build race

package delta_test

// raced says whether the race detector is on.
const raced = true
