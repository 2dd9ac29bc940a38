package infer

import (
	"slices"
	"testing"

	"github.com/vedette-edge/vedette/protocol/release"
)

func TestCandidates(t *testing.T) {
	offered := []string{"TensorrtExecutionProvider", "CUDAExecutionProvider", "WebGpuExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"}
	for name, tt := range map[string]struct{ preferred, want []string }{
		"no profile":         {nil, []string{"CPUExecutionProvider", "TensorrtExecutionProvider", "CUDAExecutionProvider", "WebGpuExecutionProvider"}},
		"in order":           {[]string{"CUDA", "Tensorrt"}, []string{"CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider", "WebGpuExecutionProvider"}},
		"one not offered":    {[]string{"OpenVINO", "WebGPU"}, []string{"CPUExecutionProvider", "WebGpuExecutionProvider", "TensorrtExecutionProvider", "CUDAExecutionProvider"}},
		"the CPU and a twin": {[]string{"CPU", "CUDA", "CUDAExecutionProvider"}, []string{"CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider", "WebGpuExecutionProvider"}},
	} {
		if got := Candidates(offered, tt.preferred); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	if got := Candidates(nil, nil); !slices.Equal(got, []string{release.CPUProvider}) {
		t.Errorf("nothing offered: got %v", got)
	}
}
