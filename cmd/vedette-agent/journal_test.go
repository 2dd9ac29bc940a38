package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestJournalIsToldThePriority(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(textHandler(&out, slog.LevelDebug, true))
	log.Error("model cannot be loaded", "error", errors.New("two\nlines"))
	log.Warn("w")
	log.Info("i")
	log.Debug("d")
	want := "<3>level=ERROR msg=\"model cannot be loaded\" error=\"two\\nlines\"\n<4>level=WARN msg=w\n<6>level=INFO msg=i\n<7>level=DEBUG msg=d\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	slog.New(textHandler(&out, slog.LevelInfo, false)).Info("i")
	if !strings.HasPrefix(out.String(), "time=") {
		t.Errorf("without a journal: %s", out.String())
	}
	if journalListens() {
		t.Error("a test's error stream is taken for the journal")
	}
}
