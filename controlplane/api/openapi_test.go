package api

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/vedette-edge/vedette/protocol/operator"
)

var update = flag.Bool("update", false, "write openapi.yaml anew from the routes and types")

// The committed document is what the routes and types of today give.
func TestOpenAPIIsFresh(t *testing.T) {
	want := newDocument(t).encode(t)
	if *update {
		if err := os.WriteFile("openapi.yaml", want, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(OpenAPI(), want) {
		t.Error("openapi.yaml is stale: run `go test ./controlplane/api -run OpenAPI -update` and look at the difference")
	}
}

// Every route that the server really answers is in the document and the other
// way round. This reads the file with no help of the generator.
func TestRoutesAndDocumentAgree(t *testing.T) {
	var doc struct {
		OpenAPI string                               `yaml:"openapi"`
		Paths   map[string]map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("got OpenAPI %q, want 3.1", doc.OpenAPI)
	}
	var documented []string
	for path, operations := range doc.Paths {
		for method := range operations {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	s := New(Config{Backend: &fakeBackend{}, Auth: fakeAuth{}})
	defer s.Close()
	var served []string
	for _, r := range s.echo.Routes() {
		served = append(served, r.Method+" "+documentPath(strings.TrimPrefix(r.Path, operator.Prefix)))
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented %s\nserved     %s", strings.Join(documented, "\n"), strings.Join(served, "\n"))
	}
}

// Every reference in the document leads somewhere.
func TestDocumentReferences(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]any `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`#/components/schemas/(\w+)`).FindAllSubmatch(OpenAPI(), -1)
	if len(found) == 0 {
		t.Fatal("no references in the document")
	}
	for _, m := range found {
		if _, ok := doc.Components.Schemas[string(m[1])]; !ok {
			t.Errorf("no schema %s", m[1])
		}
	}
}

var echoParam = regexp.MustCompile(`:(\w+)`)

func documentPath(path string) string { return echoParam.ReplaceAllString(path, "{$1}") }

// object is a YAML mapping in the order it was filled.
type object []*yaml.Node

func (o *object) set(key string, value any) {
	k, v := &yaml.Node{}, &yaml.Node{}
	k.SetString(key)
	switch value := value.(type) {
	case object:
		v = &yaml.Node{Kind: yaml.MappingNode, Content: value}
	case []object:
		v = &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range value {
			v.Content = append(v.Content, &yaml.Node{Kind: yaml.MappingNode, Content: item})
		}
	default:
		if err := v.Encode(value); err != nil {
			panic(err)
		}
	}
	*o = append(*o, k, v)
}

func obj(pairs ...any) object {
	var o object
	for i := 0; i < len(pairs); i += 2 {
		o.set(pairs[i].(string), pairs[i+1])
	}
	return o
}

// document builds the OpenAPI document from routes, types and their comments.
type document struct {
	schemas map[string]object
	types   map[string]reflect.Type
	docs    map[string]string   // "Type" or "Type.Field" → comment
	enums   map[string][]string // "Type" → values
}

func newDocument(t *testing.T) *document {
	t.Helper()
	d := &document{schemas: map[string]object{}, types: map[string]reflect.Type{}, docs: map[string]string{}, enums: map[string][]string{}}
	for _, dir := range []string{"../../protocol/operator", "../../protocol/release"} {
		d.readComments(t, dir)
	}
	return d
}

func (d *document) readComments(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if g, ok := decl.(*ast.GenDecl); ok {
				d.readDecl(g)
			}
		}
	}
}

func (d *document) readDecl(g *ast.GenDecl) {
	for _, spec := range g.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			d.docs[s.Name.Name] = oneLine(g.Doc)
			if st, ok := s.Type.(*ast.StructType); ok {
				d.readFields(s.Name.Name, st)
			}
		case *ast.ValueSpec:
			if typ, ok := s.Type.(*ast.Ident); ok && g.Tok == token.CONST && len(s.Values) == 1 {
				if lit, ok := s.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					value, _ := strconv.Unquote(lit.Value)
					d.enums[typ.Name] = append(d.enums[typ.Name], value)
				}
			}
		}
	}
}

func (d *document) readFields(typ string, st *ast.StructType) {
	for _, f := range st.Fields.List {
		text := oneLine(f.Comment)
		if text == "" {
			text = oneLine(f.Doc)
		}
		for _, n := range f.Names {
			d.docs[typ+"."+n.Name] = text
		}
	}
}

func oneLine(c *ast.CommentGroup) string {
	return strings.Join(strings.Fields(c.Text()), " ")
}

func (d *document) encode(t *testing.T) []byte {
	t.Helper()
	s := New(Config{Backend: &fakeBackend{}, Auth: fakeAuth{}})
	defer s.Close()
	var order []string
	paths := map[string]object{}
	for _, r := range routes(s) {
		p := documentPath(r.path)
		if _, seen := paths[p]; !seen {
			order = append(order, p)
		}
		o := paths[p]
		o.set(strings.ToLower(r.method), d.operation(r))
		paths[p] = o
	}
	var all object
	for _, p := range order {
		all.set(p, paths[p])
	}
	errorSchema := d.schema(reflect.TypeFor[operator.Error]())
	root := obj(
		"openapi", "3.1.0",
		"info", obj("title", "Vedette operator API", "version", "1",
			"description", "Times are RFC 3339 in UTC, durations text such as 90s, sizes bytes, digests 64 hex digits. "+
				"Errors carry a stable code. Lists come in pages: give next back as cursor."),
		"servers", []object{obj("url", operator.Prefix)},
		"security", []object{obj("token", []string{})},
		"paths", all,
		"components", obj(
			"securitySchemes", obj("token", obj("type", "http", "scheme", "bearer")),
			"responses", obj("error", obj("description", "Anything that is not a success.",
				"content", obj("application/json", obj("schema", errorSchema)))),
			"schemas", d.components(),
		),
	)
	var out bytes.Buffer
	out.WriteString("# Written by `go test ./controlplane/api -run OpenAPI -update` from the routes and types.\n")
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&yaml.Node{Kind: yaml.MappingNode, Content: root}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (d *document) components() object {
	var all object
	for _, name := range slices.Sorted(maps.Keys(d.schemas)) {
		all.set(name, d.schemas[name])
	}
	return all
}

func (d *document) operation(r route) object {
	o := obj("operationId", r.name, "summary", r.summary)
	if r.role == "" {
		o.set("security", []object{})
	} else {
		o.set("description", fmt.Sprintf("Needs role %s.", r.role))
	}
	if p := d.parameters(r); len(p) > 0 {
		o.set("parameters", p)
	}
	if r.body != nil {
		o.set("requestBody", obj("required", true, "content", obj("application/json", obj("schema", d.schema(r.body)))))
	} else if r.method == http.MethodPatch {
		o.set("requestBody", obj("required", true, "content", obj(chunkMedia, obj("schema", obj("type", "string", "format", "binary")))))
	}
	o.set("responses", d.responses(r))
	return o
}

func (d *document) parameters(r route) []object {
	var list []object
	add := func(in, name, description string, required bool, schema object) {
		list = append(list, obj("name", name, "in", in, "required", required, "description", description, "schema", schema))
	}
	for _, m := range echoParam.FindAllStringSubmatch(r.path, -1) {
		add("path", m[1], pathDocs[m[1]], true, obj("type", "string"))
	}
	if r.query != nil {
		d.queryParameters(r, r.query, add)
	}
	if r.revision {
		add("header", "If-Match", "Revision the change was made from; a newer one refuses it with code stale.", false, obj("type", "string"))
	}
	if r.name == "uploadChunk" {
		add("header", offsetHeader, "Byte offset the chunk starts at.", true, obj("type", "integer"))
		add("header", lengthHeader, "Size of the whole blob in bytes.", true, obj("type", "integer"))
	}
	return list
}

var pathDocs = map[string]string{
	"device": "Device id.", "model": "Model name.", "version": "Version name or release digest.", "rollout": "Rollout id.",
	"digest": "SHA-256 of the blob, hex.", "name": "For example root, root.2, targets, snapshot, timestamp.", "token": "Token id.",
	"file": "Name of a file in the manifest.",
}

func (d *document) queryParameters(r route, t reflect.Type, add func(in, name, description string, required bool, schema object)) {
	for f := range t.Fields() {
		if f.Anonymous {
			d.queryParameters(r, f.Type, add)
			continue
		}
		name := f.Tag.Get("query")
		if name == "" || strings.Contains(r.path, ":"+name) {
			continue
		}
		add("query", name, d.docs[t.Name()+"."+f.Name], false, d.schema(f.Type))
	}
}

func (d *document) responses(r route) object {
	status, success := "200", obj("description", "Done.")
	switch {
	case r.media == "text/event-stream":
		event := map[string]reflect.Type{"events": reflect.TypeFor[operator.Event](), "tap": reflect.TypeFor[operator.TapMessage]()}[r.name]
		success.set("content", obj(r.media, obj("schema", obj("type", "string"), "x-event-data", d.schema(event))))
	case r.media != "":
		success.set("content", obj(r.media, obj()))
	case r.reply != nil:
		success.set("content", obj("application/json", obj("schema", d.schema(r.reply))))
	default:
		status = "204"
	}
	return obj(status, success, "default", obj("$ref", "#/components/responses/error"))
}

// schema describes a type; structs become components.
func (d *document) schema(t reflect.Type) object {
	if o, ok := wellKnown[t.String()]; ok {
		return o
	}
	switch t.Kind() { //nolint:exhaustive // numbers are the default, anything else panics there
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Slice:
		return obj("type", "array", "items", d.schema(t.Elem()))
	case reflect.Map:
		return obj("type", "object", "additionalProperties", d.schema(t.Elem()))
	case reflect.Struct:
		name := schemaName(t)
		if known, ok := d.types[name]; ok && known != t {
			panic(fmt.Sprintf("two types want the name %s: %v and %v", name, known, t))
		} else if !ok {
			d.types[name] = t
			d.schemas[name] = d.structSchema(t)
		}
		return obj("$ref", "#/components/schemas/"+name)
	case reflect.String:
		if values := d.enums[t.Name()]; len(values) > 0 && t.PkgPath() != "" {
			return obj("type", "string", "enum", values)
		}
		return obj("type", "string")
	case reflect.Bool:
		return obj("type", "boolean")
	case reflect.Float64:
		return obj("type", "number")
	case reflect.Interface:
		return obj()
	default:
		if !t.ConvertibleTo(reflect.TypeFor[int64]()) {
			panic(fmt.Sprintf("no schema for %v", t))
		}
		return obj("type", "integer", "format", "int64")
	}
}

var wellKnown = map[string]object{
	"time.Time":        obj("type", "string", "format", "date-time"),
	"release.Digest":   obj("type", "string", "pattern", "^[0-9a-f]{64}$"),
	"release.Duration": obj("type", "string", "examples", []string{"1m30s"}),
	"json.RawMessage":  obj(),
	"[]uint8":          obj("type", "string", "contentEncoding", "base64"),
}

var pageOf = regexp.MustCompile(`^Page\[.*\.(\w+)\]$`)

func schemaName(t reflect.Type) string {
	if m := pageOf.FindStringSubmatch(t.Name()); m != nil {
		return m[1] + "Page"
	}
	return t.Name()
}

func (d *document) structSchema(t reflect.Type) object {
	var properties object
	var required []string
	d.fields(t, &properties, &required)
	o := obj("type", "object")
	if text := d.docs[strings.Split(t.Name(), "[")[0]]; text != "" {
		o.set("description", text)
	}
	o.set("properties", properties)
	if len(required) > 0 {
		o.set("required", required)
	}
	return o
}

func (d *document) fields(t reflect.Type, properties *object, required *[]string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			d.fields(f.Type, properties, required)
			continue
		case !f.IsExported() || name == "-" || name == "":
			continue
		}
		s := d.schema(f.Type)
		if text := d.docs[strings.Split(t.Name(), "[")[0]+"."+f.Name]; text != "" {
			s = append(object{}, s...)
			s.set("description", text)
		}
		properties.set(name, s)
		if options == "" {
			*required = append(*required, name)
		}
	}
}
