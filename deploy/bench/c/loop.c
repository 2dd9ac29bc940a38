/*
 * The C half of `make bench-agent`: runs a graph through IoBinding over tensors
 * made once, for as many microseconds as each line of its input says, and
 * answers each with the runs made and the nanoseconds they took. Like the Go
 * half it copies the rows in and the outputs out of the caller's memory, as any
 * program does that does not produce its rows inside of ONNX Runtime's tensors.
 *
 *   loop LIBRARY GRAPH ROWS
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "onnxruntime_c_api.h"

enum { most_ports = 16, between = 16 };

static const OrtApi *api;

static void check(OrtStatus *status, const char *what) {
	if (status == NULL) return;
	fprintf(stderr, "%s: %s\n", what, api->GetErrorMessage(status));
	exit(1);
}

struct port {
	char *name;
	void *bound, *caller; /* ORT's memory and the caller's */
	size_t bytes;
	OrtValue *value;
};

static size_t width(ONNXTensorElementDataType type) {
	switch (type) {
	case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return 4;
	case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return 8;
	default: fprintf(stderr, "element type %d is not supported\n", type); exit(1);
	}
}

static void make_port(struct port *p, OrtTypeInfo *info, int64_t rows, OrtMemoryInfo *memory) {
	const OrtTensorTypeAndShapeInfo *tensor;
	ONNXTensorElementDataType type;
	int64_t shape[8];
	size_t rank, count = 1;
	check(api->CastTypeInfoToTensorInfo(info, &tensor), "tensor info");
	check(api->GetTensorElementType(tensor, &type), "element type");
	check(api->GetDimensionsCount(tensor, &rank), "rank");
	check(api->GetDimensions(tensor, shape, rank), "shape");
	shape[0] = rows;
	for (size_t i = 0; i < rank; i++) count *= (size_t)shape[i];
	p->bytes = count * width(type);
	p->bound = aligned_alloc(64, (p->bytes + 63) / 64 * 64);
	p->caller = aligned_alloc(64, (p->bytes + 63) / 64 * 64);
	if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
		for (size_t i = 0; i < count; i++) ((float *)p->caller)[i] = (float)(i % 97) / 97;
	check(api->CreateTensorWithDataAsOrtValue(memory, p->bound, p->bytes, shape, rank, type, &p->value), "tensor");
}

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
	if (argc != 4) return fprintf(stderr, "usage: loop LIBRARY GRAPH ROWS\n"), 2;
	void *lib = dlopen(argv[1], RTLD_NOW);
	if (lib == NULL) return fprintf(stderr, "%s\n", dlerror()), 1;
	const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(lib, "OrtGetApiBase");
	api = base()->GetApi(ORT_API_VERSION);
	int64_t rows = atoll(argv[3]);

	OrtEnv *env;
	OrtSessionOptions *options;
	OrtSession *session;
	OrtAllocator *allocator;
	OrtMemoryInfo *memory;
	OrtIoBinding *binding;
	check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "loop", &env), "environment");
	check(api->CreateSessionOptions(&options), "options");
	check(api->SetIntraOpNumThreads(options, 1), "threads");
	check(api->SetInterOpNumThreads(options, 1), "threads");
	check(api->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"), "spinning");
	check(api->CreateSession(env, argv[2], options, &session), "session");
	check(api->GetAllocatorWithDefaultOptions(&allocator), "allocator");
	check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "memory");
	check(api->CreateIoBinding(session, &binding), "binding");

	struct port in[most_ports], out[most_ports];
	size_t inputs, outputs;
	check(api->SessionGetInputCount(session, &inputs), "inputs");
	check(api->SessionGetOutputCount(session, &outputs), "outputs");
	for (size_t i = 0; i < inputs; i++) {
		OrtTypeInfo *info;
		check(api->SessionGetInputName(session, i, allocator, &in[i].name), "name");
		check(api->SessionGetInputTypeInfo(session, i, &info), "type");
		make_port(&in[i], info, rows, memory);
		check(api->BindInput(binding, in[i].name, in[i].value), "bind");
	}
	for (size_t i = 0; i < outputs; i++) {
		OrtTypeInfo *info;
		check(api->SessionGetOutputName(session, i, allocator, &out[i].name), "name");
		check(api->SessionGetOutputTypeInfo(session, i, &info), "type");
		make_port(&out[i], info, rows, memory);
		check(api->BindOutput(binding, out[i].name, out[i].value), "bind");
	}

	char line[64];
	while (fgets(line, sizeof line, stdin) != NULL) {
		int64_t at_least = atoll(line) * 1000, start = now(), took = 0, runs = 0;
		while (took < at_least) {
			for (int n = 0; n < between; n++) {
				for (size_t i = 0; i < inputs; i++) memcpy(in[i].bound, in[i].caller, in[i].bytes);
				check(api->RunWithBinding(session, NULL, binding), "run");
				for (size_t i = 0; i < outputs; i++) memcpy(out[i].caller, out[i].bound, out[i].bytes);
			}
			runs += between;
			took = now() - start;
		}
		printf("%lld %lld\n", (long long)runs, (long long)took);
		fflush(stdout);
	}
	return 0;
}
