package protocol

import (
	"cmp"
	"fmt"
	"strings"
)

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

// MeteredText says for people whether a link is metered.
func MeteredText(metered string) string {
	switch metered {
	case MeteredYes:
		return "metered"
	case MeteredNo:
		return "not metered"
	}
	return "not known whether metered"
}

// PowerText says for people what a device lives on, and to how many percent its
// battery is charged, 0 for not known.
func PowerText(power string, percent int) string {
	text := cmp.Or(power, "not known")
	if percent > 0 {
		text += fmt.Sprintf(", charged to %d%%", percent)
	}
	return text
}
