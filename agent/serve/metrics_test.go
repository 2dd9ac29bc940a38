package serve

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/vedette-edge/vedette/agent/infer"
)

// TestMetricsFollowConventions asks Prometheus' own linter, with every metric
// there is.
func TestMetricsFollowConventions(t *testing.T) {
	s, _ := testServer(t, &adder{}, Config{
		Version: "1.2.3", Runtime: infer.RuntimeInfo{Name: "adder", Version: "1"},
		Agent: func() *Agent {
			return &Agent{
				Device: "cam-1", BootCount: 3, Uplink: Uplink{Connected: true}, Outbox: Outbox{Open: 2, Pending: 5, Bytes: 700},
				Fetch:   Fetch{Copied: 1, Deltas: 2, DeltasFailed: 3, SavedBytes: 4},
				Updates: []Update{{Model: "adder", State: "downloading", ForMs: 1500, Done: 10, Total: 40}},
			}
		},
	})
	do(t, s, "POST", "/v2/models/adder/infer", twoRows)
	s.metrics.call("/inference.GRPCInferenceService/ModelInfer", 0, 0)
	s.metrics.labels(FeedbackResult{Matched: 1})
	text := do(t, s, "GET", "/metrics", "").Body.String()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, want := range []string{
		`vedette_agent_info{device="cam-1",runtime="adder 1",version="1.2.3"} 1`,
		`vedette_agent_starts_total 3`,
		`vedette_uplink_connected 1`,
		`vedette_outbox_records{state="open"} 2`,
		`vedette_outbox_records{state="pending"} 5`,
		`vedette_outbox_size_bytes 700`,
		`vedette_outbox_disk_failing 0`,
		`vedette_update_state{model="adder",state="downloading"} 1`,
		`vedette_update_state_seconds{model="adder"} 1.5`,
		`vedette_update_fetched_bytes{model="adder"} 10`,
		`vedette_update_deltas_total{outcome="applied"} 2`,
		`vedette_update_deltas_total{outcome="failed"} 3`,
		`vedette_update_copied_files_total 1`,
		`vedette_update_saved_bytes_total 4`,
		`vedette_infer_queue_depth{model="adder",release="000000000000",version="v1"} 0`,
		`vedette_infer_wait_duration_seconds_count{model="adder"} 1`,
		`vedette_grpc_requests_total{code="OK",method="/inference.GRPCInferenceService/ModelInfer"} 1`,
		"process_resident_memory_bytes", "go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
