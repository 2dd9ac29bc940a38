package dashboard

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// binder ties the fields of a form to those of a value, one way or the other:
// what reads a form and what fills it in cannot differ.
type binder struct {
	values  url.Values
	reading bool // from the form into the value
	errs    []error
}

// maxRows bounds the rows of one list in a form.
const maxRows = 60

// exchange reads a field with parse, or writes what show says. Empty fields are
// left as they are.
func (b *binder) exchange(name string, parse func(text string) error, show func() string) {
	if !b.reading {
		b.values.Set(name, show())
		return
	}
	text := strings.TrimSpace(b.values.Get(name))
	if text == "" {
		return
	}
	if err := parse(text); err != nil {
		b.errs = append(b.errs, fmt.Errorf("%s %.40q: %w", fieldText(name), text, err))
	}
}

// err joins what was wrong with all fields.
func (b *binder) err() error {
	if len(b.errs) == 0 {
		return nil
	}
	texts := make([]string, len(b.errs))
	for i, err := range b.errs {
		texts[i] = err.Error()
	}
	return operator.Errorf(operator.Invalid, "%s", strings.Join(texts, "; "))
}

func (b *binder) text(name string, p *string) {
	b.exchange(name, func(text string) error { *p = text; return nil }, func() string { return *p })
}

func (b *binder) flag(name string, p *bool) {
	if b.reading {
		*p = b.values.Get(name) != ""
	} else if *p {
		b.values.Set(name, "on")
	}
}

var errWhole = errors.New("must be a whole number")

// whole binds a number; zero is an empty field.
func whole[T int | int64 | uint64](b *binder, name string, p *T) {
	b.exchange(name, func(text string) error {
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "\u2009", ""), 10, 63)
		if err != nil || n < 0 || T(n) < 0 {
			return errWhole
		}
		*p = T(n)
		return nil
	}, func() string {
		if *p == 0 {
			return ""
		}
		return fmt.Sprint(*p)
	})
}

var errNumber = errors.New("must be a number")

// scaled binds a number that the form shows times a factor; zero is an empty
// field.
func (b *binder) scaled(name string, factor float64, p *float64) {
	value := p
	b.pointer(name, factor, &value)
	if value != nil {
		*p = *value
	}
}

// pointer is scaled for numbers that may be absent.
func (b *binder) pointer(name string, factor float64, p **float64) {
	b.exchange(name, func(text string) error {
		v, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(text, "%")), 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return errNumber
		}
		v /= factor
		*p = &v
		return nil
	}, func() string {
		if *p == nil {
			return ""
		}
		return strconv.FormatFloat(**p*factor, 'g', 12, 64)
	})
}

// duration binds a duration; zero is an empty field.
func (b *binder) duration(name string, p *release.Duration) {
	value := p
	if *p == 0 {
		value = nil
	}
	b.span(name, &value)
	if value != nil {
		*p = *value
	}
}

// span is duration for one that may be absent, or zero.
func (b *binder) span(name string, p **release.Duration) {
	b.exchange(name, func(text string) error {
		d, err := time.ParseDuration(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			return errors.New("must be a duration such as 15m or 24h")
		}
		*p = new(release.Duration(d))
		return nil
	}, func() string {
		if *p == nil {
			return ""
		}
		return shortDuration((*p).String())
	})
}

// size binds a number of devices, or a share of them with a percent sign.
func (b *binder) size(name string, count *int, percent *float64) {
	b.exchange(name, func(text string) (err error) {
		if share, ok := strings.CutSuffix(text, "%"); ok {
			*percent, err = strconv.ParseFloat(strings.TrimSpace(share), 64)
		} else {
			*count, err = strconv.Atoi(text)
		}
		if err != nil {
			return errors.New("must be a number of devices or a percentage")
		}
		return nil
	}, func() string {
		switch {
		case *percent > 0:
			return formatPlain(*percent) + "%"
		case *count > 0:
			return strconv.Itoa(*count)
		}
		return ""
	})
}

func (b *binder) moment(name string, p *time.Time) {
	const layout = "2006-01-02T15:04" // of input type datetime-local
	b.exchange(name, func(text string) (err error) {
		*p, err = time.ParseInLocation(layout, text[:min(len(text), len(layout))], time.UTC)
		return err
	}, func() string {
		if p.IsZero() {
			return ""
		}
		return p.UTC().Format(layout)
	})
}

// rows binds a list whose fields are named by prefix and number. Rows in which
// nothing is filled in are none.
func rows[T any](b *binder, prefix string, list *[]T, one func(prefix string, item *T)) {
	if !b.reading {
		for i := range *list {
			one(rowName(prefix, i), &(*list)[i])
		}
		return
	}
	*list = nil
	for i := range rowsOf(b.values, prefix) {
		if name := rowName(prefix, i); !blank(b.values, name) {
			var item T
			one(name, &item)
			*list = append(*list, item)
		}
	}
}

func rowName(prefix string, i int) string { return prefix + "." + strconv.Itoa(i) + "." }

// rowsOf is how many rows of a list a form has.
func rowsOf(values url.Values, prefix string) int {
	n := 0
	for name := range values {
		rest, ok := strings.CutPrefix(name, prefix+".")
		number, _, found := strings.Cut(rest, ".")
		if i, err := strconv.Atoi(number); ok && found && err == nil && i >= 0 && i < maxRows {
			n = max(n, i+1)
		}
	}
	return n
}

func blank(values url.Values, prefix string) bool {
	for name := range values {
		if strings.HasPrefix(name, prefix) && strings.TrimSpace(values.Get(name)) != "" {
			return false
		}
	}
	return true
}

func formatPlain(v float64) string { return strconv.FormatFloat(v, 'g', 12, 64) }

var zeroUnits = regexp.MustCompile(`^(\d+h)?(\d+m)0s$`)

// shortDuration leaves out the units of a duration that are zero: 15m0s is 15m.
func shortDuration(text string) string {
	m := zeroUnits.FindStringSubmatch(text)
	switch {
	case m == nil:
		return text
	case m[2] == "0m":
		return m[1]
	}
	return m[1] + m[2]
}

// fieldText is the name of a field for people, who count rows from one.
func fieldText(name string) string {
	parts := strings.Split(name, ".")
	for i, part := range parts {
		if n, err := strconv.Atoi(part); err == nil {
			parts[i] = strconv.Itoa(n + 1)
		}
	}
	return words(strings.Join(parts, " "))
}
