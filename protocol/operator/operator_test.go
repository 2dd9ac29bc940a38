package operator

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/protocol/release"
)

func TestQueryRoundTrip(t *testing.T) {
	digest := release.DigestOf([]byte("x"))
	for _, want := range []any{
		&DeviceQuery{},
		&DeviceQuery{
			Paging: Paging{Limit: 7, Cursor: "a b"}, Selector: "site=b,ring!=canary", Presence: Online,
			Model: "digits", Release: &digest, Text: "ä",
		},
		&QualityQuery{
			Model: "digits", Cohort: "b", Since: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC),
		},
		&RolloutQuery{Active: true, State: RolloutPaused},
		&AlarmQuery{Open: true},
		&LedgerQuery{Chain: "rollout.x"},
	} {
		got := reflect.New(reflect.TypeOf(want).Elem()).Interface()
		parsed, err := url.ParseQuery(EncodeQuery(reflect.ValueOf(want).Elem().Interface()).Encode())
		if err != nil {
			t.Fatal(err)
		}
		if err := DecodeQuery(parsed, got); err != nil {
			t.Errorf("decode %+v: %v", want, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestQueryRefuses(t *testing.T) {
	for name, query := range map[string]string{
		"mistyped name":   "selectr=site%3Db",
		"given twice":     "model=a&model=b",
		"not a number":    "limit=many",
		"not a digest":    "release=beef",
		"number too long": "limit=99999999999999999999",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if err := DecodeQuery(values, &DeviceQuery{}); CodeOf(err) != Invalid {
			t.Errorf("%s: got %v, want an error of code invalid", name, err)
		}
	}
	names := QueryNames(DeviceQuery{})
	if want := []string{"cursor", "limit", "model", "presence", "release", "selector", "text"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		have, need Role
		want       bool
	}{
		{Viewer, Viewer, true},
		{Viewer, Operator, false},
		{Operator, Publisher, false},
		{Publisher, Operator, true},
		{Admin, Publisher, true},
		{"", Viewer, false},
		{"root", Viewer, false},
		{Admin, "", false},
	} {
		if got := c.have.Allows(c.need); got != c.want {
			t.Errorf("%q allows %q: got %v, want %v", c.have, c.need, got, c.want)
		}
	}
}

func TestPrincipalTravelsWithContext(t *testing.T) {
	if _, ok := PrincipalOf(t.Context()); ok {
		t.Error("a context without a principal has one")
	}
	want := Principal{Name: "ann", Role: Operator, Token: "t1"}
	if got, ok := PrincipalOf(WithPrincipal(t.Context(), want)); !ok || got != want {
		t.Errorf("got %+v %v, want %+v", got, ok, want)
	}
}

func TestErrorKeepsCauseAndCode(t *testing.T) {
	err := fmt.Errorf("show device: %w", Errorf(NotFound, "read record: %w", io.EOF).WithHint("list them with %q", "vedette device list"))
	if !errors.Is(err, io.EOF) {
		t.Error("the cause is lost")
	}
	if !errors.Is(err, &Error{Code: NotFound}) || errors.Is(err, &Error{Code: Stale}) {
		t.Error("errors.Is does not ask by code")
	}
	if got := CodeOf(err); got != NotFound {
		t.Errorf("got code %q, want %q", got, NotFound)
	}
	if got := CodeOf(io.EOF); got != Internal {
		t.Errorf("got code %q for a foreign error, want %q", got, Internal)
	}
	if got := CodeOf(nil); got != "" {
		t.Errorf("got code %q for no error", got)
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	for _, c := range []Code{
		Invalid, Unauthorized, Forbidden, NotFound, Conflict, Stale, TooLarge, TooMany, OffsetMismatch,
		DigestMismatch, BlobMissing, TrustRefused, NoRoot, ReasonRequired, StorageFull, Unavailable,
	} {
		if s := c.Status(); s < 400 || s == 500 {
			t.Errorf("%s: got status %d", c, s)
		}
	}
	if s := Internal.Status(); s != 500 {
		t.Errorf("internal: got status %d, want 500", s)
	}
}
