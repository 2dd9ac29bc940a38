package onnx

import (
	"debug/elf"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/vedette-edge/vedette/protocol/release"
)

/*
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Positions in the function table since interface version 22 of 2025; see
// library.go.
enum {
	pluginVersion = 22, createEnv = 3, releaseEnv = 92, errorMessage = 2, releaseError = 93,
	getEpDevices = 303, appendProviderV2 = 304, epDeviceName = 312,
};

typedef struct { void **(*get_api)(uint32_t version); } plugin_base;

// vedette_append_plugin puts all devices of the provider called name before the
// CPU's own. It returns NULL, or a message that the caller frees.
static char *vedette_append_plugin(void *base, void *options, const char *name, size_t *devices) {
	void **api = ((plugin_base *)base)->get_api(pluginVersion);
	if (api == NULL) return strdup("the library is too old for plugins");
	void *env = NULL, *status = NULL;
	const void *const *all = NULL;
	const void *ours[64];
	size_t n = 0;
	*devices = 0;
	// The environment is one for the process: this counts a reference to it.
	status = ((void *(*)(int, const char *, void **))api[createEnv])(3, "vedette", &env);
	if (status == NULL) status = ((void *(*)(const void *, const void *const **, size_t *))api[getEpDevices])(env, &all, &n);
	for (size_t i = 0; status == NULL && i < n && *devices < 64; i++) {
		const char *ep = ((const char *(*)(const void *))api[epDeviceName])(all[i]);
		if (strcmp(ep, name) == 0) ours[(*devices)++] = all[i];
	}
	if (status == NULL && *devices > 0) {
		status = ((void *(*)(void *, void *, const void *const *, size_t, const char *const *, const char *const *, size_t))
			api[appendProviderV2])(options, env, ours, *devices, NULL, NULL, 0);
	}
	char *why = NULL;
	if (status != NULL) {
		why = strdup(((const char *(*)(void *))api[errorMessage])(status));
		((void (*)(void *))api[releaseError])(status);
	}
	if (env != NULL) ((void (*)(void *))api[releaseEnv])(env);
	return why;
}

// vedette_ep_names writes the names of all devices' providers, each ended by a
// newline, into buf.
static void vedette_ep_names(void *base, char *buf, size_t size) {
	void **api = ((plugin_base *)base)->get_api(pluginVersion);
	void *env = NULL, *status = NULL;
	const void *const *all = NULL;
	size_t n = 0, used = 0;
	buf[0] = 0;
	if (api == NULL) return;
	status = ((void *(*)(int, const char *, void **))api[createEnv])(3, "vedette", &env);
	if (status == NULL) status = ((void *(*)(const void *, const void *const **, size_t *))api[getEpDevices])(env, &all, &n);
	for (size_t i = 0; status == NULL && i < n; i++) {
		const char *ep = ((const char *(*)(const void *))api[epDeviceName])(all[i]);
		size_t len = strlen(ep);
		if (used + len + 2 > size) break;
		memcpy(buf + used, ep, len);
		used += len;
		buf[used++] = '\n';
		buf[used] = 0;
	}
	if (status != NULL) ((void (*)(void *))api[releaseError])(status);
	if (env != NULL) ((void (*)(void *))api[releaseEnv])(env);
}
*/
import "C"

// plugin is a library that brings one execution provider along, as ONNX Runtime
// knows them since 1.22. It is loaded when its provider is first asked for:
// what a driver does to a process then is done to a trial's child.
type plugin struct {
	name string // of the provider, as its file is called
	path string
	base unsafe.Pointer // OrtApiBase

	once sync.Once
	real string // the provider's name by its own word
	err  error
}

// pluginSymbol is what makes a library one with an execution provider.
const pluginSymbol = "CreateEpFactories"

// findPlugins looks for plugins in the library's own folder, by the provider's
// key. Nothing is loaded.
func findPlugins(library string, base unsafe.Pointer) map[string]*plugin {
	found := map[string]*plugin{}
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(library), "*.so")) // the pattern is well-formed
	for _, path := range files {
		if name := pluginName(path); name != "" && exports(path, pluginSymbol) {
			found[release.ProviderKey(name)] = &plugin{name: name, path: path, base: base}
		}
	}
	return found
}

// pluginName is the provider's name after its file: that of
// libonnxruntime_providers_qnn.so is qnnExecutionProvider.
func pluginName(path string) string {
	name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "lib"), ".so")
	for _, prefix := range []string{"onnxruntime_providers_", "onnxruntime_ep_", "onnxruntime_"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			name = rest
			break
		}
	}
	name = strings.TrimSuffix(strings.TrimSuffix(name, "_plugin"), "_ep")
	if name == "" {
		return ""
	}
	if p := providerOf(name); p.name != name {
		return p.name
	}
	return name + "ExecutionProvider"
}

func exports(path, symbol string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return false
	}
	for _, s := range symbols {
		if s.Name == symbol && s.Section != elf.SHN_UNDEF {
			return true
		}
	}
	return false
}

// load registers the plugin with the runtime and learns its provider's name.
func (p *plugin) load() error {
	p.once.Do(func() {
		before := epNames(p.base)
		if p.err = ort.RegisterExecutionProviderLibrary(p.name, p.path); p.err != nil {
			return
		}
		for name := range epNames(p.base) {
			if !before[name] {
				p.real = name
				return
			}
		}
		p.err = errors.New("it finds no device of its own on this machine")
	})
	return p.err
}

func epNames(base unsafe.Pointer) map[string]bool {
	buf := make([]byte, 4<<10)
	C.vedette_ep_names(base, (*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf)))
	names := map[string]bool{}
	for name := range strings.Lines(C.GoString((*C.char)(unsafe.Pointer(&buf[0])))) {
		names[strings.TrimSuffix(name, "\n")] = true
	}
	return names
}

// append puts the plugin's provider into the options of a session. The binding
// has no function for it and does not give its handle away, so it is read from
// the one field of its type; a test holds that it has only one.
func (p *plugin) append(o *ort.SessionOptions) error {
	if err := p.load(); err != nil {
		return fmt.Errorf("plugin %s: %w", p.path, err)
	}
	name := C.CString(p.real)
	defer C.free(unsafe.Pointer(name))
	var devices C.size_t
	why := C.vedette_append_plugin(p.base, *(*unsafe.Pointer)(unsafe.Pointer(o)), name, &devices)
	if why != nil {
		defer C.free(unsafe.Pointer(why))
		return fmt.Errorf("plugin %s: %s", p.path, C.GoString(why))
	}
	if devices == 0 {
		return fmt.Errorf("plugin %s: its device is gone", p.path)
	}
	return nil
}
