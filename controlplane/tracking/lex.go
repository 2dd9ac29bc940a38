package tracking

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind of a token of the search language.
type kind string

const (
	endKind  kind = "the end"
	wordKind kind = "a word"
	textKind kind = "a text in quotes"
	opKind   kind = "a comparison"
	signKind kind = "a sign" // ( ) ,
)

// token is a piece of a filter or of an order.
type token struct {
	kind  kind
	text  string
	quote byte // of a quoted one: ' " or `
	at    int  // bytes before it
}

func (t token) String() string {
	if t.kind == endKind {
		return string(endKind)
	}
	return fmt.Sprintf("%.40q", t.text)
}

// is says whether the token is a key word of the language.
func (t token) is(word string) bool { return t.kind == wordKind && strings.EqualFold(t.text, word) }

// maxQuery bounds a filter in bytes.
const maxQuery = 16 << 10

// lex takes a text apart. The last token is the end.
func lex(text string) ([]token, error) {
	if len(text) > maxQuery {
		return nil, refuse(Invalid, "a filter of %d bytes, at most %d are allowed", len(text), maxQuery)
	}
	var out []token
	for at := 0; ; {
		rest := strings.TrimLeftFunc(text[at:], unicode.IsSpace)
		at = len(text) - len(rest)
		if rest == "" {
			return append(out, token{kind: endKind, at: at}), nil
		}
		t, n := lexOne(rest)
		if n == 0 {
			return nil, wrong(at, "%q begins nothing that is known here", firstRune(rest))
		}
		if n < 0 {
			return nil, wrong(at, "the quote %c is not closed", rest[0])
		}
		t.at = at
		out = append(out, t)
		at += n
	}
}

// lexOne reads one token and tells its length: 0 for none, -1 for a quote that is
// not closed.
func lexOne(rest string) (token, int) {
	switch c := rest[0]; c {
	case '\'', '"', '`':
		end := strings.IndexByte(rest[1:], c)
		if end < 0 {
			return token{}, -1
		}
		return token{kind: textKind, text: rest[1 : 1+end], quote: c}, end + 2
	case '(', ')', ',':
		return token{kind: signKind, text: rest[:1]}, 1
	case '=', '!', '<', '>':
		for _, op := range []string{"!=", "<=", ">=", "<>", "==", "=", "<", ">"} {
			if strings.HasPrefix(rest, op) {
				return token{kind: opKind, text: op}, len(op)
			}
		}
		return token{}, 0
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return !wordRune(r) })
	if end < 0 {
		end = len(rest)
	}
	return token{kind: wordKind, text: rest[:end]}, end
}

// wordRune says what may stand in a key without quotes, and in a number.
func wordRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_.-+/@", r)
}

func firstRune(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return s[:n]
}

// wrong is an error at a place of a query.
func wrong(at int, format string, args ...any) error {
	return refuse(Invalid, "at character %d: %s", at+1, fmt.Sprintf(format, args...))
}
