package onnx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"
)

/*
#cgo linux LDFLAGS: -ldl

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// What is needed of ONNX Runtime's C interface. Its function table only ever
// grows at the end, so a position in it is as stable as a name; these are the
// positions since interface version 5 of 2020.
enum { firstVersion = 5, releaseStatus = 93, getAvailableProviders = 125, releaseAvailableProviders = 126 };

typedef struct {
	void **(*get_api)(uint32_t version);
	const char *(*get_version)(void);
} api_base;

// vedette_open returns the library's base, or the reason why not in why, which
// is valid until the next call of the loader.
static api_base *vedette_open(const char *path, const char **why) {
	void *lib = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
	if (lib == NULL) {
		*why = dlerror();
		return NULL;
	}
	api_base *(*get_base)(void) = (api_base *(*)(void))dlsym(lib, "OrtGetApiBase");
	if (get_base == NULL) {
		*why = "it has no OrtGetApiBase, so it is not ONNX Runtime";
		return NULL;
	}
	return get_base();
}

static const char *vedette_version(api_base *b) { return b->get_version(); }

static int vedette_providers(api_base *b, char ***names) {
	void **api = b->get_api(firstVersion);
	int n = 0;
	if (api == NULL) return 0;
	void *status = ((void *(*)(char ***, int *))api[getAvailableProviders])(names, &n);
	if (status != NULL) {
		((void (*)(void *))api[releaseStatus])(status);
		return 0;
	}
	return n;
}

static void vedette_free_providers(api_base *b, char **names, int n) {
	void **api = b->get_api(firstVersion);
	((void *(*)(char **, int))api[releaseAvailableProviders])(names, n);
}
*/
import "C"

// EnvLibrary names the environment variable with the path of the library.
const EnvLibrary = "VEDETTE_ONNXRUNTIME"

// libraryFile is the library's file name, by its major version.
const libraryFile = "libonnxruntime.so.1"

// packaged is where the Linux packages put the library.
const packaged = "/usr/lib/vedette"

// Find returns the library to load: explicit if given, else the one that the
// environment names, else the first found beside the program and where the
// packages put it. The working directory is not searched: whoever may write
// there would run code in the agent.
func Find(explicit string) (string, error) {
	for _, path := range []string{explicit, os.Getenv(EnvLibrary)} {
		if path != "" {
			return filepath.Abs(path)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	places := places(filepath.Dir(exe))
	for _, p := range places {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: looked for %s; install the vedette-agent package, or pass --onnxruntime FILE, or set %s",
		ErrLibrary, strings.Join(places, ", "), EnvLibrary)
}

// places to look for the library, best first. A build in the checkout has the
// programs in build/bin and the library in build/onnxruntime.
func places(dir string) []string {
	return []string{
		filepath.Join(dir, "onnxruntime", libraryFile),
		filepath.Join(dir, "..", "lib", libraryFile),
		filepath.Join(dir, "..", "lib", "vedette", libraryFile),
		filepath.Join(dir, "..", "onnxruntime", libraryFile),
		filepath.Join(packaged, libraryFile),
	}
}

// library is what a shared library says of itself.
type library struct {
	version   string
	providers []string
	base      unsafe.Pointer // its OrtApiBase
}

// inspect loads the library, asks for version and providers and refuses one
// that the binding cannot use. The handle stays open: the library does not
// survive being unloaded.
func inspect(path string) (library, error) {
	if _, err := os.Stat(path); err != nil {
		return library{}, fmt.Errorf("%w: %w", ErrLibrary, err)
	}
	cPath := C.CString(path)
	defer C.free(unsafe.Pointer(cPath))
	var why *C.char
	base := C.vedette_open(cPath, &why)
	if base == nil {
		return library{}, fmt.Errorf("%w: load %s: %s", ErrLibrary, path, C.GoString(why))
	}
	lib := library{version: C.GoString(C.vedette_version(base)), base: unsafe.Pointer(base)}
	if err := checkVersion(lib.version); err != nil {
		return library{}, fmt.Errorf("%w: %s: %w", ErrLibrary, path, err)
	}
	lib.providers = providers(base)
	return lib, nil
}

func providers(base *C.api_base) []string {
	var list **C.char
	n := C.vedette_providers(base, &list)
	if n <= 0 {
		return []string{cpuProvider}
	}
	defer C.vedette_free_providers(base, list, n)
	names := make([]string, 0, n)
	for _, p := range unsafe.Slice(list, n) {
		names = append(names, C.GoString(p))
	}
	return names
}

// Version reads the version of the library at path without starting it.
func Version(path string) (string, error) {
	lib, err := inspect(path)
	return lib.version, err
}

func checkVersion(version string) error {
	got, err := minor(version)
	if err != nil {
		return err
	}
	need, err := minor(MinVersion)
	if err != nil {
		return err
	}
	if got < need {
		return fmt.Errorf("it is version %s; versions from %s on are accepted, older ones lack functions that this agent calls (Debian 13 has 1.21, Debian sid 1.23): install the vedette-agent package, which brings its own", version, MinVersion)
	}
	return nil
}

var errVersion = errors.New("version is not of the form 1.N")

func minor(version string) (int, error) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 || parts[0] != "1" {
		return 0, fmt.Errorf("%w: %q", errVersion, version)
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0, fmt.Errorf("%w: %q", errVersion, version)
	}
	return n, nil
}
