package rollout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Difference is one place where two values of the same shape differ, as their
// JSON shows it.
type Difference struct {
	Path string `json:"path"`           // names joined by dots, for example waves.1.soak
	From string `json:"from,omitempty"` // JSON; "" where there is nothing
	To   string `json:"to,omitempty"`
}

// Differences compares two values by their JSON. Of lists, items are compared
// by their place; the path names them by their kind if both say the same. Of an object that is on one side alone every field is a
// difference; a list that is, is one.
func Differences(from, to any) ([]Difference, error) {
	a, err := tree(from)
	if err != nil {
		return nil, err
	}
	b, err := tree(to)
	if err != nil {
		return nil, err
	}
	return differ(nil, nil, a, b), nil
}

// tree is a value as JSON without types: objects are maps, numbers are text.
func tree(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber() // sequences of the ledger are whole beyond 2^53
	var out any
	if err := dec.Decode(&out); err != nil {
		return nil, fmt.Errorf("read %T again: %w", v, err)
	}
	return out, nil
}

func differ(found []Difference, path []string, a, b any) []Difference {
	aMap, aIs := a.(map[string]any)
	bMap, bIs := b.(map[string]any)
	if aIs && bIs || aIs && b == nil || a == nil && bIs {
		return differMaps(found, path, aMap, bMap)
	}
	aList, aIs := a.([]any)
	bList, bIs := b.([]any)
	if aIs && bIs {
		return differLists(found, path, aList, bList)
	}
	if from, to := leaf(a), leaf(b); from != to {
		found = append(found, Difference{Path: strings.Join(path, "."), From: from, To: to})
	}
	return found
}

func differMaps(found []Difference, path []string, a, b map[string]any) []Difference {
	keys := map[string]any{}
	maps.Copy(keys, a)
	maps.Copy(keys, b)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		found = differ(found, append(slices.Clip(path), key), a[key], b[key])
	}
	return found
}

func differLists(found []Difference, path []string, a, b []any) []Difference {
	at := func(list []any, i int) any {
		if i < len(list) {
			return list[i]
		}
		return nil
	}
	for i := range max(len(a), len(b)) {
		found = differ(found, append(slices.Clip(path), itemName(i, at(a, i), at(b, i))), at(a, i), at(b, i))
	}
	return found
}

func itemName(i int, a, b any) string {
	aMap, _ := a.(map[string]any)
	bMap, _ := b.(map[string]any)
	if kind, ok := aMap["kind"].(string); ok && kind == bMap["kind"] {
		return kind
	}
	return strconv.Itoa(i + 1)
}

// leaf is a value as JSON, "" for none.
func leaf(v any) string {
	if v == nil {
		return ""
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v) // maps, lists, texts and numbers: cannot be
	}
	return string(raw)
}

// Divergence is a recorded decision that does not follow from what is recorded
// before it.
type Divergence struct {
	Rollout string
	Seq     uint64    // ledger sequence of the decision
	At      time.Time // it was taken
	Refused error     // what the recorded command is answered; nil when it is obeyed
	// Differences are from what was recorded to what follows. None means that
	// the decision is the same and the digest of state and facts is not: a fact
	// is not the one it rests on.
	Differences []Difference
}

// maxShown bounds the differences that the text of a Divergence names.
const maxShown = 8

// Error names the first differences, one a line.
func (d *Divergence) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "decision %d of rollout %s, taken at %s, does not follow from its facts", d.Seq, d.Rollout, d.At.Format(time.RFC3339))
	switch {
	case d.Refused != nil:
		fmt.Fprintf(&b, ": its command is refused: %v", d.Refused)
	case len(d.Differences) == 0:
		b.WriteString(": the facts are not those it was taken on")
	}
	for _, x := range d.Differences[:min(len(d.Differences), maxShown)] {
		fmt.Fprintf(&b, "\n  %s: recorded %s, follows %s", x.Path, shown(x.From), shown(x.To))
	}
	if more := len(d.Differences) - maxShown; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	return b.String()
}

// Unwrap returns what the recorded command is answered, if it is refused.
func (d *Divergence) Unwrap() error { return d.Refused }

// shown is a leaf for people, cut where it is long.
func shown(leaf string) string {
	const long = 120
	switch {
	case leaf == "":
		return "nothing"
	case len(leaf) > long:
		return strings.ToValidUTF8(leaf[:long], "") + "…"
	default:
		return leaf
	}
}

// diverges compares a recorded decision with the one that follows.
func diverges(s *State, recorded, follows *Decision, seq uint64) (*Divergence, error) {
	d := &Divergence{Rollout: s.ID, Seq: seq, At: recorded.At}
	want, err := json.Marshal(recorded)
	if err != nil {
		return nil, fmt.Errorf("encode decision %d: %w", seq, err)
	}
	got, err := json.Marshal(follows)
	if err != nil {
		return nil, fmt.Errorf("encode decision %d: %w", seq, err)
	}
	if !bytes.Equal(want, got) { // the usual case must cost no comparison of trees
		d.Differences, err = Differences(recorded, follows)
	}
	return d, err
}
