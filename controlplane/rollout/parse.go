package rollout

import (
	"fmt"

	"github.com/vedette-edge/vedette/protocol/document"
)

// ParseSpec reads a spec from YAML or JSON. Fields it does not know are
// refused: a misspelt gate must not be a missing gate. A number, date or bool
// where text belongs is taken as it is written, so a version needs no quotes.
// Defaults are not filled in and nothing is validated.
func ParseSpec(data []byte) (Spec, error) {
	if len(data) > MaxSpecSize {
		return Spec{}, fmt.Errorf("%w: has %d bytes, at most %d", ErrSpec, len(data), MaxSpecSize)
	}
	s, err := document.Parse[Spec](data, "the spec")
	if err != nil {
		return Spec{}, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return s, nil
}

// Wanted implements document.Wanted.
func (Budget) Wanted() string { return "a number of devices under way, or have the fields " }
