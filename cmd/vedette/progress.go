package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// bar is a progress bar on a terminal, and nothing elsewhere.
type bar struct{ *progressbar.ProgressBar }

// bar shows progress of total bytes.
func (a *app) bar(what string, total int64) bar {
	if !a.drawn(a.err) {
		return bar{}
	}
	return bar{progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.err), progressbar.OptionSetDescription(what), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish(),
	)}
}

func (b bar) set(n int64) {
	if b.ProgressBar != nil {
		_ = b.Set64(n) // a bar that cannot be drawn stops nothing
	}
}

func (b bar) close() {
	if b.ProgressBar != nil {
		_ = b.Finish()
	}
}
