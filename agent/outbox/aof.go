package outbox

import (
	"strconv"
	"strings"
)

// scan is what a file holds.
type scan struct {
	frames  []*Frame
	live    map[string]*Frame // by key, deletions followed: what BuntDB would load
	damaged int64             // bytes that belong to no good command
	tail    Tail
}

// scanFile reads a BuntDB append-only file: set and del commands in RESP. A bad
// place costs what it covers: the next frame is found by its magic. It
// allocates nothing for a length that the file does not have.
func scanFile(raw string) scan {
	s := scan{live: map[string]*Frame{}}
	at := 0
	for at < len(raw) {
		if n, ok := s.command(raw[at:]); ok {
			at += n
			continue
		}
		f, start, n := nextFrame(raw, at)
		if f == nil {
			s.damaged += int64(len(raw) - at)
			s.tail = tailOf(raw[at:])
			return s
		}
		s.damaged += int64(start - at)
		s.add(f)
		at = start + n
		if rest := raw[at:]; len(rest) < 2 && strings.HasPrefix("\r\n", rest) {
			s.tail = Cut // the frame is whole, the command around it is not
			return s
		}
		if strings.HasPrefix(raw[at:], "\r\n") {
			at += 2
		}
	}
	return s
}

func (s *scan) add(f *Frame) {
	s.frames = append(s.frames, f)
	s.live[f.key()] = f
}

// command takes one command from the start of raw and says how long it is.
func (s *scan) command(raw string) (int, bool) {
	parts, n, ok := parseCommand(raw)
	if !ok {
		return 0, false
	}
	switch {
	case len(parts) == 3 && parts[0] == "set":
		f, size, err := decodeFrame(parts[2])
		if err != nil || size != len(parts[2]) || f.key() != parts[1] {
			return 0, false
		}
		s.add(f)
	case len(parts) == 2 && parts[0] == "del":
		delete(s.live, parts[1])
	default:
		return 0, false
	}
	return n, true
}

// parseCommand reads "*n\r\n" and n times "$len\r\n…\r\n", n at most 3.
func parseCommand(raw string) (parts []string, n int, ok bool) {
	count, at, ok := parseLength(raw, '*')
	if !ok || count < 1 || count > 3 {
		return nil, 0, false
	}
	for range count {
		size, head, ok := parseLength(raw[at:], '$')
		at += head
		if !ok || size > len(raw)-at-2 || raw[at+size:at+size+2] != "\r\n" {
			return nil, 0, false
		}
		parts = append(parts, raw[at:at+size])
		at += size + 2
	}
	return parts, at, true
}

// parseLength reads "<mark><digits>\r\n".
func parseLength(raw string, mark byte) (value, n int, ok bool) {
	if raw == "" || raw[0] != mark {
		return 0, 0, false
	}
	end := strings.Index(raw[:min(len(raw), 16)], "\r\n")
	if end < 2 {
		return 0, 0, false
	}
	value, err := strconv.Atoi(raw[1:end])
	if err != nil || value < 0 {
		return 0, 0, false
	}
	return value, end + 2, true
}

// nextFrame finds the first good frame at or after at.
func nextFrame(raw string, at int) (f *Frame, start, n int) {
	for at < len(raw) {
		i := strings.Index(raw[at:], frameMagic)
		if i < 0 {
			return nil, 0, 0
		}
		at += i
		if f, n, err := decodeFrame(raw[at:]); err == nil {
			return f, at, n
		}
		at += len(frameMagic)
	}
	return nil, 0, 0
}

// tailOf tells a write that never finished from damage: such a write has left
// the beginning of a command and nothing else.
func tailOf(rest string) Tail {
	parts := 0
	count, at, ok := parseLength(rest, '*')
	if !ok {
		return shortOrDamaged(rest, '*')
	}
	for ; parts < count && parts < 3; parts++ {
		size, head, ok := parseLength(rest[at:], '$')
		if !ok {
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
	if rest == "" || rest[0] == mark && len(rest) < 16 && strings.Trim(rest[1:], "0123456789\r") == "" {
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
