package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

// configFile is a configuration file that was read: which line says what, and
// what is wrong with it.
type configFile struct {
	path     string
	found    bool
	source   map[string]source // of settings that are not the default, by path
	problems []problem
}

// source is where a setting comes from: a line of the file, or a flag or an
// environment variable by its name.
type source struct {
	line int
	name string
}

// problem is one thing that is wrong, in a line of the file when that is known.
type problem struct {
	line      int
	wholeFile bool
	text      string
}

// reportFunc takes what is wrong with the setting of that path.
type reportFunc func(path, problem string)

// readConfig reads the file into s, a pointer to a struct with yaml tags. What
// is wrong inside the file is left for check, so that all of it is told at once.
func readConfig(path string, s any) (*configFile, error) {
	raw, err := readBounded(path, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	f := &configFile{path: path, found: true}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var document yaml.Node
	if err := dec.Decode(&document); errors.Is(err, io.EOF) {
		return f, nil // empty: all defaults
	} else if err != nil {
		f.problems = append(f.problems, syntaxProblem(err))
		return f, nil
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		f.problems = append(f.problems, problem{wholeFile: true, text: `holds more than one document ("---"): only the first would count`})
	}
	f.fill(document.Content[0], reflect.ValueOf(s).Elem(), "")
	return f, nil
}

// fill sets v to what the node says.
func (f *configFile) fill(n *yaml.Node, v reflect.Value, path string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Tag == "!!null" {
		return // "key:" with nothing behind it leaves the default
	}
	if v.Kind() == reflect.Struct {
		f.fillStruct(n, v, path)
		return
	}
	if v.Kind() == reflect.Map {
		f.fillMap(n, v, path)
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(n, v.Elem(), path)
		return
	}
	f.setBy(path, "")
	f.source[path] = source{line: n.Line}
	err := n.Decode(v.Addr().Interface())
	if err != nil || (isWhole(v.Type()) && n.ShortTag() != "!!int") { // the parser would cut a fraction off
		f.problem(n.Line, fmt.Sprintf("%s: %s is not %s", path, written(n), kindName(v.Type())))
	}
}

func (f *configFile) fillStruct(n *yaml.Node, v reflect.Value, path string) {
	fields := map[string]reflect.Value{}
	var known []string
	for i := range v.NumField() {
		name := yamlName(v.Type().Field(i))
		fields[name], known = v.Field(i), append(known, name)
	}
	f.pairs(n, path, func(key, value *yaml.Node) {
		field, ok := fields[key.Value]
		if !ok {
			f.problem(key.Line, unknownKey(join(path, key.Value), key.Value, path, known))
			return
		}
		f.fill(value, field, join(path, key.Value))
	})
}

func (f *configFile) fillMap(n *yaml.Node, v reflect.Value, path string) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	f.pairs(n, path, func(key, value *yaml.Node) {
		element := reflect.New(v.Type().Elem()).Elem()
		f.setBy(join(path, key.Value), "")
		f.source[join(path, key.Value)] = source{line: key.Line}
		f.fill(value, element, join(path, key.Value))
		v.SetMapIndex(reflect.ValueOf(key.Value), element)
	})
}

// pairs visits what a mapping holds, each key once.
func (f *configFile) pairs(n *yaml.Node, path string, visit func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		f.problem(n.Line, cmp.Or(path, "the file")+` is not a list of settings ("key: value", one a line)`)
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if first, twice := lines[key.Value]; twice {
			f.problem(key.Line, fmt.Sprintf("%s is set twice, in line %d already", join(path, key.Value), first))
			continue
		}
		lines[key.Value] = key.Line
		visit(key, n.Content[i+1])
	}
}

// setBy notes that a flag or an environment variable sets what the path names.
func (f *configFile) setBy(path, name string) {
	if f.source == nil {
		f.source = map[string]source{}
	}
	f.source[path] = source{name: name}
}

func (f *configFile) problem(line int, text string) {
	f.problems = append(f.problems, problem{line: line, text: text})
}

// syntaxProblem takes the line out of the parser's message.
func syntaxProblem(err error) problem {
	p := problem{wholeFile: true, text: strings.TrimPrefix(err.Error(), "yaml: ")}
	if rest, ok := strings.CutPrefix(p.text, "line "); ok {
		number, text, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			return problem{line: line, text: text}
		}
	}
	return p
}

// check adds what is wrong with the settings to what is wrong with the file,
// and returns all of it.
func (f *configFile) check(s interface{ check(report reportFunc) }) error {
	s.check(func(path, text string) {
		from := f.source[path]
		f.problem(from.line, cmp.Or(from.name, path)+": "+text)
	})
	if len(f.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(f.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	lines := make([]string, len(f.problems))
	for i, p := range f.problems {
		lines[i] = f.at(p)
	}
	return &usageError{&configError{lines}}
}

// at writes a problem the way compilers do.
func (f *configFile) at(p problem) string {
	switch {
	case p.line > 0:
		return f.path + ":" + strconv.Itoa(p.line) + ": " + p.text
	case p.wholeFile:
		return f.path + ": " + p.text
	}
	return p.text // of a flag or the environment, which it names
}

// configError is everything that is wrong with a configuration.
type configError struct{ problems []string }

func (e *configError) Error() string { return strings.Join(e.problems, "\n") }

// unknownKey says which key may have been meant.
func unknownKey(path, key, parent string, known []string) string {
	if similar := alike(key, known); len(similar) > 0 {
		return fmt.Sprintf("unknown setting %q: did you mean %s?", path, strings.Join(similar, " or "))
	}
	where := "known here are "
	if parent != "" {
		where = "known in " + parent + " are "
	}
	return fmt.Sprintf("unknown setting %q: %s%s", path, where, strings.Join(known, ", "))
}

// alike are the words that come nearest to one that is none of them: those that
// begin with it, or are up to two letters away, but no more than a third of it.
func alike(word string, known []string) []string {
	guess := &cobra.Command{} // cobra compares words well
	for _, k := range known {
		guess.AddCommand(&cobra.Command{Use: k, Run: func(*cobra.Command, []string) {}})
	}
	for distance := range min(2, len(word)/3) {
		guess.SuggestionsMinimumDistance = distance + 1
		if similar := guess.SuggestionsFor(word); len(similar) > 0 {
			return similar
		}
	}
	return nil
}

// yamlName is a field's key in the file.
func yamlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// written is a value as the file has it, shortened.
func written(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return "what stands there"
	}
	return strconv.Quote(n.Value[:min(len(n.Value), 60)])
}

// kindName says what a setting of that type holds.
func kindName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return `a duration such as "500ms", "30s" or "5m"`
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return "a whole number that is not negative"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return "a whole number"
	case t.Kind() == reflect.Float64, t.Kind() == reflect.Float32:
		return "a number"
	case t.Kind() == reflect.Slice:
		return "a list such as [a, b]"
	}
	return "a text"
}

// isWhole says whether a setting of that type is a whole number.
func isWhole(t reflect.Type) bool {
	return t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64 && t != reflect.TypeFor[time.Duration]()
}

// checkAddress reports what is not host:port.
func checkAddress(report reportFunc, path, address string) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		report(path, fmt.Sprintf("%q is not an address such as 127.0.0.1:8100", address))
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		report(path, fmt.Sprintf("%q is not a port: it must be 0 (any free one) to 65535", port))
	}
}

// checkOneOf reports a value that is none of those allowed.
func checkOneOf(report reportFunc, path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		report(path, fmt.Sprintf("%q is none of %s", value, strings.Join(allowed, ", ")))
	}
}

// sourceOf says where a setting comes from, for people.
func (f *configFile) sourceOf(path string) string {
	switch from, ok := f.source[path]; {
	case !ok:
		return "default"
	case from.name != "":
		return from.name
	default:
		return f.path + ":" + strconv.Itoa(from.line)
	}
}
