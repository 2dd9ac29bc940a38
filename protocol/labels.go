package protocol

import (
	"errors"
	"fmt"
	"regexp"
)

// Limits of the labels of a device.
const (
	MaxLabels     = 64
	MaxLabelValue = 63 // bytes
)

// ErrLabel says that a label's name or value is not well formed.
var ErrLabel = errors.New("labels are up to 64 names of letters, digits, '-', '_', '.' and at most one '/', " +
	"with values of up to 63 of letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")

var (
	labelName  = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	labelValue = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$`)
)

// CheckLabels refuses labels that a selector could not name, and too many of
// them. A label is the same whether a token or an operator gives it.
func CheckLabels(labels map[string]string) error {
	for name, value := range labels {
		if !labelName.MatchString(name) || !labelValue.MatchString(value) {
			return fmt.Errorf("%w: %.80q=%.80q", ErrLabel, name, value)
		}
	}
	if len(labels) > MaxLabels {
		return fmt.Errorf("%w: there would be %d", ErrLabel, len(labels))
	}
	return nil
}
