package operator

import "testing"

func TestCheckText(t *testing.T) {
	for _, text := range []string{"", "trained with faded images", "größer → besser, 新しい"} {
		if err := CheckText("reason", text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"\x1b[31mred\x1b[2J", "two\nlines", "a\tb", "\x00", "\x7f", "\u009b31m", "\u202eevil", "\xff"} {
		if err := CheckText("reason", text); CodeOf(err) != Invalid {
			t.Errorf("%q: got %v, want invalid", text, err)
		}
	}
}
