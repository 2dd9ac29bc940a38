package serve

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/inference"
	"github.com/vedette-edge/vedette/protocol/release"
)

// A key in the request, as a parameter, a header or a parameter of gRPC, says
// which version answers, and the answer says which did.
func TestShareByKeyOfTheRequest(t *testing.T) {
	s, e := testServer(t, &adder{}, Config{})
	s.cfg.Challengers = e.Challengers
	m := testManifest()
	m.Version = "v2"
	second := infer.Release{Manifest: m, Dir: t.TempDir(), Digest: release.DigestOf([]byte("v2")), Role: infer.RoleShare, Share: 500}
	if err := e.Activate(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	port, _ := startGRPC(t, s)
	client := inference.NewGRPCInferenceServiceClient(dialGRPC(t, port))
	seen := map[bool]int{}
	for i := range 40 {
		key := fmt.Sprintf("machine-%d", i)
		share := infer.Key("adder", key) < 500
		seen[share]++
		version, mark := "v1", `"id":"p1","outputs"`
		if share {
			version, mark = "v2", `"id":"p1","parameters":{"role":"share","release":"`+second.Digest.String()+`"},"outputs"`
		}
		want := fmt.Sprintf(`"model_version":%q,%s`, version, mark)
		parameter := strings.Replace(twoRows, `"id":"p1"`, fmt.Sprintf(`"id":"p1","parameters":{"key":%q}`, key), 1)
		for name, answer := range map[string]string{
			"parameter": do(t, s, "POST", "/v2/models/adder/infer", parameter).Body.String(),
			"header":    do(t, s, "POST", "/v2/models/adder/infer", twoRows, "Vedette-Key", key).Body.String(),
			"both":      do(t, s, "POST", "/v2/models/adder/infer", parameter, "Vedette-Key", "another").Body.String(),
		} {
			if !strings.Contains(answer, want) {
				t.Fatalf("%s, key %s: %s\nwant %s in it", name, key, answer, want)
			}
		}
		call := callTwoRows()
		call.Parameters = map[string]*inference.InferParameter{"key": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: key}}}
		resp, err := client.ModelInfer(t.Context(), call)
		if err != nil || resp.GetModelVersion() != version || (resp.GetParameters()["role"].GetStringParam() == "share") != share {
			t.Fatalf("gRPC, key %s: %v %v, want %s", key, resp, err, version)
		}
	}
	if len(seen) != 2 {
		t.Fatalf("split into %v", seen)
	}
	if w := do(t, s, "POST", "/v2/models/adder/infer", twoRows, "Vedette-Key", strings.Repeat("x", 300)); w.Code != 400 {
		t.Errorf("a long key: %d %s", w.Code, w.Body)
	}
	if w := do(t, s, "GET", "/status", ""); !strings.Contains(w.Body.String(), `"role":"share"`) {
		t.Errorf("status: %s", w.Body)
	}
}

func TestChallengerMetrics(t *testing.T) {
	list := []infer.Status{{Model: "adder", Version: "v2", Role: infer.RoleShadow, Calls: 3, Rows: 6, Skipped: 4}}
	s, _ := testServer(t, &adder{}, Config{Challengers: func() []infer.Status { return list }})
	text := do(t, s, "GET", "/metrics", "").Body.String()
	for _, want := range []string{"vedette_challenger_rows_total{", "vedette_challenger_skipped_rows_total{", `role="shadow",version="v2"} 4`} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
