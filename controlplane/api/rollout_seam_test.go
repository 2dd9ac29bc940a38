package api

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/controlplane/rollout"
	"github.com/vedette-edge/vedette/protocol/operator"
	"github.com/vedette-edge/vedette/protocol/release"
)

// The API's spec and the engine's are translated by their JSON. A field that is
// added to one side and not the other, or is spelt otherwise, would be lost
// unseen.
func TestSpecsHaveTheSameFields(t *testing.T) {
	api, engine := shapeOf(reflect.TypeFor[operator.RolloutSpec](), ""), shapeOf(reflect.TypeFor[rollout.Spec](), "")
	engine = slices.DeleteFunc(engine, func(field string) bool { return field == "release [32]uint8" }) // filled in by the server
	if !slices.Equal(api, engine) {
		t.Errorf("the API's spec has\n%q\nthe engine's\n%q", only(api, engine), only(engine, api))
	}
	if len(api) < 50 {
		t.Errorf("found %d fields only: %q", len(api), api)
	}
}

// only are the items of a that are not in b.
func only(a, b []string) (out []string) {
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}

// shapeOf lists the fields of a type as JSON sees them, with their kinds.
func shapeOf(t reflect.Type, path string) []string {
	switch {
	case t == reflect.TypeFor[time.Time](), t == reflect.TypeFor[release.Duration]():
		return []string{path + " " + t.String()}
	case t.Kind() == reflect.Pointer:
		return shapeOf(t.Elem(), path+"?")
	case t.Kind() == reflect.Slice:
		return shapeOf(t.Elem(), path+"[]")
	case t.Kind() == reflect.Array:
		return []string{fmt.Sprintf("%s [%d]%s", path, t.Len(), t.Elem())}
	case t.Kind() != reflect.Struct:
		return []string{path + " " + t.Kind().String()}
	}
	var out []string
	for f := range t.Fields() {
		if path != "" {
			out = append(out, shapeOf(f.Type, path+"."+f.Tag.Get("json"))...)
		} else {
			out = append(out, shapeOf(f.Type, jsonName(f))...)
		}
	}
	return out
}

func jsonName(f reflect.StructField) string {
	name := f.Tag.Get("json")
	if i := slices.Index([]byte(name), ','); i >= 0 {
		name = name[:i]
	}
	return name
}

// Every field comes through, there and back.
func TestSpecsTranslateWholly(t *testing.T) {
	var want operator.RolloutSpec
	fill(reflect.ValueOf(&want).Elem(), 1)
	if got := rolloutSpec(specOf(want)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// fill gives every field below v a value of its own that is not zero.
func fill(v reflect.Value, n int) int {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(now.Add(time.Duration(n) * time.Second)))
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return fill(v.Elem(), n)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		return fill(v.Index(1), fill(v.Index(0), n))
	case v.Kind() == reflect.Struct:
		for _, field := range v.Fields() {
			n = fill(field, n)
		}
		return n
	case v.CanInt():
		v.SetInt(int64(n) * int64(time.Second))
	case v.CanUint():
		v.SetUint(uint64(n))
	case v.CanFloat():
		v.SetFloat(float64(n) + 0.5)
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprint("text ", n))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	}
	return n + 1
}

// The gates that the API tells have all that the engine says of them.
func TestGatesTranslateWholly(t *testing.T) {
	var g rollout.GateResult
	fill(reflect.ValueOf(&g).Elem(), 1)
	told := reflect.ValueOf(gates([]rollout.GateResult{g})[0])
	for i := range told.NumField() {
		if name := told.Type().Field(i).Name; told.Field(i).IsZero() && name != "Unit" {
			t.Errorf("%s is not told", name)
		}
	}
	if got, want := told.NumField(), reflect.TypeFor[rollout.GateResult]().NumField()+1; got != want { // Unit is the API's own
		t.Errorf("the API's gate has %d fields, want %d", got, want)
	}
}
