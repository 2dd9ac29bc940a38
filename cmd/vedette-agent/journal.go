package main

import (
	"bytes"
	"io"
	"log/slog"

	"github.com/coreos/go-systemd/v22/journal"
)

// priorities are how systemd's journal is told a line's level (sd-daemon(3)), so
// that `journalctl -p warning` finds what matters.
var priorities = []struct{ level, prefix string }{
	{"level=ERROR", "<3>"}, {"level=WARN", "<4>"}, {"level=INFO", "<6>"}, {"level=DEBUG", "<7>"},
}

// journalWriter writes lines of a text handler that begin with their level.
type journalWriter struct{ to io.Writer }

func (w journalWriter) Write(line []byte) (int, error) {
	for _, p := range priorities {
		if bytes.HasPrefix(line, []byte(p.level)) {
			if _, err := w.to.Write(append([]byte(p.prefix), line...)); err != nil {
				return 0, err
			}
			return len(line), nil
		}
	}
	return w.to.Write(line)
}

// textHandler logs for people; where the journal listens without the time, which
// the journal has itself, and with the priority.
func textHandler(to io.Writer, level slog.Leveler, toJournal bool) slog.Handler {
	opts := &slog.HandlerOptions{Level: level}
	if !toJournal {
		return slog.NewTextHandler(to, opts)
	}
	opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return slog.NewTextHandler(journalWriter{to}, opts)
}

// journalListens says whether this process's error stream is the journal's.
func journalListens() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}
