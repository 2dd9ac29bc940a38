package mlflow

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/controlplane/tracking"
)

// decode reads a request into the struct that q points to: first the URL's
// parameters, then the JSON body, then the parts of the path. Fields that the
// struct does not have are ignored: newer clients send more.
func decode(c echo.Context, q any) error {
	if err := fromValues(c.QueryParams(), q); err != nil {
		return err
	}
	if err := fromBody(c.Request().Body, q); err != nil {
		return err
	}
	parts := url.Values{}
	for _, name := range c.ParamNames() {
		value, err := url.PathUnescape(c.Param(name))
		if err != nil {
			return refuse(tracking.Invalid, "Invalid value for '%s' in the path", name)
		}
		parts.Set(name, value)
	}
	return fromValues(parts, q)
}

// fromBody reads a JSON object. Old clients send one as a JSON string.
func fromBody(r io.Reader, q any) error {
	body, err := io.ReadAll(r) // bounded by the route
	if err != nil {
		return err
	}
	if body = bytes.TrimSpace(body); len(body) == 0 {
		return nil
	}
	if body[0] == '"' {
		var inner string
		if err := json.Unmarshal(body, &inner); err != nil {
			return bodyError(err)
		}
		body = []byte(inner)
	}
	if err := json.Unmarshal(body, q); err != nil {
		return bodyError(err)
	}
	return nil
}

func bodyError(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return refuse(tracking.Invalid, "Invalid request body: it must be a JSON object, and is a %s", e.Value)
		}
		return refuse(tracking.Invalid, "Invalid value of type %s for parameter '%s'", e.Value, e.Field)
	}
	if e, ok := errors.AsType[*tracking.Error](err); ok {
		return e
	}
	return refuse(tracking.Invalid, "Invalid request body: %v", err)
}

// fromValues sets the fields of a struct whose JSON names are given.
func fromValues(values url.Values, q any) error {
	return setFields(values, reflect.ValueOf(q).Elem())
}

func setFields(values url.Values, v reflect.Value) error {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			if err := setFields(values, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		given, ok := values[name]
		if !ok || len(given) == 0 {
			continue
		}
		if err := setField(v.Field(i).Addr().Interface(), given); err != nil {
			return refuse(tracking.Invalid, "Invalid value %.80q for parameter '%s'", given[0], name)
		}
	}
	return nil
}

var errForm = errors.New("not of the type of its field")

func setField(field any, given []string) error {
	switch p := field.(type) {
	case *string:
		*p = given[0]
	case *text:
		*p = text(given[0])
	case *[]string:
		*p = given
	case *integer:
		return p.parse(given[0])
	case **integer:
		*p = new(integer)
		return (*p).parse(given[0])
	case *bool:
		b, err := strconv.ParseBool(strings.ToLower(given[0]))
		*p = b
		return err
	default:
		return errForm
	}
	return nil
}

// integer is an int64 that comes as a JSON number or, as protobuf writes it, a
// string; it goes out as a number.
type integer int64

// UnmarshalJSON reads both forms.
func (n *integer) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if err := n.parse(strings.Trim(string(b), `"`)); err != nil {
		return refuse(tracking.Invalid, "Invalid value %.80s: it must be an integer", b)
	}
	return nil
}

func (n *integer) parse(text string) error {
	v, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		*n = integer(v)
		return nil
	}
	f, err := strconv.ParseFloat(text, 64) // 1.0 and 1e3 are integers too
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<62 {
		return errForm
	}
	*n = integer(f)
	return nil
}

// double is a float64 whose infinities and NaN go in and out as strings, as
// protobuf writes them: JSON has no others.
type double float64

// UnmarshalJSON reads a number, or a number as a string.
func (d *double) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	f, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	if err != nil {
		return refuse(tracking.Invalid, "Invalid value %.80s: it must be a number", b)
	}
	*d = double(f)
	return nil
}

// MarshalJSON writes a number, or the name of what is none.
func (d double) MarshalJSON() ([]byte, error) {
	switch f := float64(d); {
	case math.IsNaN(f):
		return []byte(`"NaN"`), nil
	case math.IsInf(f, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(f, -1):
		return []byte(`"-Infinity"`), nil
	default:
		return json.Marshal(f)
	}
}

// required refuses a request that lacks one of the named values.
func required(pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			return refuse(tracking.Invalid, "Missing value for required parameter '%s'", pairs[i])
		}
	}
	return nil
}

// paging is what every search takes.
type paging struct {
	Max  *integer `json:"max_results"`
	Page string   `json:"page_token"`
}

// limit checks the size asked for; 0 leaves it to the store.
func (p paging) limit(most int) (int, error) {
	if p.Max == nil {
		return 0, nil
	}
	if *p.Max < 1 || int64(*p.Max) > int64(most) {
		return 0, refuse(tracking.Invalid, "Invalid value %d for parameter 'max_results': it must be 1 to %d", *p.Max, most)
	}
	return int(*p.Max), nil
}

// search is a filtered and ordered search.
type search struct {
	paging

	Filter  string   `json:"filter"`
	OrderBy []string `json:"order_by"`
}

func (q search) search(most int, view tracking.View) (tracking.Search, error) {
	n, err := q.limit(most)
	return tracking.Search{Filter: q.Filter, OrderBy: q.OrderBy, View: view, Max: n, Page: q.Page}, err
}

// viewOf checks which of active and deleted things are asked for.
func viewOf(text string) (tracking.View, error) {
	switch v := tracking.View(text); v {
	case "":
		return tracking.ActiveOnly, nil
	case tracking.ActiveOnly, tracking.DeletedOnly, tracking.All:
		return v, nil
	}
	return "", refuse(tracking.Invalid, "Invalid view type %.40q: it must be ACTIVE_ONLY, DELETED_ONLY or ALL", text)
}

// listed is the answer of a search: the list and, where there is more, the
// token of the next page.
func listed[T any](name string, items []T, next string) object {
	out := object{}
	if len(items) > 0 {
		out[name] = items
	}
	if next != "" {
		out["next_page_token"] = next
	}
	return out
}
