package protocol

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, s := range []string{"a", "digits-2.1_b", strings.Repeat("n", 63)} {
		if err := CheckName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", ".a", "-a", "A", "a/b", "a b", strings.Repeat("n", 64)} {
		if err := CheckName(s); !errors.Is(err, ErrName) {
			t.Errorf("%q: got %v, want %v", s, err, ErrName)
		}
	}
	if err := CheckName("a..b"); !errors.Is(err, ErrName) || !strings.Contains(err.Error(), "no '..'") {
		t.Errorf("a..b: got %v, want the rule that it breaks", err)
	}
}
