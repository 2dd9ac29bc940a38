package tracking

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// Patterns and texts of few characters, so that they often fit.
func TestLikeIsThatOfSQL(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	draw := func(of []string) string {
		var b strings.Builder
		for range rng.IntN(8) {
			b.WriteString(of[rng.IntN(len(of))])
		}
		return b.String()
	}
	fits := 0
	for range 20_000 {
		pattern, text := draw([]string{"a", "ö", "%", "_"}), draw([]string{"a", "ö", "b"})
		want := regexp.MustCompile(`(?s)^` + strings.NewReplacer("%", ".*", "_", ".").Replace(pattern) + `$`).MatchString(text)
		if want {
			fits++
		}
		if got := matches(pattern, text); got != want {
			t.Fatalf("%q LIKE %q: got %v, want %v", text, pattern, got, want)
		}
	}
	if fits < 1000 {
		t.Errorf("only %d of the texts are like their pattern", fits)
	}
}

// Anybody who may look can search: a pattern that fits nearly everywhere must
// not be tried everywhere to its end.
func TestLikeIsLinear(t *testing.T) {
	const size = 1 << 22
	text := strings.Repeat("a", size)
	if matches("%"+text[:size/2]+"b%", text) {
		t.Error("a text without b is like a pattern with it")
	}
}
