package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/operator"
)

// People see what was measured on every provider, and why one was not taken.
func TestShowTried(t *testing.T) {
	var b bytes.Buffer
	showTried(&b, []operator.DeviceModel{{Model: "quiet"}, {Model: "digits", Trial: &operator.Trial{
		Release: operator.ReleaseRef{Version: "v2"},
		Tried: []operator.Tried{
			{Variant: "fp32", Provider: "CPUExecutionProvider", P95US: 1500, PeakBytes: 5 << 20},
			{Variant: "fp32", Provider: "CUDAExecutionProvider", P95US: 300, PeakBytes: 900 << 20, Chosen: true},
			{Variant: "fp32", Provider: "WebGpuExecutionProvider", Code: "no_provider", Message: "no Vulkan driver"},
		},
	}}})
	lines := strings.Split(b.String(), "\n")
	for _, want := range [][]string{
		{"digits", "v2", "fp32", "CPU", "passed", "1.5ms", "5"}, {"CUDA", "chosen", "300µs", "900"}, {"WebGpu", "no_provider", "-", "no Vulkan driver"},
	} {
		found := false
		for _, line := range lines {
			all := true
			for _, part := range want {
				all = all && strings.Contains(line, part)
			}
			found = found || all
		}
		if !found {
			t.Errorf("no line has %q:\n%s", want, b.String())
		}
	}
	b.Reset()
	if showTried(&b, []operator.DeviceModel{{Model: "quiet"}}); b.Len() > 0 {
		t.Errorf("nothing was tried, and it says %q", b.String())
	}
}
