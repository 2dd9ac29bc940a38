package broker

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestWaitingAtTheGuardIsNoWarning(t *testing.T) {
	var out bytes.Buffer
	log := newServerLog(slog.New(slog.NewTextHandler(&out, nil)))
	log.Warnf("%s - Readloop processing time: %v", "127.0.0.1:1 - mid:7 - cam-1", "4.5s")
	if out.Len() > 0 {
		t.Errorf("logged %s", out.String())
	}
	log.Warnf("JetStream %s", "is slow")
	if !strings.Contains(out.String(), "level=WARN") {
		t.Errorf("another warning is lost: %q", out.String())
	}
}
