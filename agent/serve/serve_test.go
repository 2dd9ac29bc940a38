package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// adder is a Runtime whose graph gives the sum of every row, its sign as label
// and an echo of the text input.
type adder struct{ fail error }

func (a *adder) Info() infer.RuntimeInfo { return infer.RuntimeInfo{Name: "adder", Version: "1"} }
func (a *adder) Load(context.Context, infer.Release) (infer.Session, error) {
	return a, nil
}
func (a *adder) Provider() string { return "test" }
func (a *adder) Close() error     { return nil }

func (a *adder) Run(_ context.Context, rows int, in, out []infer.Tensor) error {
	x, ok := in[0].Data.([]float32)
	if !ok {
		return fmt.Errorf("input is %T", in[0].Data)
	}
	if a.fail != nil && x[0] < 0 {
		return a.fail
	}
	width := len(x) / rows
	label, sum, echo := infer.Fit[int64](&out[0], rows), infer.Fit[float32](&out[1], rows), infer.Fit[string](&out[2], rows)
	for r := range rows {
		sum[r] = 0
		for _, v := range x[r*width : (r+1)*width] {
			sum[r] += v
		}
		if sum[r] > 0 {
			label[r] = 1
		}
		if text, ok := in[1].Data.([]string); ok {
			echo[r] = text[r]
		}
	}
	out[0].FitShape(rows)
	out[1].FitShape(rows, 1)
	out[2].FitShape(rows)
	return nil
}

func testManifest() *release.Manifest {
	top := 100.0
	return &release.Manifest{
		Model: "adder", Version: "v1", Variants: []release.Variant{{Name: "fp32"}},
		Schema: release.Schema{
			Inputs: []release.Tensor{
				{Name: "X", Datatype: "FP32", Shape: []int64{-1, 3}, Features: []release.Feature{
					{Name: "width", Missing: "refuse"}, {Name: "height", Max: &top}, {Name: "depth"},
				}},
				{Name: "note", Datatype: "BYTES", Shape: []int64{-1}},
			},
			Outputs: []release.Tensor{
				{Name: "label", Datatype: "INT64", Shape: []int64{-1}},
				{Name: "sum", Datatype: "FP32", Shape: []int64{-1, 1}},
				{Name: "echo", Datatype: "BYTES", Shape: []int64{-1}},
			},
		},
	}
}

// labels remembers what it was told; id "lost" is not matched, label "bad" refused.
type labels struct{ got []string }

func (l *labels) Feedback(_ context.Context, model, id, label string) (bool, error) {
	if label == "bad" {
		return false, errors.New("no such class")
	}
	l.got = append(l.got, model+" "+id+" "+label)
	return id != "lost", nil
}

func testServer(t *testing.T, rt *adder, cfg Config) (*Server, *infer.Engine) {
	t.Helper()
	e := infer.New(rt, infer.Config{Limits: infer.Limits{MaxRows: 100}})
	t.Cleanup(func() { e.Close(context.Background()) })
	if err := e.Activate(t.Context(), infer.Release{Manifest: testManifest(), Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	return New(e, cfg), e
}

// do sends one request over a connection of its own.
func do(t *testing.T, s *Server, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- s.http.ServeConn(far) }()
	go r.Write(near) // a refused body is not read to its end
	resp, err := http.ReadResponse(bufio.NewReader(near), r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	w := httptest.NewRecorder()
	w.Code = resp.StatusCode
	maps.Copy(w.Header(), resp.Header)
	if _, err := w.Body.ReadFrom(resp.Body); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	near.Close()
	<-served
	return w
}

const twoRows = `{"id":"p1","inputs":[{"name":"X","shape":[2,3],"datatype":"FP32","data":[1,2,3,-4,-5.5,1e-1]},
	{"name":"note","shape":[2],"datatype":"BYTES","data":["a","b\u00e9\n"]}]}`

const twoRowsAnswer = `{"model_name":"adder","model_version":"v1","id":"p1","outputs":[` +
	`{"name":"label","datatype":"INT64","shape":[2],"data":[1,0]},` +
	`{"name":"sum","datatype":"FP32","shape":[2,1],"data":[6,-9.4]},` +
	`{"name":"echo","datatype":"BYTES","shape":[2],"data":["a","bé\n"]}]}`

func TestInferJSON(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	same := map[string]string{
		"flat":             twoRows,
		"nested":           strings.Replace(twoRows, "[1,2,3,-4,-5.5,1e-1]", "[[1,2,3],[-4,-5.5,0.1]]", 1),
		"data first":       strings.Replace(twoRows, `"name":"X","shape":[2,3],"datatype":"FP32","data":[1,2,3,-4,-5.5,1e-1]`, `"data":[ 1, 2,3 ,-4,-5.5,1e-1 ],"datatype":"FP32","shape":[2,3],"name":"X"`, 1),
		"unknown members":  strings.Replace(twoRows, `"id":"p1"`, `"id":"p1","x":{"y":[1,{"z":null}],"w":"\""},"parameters":{"a":1.5e3,"b":[true]}`, 1),
		"null parameters":  strings.Replace(twoRows, `"id":"p1"`, `"id":"p1","parameters":null`, 1),
		"outputs by name":  strings.Replace(twoRows, `"id":"p1"`, `"id":"p1","outputs":[{"name":"label"},{"name":"sum","parameters":{"binary_data":false}},{"name":"echo"}]`, 1),
		"inputs reordered": `{"id":"p1","inputs":[{"name":"note","shape":[2],"datatype":"BYTES","data":["a","bé\n"]},{"name":"X","shape":[2,3],"datatype":"FP32","data":[1,2,3,-4,-5.5,0.1]}]}`,
	}
	for name, body := range same {
		for _, path := range []string{"/v2/models/adder/infer", "/v2/models/adder/versions/v1/infer", "/v2/models/adder/infer/"} {
			w := do(t, s, "POST", path, body)
			if w.Code != http.StatusOK || w.Body.String() != twoRowsAnswer {
				t.Errorf("%s at %s: %d\n%s\nwant\n%s", name, path, w.Code, w.Body, twoRowsAnswer)
			}
		}
	}
}

func TestInferOutputsAskedFor(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	body := strings.Replace(twoRows, `"id":"p1"`, `"id":"p1","outputs":[{"name":"sum"}]`, 1)
	w := do(t, s, "POST", "/v2/models/adder/infer", body)
	want := `{"model_name":"adder","model_version":"v1","id":"p1","outputs":[{"name":"sum","datatype":"FP32","shape":[2,1],"data":[6,-9.4]}]}`
	if w.Body.String() != want {
		t.Errorf("got\n%s\nwant\n%s", w.Body, want)
	}
}

func TestMissingValues(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	body := strings.Replace(twoRows, "[1,2,3,", "[1,2,null,", 1)
	w := do(t, s, "POST", "/v2/models/adder/infer", body)
	if !strings.Contains(w.Body.String(), `"data":[null,-9.4]`) {
		t.Errorf("a missing number did not come out as NaN: %s", w.Body)
	}
}

func TestInferRefuses(t *testing.T) {
	s, _ := testServer(t, &adder{fail: errors.New("broken graph")}, Config{MaxBody: 4096})
	change := func(old, with string) string {
		if !strings.Contains(twoRows, old) {
			t.Fatalf("%q is not in the request", old)
		}
		return strings.Replace(twoRows, old, with, 1)
	}
	cases := []struct {
		name, body string
		status     int
		want       string
	}{
		{"no JSON", `hello`, 400, "not valid JSON"},
		{"empty", ``, 400, "not valid JSON"},
		{"cut", twoRows[:90], 400, "not valid JSON"},
		{"tail", twoRows + "x", 400, "follows"},
		{"comma", change("-4,", "-4,,"), 400, "expected a value at byte 82"},
		{"trailing comma", change("1e-1]", "1e-1,]"), 400, "not valid JSON"},
		{"leading zero", change("[1,", "[01,"), 400, "number"},
		{"bare point", change("[1,", "[1.,"), 400, "bad number"},
		{"no number", change("-5.5", `"abc"`), 400, `input "X" row 1 feature "height": "\"abc\"" is no FP32`},
		{"too large a number", change("-5.5", "1e39"), 400, `row 1 feature "height"`},
		{"deep", `{"inputs":` + strings.Repeat("[", 2000), 400, "not valid JSON"},
		{"deep and ignored", `{"other":` + strings.Repeat("[", 2000), 400, "nested too deeply"},
		{"too few", change(",1e-1", ""), 400, `input "X": data has 5 elements, shape [2 3] needs 6`},
		{"too many", change("1e-1", "1e-1,7"), 400, "data has 7 elements, shape [2 3] needs 6; the model takes [-1 3]"},
		{"bad nesting", change("[1,2,3,-4,-5.5,1e-1]", "[[1,2],[3,-4,-5.5,0.1]]"), 400, "depth 1 has 2 elements"},
		{"nested too deeply", change("[1,2,3,-4,-5.5,1e-1]", "[[[1,2,3]],[[-4,-5.5,0.1]]]"), 400, "nested deeper"},
		{"negative shape", change("[2,3]", "[-2,-3]"), 400, "shape [-2 -3]"},
		{"huge shape", change("[2,3]", "[2147483647,2147483647]"), 400, "too large"},
		{"larger than the body", change("[2,3]", "[20000,3]"), 400, "data has 6 elements, shape [20000 3] needs 60000"},
		{"fraction in shape", change("[2,3]", "[2.5,3]"), 400, "whole number"},
		{"datatype", change(`"FP32"`, `"FP64"`), 400, `input "X": datatype is "FP64", the model takes "FP32"`},
		{"unknown datatype", change(`"FP32"`, `"FP99"`), 400, `"FP99" is not supported`},
		{"width", change("[2,3]", "[3,2]"), 400, `input "X": shape is [3 2], the model takes [-1 3]`},
		{"rank", change("[2,3]", "[6]"), 400, "shape is [6]"},
		{"name", change(`"X"`, `"Y"`), 400, `input "X": is missing; the request has "Y", which is not an input of this model`},
		{"rows differ", change(`"shape":[2],"datatype":"BYTES","data":["a",`, `"shape":[1],"datatype":"BYTES","data":[`), 400, `input "note": has 1 rows`},
		{"unknown output", change(`"id":"p1"`, `"outputs":[{"name":"nothing"}]`), 400, `no output "nothing"`},
		{"output twice", change(`"id":"p1"`, `"outputs":[{"name":"sum"},{"name":"sum"}]`), 400, "twice"},
		{"missing refused", change("[1,", "[null,"), 400, `input "X" row 0 feature "width": is missing, which the model refuses`},
		{"above the range", change("-5.5", "100.5"), 400, `input "X" row 1 feature "height": is 100.5, above the valid maximum 100`},
		{"string for bytes", change(`["a"`, `[1`), 400, "is no BYTES"},
		{"long id", change("p1", strings.Repeat("p", 300)), 400, "id has 300 bytes"},
		{"no data", change(`,"data":[1,2,3,-4,-5.5,1e-1]`, ""), 400, `input "X": has no data`},
		{"too many rows", fmt.Sprintf(`{"inputs":[{"name":"X","shape":[101,3],"datatype":"FP32","data":[%s1]},{"name":"note","shape":[101],"datatype":"BYTES","data":[%s""]}]}`,
			strings.Repeat("1,", 302), strings.Repeat(`"",`, 100)), 400, "1 to 100 are taken"},
		{"too large a body", strings.Repeat(" ", 5000), 413, "larger"},
		{"the run fails", change("[1,", "[-1,"), 500, "broken graph"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := do(t, s, "POST", "/v2/models/adder/infer", c.body)
			var e struct{ Error string }
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
				t.Fatalf("%d %s: %v", w.Code, w.Body, err)
			}
			if w.Code != c.status || !strings.Contains(e.Error, c.want) {
				t.Errorf("%d %s; want %d and %q", w.Code, e.Error, c.status, c.want)
			}
		})
	}
}

// A compressed body is refused by what it is, not by what it looks like.
func TestContentEncoding(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{Labels: &labels{}})
	labels := `{"labels":[{"id":"p1/0","label":"seven"}]}`
	for encoding, want := range map[string]int{"gzip": 415, "br": 415, "identity": 200, "": 200} {
		for path, body := range map[string]string{"/v2/models/adder/infer": twoRows, "/v2/models/adder/feedback": labels} {
			w := do(t, s, "POST", path, body, "Content-Encoding", encoding)
			if w.Code != want || want == 415 && !strings.Contains(w.Body.String(), "is not taken: send the body as it is") {
				t.Errorf("%s %q: %d %s, want %d", path, encoding, w.Code, w.Body, want)
			}
		}
	}
}

func TestUnknownModel(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	for path, status := range map[string]int{
		"POST /v2/models/other/infer":             404,
		"POST /v2/models/adder/versions/v9/infer": 404,
		"GET /v2/models/other":                    404,
		"GET /v2/models/adder/versions/v9":        404,
		"GET /v2/models/other/ready":              404,
		"GET /nothing":                            404,
		"GET /v2/models/adder/infer":              405,
		"DELETE /status":                          405,
	} {
		method, url, _ := strings.Cut(path, " ")
		w := do(t, s, method, url, twoRows)
		if w.Code != status || !strings.HasPrefix(w.Body.String(), `{"error":`) {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, status)
		}
	}
}

func TestInferBinary(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	head := `{"id":"b","parameters":{"binary_data_output":true},"inputs":[
		{"name":"X","shape":[2,3],"datatype":"FP32","parameters":{"binary_data_size":24}},
		{"name":"note","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}}],
		"outputs":[{"name":"label","parameters":{"binary_data":false}},{"name":"sum"},{"name":"echo"}]}`
	var body bytes.Buffer
	body.WriteString(head)
	binary.Write(&body, binary.LittleEndian, []float32{1, 2, 3, -4, -5.5, 0.25})
	body.WriteString("\x01\x00\x00\x00a\x02\x00\x00\x00bc")
	w := do(t, s, "POST", "/v2/models/adder/infer", body.String(), headerLength, strconv.Itoa(len(head)))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	var n int
	fmt.Sscan(w.Header().Get(headerLength), &n)
	text, rest := w.Body.String()[:n], w.Body.Bytes()[n:]
	want := `{"model_name":"adder","model_version":"v1","id":"b","outputs":[{"name":"label","datatype":"INT64","shape":[2],"data":[1,0]},` +
		`{"name":"sum","datatype":"FP32","shape":[2,1],"parameters":{"binary_data_size":8}},` +
		`{"name":"echo","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":11}}]}`
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	wantRest := binary.LittleEndian.AppendUint32(nil, math.Float32bits(6))
	wantRest = binary.LittleEndian.AppendUint32(wantRest, math.Float32bits(-9.25))
	wantRest = append(wantRest, "\x01\x00\x00\x00a\x02\x00\x00\x00bc"...)
	if !bytes.Equal(rest, wantRest) {
		t.Errorf("binary part %q, want %q", rest, wantRest)
	}
}

func TestInferBinaryRefuses(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	head := func(x, note int) string {
		return fmt.Sprintf(`{"inputs":[{"name":"X","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":%d}},
			{"name":"note","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}`, x, note)
	}
	cases := []struct{ name, head, tail, want string }{
		{"short", head(12, 5), "0123456789", "has 10 bytes left"},
		{"size", head(8, 5), "0123456789012", "needs 12"},
		{"rest", head(12, 5), "012345678901\x01\x00\x00\x00axx", "2 bytes follow"},
		{"string length", head(12, 5), "012345678901\xff\xff\xff\xffa", "ends within string 0"},
		{"string count", head(12, 3), "012345678901\x01\x00\x00", "too few for 1 strings"},
		{"string tail", head(12, 5), "012345678901\x00\x00\x00\x00a", "after its last string"},
		{"negative", head(-1, 5), "", "out of range"},
		{"both", strings.Replace(head(12, 5), `"parameters"`, `"data":[1,2,3],"parameters"`, 1), "012345678901\x01\x00\x00\x00a", "both"},
	}
	for _, c := range cases {
		w := do(t, s, "POST", "/v2/models/adder/infer", c.head+c.tail, headerLength, strconv.Itoa(len(c.head)))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %q", c.name, w.Code, w.Body, c.want)
		}
	}
	w := do(t, s, "POST", "/v2/models/adder/infer", "{}", headerLength, "900")
	if w.Code != http.StatusBadRequest {
		t.Errorf("header longer than the body: %d %s", w.Code, w.Body)
	}
}

// TestBinaryRoundTrip sends every datatype through both encodings.
func TestBinaryRoundTrip(t *testing.T) {
	all := everyDatatype()
	for _, isBinary := range []bool{false, true} {
		tensors := all
		if !isBinary {
			tensors = all[:len(all)-2] // without the half floats
		}
		raw, header := encodeResponse(nil, &request{binary: isBinary}, &infer.Response{Outputs: tensors})
		if header == 0 {
			header = len(raw)
		}
		text := strings.Replace(string(raw[:header]), `"outputs"`, `"inputs"`, 1)
		got := &request{}
		if err := got.decode(append([]byte(text), raw[header:]...), len(text)); err != nil {
			t.Fatal(err)
		}
		for i, want := range tensors {
			if g := got.Inputs[i]; fmt.Sprint(g) != fmt.Sprint(want) {
				t.Errorf("binary %v: %v, want %v", isBinary, g, want)
			}
		}
	}
}

// everyDatatype is one tensor of each, half floats last.
func everyDatatype() []infer.Tensor {
	return []infer.Tensor{
		{Name: "a", Datatype: "BOOL", Shape: []int64{2}, Data: []bool{true, false}},
		{Name: "b", Datatype: "UINT8", Shape: []int64{2}, Data: []uint8{0, 255}},
		{Name: "c", Datatype: "UINT16", Shape: []int64{2}, Data: []uint16{1, 65535}},
		{Name: "d", Datatype: "UINT32", Shape: []int64{2}, Data: []uint32{1, math.MaxUint32}},
		{Name: "e", Datatype: "UINT64", Shape: []int64{2}, Data: []uint64{1, math.MaxUint64}},
		{Name: "f", Datatype: "INT8", Shape: []int64{2}, Data: []int8{-128, 127}},
		{Name: "g", Datatype: "INT16", Shape: []int64{2}, Data: []int16{-32768, 32767}},
		{Name: "h", Datatype: "INT32", Shape: []int64{2}, Data: []int32{math.MinInt32, math.MaxInt32}},
		{Name: "i", Datatype: "INT64", Shape: []int64{2}, Data: []int64{math.MinInt64, math.MaxInt64}},
		{Name: "j", Datatype: "FP32", Shape: []int64{2}, Data: []float32{math.SmallestNonzeroFloat32, -math.MaxFloat32}},
		{Name: "k", Datatype: "FP64", Shape: []int64{2}, Data: []float64{math.SmallestNonzeroFloat64, math.MaxFloat64}},
		{Name: "l", Datatype: "BYTES", Shape: []int64{2}, Data: []string{"", "é\"\\\x01"}},
		{Name: "m", Datatype: "FP16", Shape: []int64{2}, Data: []infer.Float16{infer.NewFloat16(1.5), 0xfbff}},
		{Name: "n", Datatype: "BF16", Shape: []int64{2}, Data: []infer.BFloat16{infer.NewBFloat16(-2), 1}},
	}
}

func TestIDs(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	seen := map[string]bool{}
	for range 100 {
		w := do(t, s, "POST", "/v2/models/adder/infer", strings.Replace(twoRows, `"id":"p1",`, "", 1))
		var r struct{ ID string }
		if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || r.ID == "" || seen[r.ID] {
			t.Fatalf("id %q after %d others: %s", r.ID, len(seen), w.Body)
		}
		seen[r.ID] = true
	}
}

func TestHealthAndMetadata(t *testing.T) {
	s, e := testServer(t, &adder{}, Config{Version: "1.2.3"})
	for path, want := range map[string]string{
		"/v2":                                `{"name":"vedette-agent","version":"1.2.3","extensions":["binary_tensor_data"]}`,
		"/v2/":                               `{"name":"vedette-agent","version":"1.2.3","extensions":["binary_tensor_data"]}`,
		"/v2/health/live":                    `{"live":true}`,
		"/v2/health/ready":                   `{"live":true,"ready":true}`,
		"/v2/models/adder":                   `{"name":"adder","versions":["v1"],"platform":"onnx_onnxv1","inputs":[{"name":"X","datatype":"FP32","shape":[-1,3]},{"name":"note","datatype":"BYTES","shape":[-1]}],"outputs":[{"name":"label","datatype":"INT64","shape":[-1]},{"name":"sum","datatype":"FP32","shape":[-1,1]},{"name":"echo","datatype":"BYTES","shape":[-1]}]}`,
		"/v2/models/adder/ready":             `{"name":"adder","ready":true}`,
		"/v2/models/adder/versions/v1/":      ``,
		"/v2/models/adder/versions/v1/ready": `{"name":"adder","ready":true}`,
	} {
		w := do(t, s, "GET", path, "")
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || want != "" && got != want {
			t.Errorf("%s: %d %s, want %s", path, w.Code, got, want)
		}
	}
	if err := e.Remove(t.Context(), "adder"); err != nil {
		t.Fatal(err)
	}
	if w := do(t, s, "GET", "/v2/health/ready", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("ready without a model: %d %s", w.Code, w.Body)
	}
	if w := do(t, s, "GET", "/v2/health/live", ""); w.Code != http.StatusOK {
		t.Errorf("live without a model: %d %s", w.Code, w.Body)
	}
}

func TestFeedback(t *testing.T) {
	l := &labels{}
	s, _ := testServer(t, &adder{}, Config{Labels: l})
	w := do(t, s, "POST", "/v2/models/adder/feedback", `{"labels":[{"id":"p1/0","label":"seven"},{"id":"p1/1","label":7},{"id":"lost","label":"0"}]}`)
	if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != `{"matched":2,"unmatched":1}` {
		t.Errorf("%d %s", w.Code, got)
	}
	if want := []string{"adder p1/0 seven", "adder p1/1 7", "adder lost 0"}; !slices.Equal(l.got, want) {
		t.Errorf("labels %q, want %q", l.got, want)
	}
	for body, want := range map[string]string{
		``:                                    "labels",
		`{"labels":[]}`:                       "1 to 10000",
		`{"labels":[{"id":"a"}]}`:             "labels[0] needs",
		`{"labels":[{"label":"a"}]}`:          "labels[0] needs",
		`{"labels":[{"id":"a","label":1.5}]}`: "labels[0]",
		`{"labels":[{"id":"a","label":"x"},{"id":"b","label":"bad"}]}`:                       "labels[1]: no such class; 1 before it were taken",
		`{"labels":[{"id":"a","label":"x","extra":1}]}`:                                      `send {\"labels\":[{\"id\":`,
		`{"labels":"` + strings.Repeat("x", maxFeedback) + `"}`:                              "larger",
		`{"labels":[` + strings.Repeat(`{"id":"a","label":1},`, 10_001)[:21*10_001-1] + `]}`: "10001 labels",
	} {
		w := do(t, s, "POST", "/v2/models/adder/feedback", body)
		if w.Code < 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%.60s: %d %s, want %q", body, w.Code, w.Body, want)
		}
	}
	if w := do(t, s, "POST", "/v2/models/other/feedback", `{"labels":[{"id":"a","label":1}]}`); w.Code != http.StatusNotFound {
		t.Errorf("unknown model: %d %s", w.Code, w.Body)
	}
}

// broken is an Engine that gives one error.
type broken struct {
	Engine
	err error
}

func (b broken) InferInto(context.Context, *infer.Request, *infer.Response) error { return b.err }
func (b broken) Status() []infer.Status                                           { return nil }

func TestRetryAfter(t *testing.T) {
	for err, want := range map[error][2]string{
		infer.ErrBusy:            {"429", "1"},
		infer.ErrHung:            {"503", "5"},
		infer.ErrClosed:          {"503", "5"},
		context.DeadlineExceeded: {"503", "1"},
		errors.New("anything"):   {"500", ""},
	} {
		s := New(broken{err: err}, Config{})
		w := do(t, s, "POST", "/v2/models/m/infer", twoRows)
		if got := [2]string{strconv.Itoa(w.Code), w.Header().Get("Retry-After")}; got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

func TestStatusAndMetrics(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{Version: "1.2.3", Agent: func() *Agent { return &Agent{Device: "cam-1"} }})
	do(t, s, "POST", "/v2/models/adder/infer", twoRows)
	do(t, s, "POST", "/v2/models/adder/infer", "{")
	do(t, s, "POST", "/v2/models/adder/infer", `{"inputs":[{"name":"X","shape":[8192,0],"datatype":"FP32","data":[]}]}`)
	var st Status
	w := do(t, s, "GET", "/status", "")
	if err := json.Unmarshal(w.Body.Bytes(), &st); err != nil {
		t.Fatal(err)
	}
	if st.Version != "1.2.3" || st.Agent == nil || st.Agent.Device != "cam-1" || len(st.Models) != 1 {
		t.Fatalf("status %s", w.Body)
	}
	if m := st.Models[0]; m.Model != "adder" || m.Calls != 1 || m.Rows != 2 || m.Failed != 0 || m.Refused != 1 {
		t.Errorf("model status %+v", m)
	}
	text := do(t, s, "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		`vedette_infer_rows_total{model="adder",release="000000000000",version="v1"} 2`,
		`vedette_http_requests_total{code="400",route="POST /v2/models/{model}/infer"} 2`,
		`vedette_infer_refused_calls_total{model="adder",release="000000000000",version="v1"} 1`,
		`vedette_infer_failed_calls_total{model="adder",release="000000000000",version="v1"} 0`,
		`vedette_infer_run_duration_seconds_count{model="adder"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

func TestStartAndStop(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	s, _ := testServer(t, &adder{}, Config{Listen: "127.0.0.1:0", Socket: socket})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	over := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for name, c := range map[string]*http.Client{"tcp": http.DefaultClient, "unix": &over} {
		resp, err := c.Post("http://"+s.Addr().String()+"/v2/models/adder/infer", "application/json", strings.NewReader(twoRows))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != twoRowsAnswer {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != socketMode {
		t.Errorf("socket mode %v, %v; want %o", st.Mode(), err, socketMode)
	}
	second, _ := testServer(t, &adder{}, Config{Listen: "-", Socket: socket})
	if err := second.Start(t.Context()); !errors.Is(err, ErrListen) {
		t.Errorf("second server on the socket: %v, want %v", err, ErrListen)
	}
	third, _ := testServer(t, &adder{}, Config{Listen: s.Addr().String()})
	if err := third.Start(t.Context()); !errors.Is(err, ErrListen) {
		t.Errorf("second server on the address: %v, want %v", err, ErrListen)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestStaleSocket starts where a killed agent left its socket file behind.
func TestStaleSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	s, _ := testServer(t, &adder{}, Config{Listen: "-", Socket: socket})
	if err := s.Start(t.Context()); err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	s.Stop(t.Context())
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other, _ := testServer(t, &adder{}, Config{Listen: "-", Socket: socket})
	if err := other.Start(t.Context()); err == nil {
		t.Error("a plain file was replaced by a socket")
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(twoRows), uint16(len(twoRows)))
	f.Add([]byte(`{"inputs":[{"name":"X","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}\x01\x00\x00\x00a`), uint16(90))
	f.Fuzz(func(t *testing.T, body []byte, header uint16) {
		n := min(int(header), len(body))
		r := &request{}
		if err := r.decode(body, n); err != nil {
			return
		}
		if !json.Valid(body[:n]) {
			t.Errorf("accepted %q, which is not JSON", body[:n])
		}
		for _, in := range r.Inputs {
			if want, err := infer.Elements(in.Shape); err != nil || fmt.Sprint(in.Data) == "<nil>" && want > 0 {
				t.Errorf("tensor %v has no data", in)
			}
		}
	})
}

func BenchmarkDecodeRequest(b *testing.B) {
	row := strings.TrimSuffix(strings.Repeat("0,3,12.5,16,", 16), ",")
	body := []byte(`{"id":"p","inputs":[{"name":"X","shape":[1,64],"datatype":"FP32","data":[` + row + `]}]}`)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		r := &request{}
		for b.Loop() {
			if err := r.decode(body, len(body)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			var v struct {
				ID     string
				Inputs []struct {
					Name, Datatype string
					Shape          []int64
					Data           []float32
				}
			}
			if err := json.Unmarshal(body, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
