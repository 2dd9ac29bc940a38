package broker

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// serverLog hands what the server says to a structured logger. The server's
// notices are its start-up banner: debug for us.
type serverLog struct {
	log   *slog.Logger
	fatal chan string // takes the first fatal message; nobody else stops the start
}

var _ server.Logger = (*serverLog)(nil)

func newServerLog(log *slog.Logger) *serverLog {
	return &serverLog{log: log, fatal: make(chan string, 1)}
}

func text(format string, v []any) slog.Attr {
	return slog.String("text", fmt.Sprintf(format, v...))
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug("broker notice", text(format, v)) }

// slowRead begins the server's warning that a client had to wait. Devices that
// come while the control plane starts wait at the guard, which is no trouble.
const slowRead = "Readloop processing time"

func (l *serverLog) Warnf(format string, v ...any) {
	t, level := text(format, v), slog.LevelWarn
	if strings.Contains(t.Value.String(), slowRead) {
		level = slog.LevelDebug
	}
	l.log.LogAttrs(context.Background(), level, "broker warning", t)
}

func (l *serverLog) Errorf(format string, v ...any) { l.log.Error("broker error", text(format, v)) }

func (l *serverLog) Debugf(format string, v ...any) { l.log.Debug("broker debug", text(format, v)) }

func (l *serverLog) Tracef(format string, v ...any) { l.log.Debug("broker trace", text(format, v)) }

func (l *serverLog) Fatalf(format string, v ...any) {
	l.log.Error("broker stopped", text(format, v))
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
