package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// route is one operation. The types are what the OpenAPI document is checked
// against; nil means that there is no such part.
type route struct {
	name      string // operationId
	method    string
	path      string        // below operator.Prefix, echo's spelling
	role      operator.Role // empty: open to all
	summary   string
	query     reflect.Type
	body      reflect.Type
	reply     reflect.Type
	media     string // of the reply when it is not JSON
	unbounded bool   // no deadline: uploads and streams
	revision  bool   // takes If-Match
	limit     int64  // of the body, bytes; 0: operator.MaxBody
	handle    echo.HandlerFunc
}

// as changes the role a route needs.
func (r route) as(role operator.Role) route {
	r.role = role
	return r
}

// none is the query or reply of routes without one.
type none struct{}

func typeOf[T any]() reflect.Type {
	t := reflect.TypeFor[T]()
	if t == reflect.TypeFor[none]() {
		return nil
	}
	return t
}

// read is GET without an identifier in the path.
func read[R any](name, path, summary string, fn func(context.Context) (R, error)) route {
	return query(name, path, summary, func(ctx context.Context, _ none) (R, error) { return fn(ctx) })
}

// query is GET with a query.
func query[Q, R any](name, path, summary string, fn func(context.Context, Q) (R, error)) route {
	return route{
		name: name, method: http.MethodGet, path: path, role: operator.Viewer, summary: summary,
		query: typeOf[Q](), reply: typeOf[R](),
		handle: func(c echo.Context) error {
			var q Q
			if err := operator.DecodeQuery(c.QueryParams(), &q); err != nil {
				return err
			}
			return reply(c)(fn(c.Request().Context(), q))
		},
	}
}

// one is GET of one subject.
func one[R any](name, path, summary string, fn func(context.Context, string) (R, error)) route {
	return route{
		name: name, method: http.MethodGet, path: path, role: operator.Viewer, summary: summary, reply: typeOf[R](),
		handle: func(c echo.Context) error {
			subject, err := subjectOf(c)
			if err != nil {
				return err
			}
			return reply(c)(fn(c.Request().Context(), subject))
		},
	}
}

// of is GET of what belongs to one subject, with a query.
func of[Q, R any](name, path, summary string, fn func(context.Context, string, Q) (R, error)) route {
	return route{
		name: name, method: http.MethodGet, path: path, role: operator.Viewer, summary: summary,
		query: typeOf[Q](), reply: typeOf[R](),
		handle: func(c echo.Context) error {
			subject, err := subjectOf(c)
			if err != nil {
				return err
			}
			var q Q
			if err := operator.DecodeQuery(c.QueryParams(), &q); err != nil {
				return err
			}
			return reply(c)(fn(c.Request().Context(), subject, q))
		},
	}
}

// command sends a body of type B and answers with R. The role of an operator
// is the least that changes anything.
func command[B, R any](method, name, path, summary string, fn func(echo.Context, B) (R, error)) route {
	return route{
		name: name, method: method, path: path, role: operator.Operator, summary: summary,
		body: typeOf[B](), reply: typeOf[R](),
		handle: func(c echo.Context) error {
			if err := operator.DecodeQuery(c.QueryParams(), &none{}); err != nil {
				return err
			}
			var body B
			if err := decodeBody(c, &body); err != nil {
				return err
			}
			return reply(c)(fn(c, body))
		},
	}
}

// upTo sets how large the body may be.
func (r route) upTo(limit int64) route {
	r.limit = limit
	return r
}

// withRevision marks a command that takes If-Match.
func (r route) withRevision() route {
	r.revision = true
	return r
}

// plain adapts a function that needs only the context and the body.
func plain[B, R any](fn func(context.Context, B) (R, error)) func(echo.Context, B) (R, error) {
	return func(c echo.Context, body B) (R, error) { return fn(c.Request().Context(), body) }
}

// on adapts a function that needs the subject of the path too.
func on[B, R any](fn func(context.Context, string, B) (R, error)) func(echo.Context, B) (R, error) {
	return func(c echo.Context, body B) (R, error) {
		subject, err := subjectOf(c)
		if err != nil {
			var zero R
			return zero, err
		}
		return fn(c.Request().Context(), subject, body)
	}
}

// silent adapts a function that answers with nothing.
func silent[B any](fn func(context.Context, string, B) error) func(echo.Context, B) (none, error) {
	return on(func(ctx context.Context, subject string, body B) (none, error) { return none{}, fn(ctx, subject, body) })
}

// subjectOf is the first parameter of the path.
func subjectOf(c echo.Context) (string, error) { return param(c, c.ParamNames()[0]) }

func param(c echo.Context, name string) (string, error) {
	value, err := url.PathUnescape(c.Param(name))
	if err != nil || value == "" || len(value) > 256 {
		return "", operator.Errorf(operator.Invalid, "%s in the path is malformed", name)
	}
	return value, nil
}

// revisionOf is the If-Match header without its quotes. "*" and nothing mean
// any revision.
func revisionOf(c echo.Context) string {
	tag := strings.TrimSpace(c.Request().Header.Get("If-Match"))
	if tag == "*" {
		return ""
	}
	return strings.Trim(strings.TrimPrefix(tag, "W/"), `"`)
}

// decodeBody reads exactly one JSON value with known fields only: a mistyped
// field would otherwise be a default nobody asked for.
func decodeBody(c echo.Context, body any) error {
	if _, empty := body.(*none); empty {
		return nil
	}
	media, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType))
	if err != nil || media != echo.MIMEApplicationJSON {
		return operator.Errorf(operator.Invalid, "the request body must be JSON").WithHint("send Content-Type: application/json")
	}
	dec := json.NewDecoder(c.Request().Body) // bounded by the route
	dec.DisallowUnknownFields()
	if err := dec.Decode(body); err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return err
		}
		return operator.Errorf(operator.Invalid, "read request body: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return operator.Errorf(operator.Invalid, "the request body goes on after its JSON value")
	}
	return nil
}

// reply writes what a call gave.
func reply(c echo.Context) func(any, error) error {
	return func(v any, err error) error {
		if err != nil {
			return err
		}
		c.Response().Header().Set("Cache-Control", "no-store")
		if _, empty := v.(none); empty {
			return c.NoContent(http.StatusNoContent)
		}
		return c.JSON(http.StatusOK, v)
	}
}
