package serve

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/vedette-edge/vedette/protocol/inference"
)

// spans takes what an exporter sends.
type spans struct {
	mu  sync.Mutex // guards got
	got []*otlp.Span
}

func (s *spans) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	raw, _ := io.ReadAll(body)
	var req collector.ExportTraceServiceRequest
	if proto.Unmarshal(raw, &req) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			s.got = append(s.got, ss.GetSpans()...)
		}
	}
}

func attributes(s *otlp.Span) map[string]any {
	m := map[string]any{}
	for _, a := range s.GetAttributes() {
		switch {
		case a.GetValue().GetStringValue() != "":
			m[a.GetKey()] = a.GetValue().GetStringValue()
		default:
			m[a.GetKey()] = a.GetValue().GetIntValue()
		}
	}
	return m
}

// TestTraces predicts over HTTP and gRPC with the caller's trace context, and
// reads the spans where a collector would.
func TestTraces(t *testing.T) {
	sink := &spans{}
	col := httptest.NewServer(sink)
	defer col.Close()
	s, _ := testServer(t, &adder{}, Config{Traces: col.URL + "/v1/traces", Device: "cam-1", Listen: "-", GRPC: "127.0.0.1:0"})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	const ignored = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	do(t, s, "POST", "/v2/models/adder/infer", twoRows, "traceparent", parent)
	do(t, s, "POST", "/v2/models/adder/infer", twoRows, "traceparent", ignored) // its caller samples no such trace
	do(t, s, "POST", "/v2/models/other/infer", twoRows)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
	if _, err := inference.NewGRPCInferenceServiceClient(dialGRPC(t, s.GRPCAddr().String())).ModelInfer(ctx, callTwoRows()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil { // sends what waits
		t.Fatal(err)
	}
	if len(sink.got) != 3 {
		t.Fatalf("%d spans, want 3: %v", len(sink.got), sink.got)
	}
	for i, id := range []string{"p1", "", "c1"} {
		span := sink.got[i]
		if id == "" {
			if span.GetStatus().GetMessage() != "model is not served here: other" || len(span.GetParentSpanId()) != 0 {
				t.Errorf("failed span %v", span)
			}
			continue
		}
		a := attributes(span)
		if string(span.GetTraceId()) != "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c" || string(span.GetParentSpanId()) != "\xb7\xad\x6b\x71\x69\x20\x33\x31" {
			t.Errorf("span %d is of trace %x below %x", i, span.GetTraceId(), span.GetParentSpanId())
		}
		if a["vedette.model"] != "adder" || a["vedette.version"] != "v1" || a["vedette.prediction_id"] != id || a["vedette.rows"] != int64(2) {
			t.Errorf("span %d has %v", i, a)
		}
		if _, waited := a["vedette.wait_us"]; !waited || span.GetName() != "infer adder" || span.GetEndTimeUnixNano() < span.GetStartTimeUnixNano() {
			t.Errorf("span %d is %v", i, span)
		}
	}
}
