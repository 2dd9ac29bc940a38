package release

import "testing"

func TestSameProvider(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"CUDA", "CUDAExecutionProvider", true},
		{"XNNPACK", "XnnpackExecutionProvider", true},
		{"", "CPUExecutionProvider", true},
		{"CPU", "", true},
		{"CUDA", "TensorrtExecutionProvider", false},
		{"", "WebGPU", false},
		{"DirectML", "DmlExecutionProvider", true},
	} {
		if got := SameProvider(tt.a, tt.b); got != tt.want {
			t.Errorf("%q and %q: got %v", tt.a, tt.b, got)
		}
	}
}

func TestRunsOn(t *testing.T) {
	for name, tt := range map[string]struct {
		needs    []string
		provider string
		want     bool
	}{
		"anything":    {nil, "CUDAExecutionProvider", true},
		"one of them": {[]string{"TensorRT", "CUDA"}, "CUDAExecutionProvider", true},
		"neither":     {[]string{"TensorRT", "CUDA"}, "", false},
	} {
		v := Variant{Providers: tt.needs}
		if got := v.RunsOn(tt.provider); got != tt.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
