package protocol

import "strings"

// Brief is text in at most limit bytes, not counting the "…" in place of what is
// left out. It ends with a whole word where one ends in the second half.
func Brief(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	short := strings.ToValidUTF8(text[:limit], "")
	if end := strings.LastIndexByte(short, ' '); text[limit] != ' ' && end >= limit/2 {
		short = short[:end]
	}
	return strings.TrimRight(short, " ,;:") + "…"
}
