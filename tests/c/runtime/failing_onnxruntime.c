// ONNX Runtime with failures: passes every call on to the library that KAD_REAL_ONNXRUNTIME names,
// but for the one call that it was told to fail.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <stdlib.h>

// Fail call number `call` from now on, counted from 0; -1: none.
__attribute__((visibility("default"))) void failing_arm(long call);
// Whether that call has come.
__attribute__((visibility("default"))) int failing_fired(void);
// Say that the library is too old for the API that is asked for.
__attribute__((visibility("default"))) void failing_be_old(int old);

static const OrtApi* real;
static OrtApi table;
static OrtApiBase base;
static long left = -1;
static int fired = 0;
static int is_old = 0;

void failing_arm(long call) {
  left = call;
  fired = 0;
}

int failing_fired(void) { return fired; }

void failing_be_old(int old) { is_old = old; }

static int due(void) {
  if (left < 0 || left-- > 0) return 0;
  fired = 1;
  return 1;
}

#define INJECTED(name) real->CreateStatus(ORT_FAIL, "injected failure of " #name)
#define WRAP(name, parameters, arguments)                   \
  static OrtStatusPtr ORT_API_CALL fail_##name parameters { \
    return due() ? INJECTED(name) : real->name arguments;   \
  }
// What frees something does so, and then says that it failed.
#define WRAP_FREE(name, parameters, arguments)                \
  static OrtStatusPtr ORT_API_CALL fail_##name parameters {   \
    OrtStatusPtr status = real->name arguments;               \
    return status == NULL && due() ? INJECTED(name) : status; \
  }

WRAP(GetAvailableProviders, (char*** a, int* b), (a, b))
WRAP_FREE(ReleaseAvailableProviders, (char** a, int b), (a, b))
WRAP(CreateEnv, (OrtLoggingLevel a, const char* b, OrtEnv** c), (a, b, c))
WRAP(CreateCpuMemoryInfo, (enum OrtAllocatorType a, enum OrtMemType b, OrtMemoryInfo** c),
     (a, b, c))
WRAP(CreateSessionOptions, (OrtSessionOptions * *a), (a))
WRAP(SetSessionGraphOptimizationLevel, (OrtSessionOptions * a, GraphOptimizationLevel b), (a, b))
WRAP(SetIntraOpNumThreads, (OrtSessionOptions * a, int b), (a, b))
WRAP(SetInterOpNumThreads, (OrtSessionOptions * a, int b), (a, b))
WRAP(AddSessionConfigEntry, (OrtSessionOptions * a, const char* b, const char* c), (a, b, c))
WRAP(SetSessionLogSeverityLevel, (OrtSessionOptions * a, int b), (a, b))
WRAP(CreateSessionFromArray,
     (const OrtEnv* a, const void* b, size_t c, const OrtSessionOptions* d, OrtSession** e),
     (a, b, c, d, e))
WRAP(GetAllocatorWithDefaultOptions, (OrtAllocator * *a), (a))
WRAP(SessionGetInputCount, (const OrtSession* a, size_t* b), (a, b))
WRAP(SessionGetOutputCount, (const OrtSession* a, size_t* b), (a, b))
WRAP(SessionGetInputName, (const OrtSession* a, size_t b, OrtAllocator* c, char** d), (a, b, c, d))
WRAP(SessionGetOutputName, (const OrtSession* a, size_t b, OrtAllocator* c, char** d), (a, b, c, d))
WRAP(SessionGetInputTypeInfo, (const OrtSession* a, size_t b, OrtTypeInfo** c), (a, b, c))
WRAP(SessionGetOutputTypeInfo, (const OrtSession* a, size_t b, OrtTypeInfo** c), (a, b, c))
WRAP_FREE(AllocatorFree, (OrtAllocator * a, void* b), (a, b))
WRAP(CastTypeInfoToTensorInfo, (const OrtTypeInfo* a, const OrtTensorTypeAndShapeInfo** b), (a, b))
WRAP(GetTensorElementType, (const OrtTensorTypeAndShapeInfo* a, enum ONNXTensorElementDataType* b),
     (a, b))
WRAP(GetDimensionsCount, (const OrtTensorTypeAndShapeInfo* a, size_t* b), (a, b))
WRAP(GetDimensions, (const OrtTensorTypeAndShapeInfo* a, int64_t* b, size_t c), (a, b, c))
WRAP(CreateRunOptions, (OrtRunOptions * *a), (a))
WRAP(CreateTensorWithDataAsOrtValue,
     (const OrtMemoryInfo* a, void* b, size_t c, const int64_t* d, size_t e,
      ONNXTensorElementDataType f, OrtValue** g),
     (a, b, c, d, e, f, g))
WRAP(Run,
     (OrtSession * a, const OrtRunOptions* b, const char* const* c, const OrtValue* const* d,
      size_t e, const char* const* f, size_t g, OrtValue** h),
     (a, b, c, d, e, f, g, h))

static void replace_functions(void) {
#define REPLACE(name) table.name = fail_##name
  REPLACE(GetAvailableProviders);
  REPLACE(ReleaseAvailableProviders);
  REPLACE(CreateEnv);
  REPLACE(CreateCpuMemoryInfo);
  REPLACE(CreateSessionOptions);
  REPLACE(SetSessionGraphOptimizationLevel);
  REPLACE(SetIntraOpNumThreads);
  REPLACE(SetInterOpNumThreads);
  REPLACE(AddSessionConfigEntry);
  REPLACE(SetSessionLogSeverityLevel);
  REPLACE(CreateSessionFromArray);
  REPLACE(GetAllocatorWithDefaultOptions);
  REPLACE(SessionGetInputCount);
  REPLACE(SessionGetOutputCount);
  REPLACE(SessionGetInputName);
  REPLACE(SessionGetOutputName);
  REPLACE(SessionGetInputTypeInfo);
  REPLACE(SessionGetOutputTypeInfo);
  REPLACE(AllocatorFree);
  REPLACE(CastTypeInfoToTensorInfo);
  REPLACE(GetTensorElementType);
  REPLACE(GetDimensionsCount);
  REPLACE(GetDimensions);
  REPLACE(CreateRunOptions);
  REPLACE(CreateTensorWithDataAsOrtValue);
  REPLACE(Run);
}

static const OrtApiBase* real_base(void) {
  const OrtApiBase* (*get)(void) = NULL;
  void* library = dlopen(getenv("KAD_REAL_ONNXRUNTIME"), RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) abort();
  *(void**)&get = dlsym(library, "OrtGetApiBase");
  return get();
}

static const OrtApi* ORT_API_CALL get_api(uint32_t version) {
  real = real_base()->GetApi(version);
  table = *real;
  replace_functions();
  return is_old ? NULL : &table;
}

static const char* ORT_API_CALL get_version(void) { return real_base()->GetVersionString(); }

ORT_EXPORT const OrtApiBase* ORT_API_CALL OrtGetApiBase(void) {
  base.GetApi = get_api;
  base.GetVersionString = get_version;
  return &base;
}
