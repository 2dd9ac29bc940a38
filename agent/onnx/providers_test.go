package onnx

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vedette-edge/vedette/agent/infer"
	"github.com/vedette-edge/vedette/protocol/release"
)

// TestProvidersAgree computes the real models on every execution provider of
// this machine and holds the answers against scikit-learn's. Where there is no
// accelerator, that is the CPU alone, and the others say what they miss.
func TestProvidersAgree(t *testing.T) {
	rt := testRuntime(t)
	for _, provider := range rt.Info().Providers {
		t.Run(provider, func(t *testing.T) {
			if err := rt.Probe(provider); err != nil {
				t.Skipf("this machine cannot use %s: %v", provider, err)
			}
			for _, name := range models {
				m := readModel(t, name)
				took := map[string]time.Duration{}
				for _, p := range []string{release.CPUProvider, provider} {
					took[p] = provesModel(t, rt, m, p)
				}
				t.Logf("%s: %.1f times the CPU's time", name, float64(took[provider])/float64(took[release.CPUProvider]))
			}
		})
	}
}

// provesModel checks one model on one provider and returns the least time of a
// run of one row.
func provesModel(t *testing.T, rt *Runtime, m *model, provider string) time.Duration {
	t.Helper()
	schema := m.schema()
	s, err := rt.open(filepath.Join("testdata", m.name+".onnx"), &schema, provider)
	if err != nil {
		t.Fatalf("%s on %s: %v", m.name, provider, err)
	}
	defer s.Close()
	if s.Provider() != provider {
		t.Errorf("%s runs on %s, want %s", m.name, s.Provider(), provider)
	}
	out := make([]infer.Tensor, 2)
	least := time.Hour
	for _, n := range []int{1, 33, 1, 1, 1, 1} {
		in := []infer.Tensor{m.batch(0, n)}
		began := time.Now()
		if err := s.Run(t.Context(), n, in, out); err != nil {
			t.Fatalf("%s on %s: %v", m.name, provider, err)
		}
		if n == 1 {
			least = min(least, time.Since(began))
		}
		if err := m.check(0, n, out); err != nil {
			t.Errorf("%s on %s: %v", m.name, provider, err)
		}
	}
	return least
}

// envVulkanRoot names the folder of a small Debian with a Vulkan driver for the
// processor, in which WebGPU works on any machine.
const envVulkanRoot = "VEDETTE_VULKAN_ROOT"

// TestWebGPUOnTheProcessor runs the test above where there is a Vulkan driver:
// the WebGPU provider is in the library that the packages bring.
func TestWebGPUOnTheProcessor(t *testing.T) {
	root := os.Getenv(envVulkanRoot)
	if root == "" {
		t.Skipf("set %s to a folder made by: debootstrap --variant=minbase --include=mesa-vulkan-drivers,libstdc++6 trixie FOLDER", envVulkanRoot)
	}
	if os.Getuid() != 0 {
		t.Skip("only root may enter another root")
	}
	place, err := os.MkdirTemp(root, "vedette-test-") //nolint:usetesting // it has to lie in the other root
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(place) })
	furnish(t, place)
	inside := "/" + filepath.Base(place)
	cmd := exec.CommandContext(t.Context(), inside+"/test", "-test.v", "-test.run=^TestProvidersAgree$")
	cmd.Dir, cmd.SysProcAttr = inside, &syscall.SysProcAttr{Chroot: root}
	cmd.Env = []string{"VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.json", "HOME=" + inside, "TMPDIR=" + inside}
	said, err := cmd.CombinedOutput()
	t.Logf("%s", said)
	if err != nil || !strings.Contains(string(said), "--- PASS: TestProvidersAgree/WebGpuExecutionProvider") {
		t.Errorf("WebGPU did not compute what scikit-learn did: %v", err)
	}
}

// furnish puts into a folder what this test needs to run there.
func furnish(t *testing.T, place string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{
		"test": exe, "go.mod": os.DevNull, filepath.Join("build", "onnxruntime", libraryFile): testRuntime(t).Info().Library,
	} {
		if err := copyFile(filepath.Join(place, to), from); err != nil {
			t.Fatal(err)
		}
	}
	err = fs.WalkDir(os.DirFS("testdata"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return copyFile(filepath.Join(place, "testdata", name), filepath.Join("testdata", name))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(to, from string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// What fleets have is known by name, offered by this library or not.
func TestKnownProviders(t *testing.T) {
	var names []string
	for _, p := range known {
		names = append(names, release.ProviderKey(p.name))
	}
	for _, want := range []string{"CPU", "XNNPACK", "CUDA", "TensorRT", "OpenVINO", "CoreML", "DirectML", "QNN", "WebGPU"} {
		if !slices.Contains(names, release.ProviderKey(want)) {
			t.Errorf("%s is not known", want)
		}
	}
}
