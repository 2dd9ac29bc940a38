// Package document reads what people write in YAML or JSON: specs of rollouts,
// policies, settings. Fields that a type does not know are refused, because a
// misspelt limit must not be a missing limit, and what does not fit is told with
// its line and field. Fields have the names they have in JSON.
package document

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/vedette-edge/vedette/protocol/release"
)

// MaxSize bounds a document, bytes.
const MaxSize = 64 << 10

// maxWrittenOut bounds a document whose aliases are written out, bytes, and
// nodeCost is what each of its values counts for at least.
const (
	maxWrittenOut = 16 * MaxSize
	nodeCost      = 16
)

// ErrTooLarge says that a document is over its limit.
var ErrTooLarge = errors.New("the document is too large")

// Wanted is implemented by structs that can be written as one word too. It says
// what that word is, and is followed by the names of the fields.
type Wanted interface{ Wanted() string }

// Parse reads a document of at most MaxSize bytes. A number, date or bool where
// text belongs is taken as it is written, so a version needs no quotes. An empty
// document is the zero value. Nothing is validated. Errors call it what, such as
// "the policy".
func Parse[T any](data []byte, what string) (T, error) {
	var out T
	if len(data) > MaxSize {
		return out, fmt.Errorf("%w: it has %d bytes, at most %d", ErrTooLarge, len(data), MaxSize)
	}
	err := parse(data, what, &out)
	return out, err
}

func parse[T any](data []byte, what string, out *T) error {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return err
	}
	if root.Kind != yaml.DocumentNode {
		return nil // nothing but comments
	}
	if room := maxWrittenOut; !fits(&root, &room) {
		return fmt.Errorf("%w: with its aliases written out it has over %d bytes", ErrTooLarge, maxWrittenOut)
	}
	v := reader{what: what, seen: map[visit]bool{}}
	if err := v.read(root.Content[0], reflect.TypeFor[T](), ""); err != nil {
		return err
	}
	var tree any
	if err := root.Decode(&tree); err != nil {
		return err
	}
	asJSON, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(asJSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil && !errors.Is(err, io.EOF) {
		*out = *new(T)
		return err
	}
	return nil
}

// fits says whether a value takes no more than the room there is when every alias
// is written out, and takes it. An alias inside of itself never fits.
func fits(n *yaml.Node, room *int) bool {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if *room -= nodeCost + len(n.Value); *room < 0 {
		return false
	}
	for _, c := range n.Content {
		if !fits(c, room) {
			return false
		}
	}
	return true
}

// reader goes over a document as it is written, beside the types that it is to
// become, so that what does not fit is told with its line.
type reader struct {
	what string
	seen map[visit]bool
}

// visit is one place that was looked at: aliases make a tree that is larger than
// its text.
type visit struct {
	n *yaml.Node
	t reflect.Type
}

// read checks one value and turns scalars into text where the type is text.
func (v reader) read(n *yaml.Node, t reflect.Type, path string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	at := visit{n, t}
	if v.seen[at] || n.Tag == "!!null" {
		return nil
	}
	v.seen[at] = true
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.ScalarNode:
		return v.readScalar(n, t, path)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range n.Content {
			if err := v.read(item, t.Elem(), fmt.Sprintf("%s.%d", path, i+1)); err != nil {
				return err
			}
		}
		return nil
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct && !isText(t):
		return v.readFields(n, t, path)
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Map:
		return v.readMap(n, t, path)
	}
	return v.misfit(n, t, path)
}

func (v reader) readFields(n *yaml.Node, t reflect.Type, path string) error {
	fields := fieldsOf(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			return fmt.Errorf("line %d: %s: write the fields out, << is not taken", key.Line, v.place(path))
		}
		field, known := fields[key.Value]
		if !known {
			return fmt.Errorf("line %d: %s has no field %q: %s", key.Line, v.place(path), key.Value, nearest(key.Value, fields))
		}
		if err := v.read(value, field, strings.TrimPrefix(path+"."+key.Value, ".")); err != nil {
			return err
		}
	}
	return nil
}

// readMap checks the values of a map; its keys are text.
func (v reader) readMap(n *yaml.Node, t reflect.Type, path string) error {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			return fmt.Errorf("line %d: %s: names must be words", key.Line, v.place(path))
		}
		key.Tag = "!!str"
		if err := v.read(value, t.Elem(), strings.TrimPrefix(path+"."+key.Value, ".")); err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf are the types of the fields of a struct by their name in JSON.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out[name] = f.Type
	}
	return out
}

// readScalar checks one word of a document by reading it alone.
func (v reader) readScalar(n *yaml.Node, t reflect.Type, path string) error {
	if t.Kind() == reflect.String {
		n.Tag = "!!str"
		return nil
	}
	var word any
	if err := n.Decode(&word); err != nil {
		return fmt.Errorf("line %d: %s: %w", n.Line, v.place(path), err)
	}
	asJSON, err := json.Marshal(word)
	if err != nil {
		return fmt.Errorf("line %d: %s: %w", n.Line, v.place(path), err)
	}
	if json.Unmarshal(asJSON, reflect.New(t).Interface()) != nil {
		return v.misfit(n, t, path)
	}
	return nil
}

func (v reader) misfit(n *yaml.Node, t reflect.Type, path string) error {
	is := map[yaml.Kind]string{yaml.MappingNode: "has fields", yaml.SequenceNode: "is a list"}[n.Kind]
	if is == "" {
		is = fmt.Sprintf("is %q", n.Value)
	}
	return fmt.Errorf("line %d: %s %s, must be %s", n.Line, v.place(path), is, wanted(t))
}

// wanted says what a value of a type looks like.
func wanted(t reflect.Type) string {
	if w, ok := reflect.TypeAssert[Wanted](reflect.Zero(t)); ok {
		return w.Wanted() + known(fieldsOf(t))
	}
	switch {
	case t == reflect.TypeFor[release.Duration]():
		return "a duration such as 30m or 12h"
	case t == reflect.TypeFor[time.Time]():
		return "a time such as 2026-12-01T22:00:00+01:00"
	case t == reflect.TypeFor[release.Digest]():
		return "a digest in hex"
	}
	switch t.Kind() { //nolint:exhaustive // a document has no others
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number that is not negative"
	case reflect.Map:
		return "names, each with a value"
	case reflect.Slice:
		return "a list, each item after a dash"
	case reflect.Struct:
		return "fields: " + known(fieldsOf(t))
	default:
		return "text"
	}
}

// isText says that a struct is written as one word.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// place names where something is.
func (v reader) place(path string) string {
	if path == "" {
		return v.what
	}
	return path
}

func known(fields map[string]reflect.Type) string { return strings.Join(names(fields), ", ") }

func names(fields map[string]reflect.Type) []string {
	out := make([]string, 0, len(fields))
	for name := range fields {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// nearest offers the field that was perhaps meant, or all there are.
func nearest(word string, fields map[string]reflect.Type) string {
	const far = 3 // edits
	best, least := "", far
	for _, name := range names(fields) {
		if d := edits(strings.ToLower(word), name); d < least {
			best, least = name, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "there are " + known(fields)
}

// edits is how many letters have to be put in, taken out or changed to get from
// one word to another.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}
