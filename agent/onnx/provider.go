package onnx

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/protocol/release"
)

// provider is how one execution provider of the library is asked for.
type provider struct {
	name string // as the library and manifests name it
	// install says what a device needs besides the library itself.
	install string
	append  func(o *ort.SessionOptions) error
}

// known are the providers that need more than their name. Another is asked for
// by the name alone.
var known = []provider{
	{release.CPUProvider, "", func(*ort.SessionOptions) error { return nil }},
	{
		"XnnpackExecutionProvider", "an ONNX Runtime built with --use_xnnpack",
		named("XNNPACK", map[string]string{"intra_op_num_threads": "1"}),
	},
	{"CUDAExecutionProvider", "libonnxruntime_providers_cuda.so and libonnxruntime_providers_shared.so beside the library, NVIDIA's driver, CUDA and cuDNN", appendCUDA},
	{"TensorrtExecutionProvider", "libonnxruntime_providers_tensorrt.so beside the library, NVIDIA's driver, CUDA and TensorRT", appendTensorRT},
	{
		"OpenVINOExecutionProvider", "libonnxruntime_providers_openvino.so beside the library and Intel's OpenVINO runtime",
		func(o *ort.SessionOptions) error {
			return o.AppendExecutionProviderOpenVINO(map[string]string{"device_type": "AUTO"})
		},
	},
	{
		"CoreMLExecutionProvider", "an Apple device and an ONNX Runtime built for it",
		func(o *ort.SessionOptions) error { return o.AppendExecutionProviderCoreMLV2(nil) },
	},
	{
		"DmlExecutionProvider", "Windows, a DirectX 12 device and an ONNX Runtime built for DirectML",
		func(o *ort.SessionOptions) error { return o.AppendExecutionProviderDirectML(0) },
	},
	{
		"QNNExecutionProvider", "Qualcomm's QNN libraries (libQnnHtp.so) and an ONNX Runtime built with them",
		named("QNN", map[string]string{"backend_path": "libQnnHtp.so"}),
	},
	{"WebGpuExecutionProvider", "a GPU with a Vulkan driver (mesa-vulkan-drivers on Debian; from Mesa 24 on)", named("WebGPU", nil)},
	{"VSINPUExecutionProvider", "NXP's build of ONNX Runtime and its TIM-VX driver", named("VSINPU", nil)},
}

// named asks by the name that the library's generic function takes.
func named(name string, options map[string]string) func(*ort.SessionOptions) error {
	return func(o *ort.SessionOptions) error { return o.AppendExecutionProvider(name, options) }
}

func appendCUDA(o *ort.SessionOptions) error {
	cuda, err := ort.NewCUDAProviderOptions()
	if err != nil {
		return err
	}
	return errors.Join(o.AppendExecutionProviderCUDA(cuda), cuda.Destroy())
}

// appendTensorRT lets CUDA compute what TensorRT cannot, as its makers advise.
func appendTensorRT(o *ort.SessionOptions) error {
	rt, err := ort.NewTensorRTProviderOptions()
	if err != nil {
		return err
	}
	if err := errors.Join(o.AppendExecutionProviderTensorRT(rt), rt.Destroy()); err != nil {
		return err
	}
	return appendCUDA(o)
}

// providerOf finds how to ask for a provider by one of its names.
func providerOf(name string) provider {
	for _, p := range known {
		if release.SameProvider(p.name, name) {
			return p
		}
	}
	return provider{name, "an ONNX Runtime built with it", named(strings.TrimSuffix(name, "ExecutionProvider"), nil)}
}

// use puts a provider before the CPU's own in the options of a session.
func (r *Runtime) use(o *ort.SessionOptions, name string) (string, error) {
	p := providerOf(name)
	ask := p.append
	if lib, ok := r.plugins[release.ProviderKey(p.name)]; ok {
		ask = lib.append
	} else if !slices.ContainsFunc(r.info.Providers, func(have string) bool { return release.SameProvider(have, name) }) {
		return "", fmt.Errorf("%w: this library was built without %s; it needs %s", ErrProvider, p.name, p.install)
	}
	if err := ask(o); err != nil {
		return "", fmt.Errorf("%w: %s: %s; it needs %s", ErrProvider, p.name, plain(err), p.install)
	}
	return p.name, nil
}

// plain is a library's message without the places in its source, on one line.
func plain(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	for _, before := range []string{"Error: ", " was false. ", "OrtSessionOptionsAppendExecutionProvider_"} {
		if i := strings.LastIndex(text, before); i >= 0 {
			text = text[i+len(before):]
		}
	}
	if name, rest, ok := strings.Cut(text, ": "); ok && !strings.Contains(name, " ") {
		text = rest // the function's own name
	}
	const most = 300 // bytes; it travels to the fleet
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Probe says whether sessions can be made on an execution provider. Drivers may
// crash or hang, so ask from a process that may end.
func (r *Runtime) Probe(name string) error {
	o, err := options()
	if err != nil {
		return err
	}
	_, err = r.use(o, name)
	return errors.Join(err, o.Destroy())
}

// usable reports whether the variant may run here, on that provider.
func usable(v release.Variant, name string) error {
	if len(v.Arch) > 0 && !slices.Contains(v.Arch, runtime.GOARCH) {
		return fmt.Errorf("%w: %q is for %s, this is %s", ErrProvider, v.Name, strings.Join(v.Arch, ", "), runtime.GOARCH)
	}
	if !v.RunsOn(name) {
		return fmt.Errorf("%w: %q needs %s", ErrProvider, v.Name, strings.Join(v.Providers, ", "))
	}
	return nil
}
