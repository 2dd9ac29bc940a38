package rollout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// UnmarshalJSON reads a budget, or a bare number as its InFlight.
func (b *Budget) UnmarshalJSON(data []byte) error {
	if n := 0; json.Unmarshal(data, &n) == nil {
		*b = Budget{InFlight: n}
		return nil
	}
	type plain Budget
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode((*plain)(b)); err != nil {
		return fmt.Errorf("budget: %w", err)
	}
	return nil
}

// Labels are those whose values the budgets bound devices by, in order.
func (s *Spec) Labels() []string {
	var out []string
	for _, u := range slices.Concat(s.Budget.Unavailable, s.Revert.Unavailable) {
		out = append(out, u.Label)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (b Budget) check() error {
	switch {
	case b.InFlight < 0:
		return fmt.Errorf("in_flight is %d, must not be negative", b.InFlight)
	case b.PerMinute < 0:
		return fmt.Errorf("per_minute is %d, must not be negative", b.PerMinute)
	case b.BytesPerSecond < 0:
		return fmt.Errorf("bytes_per_second is %d, must not be negative", b.BytesPerSecond)
	}
	for _, u := range b.Unavailable {
		switch {
		case u.Label == "":
			return errors.New("unavailable needs a label")
		case (u.Max > 0) == (u.Percent > 0) || u.Max < 0 || u.Percent < 0 || u.Percent > 100 || math.IsNaN(u.Percent):
			return fmt.Errorf("unavailable by %s: exactly one of max and percent (at most 100) must be above zero", u.Label)
		}
	}
	return nil
}
