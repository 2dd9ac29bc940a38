//go:build race

package updater_test

// raced says that the race detector is on. It finds races in the first hundreds of
// schedules and makes each ten times as slow, so the rest is left to the run
// without it.
const raced = true
