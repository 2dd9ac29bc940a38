//go:build !linux

package infer

// lowerPriority does nothing: where a priority is the whole process's, a shadow
// must not lower it for the primary release.
func lowerPriority(int) {}
