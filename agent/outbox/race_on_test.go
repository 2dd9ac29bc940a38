//go:build race

package outbox

// raced says that the race detector is on: what one goroutine does alone is
// left to the run without it.
const raced = true
