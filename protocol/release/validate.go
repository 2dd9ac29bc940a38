package release

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vedette-edge/vedette/protocol"
)

// Bounds of a manifest. They are far above what a model needs and far below
// what would hurt a device that reads a hostile one.
const (
	MaxFile     = 16 << 30 // bytes of one file
	MaxVariants = 16
	MaxTensors  = 64    // inputs or outputs
	MaxFeatures = 16384 // of one tensor
	MaxClasses  = 16384
	MaxMetrics  = 256
	MaxText     = 256 // bytes of one free text
	// MaxSequence is the largest integer that every JSON reader holds exactly.
	MaxSequence = 1<<53 - 1
)

// ManifestName is the name under which the manifest itself lies beside a
// release's files, so no file may be called so.
const ManifestName = "manifest.json"

var (
	fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	semver   = regexp.MustCompile(`^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z.-]{1,64})?$`)
)

// datatypes are the names of the Open Inference Protocol, version 2, with the
// bytes of one element; 0 where elements differ.
var datatypes = map[string]int{
	"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
	"FP16": 2, "FP32": 4, "FP64": 8, "BYTES": 0, "BF16": 2,
}

// ElementSize is how many bytes one element of a datatype takes; 0 for BYTES,
// whose elements differ, and for what is no datatype.
func ElementSize(datatype string) int { return datatypes[datatype] }

// Validate says what may not be in a manifest. Every error wraps ErrInvalid and
// names the field.
func (m *Manifest) Validate() error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return nil
}

func (m *Manifest) validate() error {
	if err := m.checkFormat(); err != nil {
		return err
	}
	if err := protocol.CheckName(m.Model); err != nil {
		return invalid("model", "%w", err)
	}
	if err := protocol.CheckName(m.Version); err != nil {
		return invalid("version", "%w", err)
	}
	if m.Sequence < 1 || m.Sequence > MaxSequence {
		return invalid("sequence", "is %d, must be 1 to %d", m.Sequence, uint64(MaxSequence))
	}
	return errors.Join(m.checkVariants(), m.checkFiles(), m.Schema.Validate(), m.Limits.check(), m.Lineage.check(), m.Sampling.check(&m.Schema))
}

// LeastFormat is the format of a manifest with these fields: what Format must be.
func (m *Manifest) LeastFormat() int {
	if m.Lineage.Source != "" || m.Sampling != nil {
		return FormatSample
	}
	return Format
}

// checkFormat refuses a format other than the least one: with two spellings one
// content would have two digests.
func (m *Manifest) checkFormat() error {
	if m.Format < Format || m.Format > FormatSample {
		return invalid("format", "is %d, this program reads %d to %d: use a program of the same age as the one that packed it", m.Format, Format, FormatSample)
	}
	if least := m.LeastFormat(); m.Format != least {
		return invalid("format", "is %d, a manifest with these fields has %d", m.Format, least)
	}
	return nil
}

func (m *Manifest) checkVariants() error {
	if n := len(m.Variants); n < 1 || n > MaxVariants {
		return invalid("variants", "are %d, must be 1 to %d", n, MaxVariants)
	}
	names := map[string]bool{}
	for _, v := range m.Variants {
		at := "variant " + fmt.Sprintf("%q", v.Name)
		if err := protocol.CheckName(v.Name); err != nil {
			return invalid("variants", "%w", err)
		}
		if names[v.Name] {
			return invalid(at, "is named twice")
		}
		names[v.Name] = true
		if !slices.Contains([]string{"fp32", "fp16", "int8"}, v.Precision) {
			return invalid(at, "has precision %q, must be fp32, fp16 or int8", v.Precision)
		}
		if err := checkTexts(at, append(slices.Clone(v.Providers), v.Arch...)...); err != nil {
			return err
		}
	}
	return nil
}

// checkFiles refuses names that could leave a folder and names or digests that
// mean two things. The same file may be named by several variants.
func (m *Manifest) checkFiles() error {
	byName, byDigest := map[string]File{}, map[Digest]File{}
	for _, f := range m.allFiles() {
		if err := f.check(); err != nil {
			return err
		}
		if other, ok := byName[f.Name]; ok && other != f {
			return invalid(fmt.Sprintf("file %q", f.Name), "is named twice with different content")
		}
		if other, ok := byDigest[f.Digest]; ok && other.Size != f.Size {
			return invalid(fmt.Sprintf("file %q", f.Name), "has the digest of %q and another size", other.Name)
		}
		byName[f.Name], byDigest[f.Digest] = f, f
	}
	return nil
}

func (f File) check() error {
	at := fmt.Sprintf("file %q", f.Name)
	switch {
	case !fileName.MatchString(f.Name) || strings.Contains(f.Name, ".."):
		return invalid(at, "must have a plain name: letters, digits, '.', '_' and '-', no path, no \"..\"")
	case f.Name == ManifestName:
		return invalid(at, "has the name of the manifest itself")
	case f.Digest.IsZero():
		return invalid(at, "has no digest")
	case f.Size < 1 || f.Size > MaxFile:
		return invalid(at, "has size %d, must be 1 to %d bytes", f.Size, int64(MaxFile))
	}
	return nil
}

// Validate says what may not be in a schema. Every error wraps ErrInvalid.
func (s *Schema) Validate() error {
	if err := checkTensors("input", s.Inputs); err != nil {
		return err
	}
	if err := checkTensors("output", s.Outputs); err != nil {
		return err
	}
	for _, t := range s.Outputs {
		if len(t.Features) > 0 {
			return invalid(fmt.Sprintf("output %q", t.Name), "has features, only inputs do")
		}
	}
	if err := s.checkClasses(); err != nil {
		return err
	}
	if s.Label != "" && s.Output(s.Label) == nil {
		return invalid("label", "names output %q, which the schema does not have", s.Label)
	}
	return s.checkScores()
}

// Input is the input of that name, or nil.
func (s *Schema) Input(name string) *Tensor { return find(s.Inputs, name) }

// Output is the output of that name, or nil.
func (s *Schema) Output(name string) *Tensor { return find(s.Outputs, name) }

func find(ts []Tensor, name string) *Tensor {
	i := slices.IndexFunc(ts, func(t Tensor) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return &ts[i]
}

func (s *Schema) checkClasses() error {
	if len(s.Classes) > MaxClasses {
		return invalid("classes", "are %d, at most %d", len(s.Classes), MaxClasses)
	}
	if err := checkTexts("classes", s.Classes...); err != nil {
		return err
	}
	if dup, ok := duplicate(s.Classes); ok {
		return invalid("classes", "name %q twice", dup)
	}
	return nil
}

func (s *Schema) checkScores() error {
	if s.Scores == "" {
		return nil
	}
	t := s.Output(s.Scores)
	if t == nil {
		return invalid("scores", "names output %q, which the schema does not have", s.Scores)
	}
	if len(t.Shape) != 2 {
		return invalid("scores", "output %q has %d dimensions, must be [N, classes]", t.Name, len(t.Shape))
	}
	if k := t.Shape[1]; k > 0 && len(s.Classes) > 0 && k != int64(len(s.Classes)) {
		return invalid("scores", "output %q has %d columns for %d classes", t.Name, k, len(s.Classes))
	}
	return nil
}

func checkTensors(side string, ts []Tensor) error {
	if n := len(ts); n < 1 || n > MaxTensors {
		return invalid(side+"s", "are %d, must be 1 to %d", n, MaxTensors)
	}
	names := map[string]bool{}
	for _, t := range ts {
		at := fmt.Sprintf("%s %q", side, t.Name)
		if err := t.check(at); err != nil {
			return err
		}
		if names[t.Name] {
			return invalid(at, "is named twice")
		}
		names[t.Name] = true
	}
	return nil
}

func (t *Tensor) check(at string) error {
	if err := checkTexts(at, t.Name); err != nil {
		return err
	}
	if _, known := datatypes[t.Datatype]; !known {
		return invalid(at, "has datatype %q, must be one of %s", t.Datatype, strings.Join(slices.Sorted(maps.Keys(datatypes)), ", "))
	}
	if n := len(t.Shape); n < 1 || n > 8 {
		return invalid(at, "has %d dimensions, must be 1 to 8, the batch first", n)
	}
	for _, d := range t.Shape {
		if d != -1 && (d < 1 || d > math.MaxInt32) {
			return invalid(at, "has dimension %d, must be -1 (free) or 1 to %d", d, math.MaxInt32)
		}
	}
	return t.checkFeatures(at)
}

func (t *Tensor) checkFeatures(at string) error {
	if len(t.Features) == 0 {
		return nil
	}
	n, fixed := t.RowSize()
	if len(t.Features) > MaxFeatures || (fixed && n != int64(len(t.Features))) {
		return invalid(at, "has %d features for rows of %d values", len(t.Features), n)
	}
	names := make([]string, len(t.Features))
	for i, f := range t.Features {
		names[i] = f.Name
		if err := f.check(fmt.Sprintf("%s feature %q", at, f.Name)); err != nil {
			return err
		}
	}
	if dup, ok := duplicate(names); ok {
		return invalid(at, "has two features named %q", dup)
	}
	return nil
}

// RowSize is how many values one row has: the product of all dimensions but
// the first. It reports false when one of them is free.
func (t *Tensor) RowSize() (n int64, fixed bool) {
	n = 1
	for _, d := range t.Shape[min(1, len(t.Shape)):] {
		if d < 1 {
			return 0, false
		}
		if n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

func (f *Feature) check(at string) error {
	if err := checkTexts(at, f.Name); err != nil {
		return err
	}
	if f.Unit != "" {
		if err := checkTexts(at+" unit", f.Unit); err != nil {
			return err
		}
	}
	if !slices.Contains([]string{"", "nan", "refuse"}, f.Missing) {
		return invalid(at, "has missing %q, must be nan or refuse", f.Missing)
	}
	for _, v := range []*float64{f.Min, f.Max} {
		if v != nil && !plainNumber(*v) {
			return invalid(at, "has a range that is not finite or is negative zero")
		}
	}
	if f.Min != nil && f.Max != nil && *f.Min > *f.Max {
		return invalid(at, "has min %g above max %g", *f.Min, *f.Max)
	}
	return nil
}

func (l *Limits) check() error {
	if l.P95 < 0 {
		return invalid("limits", "p95 %v is negative", l.P95)
	}
	if l.MemoryBytes > MaxSequence {
		return invalid("limits", "memory_bytes %d is above %d", l.MemoryBytes, uint64(MaxSequence))
	}
	for name, v := range map[string]string{"min_agent": l.MinAgent, "min_runtime": l.MinRuntime} {
		if v != "" && !semver.MatchString(v) {
			return invalid("limits", "%s %q is not a semantic version such as 1.30.0", name, v)
		}
	}
	return nil
}

func (l *Lineage) check() error {
	if l.Created.IsZero() || l.Created.Location() != time.UTC || l.Created.Year() > 9999 {
		return invalid("lineage", "created %v must be a time in UTC", l.Created)
	}
	for _, s := range []string{l.Author, l.Run, l.Source, l.DataVersion, l.Commit} {
		if s == "" {
			continue
		}
		if err := checkTexts("lineage", s); err != nil {
			return err
		}
	}
	if l.Parent != nil && l.Parent.IsZero() {
		return invalid("lineage", "parent is all zeros; leave it out instead")
	}
	if len(l.Metrics) > MaxMetrics {
		return invalid("lineage", "has %d metrics, at most %d", len(l.Metrics), MaxMetrics)
	}
	for name, v := range l.Metrics {
		if err := checkASCII("metric", name); err != nil {
			return err
		}
		if !plainNumber(v) {
			return invalid(fmt.Sprintf("metric %q", name), "is not finite or is negative zero")
		}
	}
	return nil
}

// invalid is an error that names the field.
func invalid(field, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrInvalid, field, fmt.Errorf(format, args...))
}

// checkTexts refuses text that is empty, long, or holds anything that does not
// print: such characters hide in names and have two JSON spellings.
func checkTexts(at string, texts ...string) error {
	for _, s := range texts {
		if s == "" || len(s) > MaxText || !utf8.ValidString(s) {
			return invalid(at, "%q must be 1 to %d bytes of UTF-8", s, MaxText)
		}
		if i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }); i >= 0 {
			return invalid(at, "%q has a character that does not print", s)
		}
	}
	return nil
}

// checkASCII is checkTexts for map keys: RFC 8785 sorts keys by UTF-16 unit and
// Go by byte, which is the same only in ASCII.
func checkASCII(at, s string) error {
	if strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
		return invalid(at, "%q must be ASCII", s)
	}
	return checkTexts(at, s)
}

// plainNumber refuses what JSON cannot carry and −0, which has two spellings.
func plainNumber(v float64) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (v != 0 || !math.Signbit(v))
}

func duplicate(list []string) (string, bool) {
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if seen[s] {
			return s, true
		}
		seen[s] = true
	}
	return "", false
}
