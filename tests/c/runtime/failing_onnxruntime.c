// ONNX Runtime with failures: passes every call on to the library that KAD_REAL_ONNXRUNTIME names,
// but for the one call that it was told to fail.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Fail call number `call` from now on, counted from 0; -1: none. As where threads run out, or where
// memory runs out while a graph is read.
__attribute__((visibility("default"))) void failing_arm(long call, int of_memory);
// Whether that call has come.
__attribute__((visibility("default"))) int failing_fired(void);
// Say that the library is too old for the API that is asked for.
__attribute__((visibility("default"))) void failing_be_old(int old);
// Say that the library has CUDA and TensorRT.
__attribute__((visibility("default"))) void failing_have_gpu(int has);
// The value that a provider was last given for a key; NULL: none.
__attribute__((visibility("default"))) const char* failing_option(const char* key);
// How many things of ONNX Runtime have been made and not been released.
__attribute__((visibility("default"))) long failing_live(void);
// Whether this thread is in a call of ONNX Runtime.
__attribute__((visibility("default"))) int failing_is_inside(void);

static const OrtApi* real;
static OrtApi table;
static OrtApiBase base;
static long left = -1;
static int fired = 0;
static int is_of_memory = 0;
static int is_old = 0;
enum { MOST_OPTIONS = 16, OPTION_SIZE = 512 };
static char options_given[MOST_OPTIONS][2][OPTION_SIZE];
static size_t n_options = 0;
static int has_gpu = 0;
static long live = 0;
static _Thread_local int inside = 0;

void failing_arm(long call, int of_memory) {
  left = call;
  is_of_memory = of_memory;
  fired = 0;
}

int failing_fired(void) { return fired; }

void failing_be_old(int old) { is_old = old; }

void failing_have_gpu(int has) { has_gpu = has; }

const char* failing_option(const char* key) {
  for (size_t i = 0; i < n_options; ++i) {
    if (strcmp(options_given[i][0], key) == 0) return options_given[i][1];
  }
  return NULL;
}

long failing_live(void) { return live; }

int failing_is_inside(void) { return inside > 0; }

static int due(void) {
  if (left < 0 || left-- > 0) return 0;
  fired = 1;
  return 1;
}

#define INJECTED(name)                                                                          \
  (is_of_memory ? real->CreateStatus(ORT_FAIL, "injected failure of " #name ": std::bad_alloc") \
                : real->CreateStatus(ORT_RUNTIME_EXCEPTION, "injected failure of " #name))
// `makes`: how many things the caller has to release after a success.
#define WRAP_MAKING(makes, name, parameters, arguments)                  \
  static OrtStatusPtr ORT_API_CALL fail_##name parameters {              \
    ++inside;                                                            \
    OrtStatusPtr status = due() ? INJECTED(name) : real->name arguments; \
    --inside;                                                            \
    live += status == NULL ? (makes) : 1;                                \
    return status;                                                       \
  }
#define WRAP(name, parameters, arguments) WRAP_MAKING(0, name, parameters, arguments)
#define WRAP_MAKE(name, parameters, arguments) WRAP_MAKING(1, name, parameters, arguments)
// What does its work, and then says that it failed. `frees`: how many things it has released.
#define WRAP_DONE(frees, name, parameters, arguments)       \
  static OrtStatusPtr ORT_API_CALL fail_##name parameters { \
    ++inside;                                               \
    OrtStatusPtr status = real->name arguments;             \
    live -= (frees);                                        \
    if (status == NULL && due()) status = INJECTED(name);   \
    --inside;                                               \
    live += status != NULL;                                 \
    return status;                                          \
  }
#define WRAP_FREE(name, parameters, arguments) WRAP_DONE(1, name, parameters, arguments)
#define WRAP_RELEASE(type)                                       \
  static void ORT_API_CALL fail_Release##type(Ort##type* held) { \
    ++inside;                                                    \
    live -= held != NULL;                                        \
    real->Release##type(held);                                   \
    --inside;                                                    \
  }

WRAP_MAKE(GetAvailableProviders, (char*** a, int* b), (a, b))
WRAP_FREE(ReleaseAvailableProviders, (char** a, int b), (a, b))
WRAP_RELEASE(Env)
WRAP_RELEASE(MemoryInfo)
WRAP_RELEASE(SessionOptions)
WRAP_RELEASE(Session)
WRAP_RELEASE(TypeInfo)
WRAP_RELEASE(RunOptions)
WRAP_RELEASE(Value)
WRAP_RELEASE(Status)
WRAP_MAKE(CreateEnv, (OrtLoggingLevel a, const char* b, OrtEnv** c), (a, b, c))
WRAP_MAKE(CreateCpuMemoryInfo, (enum OrtAllocatorType a, enum OrtMemType b, OrtMemoryInfo** c),
          (a, b, c))
WRAP_MAKE(CreateSessionOptions, (OrtSessionOptions * *a), (a))
WRAP(SetSessionGraphOptimizationLevel, (OrtSessionOptions * a, GraphOptimizationLevel b), (a, b))
WRAP(SetIntraOpNumThreads, (OrtSessionOptions * a, int b), (a, b))
WRAP(SetInterOpNumThreads, (OrtSessionOptions * a, int b), (a, b))
WRAP(AddSessionConfigEntry, (OrtSessionOptions * a, const char* b, const char* c), (a, b, c))
WRAP(SetSessionLogSeverityLevel, (OrtSessionOptions * a, int b), (a, b))
WRAP(SetUserLoggingFunction, (OrtSessionOptions * a, OrtLoggingFunction b, void* c), (a, b, c))
WRAP_MAKE(CreateSessionFromArray,
          (const OrtEnv* a, const void* b, size_t c, const OrtSessionOptions* d, OrtSession** e),
          (a, b, c, d, e))
WRAP(GetAllocatorWithDefaultOptions, (OrtAllocator * *a), (a))
WRAP(SessionGetInputCount, (const OrtSession* a, size_t* b), (a, b))
WRAP(SessionGetOutputCount, (const OrtSession* a, size_t* b), (a, b))
WRAP_MAKE(SessionGetInputName, (const OrtSession* a, size_t b, OrtAllocator* c, char** d),
          (a, b, c, d))
WRAP_MAKE(SessionGetOutputName, (const OrtSession* a, size_t b, OrtAllocator* c, char** d),
          (a, b, c, d))
WRAP_MAKE(SessionGetInputTypeInfo, (const OrtSession* a, size_t b, OrtTypeInfo** c), (a, b, c))
WRAP_MAKE(SessionGetOutputTypeInfo, (const OrtSession* a, size_t b, OrtTypeInfo** c), (a, b, c))
WRAP_FREE(AllocatorFree, (OrtAllocator * a, void* b), (a, b))
WRAP(CastTypeInfoToTensorInfo, (const OrtTypeInfo* a, const OrtTensorTypeAndShapeInfo** b), (a, b))
WRAP(GetTensorElementType, (const OrtTensorTypeAndShapeInfo* a, enum ONNXTensorElementDataType* b),
     (a, b))
WRAP(GetDimensionsCount, (const OrtTensorTypeAndShapeInfo* a, size_t* b), (a, b))
WRAP(GetDimensions, (const OrtTensorTypeAndShapeInfo* a, int64_t* b, size_t c), (a, b, c))
WRAP_MAKE(CreateRunOptions, (OrtRunOptions * *a), (a))
WRAP_DONE(0, RunOptionsSetTerminate, (OrtRunOptions * a), (a))
WRAP_DONE(0, RunOptionsUnsetTerminate, (OrtRunOptions * a), (a))
WRAP_MAKE(CreateTensorWithDataAsOrtValue,
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
  REPLACE(SetUserLoggingFunction);
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
  REPLACE(RunOptionsSetTerminate);
  REPLACE(RunOptionsUnsetTerminate);
  REPLACE(CreateTensorWithDataAsOrtValue);
  REPLACE(Run);
  REPLACE(ReleaseEnv);
  REPLACE(ReleaseMemoryInfo);
  REPLACE(ReleaseSessionOptions);
  REPLACE(ReleaseSession);
  REPLACE(ReleaseTypeInfo);
  REPLACE(ReleaseRunOptions);
  REPLACE(ReleaseValue);
  REPLACE(ReleaseStatus);
}

// ---- a build that says it has CUDA and TensorRT: its sessions are made, without a provider that
// could run them

static char* sham_providers[] = {"CUDAExecutionProvider", "TensorrtExecutionProvider"};

static OrtStatusPtr ORT_API_CALL sham_available(char*** names, int* count) {
  *names = sham_providers;
  *count = 2;
  return NULL;
}

static OrtStatusPtr ORT_API_CALL sham_release_available(char** names, int count) {
  (void)names;
  (void)count;
  return NULL;
}

static OrtStatusPtr sham_result(int makes, const char* failure) {
  if (due()) {
    ++live;
    return real->CreateStatus(ORT_FAIL, failure);
  }
  live += makes;
  return NULL;
}

static void keep_options(const char* const* keys, const char* const* values, size_t count) {
  if (count > MOST_OPTIONS) abort();
  n_options = count;
  for (size_t i = 0; i < count; ++i) {
    if (keys[i] == NULL || values[i] == NULL) abort();
    snprintf(options_given[i][0], OPTION_SIZE, "%s", keys[i]);
    snprintf(options_given[i][1], OPTION_SIZE, "%s", values[i]);
  }
}

#define SHAM(provider, type, create, update, append, release)                                  \
  static OrtStatusPtr ORT_API_CALL sham_create_##provider(type** made) {                       \
    OrtStatusPtr status = sham_result(1, "injected failure of " #create);                      \
    if (status == NULL) *made = (type*)sham_providers;                                         \
    return status;                                                                             \
  }                                                                                            \
  static OrtStatusPtr ORT_API_CALL sham_update_##provider(                                     \
      type* options, const char* const* keys, const char* const* values, size_t count) {       \
    (void)options;                                                                             \
    keep_options(keys, values, count);                                                         \
    return sham_result(0, "injected failure of " #update);                                     \
  }                                                                                            \
  static OrtStatusPtr ORT_API_CALL sham_append_##provider(OrtSessionOptions* session,          \
                                                          const type* options) {               \
    (void)session;                                                                             \
    (void)options;                                                                             \
    return sham_result(0, "injected failure of " #append);                                     \
  }                                                                                            \
  static void ORT_API_CALL sham_release_##provider(type* options) { live -= options != NULL; } \
  static void pretend_##provider(void) {                                                       \
    table.create = sham_create_##provider;                                                     \
    table.update = sham_update_##provider;                                                     \
    table.append = sham_append_##provider;                                                     \
    table.release = sham_release_##provider;                                                   \
  }

SHAM(cuda, OrtCUDAProviderOptionsV2, CreateCUDAProviderOptions, UpdateCUDAProviderOptions,
     SessionOptionsAppendExecutionProvider_CUDA_V2, ReleaseCUDAProviderOptions)
SHAM(tensorrt, OrtTensorRTProviderOptionsV2, CreateTensorRTProviderOptions,
     UpdateTensorRTProviderOptions, SessionOptionsAppendExecutionProvider_TensorRT_V2,
     ReleaseTensorRTProviderOptions)

static void pretend_gpu(void) {
  table.GetAvailableProviders = sham_available;
  table.ReleaseAvailableProviders = sham_release_available;
  pretend_cuda();
  pretend_tensorrt();
}

static const OrtApiBase* real_base(void) {
  const OrtApiBase* (*get)(void) = NULL;
  void* library = dlopen(getenv("KAD_REAL_ONNXRUNTIME"), RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) abort();
  *(void**)&get = dlsym(library, "OrtGetApiBase");
  return get();
}

static const OrtApi* ORT_API_CALL get_api(uint32_t version) {
  if (is_old) {  // as the real one does
    fprintf(stderr, "The requested API version [%u] is not available\n", version);
    return NULL;
  }
  ++inside;
  real = real_base()->GetApi(version);
  --inside;
  table = *real;
  replace_functions();
  if (has_gpu) pretend_gpu();
  return &table;
}

static const char* ORT_API_CALL get_version(void) {
  return is_old ? "1.19.2" : real_base()->GetVersionString();
}

ORT_EXPORT const OrtApiBase* ORT_API_CALL OrtGetApiBase(void) {
  base.GetApi = get_api;
  base.GetVersionString = get_version;
  return &base;
}
