//go:build !linux

package artifact

// lowerPriority does nothing: only Linux has priorities per thread.
func lowerPriority() error { return nil }
