package outbox

import (
	"strconv"
	"strings"
)

// scan is what a file holds, apart from its frames.
type scan struct {
	frames  int
	damaged int64 // bytes that belong to no good command
	tail    Tail
}

// sound says that BuntDB reads the file as it is meant.
func (s scan) sound() bool { return s.frames > 0 && s.damaged == 0 && s.tail == Whole }

// scanFile reads a BuntDB append-only file: set and del commands in RESP. A bad
// place costs what it covers: the next frame is found by its magic. It
// allocates nothing for a length that the file does not have. A frame shares
// the tape's memory: whoever keeps one clones it.
func scanFile(t *tape, visit func(*Frame)) (s scan) {
	for at := int64(0); at < t.size; {
		p := t.step(at)
		s.damaged += p.skipped
		s.tail = p.tail
		at = p.next
		if p.frame != nil {
			s.frames++
			visit(p.frame)
		}
	}
	return s
}

// step is one good command, with the bad bytes before it.
type step struct {
	frame   *Frame // nil for a deletion, and at the end of a damaged file
	skipped int64
	next    int64 // where the next one begins
	tail    Tail  // anything but Whole ends the file
}

func (t *tape) step(at int64) step {
	if f, n, ok := t.command(at); ok {
		return step{frame: f, next: at + int64(n)}
	}
	f, start, n := t.nextFrame(at)
	if f == nil {
		return step{skipped: t.size - at, next: t.size, tail: t.tailAt(at)}
	}
	s := step{frame: f, skipped: start - at, next: start + int64(n)}
	switch rest := t.from(s.next, 2); {
	case len(rest) < 2 && strings.HasPrefix("\r\n", rest):
		s.tail, s.next = Cut, t.size // the frame is whole, the command around it is not
	case strings.HasPrefix(rest, "\r\n"):
		s.next += 2
	}
	return s
}

// command takes one command and says how long it is.
func (t *tape) command(at int64) (f *Frame, n int, ok bool) {
	raw := t.from(at, lengthLine)
	parts, n := parseCommand(raw)
	for n > len(raw) && int64(len(raw)) < t.size-at {
		raw = t.from(at, n)
		parts, n = parseCommand(raw)
	}
	switch {
	case len(parts) == 3 && parts[0] == "set":
		f, size, err := decodeFrame(parts[2])
		return f, n, err == nil && size == len(parts[2]) && f.key() == parts[1]
	default:
		return nil, n, len(parts) == 2 && parts[0] == "del"
	}
}

// maxCommand bounds what a command may claim to take.
const maxCommand = maxFrame + 256

// parseCommand reads "*n\r\n" and n times "$len\r\n…\r\n", n at most 3, and says
// how long that is. Where raw ends too early there are no parts, and n is how
// much of it is needed to see more; for what is no command n is 0.
func parseCommand(raw string) (parts []string, n int) {
	count, at := parseLength(raw, '*')
	if at > len(raw) || at == 0 || count < 1 || count > 3 {
		return nil, at
	}
	for range count {
		size, head := parseLength(raw[at:], '$')
		if head == 0 || size > maxCommand {
			return nil, 0
		}
		if at += head; at+size+2 > len(raw) {
			return nil, at + size + 2
		}
		if raw[at+size:at+size+2] != "\r\n" {
			return nil, 0
		}
		parts = append(parts, raw[at:at+size])
		at += size + 2
	}
	return parts, at
}

// lengthLine is more than "*3\r\n" or "$123456789\r\n" takes.
const lengthLine = 16

// parseLength reads "<mark><digits>\r\n" and says how long that is: more than
// raw has where raw ends too early, 0 where it is no such line.
func parseLength(raw string, mark byte) (value, n int) {
	if raw == "" || raw[0] != mark {
		return 0, 0
	}
	end := strings.Index(raw[:min(len(raw), lengthLine)], "\r\n")
	if end < 0 && len(raw) < lengthLine {
		return 0, lengthLine
	}
	if end < 2 {
		return 0, 0
	}
	value, err := strconv.Atoi(raw[1:end])
	if err != nil || value < 0 {
		return 0, 0
	}
	return value, end + 2
}

// nextFrame finds the first good frame at or after at.
func (t *tape) nextFrame(at int64) (f *Frame, start int64, n int) {
	for at < t.size {
		raw := t.from(at, frameHeader)
		i := strings.Index(raw, frameMagic)
		if i < 0 {
			at += int64(max(1, len(raw)-len(frameMagic)+1))
			continue
		}
		at += int64(i)
		raw = t.from(at, frameHeader)
		if need := frameSize(raw); need > len(raw) {
			raw = t.from(at, need)
		}
		if f, n, err := decodeFrame(raw); err == nil {
			return f, at, n
		}
		at += int64(len(frameMagic))
	}
	return nil, 0, 0
}

// tailAt judges how the file ends when nothing good begins at or after at.
func (t *tape) tailAt(at int64) Tail {
	if t.size-at > maxCommand {
		return Damaged
	}
	return tailOf(t.from(at, int(t.size-at)))
}

// tailOf tells a write that never finished from damage: such a write has left
// the beginning of a command and nothing else.
func tailOf(rest string) Tail {
	count, at := parseLength(rest, '*')
	if at == 0 || at > len(rest) {
		return shortOrDamaged(rest, '*')
	}
	for parts := 0; parts < count && parts < 3; parts++ {
		size, head := parseLength(rest[at:], '$')
		if head == 0 || head > len(rest)-at {
			return shortOrDamaged(rest[at:], '$')
		}
		at += head
		if size > len(rest)-at-2 {
			return plausible(rest[at:])
		}
		at += size + 2
	}
	return Damaged // a whole command that is not good
}

// shortOrDamaged judges what should be a length line.
func shortOrDamaged(rest string, mark byte) Tail {
	if rest == "" || rest[0] == mark && len(rest) < lengthLine && strings.Trim(rest[1:], "0123456789\r") == "" {
		return Cut
	}
	return Damaged
}

// blank is more zeros than a frame holds in a row.
const blank = 128

// plausible judges the beginning of a value: a long run of zeros at its end is
// not the mark of a short write but of a page that never reached the disk.
func plausible(rest string) Tail {
	if strings.HasSuffix(rest, strings.Repeat("\x00", blank)) {
		return Damaged
	}
	return Cut
}

// appendSet writes a frame as BuntDB does.
func appendSet(buf []byte, key, value string) []byte {
	buf = append(buf, "*3\r\n$3\r\nset\r\n"...)
	for _, part := range [...]string{key, value} {
		buf = append(buf, '$')
		buf = strconv.AppendInt(buf, int64(len(part)), 10)
		buf = append(buf, "\r\n"...)
		buf = append(buf, part...)
		buf = append(buf, "\r\n"...)
	}
	return buf
}
