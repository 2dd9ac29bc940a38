package onnx

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/protocol/release"
)

// plugin.go reads the binding's handle out of its only field.
func TestSessionOptionsAreOneHandle(t *testing.T) {
	v := reflect.TypeFor[ort.SessionOptions]()
	if v.NumField() != 1 || v.Field(0).Type.Kind() != reflect.Pointer {
		t.Errorf("%v is no longer one pointer: change (*plugin).append", v)
	}
}

func TestProbe(t *testing.T) {
	rt := testRuntime(t)
	for _, name := range []string{"", "CPU", release.CPUProvider} {
		if err := rt.Probe(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, says := range map[string]string{
		"XNNPACK":               "--use_xnnpack",
		"QNNExecutionProvider":  "libQnnHtp.so",
		"CoreML":                "Apple",
		"DirectML":              "Windows",
		"DmlExecutionProvider":  "Windows",
		"NoSuchThing":           "NoSuchThing",
		"VSINPU":                "NXP",
		"CUDAExecutionProvider": "NVIDIA's driver",
	} {
		err := rt.Probe(name)
		if !errors.Is(err, ErrProvider) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v does not say %q", name, err, says)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: error %q is not one line of text", name, err)
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"/src/a.cc:12 void f() Error: Failed to\n load x.so":                    "Failed to load x.so",
		"/src/b.cc:1 lambda() x == y was false. Failed to get an adapter.":      "Failed to get an adapter.",
		"OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load library": "Failed to load library",
		"short": "short",
	} {
		if got := plain(errors.New(in)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := plain(errors.New(strings.Repeat("é", 400))); len(got) > 310 || !strings.HasSuffix(got, "é…") {
		t.Errorf("a long message became %d bytes", len(got))
	}
}

func TestPluginName(t *testing.T) {
	for file, want := range map[string]string{
		"libonnxruntime_providers_qnn.so":             "QNNExecutionProvider",
		"libonnxruntime_providers_openvino_plugin.so": "OpenVINOExecutionProvider",
		"libonnxruntime_ep_hailo.so":                  "hailoExecutionProvider",
		"libmine.so":                                  "mineExecutionProvider",
	} {
		if got := pluginName(filepath.Join("/opt", file)); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}
