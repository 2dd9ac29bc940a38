package release

import (
	"slices"
	"strings"
)

// CPUProvider is the execution provider that every build of ONNX Runtime has.
const CPUProvider = "CPUExecutionProvider"

// SameProvider says whether two names mean one execution provider: ONNX Runtime
// itself writes both CUDA and CUDAExecutionProvider, Xnnpack and XNNPACK. Empty
// means the CPU.
func SameProvider(a, b string) bool { return ProviderKey(a) == ProviderKey(b) }

// ProviderKey is the one spelling of a provider's names, for maps.
func ProviderKey(name string) string {
	if name == "" {
		name = CPUProvider
	}
	key := strings.TrimSuffix(strings.ToLower(name), "executionprovider")
	if key == "directml" { // which the library calls Dml
		return "dml"
	}
	return key
}

// RunsOn says whether the variant may run on an execution provider.
func (v *Variant) RunsOn(provider string) bool {
	return len(v.Providers) == 0 || slices.ContainsFunc(v.Providers, func(p string) bool { return SameProvider(p, provider) })
}
