package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// traceSize is how many lines are kept for the end of a simulation.
const traceSize = 4000

// trace keeps what happened last. Lines become text only when somebody reads
// them.
type trace struct {
	lines []line
	next  int
	live  func(line) // told of every line at once, nil for nobody
}

type line struct {
	at     time.Duration
	who    string // a device, "server" or "operator"
	format string
	args   []any
}

func (l line) String() string {
	return fmt.Sprintf("%s %-10s %s", stamp(l.at), l.who, fmt.Sprintf(l.format, l.args...))
}

// stamp writes a virtual time: days, then the time since the beginning.
func stamp(d time.Duration) string {
	day := 24 * time.Hour
	rest := d % day
	return fmt.Sprintf("%dd%02d:%02d:%06.3f", d/day, rest/time.Hour, rest%time.Hour/time.Minute, (rest % time.Minute).Seconds())
}

func (t *trace) add(at time.Duration, who, format string, args ...any) {
	l := line{at, who, format, args}
	if t.live != nil {
		t.live(l)
	}
	if len(t.lines) < traceSize {
		t.lines = append(t.lines, l)
		return
	}
	t.lines[t.next] = l
	t.next = (t.next + 1) % traceSize
}

// about returns the newest lines of the server, the operator and of the devices
// that the text names, oldest first.
func (t *trace) about(text string, most int) []string {
	var out []string
	for i := range t.lines {
		l := t.lines[(t.next+len(t.lines)-1-i)%len(t.lines)]
		if l.who == "server" || l.who == "operator" || mentions(text, l.who) {
			out = append(out, l.String())
		}
		if len(out) == most {
			break
		}
	}
	slices.Reverse(out)
	return out
}

// mentions says whether a text names a device.
func mentions(text, device string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }), device)
}
