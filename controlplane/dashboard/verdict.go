package dashboard

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// testFields are the rules of the test that a challenger goes through.
func testFields() []field {
	return []field{
		{Name: "margin", Label: "Margin, percent", Hint: "How much worse it may be at most, as a part of the rate of what serves. Empty is 25."},
		{Name: "days", Label: "Days until a human is asked", Hint: "If nothing is proven by then. Empty is 14."},
	}
}

// testRules reads them into a challenge; what is empty takes the default.
func testRules(form url.Values, n *operator.ChallengeCreate) error {
	if text := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(form.Get("margin")), "%")); text != "" {
		percent, err := strconv.ParseFloat(text, 64)
		if err != nil || !(percent > 0 && percent <= 1000) {
			return operator.Errorf(operator.Invalid, "margin %.20q is no percentage above 0 and up to 1000", text)
		}
		n.Margin = percent / 100
	}
	if text := strings.TrimSpace(form.Get("days")); text != "" {
		days, err := strconv.ParseUint(text, 10, 8)
		if err != nil || days == 0 {
			return operator.Errorf(operator.Invalid, "%.20q is no number of days from 1 to 180", text)
		}
		n.Duration = release.Duration(time.Duration(days) * 24 * time.Hour)
	}
	return nil
}
