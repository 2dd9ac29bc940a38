package protocol

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestCheckLabels(t *testing.T) {
	for name, value := range map[string]string{"site": "a", "x": "", "example.com/Line": "A_1.b-2", "v": strings.Repeat("v", MaxLabelValue)} {
		if err := CheckLabels(map[string]string{name: value}); err != nil {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	for name, value := range map[string]string{
		"": "x", "a b": "c", "site": "<b>x</b>", "s": "../..", "a/b/c": "d", "-a": "b", "v": strings.Repeat("v", MaxLabelValue+1), "e": "\x1b[2J",
	} {
		if err := CheckLabels(map[string]string{name: value}); !errors.Is(err, ErrLabel) {
			t.Errorf("%q=%q: got %v, want %v", name, value, err, ErrLabel)
		}
	}
	many := map[string]string{}
	for i := range MaxLabels + 1 {
		many[fmt.Sprintf("l%d", i)] = "x"
	}
	if err := CheckLabels(many); !errors.Is(err, ErrLabel) {
		t.Errorf("%d labels: got %v, want %v", len(many), err, ErrLabel)
	}
}
