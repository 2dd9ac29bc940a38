package serve

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/inference"
)

// startGRPC serves over gRPC alone, on a port and a socket.
func startGRPC(t *testing.T, s *Server) (port, socket string) {
	t.Helper()
	s.cfg.Listen, s.cfg.GRPC, s.cfg.GRPCSocket = "-", "127.0.0.1:0", filepath.Join(t.TempDir(), "grpc.sock")
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s.GRPCAddr().String(), "unix:" + s.cfg.GRPCSocket
}

func dialGRPC(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestConformsToKServe lets the client that KServe generated ask, over the port
// and over the socket.
func TestConformsToKServe(t *testing.T) {
	client := filepath.Join(t.TempDir(), "kserve")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", client, ".")
	build.Dir = filepath.Join("testdata", "kserve")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("KServe's client cannot be built: it needs its modules, `cd agent/serve/testdata/kserve && go mod download`: %s", out)
	}
	s, _ := testServer(t, &adder{}, Config{Version: "1.2.3"})
	port, socket := startGRPC(t, s)
	tensors := `"outputs":[{"name":"label","datatype":"INT64","shape":[2]`
	want := []string{
		`{"ask":"live","code":"OK","answer":true}`,
		`{"ask":"ready","code":"OK","answer":true}`,
		`{"ask":"model ready","code":"OK","answer":true}`,
		`{"ask":"other version","code":"NotFound","answer":"model is not served here: adder version v9"}`,
		`{"ask":"server","code":"OK","answer":{"name":"vedette-agent","version":"1.2.3","extensions":["binary_tensor_data"]}}`,
		`{"ask":"model","code":"OK","answer":{"name":"adder","versions":["v1"],"platform":"onnx_onnxv1",` +
			`"inputs":[{"name":"X","datatype":"FP32","shape":[-1,3]},{"name":"note","datatype":"BYTES","shape":[-1]}],` +
			`"outputs":[{"name":"label","datatype":"INT64","shape":[-1]},{"name":"sum","datatype":"FP32","shape":[-1,1]},{"name":"echo","datatype":"BYTES","shape":[-1]}]}}`,
		`{"ask":"typed","code":"OK","answer":{"model_name":"adder","model_version":"v1","id":"typed-1",` + tensors + `,"contents":{"int64_contents":[1,0]}},` +
			`{"name":"sum","datatype":"FP32","shape":[2,1],"contents":{"fp32_contents":[6,-9.25]}},` +
			`{"name":"echo","datatype":"BYTES","shape":[2],"contents":{"bytes_contents":["YQ==","YmM="]}}]}}`,
		`{"ask":"raw","code":"OK","answer":{"model_name":"adder","model_version":"v1","id":"raw-1",` + tensors + `},` +
			`{"name":"sum","datatype":"FP32","shape":[2,1]},{"name":"echo","datatype":"BYTES","shape":[2]}],` +
			`"raw_output_contents":["AQAAAAAAAAAAAAAAAAAAAA==","AADAQAAAFME=","AQAAAGECAAAAYmM="]}}`,
		`{"ask":"both","code":"InvalidArgument","answer":"input \"X\": has both contents and raw contents"}`,
	}
	for _, target := range []string{port, socket} {
		out, err := exec.CommandContext(t.Context(), client, target).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", target, err, out)
		}
		got := strings.Split(strings.TrimSpace(string(out)), "\n")
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Errorf("%s: line %d is\n%s\nwant\n%s", target, i, got[min(i, len(got)-1)], want[min(i, len(want)-1)])
			}
		}
	}
}

func callTwoRows() *inference.ModelInferRequest {
	return &inference.ModelInferRequest{
		ModelName: "adder", Id: "c1",
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "X", Datatype: "FP32", Shape: []int64{2, 3}, Contents: &inference.InferTensorContents{Fp32Contents: []float32{1, 2, 3, -4, -5.5, 0.25}}},
			{Name: "note", Datatype: "BYTES", Shape: []int64{2}, Contents: &inference.InferTensorContents{BytesContents: [][]byte{[]byte("a"), []byte("bc")}}},
		},
	}
}

func TestGRPCAnswersInTheFormAskedFor(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{})
	port, _ := startGRPC(t, s)
	c := inference.NewGRPCInferenceServiceClient(dialGRPC(t, port))
	yes := map[string]*inference.InferParameter{"binary_data_output": {ParameterChoice: &inference.InferParameter_BoolParam{BoolParam: true}}}
	plain, asked, one := callTwoRows(), callTwoRows(), callTwoRows()
	asked.Parameters = yes
	one.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "sum"}}
	for name, tc := range map[string]struct {
		req     *inference.ModelInferRequest
		outputs int
		raw     int
	}{"typed": {plain, 3, 0}, "raw by parameter": {asked, 3, 3}, "one output": {one, 1, 0}} {
		resp, err := c.ModelInfer(t.Context(), tc.req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(resp.GetOutputs()) != tc.outputs || len(resp.GetRawOutputContents()) != tc.raw || resp.GetId() != "c1" {
			t.Errorf("%s: %v", name, resp)
		}
		for _, o := range resp.GetOutputs() {
			if (o.GetContents() == nil) != (tc.raw > 0) {
				t.Errorf("%s: output %s has contents %v beside %d raw ones", name, o.GetName(), o.GetContents(), tc.raw)
			}
		}
	}
}

func TestGRPCRefuses(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{MaxBody: 4096})
	port, _ := startGRPC(t, s)
	c := inference.NewGRPCInferenceServiceClient(dialGRPC(t, port))
	for name, tc := range map[string]struct {
		change func(r *inference.ModelInferRequest)
		code   codes.Code
		want   string
	}{
		"unknown model": {func(r *inference.ModelInferRequest) { r.ModelName = "other" }, codes.NotFound, "not served here"},
		"other version": {func(r *inference.ModelInferRequest) { r.ModelVersion = "v9" }, codes.NotFound, "version v9"},
		"too few raw":   {func(r *inference.ModelInferRequest) { r.RawInputContents = [][]byte{{}} }, codes.InvalidArgument, "2 inputs and 1 raw"},
		"wrong field":   {func(r *inference.ModelInferRequest) { r.Inputs[0].Datatype = "FP64" }, codes.InvalidArgument, `the model takes "FP32"`},
		"short":         {func(r *inference.ModelInferRequest) { r.Inputs[0].Shape = []int64{3, 3} }, codes.InvalidArgument, "data has 6 elements"},
		"half typed":    {func(r *inference.ModelInferRequest) { r.Inputs[0].Datatype = "FP16" }, codes.InvalidArgument, "send it raw"},
		"unknown type":  {func(r *inference.ModelInferRequest) { r.Inputs[0].Datatype = "FP99" }, codes.InvalidArgument, "not supported"},
		"no contents":   {func(r *inference.ModelInferRequest) { r.Inputs[0].Contents = nil }, codes.InvalidArgument, "data has 0 elements"},
		"rank":          {func(r *inference.ModelInferRequest) { r.Inputs[0].Shape = make([]int64, 20) }, codes.InvalidArgument, "dimensions"},
		"unknown output": {func(r *inference.ModelInferRequest) {
			r.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "x"}}
		}, codes.InvalidArgument, "no output"},
		"bad timeout": {func(r *inference.ModelInferRequest) {
			r.Parameters = map[string]*inference.InferParameter{"timeout": {ParameterChoice: &inference.InferParameter_Int64Param{Int64Param: -1}}}
		}, codes.InvalidArgument, "timeout"},
		"over the limit":  {func(r *inference.ModelInferRequest) { r.Id = strings.Repeat("i", 5000) }, codes.ResourceExhausted, "larger than max"},
		"broken schema":   {func(r *inference.ModelInferRequest) { r.Inputs = r.Inputs[:1] }, codes.InvalidArgument, `input "note": is missing`},
		"feature missing": {func(r *inference.ModelInferRequest) { r.Inputs[0].Contents.Fp32Contents[0] = float32(math.NaN()) }, codes.InvalidArgument, `feature "width"`},
	} {
		r := callTwoRows()
		tc.change(r)
		_, err := c.ModelInfer(t.Context(), r)
		if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %v and %q", name, err, tc.code, tc.want)
		}
	}
}

// Errors worth another try say when, and each has the status that clients act on.
func TestGRPCStatuses(t *testing.T) {
	for _, tc := range []struct {
		err   error
		code  codes.Code
		after time.Duration
	}{
		{&infer.Overload{After: 70 * time.Millisecond}, codes.ResourceExhausted, 70 * time.Millisecond},
		{infer.ErrHung, codes.Unavailable, afterHang},
		{infer.ErrClosed, codes.Unavailable, afterHang},
		{fmt.Errorf("wait for a turn: %w", context.DeadlineExceeded), codes.DeadlineExceeded, afterGiveUp},
		{errors.New("anything"), codes.Internal, 0},
	} {
		s := New(broken{err: tc.err}, Config{})
		port, _ := startGRPC(t, s)
		_, err := inference.NewGRPCInferenceServiceClient(dialGRPC(t, port)).ModelInfer(t.Context(), callTwoRows())
		var after time.Duration
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.RetryInfo); ok {
				after = info.GetRetryDelay().AsDuration()
			}
		}
		if status.Code(err) != tc.code || after != tc.after {
			t.Errorf("%v: %v after %v, want %v after %v", tc.err, status.Code(err), after, tc.code, tc.after)
		}
	}
}

func TestGRPCHealth(t *testing.T) {
	s, e := testServer(t, &adder{}, Config{Assigned: func(m string) bool { return m == "coming" }})
	port, _ := startGRPC(t, s)
	c := grpc_health_v1.NewHealthClient(dialGRPC(t, port))
	check := func(service string) string {
		resp, err := c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			return status.Code(err).String()
		}
		return resp.GetStatus().String()
	}
	for service, want := range map[string]string{
		"": "SERVING", "inference.GRPCInferenceService": "SERVING", "adder": "SERVING", "coming": "NOT_SERVING", "other": "NotFound",
	} {
		if got := check(service); got != want {
			t.Errorf("health of %q is %s, want %s", service, got, want)
		}
	}
	if err := e.Remove(t.Context(), "adder"); err != nil {
		t.Fatal(err)
	}
	if got := check(""); got != "NOT_SERVING" {
		t.Errorf("health without a model is %s", got)
	}
}

// TestCallRoundTrip sends every datatype through both forms of a message.
func TestCallRoundTrip(t *testing.T) {
	for _, raw := range []bool{false, true} {
		for _, want := range everyDatatype() {
			if isHalf(want.Datatype) && !raw {
				continue
			}
			out := toCall(&request{binary: raw}, &infer.Response{Outputs: []infer.Tensor{want}})
			in := &inference.ModelInferRequest{RawInputContents: out.GetRawOutputContents()}
			for _, o := range out.GetOutputs() {
				in.Inputs = append(in.Inputs, &inference.ModelInferRequest_InferInputTensor{Name: o.GetName(), Datatype: o.GetDatatype(), Shape: o.GetShape(), Contents: o.GetContents()})
			}
			wire, err := proto.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			again := &inference.ModelInferRequest{}
			if err := proto.Unmarshal(wire, again); err != nil {
				t.Fatal(err)
			}
			got, err := fromCall(again)
			if err != nil || fmt.Sprint(got.Inputs[0]) != fmt.Sprint(want) {
				t.Errorf("raw %v: %v, %v; want %v", raw, got, err, want)
			}
		}
	}
	for _, bad := range []*inference.InferTensorContents{{IntContents: []int32{128}}, {IntContents: []int32{-129}}} {
		tensor := infer.Tensor{Name: "n", Datatype: "INT8", Shape: []int64{1}}
		if err := fromContents(&tensor, bad); err == nil {
			t.Errorf("%v fits INT8", bad)
		}
	}
}

// TestHalvesTravelAsBinary answers a half float in JSON's binary part whatever
// the request says.
func TestHalvesTravelAsBinary(t *testing.T) {
	half := infer.Tensor{Name: "h", Datatype: "FP16", Shape: []int64{1}, Data: []infer.Float16{infer.NewFloat16(1.5)}}
	raw, header := encodeResponse(nil, &request{formats: []format{{"h", false}}}, &infer.Response{Outputs: []infer.Tensor{half}})
	if header == 0 || binary.LittleEndian.Uint16(raw[header:]) != 0x3e00 {
		t.Errorf("got %q with a header of %d", raw, header)
	}
	r := &request{}
	body := `{"inputs":[{"name":"h","shape":[1],"datatype":"FP16","data":[1.5]}]}`
	if err := r.decode([]byte(body), len(body)); err == nil || !json.Valid([]byte(body)) || !strings.Contains(err.Error(), "binary data") {
		t.Errorf("half float in JSON: %v", err)
	}
}
