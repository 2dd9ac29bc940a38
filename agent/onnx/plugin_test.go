package onnx

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vedette-edge/vedette/protocol/release"
)

// The plugin's environment; the first also makes this program the process that
// it is loaded into, for a process can hold one ONNX Runtime.
const (
	envPluginFolder = "TEST_PLUGIN_FOLDER"
	envPluginLog    = "TEST_PLUGIN_LOG"
	envPluginFail   = "TEST_PLUGIN_FAIL"
)

// TestPlugin compiles a plugin, puts it beside the library and lets another
// process compute on it.
func TestPlugin(t *testing.T) {
	folder := t.TempDir()
	if err := os.Symlink(testRuntime(t).Info().Library, filepath.Join(folder, libraryFile)); err != nil {
		t.Fatal(err)
	}
	compilePlugin(t, filepath.Join(folder, "libonnxruntime_providers_test.so"))
	for name, tt := range map[string]struct {
		env []string
		did string
	}{
		"works":   {nil, "registered\nmade for a session\nasked for its nodes\n"},
		"refuses": {[]string{envPluginFail + "=1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.run=^TestInsidePluginProcess$")
			cmd.Env = append(os.Environ(), envPluginFolder+"="+folder, envPluginLog+"="+log)
			cmd.Env = append(cmd.Env, tt.env...)
			said, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(said), "--- PASS: TestInsidePluginProcess") {
				t.Fatalf("%v\n%s", err, said)
			}
			did, err := os.ReadFile(log)
			if tt.did == "" && errors.Is(err, os.ErrNotExist) {
				return
			}
			if got := string(did); err != nil || !strings.HasPrefix(got, tt.did) || tt.did == "" {
				t.Errorf("the plugin says %q, %v, want %q", got, err, tt.did)
			}
		})
	}
}

// compilePlugin needs the headers of the binding, whose interface it speaks.
func compilePlugin(t *testing.T, to string) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler: apt-get install gcc")
	}
	headers, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatalf("find the binding's headers: %v", err)
	}
	build := exec.CommandContext(t.Context(), cc, "-shared", "-fPIC", "-I", strings.TrimSpace(string(headers)), "-o", to, "testdata/plugin.c")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("compile plugin: %v\n%s", err, said)
	}
}

func TestInsidePluginProcess(t *testing.T) {
	folder := os.Getenv(envPluginFolder)
	if folder == "" {
		t.Skip("TestPlugin starts it in a process of its own")
	}
	rt, err := Open(filepath.Join(folder, libraryFile))
	if err != nil {
		t.Fatal(err)
	}
	const name = "testExecutionProvider"
	if !slices.Contains(rt.Info().Providers, name) {
		t.Fatalf("providers %q lack the plugin's", rt.Info().Providers)
	}
	if _, err := os.Stat(os.Getenv(envPluginLog)); err == nil {
		t.Error("the plugin was loaded before anybody asked for it")
	}
	err = rt.Probe(name)
	if os.Getenv(envPluginFail) != "" {
		if !errors.Is(err, ErrProvider) || !strings.Contains(err.Error(), "no license for this device") {
			t.Errorf("error %v does not say what the plugin said", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	provesModel(t, rt, readModel(t, "wine_lr"), name)
	if err := rt.Probe(release.CPUProvider); err != nil {
		t.Error(err)
	}
}
