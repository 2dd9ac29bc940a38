package sketch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/vedette-edge/vedette/protocol/release"
)

// Limits of a baseline. What keeps them fits one MQTT payload as a window.
const (
	MaxBaseline   = 4 << 20 // bytes of the file
	MaxBins       = 32      // of a stream of numbers
	MaxClasses    = 1024    // bins of a categorical stream
	MaxStreams    = 384
	MaxConditions = 16
	maxText       = 256 // bytes of any name
)

// ErrBaseline says that a baseline is not well formed.
var ErrBaseline = errors.New("baseline is not well formed")

// Decode reads and validates a baseline file. Unknown fields are refused: what
// a device does not understand it would count wrongly.
func Decode(data []byte) (*Baseline, error) {
	if len(data) > MaxBaseline {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBaseline, len(data), MaxBaseline)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var b Baseline
	if err := d.Decode(&b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBaseline, err)
	}
	if d.More() {
		return nil, fmt.Errorf("%w: data after the end", ErrBaseline)
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return &b, nil
}

// Encode writes a valid baseline as one line of JSON. The same baseline gives
// the same bytes.
func (b *Baseline) Encode() ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode baseline: %w", err)
	}
	if len(data) > MaxBaseline {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBaseline, len(data), MaxBaseline)
	}
	return append(data, '\n'), nil
}

// Validate refuses a baseline that could not be counted into or scored against.
func (b *Baseline) Validate() error {
	switch {
	case b == nil:
		return fmt.Errorf("%w: there is none", ErrBaseline)
	case b.Format != BaselineFormat:
		return fmt.Errorf("%w: format %d, this program reads %d", ErrBaseline, b.Format, BaselineFormat)
	case b.Rows == 0:
		return fmt.Errorf("%w: no training rows", ErrBaseline)
	case len(b.Streams) > MaxStreams:
		return fmt.Errorf("%w: %d streams, at most %d", ErrBaseline, len(b.Streams), MaxStreams)
	}
	names := make(map[string]bool, len(b.Streams))
	for i := range b.Streams {
		s := &b.Streams[i]
		if err := s.validate(b.Rows); err != nil {
			return fmt.Errorf("%w: stream %d %.64q: %w", ErrBaseline, i, s.Name, err)
		}
		if names[s.Name] {
			return fmt.Errorf("%w: two streams are named %.64q", ErrBaseline, s.Name)
		}
		names[s.Name] = true
	}
	return b.validateConditions()
}

func (b *Baseline) validateConditions() error {
	if n := len(b.Conditions); n == 1 || n > MaxConditions {
		return fmt.Errorf("%w: %d conditions, none or 2 to %d", ErrBaseline, n, MaxConditions)
	}
	names := make(map[string]bool, len(b.Conditions))
	for _, c := range b.Conditions {
		if err := checkText(c.Name); err != nil || names[c.Name] {
			return fmt.Errorf("%w: condition %.64q has no proper name of its own", ErrBaseline, c.Name)
		}
		names[c.Name] = true
		if len(c.Histograms) != len(b.Streams) {
			return fmt.Errorf("%w: condition %.64q has %d histograms for %d streams", ErrBaseline, c.Name, len(c.Histograms), len(b.Streams))
		}
		for i, h := range c.Histograms {
			if len(h.Counts) != len(b.Streams[i].Counts) {
				return fmt.Errorf("%w: condition %.64q, stream %d: %w", ErrBaseline, c.Name, i, ErrMismatch)
			}
			if err := checkSum(h.Counts, h.Missing, h.Other, c.Rows); err != nil || c.Rows == 0 {
				return fmt.Errorf("%w: condition %.64q, stream %d does not count its %d rows", ErrBaseline, c.Name, i, c.Rows)
			}
		}
	}
	return nil
}

func (s *Stream) validate(rows uint64) error {
	if err := checkText(s.Name); err != nil {
		return err
	}
	if err := s.validateSource(); err != nil {
		return err
	}
	if err := s.validateBins(); err != nil {
		return err
	}
	return checkSum(s.Counts, s.Missing, s.Other, rows)
}

func (s *Stream) validateSource() error {
	if s.Side != Input && s.Side != Output {
		return fmt.Errorf("side %q is not known", s.Side)
	}
	switch s.Source {
	case Feature:
		if s.Tensor == "" || len(s.Tensor) > maxText || s.Index < 0 || s.Index >= 1<<20 {
			return errors.New("a feature needs a tensor and an index in it")
		}
		return nil
	case Scalar:
		if s.Tensor == "" || len(s.Tensor) > maxText || derivation(s.Derive) < 0 || s.Side != Input {
			return fmt.Errorf("a scalar needs an input tensor and a known derivation, not %.32q", s.Derive)
		}
		return nil
	case Class, Confidence, Entropy:
		if s.Side != Output {
			return fmt.Errorf("%s is an output", s.Source)
		}
		return nil
	default:
		return fmt.Errorf("source %.32q is not known", s.Source)
	}
}

func (s *Stream) validateBins() error {
	switch s.Kind {
	case Continuous:
		if len(s.Values)+len(s.Labels) > 0 || len(s.Counts) != len(s.Edges)+1 || len(s.Counts) > MaxBins {
			return fmt.Errorf("continuous: %d edges for %d bins", len(s.Edges), len(s.Counts))
		}
		return rising(s.Edges)
	case Discrete:
		if len(s.Edges)+len(s.Labels) > 0 || len(s.Counts) != len(s.Values) || len(s.Counts) == 0 || len(s.Counts) > MaxBins {
			return fmt.Errorf("discrete: %d values for %d bins", len(s.Values), len(s.Counts))
		}
		return rising(s.Values)
	case Categorical:
		if s.Source != Class {
			return errors.New("categorical: only the class is")
		}
		if len(s.Edges)+len(s.Values) > 0 || len(s.Counts) != len(s.Labels) || len(s.Counts) == 0 || len(s.Counts) > MaxClasses {
			return fmt.Errorf("categorical: %d labels for %d bins", len(s.Labels), len(s.Counts))
		}
		for _, l := range s.Labels {
			if len(l) > maxText {
				return fmt.Errorf("label %.32q… has %d bytes, at most %d", l, len(l), maxText)
			}
		}
		return nil
	default:
		return fmt.Errorf("kind %.32q is not known", s.Kind)
	}
}

// rising also refuses negative zero, whose bits sort apart from zero's.
func rising(vs []float32) error {
	for i, v := range vs {
		f := float64(v)
		if math.IsNaN(f) || math.IsInf(f, 0) || v == 0 && math.Signbit(f) {
			return fmt.Errorf("edge %d is %v", i, v)
		}
		if i > 0 && v <= vs[i-1] {
			return fmt.Errorf("edge %d does not rise", i)
		}
	}
	return nil
}

func checkText(s string) error {
	if s == "" || len(s) > maxText {
		return fmt.Errorf("name of %d bytes, 1 to %d", len(s), maxText)
	}
	return nil
}

// checkSum refuses counts that do not add up to the rows, overflow included.
func checkSum(counts []uint64, missing, other, rows uint64) error {
	left := rows
	take := func(n uint64) bool {
		if n > left {
			return false
		}
		left -= n
		return true
	}
	ok := take(missing) && take(other)
	for _, n := range counts {
		ok = ok && take(n)
	}
	if !ok || left != 0 {
		return fmt.Errorf("counts do not add up to %d rows", rows)
	}
	return nil
}

// Fits tells whether a model with the schema has what the streams are taken from.
func (b *Baseline) Fits(schema *release.Schema) error {
	for i := range b.Streams {
		s := &b.Streams[i]
		if s.Source != Feature && s.Source != Scalar {
			if schema.Label == "" && schema.Scores == "" {
				return fmt.Errorf("%w: stream %.64q watches a class, the schema names neither label nor scores", ErrBaseline, s.Name)
			}
			continue
		}
		side := schema.Inputs
		if s.Side == Output {
			side = schema.Outputs
		}
		if !hasElement(side, s) {
			return fmt.Errorf("%w: stream %.64q is taken from %.64q[%d], which the schema does not have", ErrBaseline, s.Name, s.Tensor, s.Index)
		}
	}
	return nil
}

func hasElement(side []release.Tensor, s *Stream) bool {
	for i := range side {
		if side[i].Name == s.Tensor {
			width, fixed := rowWidth(side[i].Shape)
			return s.Source == Scalar || fixed && s.Index < width
		}
	}
	return false
}

// rowWidth is how many numbers a row has; fixed is false when that is free.
func rowWidth(shape []int64) (width int, fixed bool) {
	width = 1
	for _, d := range shape[min(1, len(shape)):] {
		if d < 0 || d > 1<<24 || width > 1<<28 {
			return 0, false
		}
		width *= int(d)
	}
	return width, true
}
