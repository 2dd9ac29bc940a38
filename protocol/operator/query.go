package operator

import (
	"encoding"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// EncodeQuery writes a query struct of this package as URL parameters. Zero
// fields are left out.
func EncodeQuery(query any) url.Values {
	values := url.Values{}
	eachField(reflect.ValueOf(query), func(name string, field reflect.Value) {
		if !field.IsZero() {
			values.Set(name, formatValue(field))
		}
	})
	return values
}

// DecodeQuery reads URL parameters into the query struct that query points to.
// A parameter that the struct does not have is refused: a mistyped filter
// would otherwise select everything.
func DecodeQuery(values url.Values, query any) error {
	known := map[string]reflect.Value{}
	eachField(reflect.ValueOf(query).Elem(), func(name string, field reflect.Value) { known[name] = field })
	for name, given := range values {
		field, ok := known[name]
		if !ok {
			return Errorf(Invalid, "parameter %q is not known here", name).
				WithHint("known parameters: %s", strings.Join(sortedNames(known), ", "))
		}
		if len(given) != 1 {
			return Errorf(Invalid, "parameter %q is given %d times", name, len(given))
		}
		if err := parseValue(field, given[0]); err != nil {
			return Errorf(Invalid, "parameter %q: %w", name, err)
		}
	}
	return nil
}

// QueryNames lists the parameters of a query struct, sorted.
func QueryNames(query any) []string {
	known := map[string]reflect.Value{}
	eachField(reflect.ValueOf(query), func(name string, field reflect.Value) { known[name] = field })
	return sortedNames(known)
}

func sortedNames(m map[string]reflect.Value) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// eachField calls fn for every field that has a query tag, embedded ones included.
func eachField(v reflect.Value, fn func(name string, field reflect.Value)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			eachField(v.Field(i), fn)
		} else if name := f.Tag.Get("query"); name != "" {
			fn(name, v.Field(i))
		}
	}
}

func formatValue(v reflect.Value) string {
	if m, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok {
		text, err := m.MarshalText()
		if err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(v.Interface())
}

func parseValue(v reflect.Value, s string) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch v.Kind() { //nolint:exhaustive // query structs hold only these
	case reflect.String:
		v.SetString(s)
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		v.SetBool(b)
		return err
	case reflect.Int:
		n, err := strconv.ParseInt(s, 10, 32)
		v.SetInt(n)
		return err
	default:
		return fmt.Errorf("%s cannot be a parameter", v.Type())
	}
}
