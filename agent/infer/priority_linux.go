package infer

import "syscall"

// lowerPriority makes the calling thread nicer; it may be refused and is then
// scheduled like the others. On Linux a priority is the thread's own.
func lowerPriority(nice int) {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice)
}
