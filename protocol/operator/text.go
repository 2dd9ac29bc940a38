package operator

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// IsControl says whether a terminal or a page would obey r instead of showing
// it: control characters, and those that turn the direction of text.
func IsControl(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// CheckText refuses a text that is kept and shown to others, such as a reason,
// when part of it would not be shown but obeyed. The error's code is Invalid.
func CheckText(what, text string) error {
	if !utf8.ValidString(text) {
		return Errorf(Invalid, "the %s is not UTF-8", what)
	}
	if i := strings.IndexFunc(text, IsControl); i >= 0 {
		return Errorf(Invalid, "the %s has a control character at byte %d", what, i).WithHint("give it as one line of plain text")
	}
	return nil
}
