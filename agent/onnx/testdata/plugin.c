// The least plugin that ONNX Runtime takes: an execution provider named
// TestExecutionProvider for the first processor it is shown, which takes no node
// of any graph, so that all of them fall to the processor's own provider. It
// tells of its doings in the file that TEST_PLUGIN_LOG names. With TEST_PLUGIN_FAIL
// set it refuses to be registered.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime_c_api.h"

static const OrtApi *api;

static void tell(const char *what) {
	FILE *f = fopen(getenv("TEST_PLUGIN_LOG"), "a");
	if (f == NULL) return;
	fprintf(f, "%s\n", what);
	fclose(f);
}

static const char *ep_name(const OrtEp *ep) { return "TestExecutionProvider"; }

static OrtStatus *capability(OrtEp *ep, const OrtGraph *graph, OrtEpGraphSupportInfo *info) {
	tell("asked for its nodes");
	return NULL;
}

static const char *factory_name(const OrtEpFactory *f) { return "TestExecutionProvider"; }
static const char *vendor(const OrtEpFactory *f) { return "Vedette"; }
static uint32_t vendor_id(const OrtEpFactory *f) { return 0; }
static const char *version(const OrtEpFactory *f) { return "1.0.0"; }

static OrtStatus *devices(OrtEpFactory *f, const OrtHardwareDevice *const *all, size_t n, OrtEpDevice **ours, size_t max, size_t *found) {
	*found = 0;
	for (size_t i = 0; i < n && max > 0; i++) {
		if (api->HardwareDevice_Type(all[i]) != OrtHardwareDeviceType_CPU) continue;
		OrtStatus *status = api->GetEpApi()->CreateEpDevice(f, all[i], NULL, NULL, &ours[0]);
		if (status == NULL) *found = 1;
		return status;
	}
	return NULL;
}

static OrtStatus *create(OrtEpFactory *f, const OrtHardwareDevice *const *d, const OrtKeyValuePairs *const *meta, size_t n,
                         const OrtSessionOptions *options, const OrtLogger *logger, OrtEp **ep) {
	*ep = calloc(1, sizeof(OrtEp));
	(*ep)->ort_version_supported = ORT_API_VERSION;
	(*ep)->GetName = ep_name;
	(*ep)->GetCapability = capability;
	tell("made for a session");
	return NULL;
}

static void release(OrtEpFactory *f, OrtEp *ep) { free(ep); }

static OrtStatus *allocator(OrtEpFactory *f, const OrtMemoryInfo *info, const OrtKeyValuePairs *options, OrtAllocator **a) {
	*a = NULL;
	return NULL;
}

static void release_allocator(OrtEpFactory *f, OrtAllocator *a) {}

static OrtStatus *transfer(OrtEpFactory *f, OrtDataTransferImpl **t) {
	*t = NULL;
	return NULL;
}

static bool stream_aware(const OrtEpFactory *f) { return false; }

OrtStatus *CreateEpFactories(const char *name, const OrtApiBase *base, const OrtLogger *logger, OrtEpFactory **factories, size_t max, size_t *n) {
	api = base->GetApi(ORT_API_VERSION);
	if (getenv("TEST_PLUGIN_FAIL") != NULL) return api->CreateStatus(ORT_FAIL, "no license for this device");
	OrtEpFactory *f = calloc(1, sizeof(*f));
	f->ort_version_supported = ORT_API_VERSION;
	f->GetName = factory_name;
	f->GetVendor = vendor;
	f->GetVendorId = vendor_id;
	f->GetVersion = version;
	f->GetSupportedDevices = devices;
	f->CreateEp = create;
	f->ReleaseEp = release;
	f->CreateAllocator = allocator;
	f->ReleaseAllocator = release_allocator;
	f->CreateDataTransfer = transfer;
	f->IsStreamAware = stream_aware;
	factories[0] = f;
	*n = 1;
	tell("registered");
	return NULL;
}

OrtStatus *ReleaseEpFactory(OrtEpFactory *f) {
	free(f);
	return NULL;
}
