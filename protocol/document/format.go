package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"

	"gopkg.in/yaml.v3"
)

// Format writes a document as people write it, in YAML with its fields in the
// order of their type: Parse reads it.
func Format(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write document: %w", err)
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(b, &tree); err != nil { // JSON is YAML
		return nil, fmt.Errorf("write document: %w", err)
	}
	plain(&tree)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&tree); err != nil {
		return nil, fmt.Errorf("write document: %w", err)
	}
	return out.Bytes(), nil
}

// zeroUnits are durations that end with units of which there are none.
var zeroUnits = regexp.MustCompile(`^(\d+h)0m0s$|^((\d+h)?\d+m)0s$`)

// plain takes JSON's braces and quotes out, and what durations say of nothing.
func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Value = zeroUnits.ReplaceAllString(n.Value, "$1$2")
	}
	for _, c := range n.Content {
		plain(c)
	}
}
