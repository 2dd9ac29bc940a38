package rollout

import (
	"fmt"

	"github.com/vedette-edge/vedette/protocol/document"
)

// FormatSpec writes a spec as people write it, in YAML with its fields in the
// order of the documentation: ParseSpec reads it. A value that has the same JSON
// as a Spec will do.
func FormatSpec(spec any) ([]byte, error) {
	b, err := document.Format(spec)
	if err != nil {
		return nil, fmt.Errorf("write spec: %w", err)
	}
	return b, nil
}
