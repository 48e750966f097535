// Each call of ONNX Runtime fails once: a status and a text, and nothing is lost.
//   test_onnxruntime_failures FAILING_LIBRARY EMPTY_FOLDER UNREADABLE_GRAPH ARTIFACT...
#define _DEFAULT_SOURCE
#include <dlfcn.h>

#include "../check.h"
#include "toy_network.h"

enum { SIDE = 64, MOST_CALLS = 1000 };

static void (*arm)(long, int);
static int (*fired)(void);
static void (*be_old)(int);
static void (*have_gpu)(int);
static const char* (*option)(const char*);
static long (*live)(void);
static uint8_t board[SIDE * SIDE * 3];
static int told;
static char last_text[512];

static void count_log(void* context, int32_t severity, const char* text) {
  (void)context;
  told += severity >= KAD_LOG_INFO && text[0] != '\0';
}

static void load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) abort();
  *(void**)&arm = dlsym(library, "failing_arm");
  *(void**)&fired = dlsym(library, "failing_fired");
  *(void**)&be_old = dlsym(library, "failing_be_old");
  *(void**)&have_gpu = dlsym(library, "failing_have_gpu");
  *(void**)&option = dlsym(library, "failing_option");
  *(void**)&live = dlsym(library, "failing_live");
}

// Opens, cancels a call and scores; the first status that is not KAD_OK.
static kad_status open_and_score(const char* path, const kad_detector_options* options) {
  kad_detector* detector = NULL;
  kad_session* session = NULL;
  kad_result* result = NULL;
  const kad_image image = rgb_image(board, SIDE, SIDE);
  kad_status status = kad_detector_open(path, options, &detector);
  if (status == KAD_OK) status = kad_session_create(detector, &session);
  if (status == KAD_OK) {
    CHECK_OK(kad_session_cancel(session));
    CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_CANCELLED, "");
    status = kad_session_score_image(session, &image, NULL, &result);
  }
  CHECK((status == KAD_OK) == (result != NULL));
  snprintf(last_text, sizeof(last_text), "%s", kad_last_error());
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
  CHECK(live() == 0);
  if (status != KAD_OK) CHECK(strstr(last_text, "injected failure of ") != NULL);
  return status;
}

static void fail_each_call(const char* path, const kad_detector_options* options) {
  int failures = 0;
  long call = 0;
  for (; call < MOST_CALLS; ++call) {
    arm(call, 0);
    const kad_status status = open_and_score(path, options);
    if (!fired()) break;
    if (strstr(last_text, "CreateSessionFromArray") != NULL) {
      arm(call, 1);
      CHECK(open_and_score(path, options) == KAD_ERROR_ONNXRUNTIME);
    }
    failures += status != KAD_OK;
    // The artifact is sound: it is never at fault.
    CHECK(status == KAD_OK || status == KAD_ERROR_ONNXRUNTIME || status == KAD_ERROR_NETWORK);
  }
  arm(-1, 0);
  CHECK(call < MOST_CALLS && failures > 30);
  CHECK_OK(open_and_score(path, options));
  printf("%s: %ld calls of ONNX Runtime failed one by one, %d of them with an error\n", path, call,
         failures);
}

// Whose fault it is when a session cannot be made: the graph's, or the provider's.
static void test_fault(const char* unreadable, const char* sound, kad_detector_options options) {
  kad_detector* detector = NULL;
  CHECK_FAILS(kad_detector_open(unreadable, &options, &detector), KAD_ERROR_ARTIFACT_NETWORK,
              "NoSuchOperator");
  have_gpu(1);
  CHECK_FAILS(kad_detector_open(sound, &options, &detector), KAD_ERROR_PROVIDER,
              "(it has CUDAExecutionProvider, TensorrtExecutionProvider)");
  options.provider = KAD_PROVIDER_CUDA;
  CHECK_FAILS(kad_detector_open(unreadable, &options, &detector), KAD_ERROR_ARTIFACT_NETWORK,
              "network.onnx: cannot be read by ONNX Runtime; export the artifact again: ");
  CHECK_FAILS(kad_detector_open(sound, &options, &detector), KAD_ERROR_PROVIDER,
              "CUDAExecutionProvider cannot run the network here: ");
  have_gpu(0);
  CHECK(live() == 0);
}

// Each call that a provider is set up with fails once; it cannot be used in the end.
static void fail_each_provider_call(const char* path, const kad_detector_options* options) {
  kad_detector* detector = NULL;
  long call = 0;
  for (; call < MOST_CALLS; ++call) {
    arm(call, 0);
    const kad_status status = kad_detector_open(path, options, &detector);
    CHECK(status == KAD_ERROR_PROVIDER || status == KAD_ERROR_ONNXRUNTIME);
    CHECK(live() == 0);
    if (!fired()) break;
    CHECK(strstr(kad_last_error(), "injected failure of ") != NULL);
  }
  arm(-1, 0);
  CHECK(call > 10 && call < MOST_CALLS);
}

static void check_option(const char* key, const char* wanted) {
  const char* given = option(key);
  CHECK(given != NULL && strcmp(given, wanted) == 0);
}

// What TensorRT is told, with an engine for batches up to 4: as Engine.options of
// kad_sdk/tensorrt.py.
static void test_options(const char* cache) {
  check_option("device_id", "0");
  check_option("trt_fp16_enable", "0");
  check_option("trt_int8_enable", "0");
  check_option("trt_engine_cache_enable", "1");
  check_option("trt_timing_cache_enable", "1");
  check_option("trt_profile_min_shapes", "tiles:1x3x32x32");
  check_option("trt_profile_opt_shapes", "tiles:4x3x32x32");
  check_option("trt_profile_max_shapes", "tiles:4x3x32x32");
  const char* engine = option("trt_engine_cache_path");
  const char* timing = option("trt_timing_cache_path");
  CHECK(strncmp(timing, cache, strlen(cache)) == 0 && strstr(timing, "/nvidia-l4-sm89-trt10.9.0"));
  CHECK(strncmp(engine, timing, strlen(timing)) == 0 && strlen(engine) == strlen(timing) + 33);
}

// Without an engine for such batches TensorRT is refused, and nothing is written anywhere.
static void test_engines(const char* path, kad_detector_options options) {
  kad_detector* detector = NULL;
  options.batch = 5;
  CHECK_FAILS(kad_detector_open(path, &options, &detector), KAD_ERROR_PROVIDER,
              "for batches of 5 tiles is needed, and the one that is there is for batches up to 4");
  options.batch = 3;
  CHECK_FAILS(kad_detector_open(path, &options, &detector), KAD_ERROR_PROVIDER,
              "TensorrtExecutionProvider cannot run the network here: ");
  test_options(options.cache_folder);
  options.cache_folder = "/proc/no/such";
  CHECK_FAILS(kad_detector_open(path, &options, &detector), KAD_ERROR_PROVIDER,
              "is needed, and there is none; libkad builds none");
  options.cache_folder = NULL;
  CHECK(unsetenv("HOME") == 0 && unsetenv("XDG_CACHE_HOME") == 0);
  CHECK_FAILS(kad_detector_open(path, &options, &detector), KAD_ERROR_PROVIDER,
              "neither XDG_CACHE_HOME nor HOME is set; give one in kad_detector_options");
  const char* const names[] = {"HOME", "XDG_CACHE_HOME"};
  const char* const places[] = {"/proc/.cache/kad/tensorrt/", "/proc/kad/tensorrt/"};
  for (int i = 0; i < 2; ++i) {
    CHECK(setenv(names[i], "/proc", 1) == 0);
    CHECK_FAILS(kad_detector_open(path, &options, &detector), KAD_ERROR_PROVIDER, places[i]);
  }
  CHECK(live() == 0);
}

static void test_providers(const char* path, const char* folder, kad_detector_options options) {
  have_gpu(1);
  options.cache_folder = folder;
  for (int32_t provider = KAD_PROVIDER_CUDA; provider <= KAD_PROVIDER_TENSORRT; ++provider) {
    options.provider = provider;
    fail_each_provider_call(path, &options);
  }
  test_engines(path, options);
  have_gpu(0);
}

int main(int argc, char** argv) {
  if (argc < 5) return EXIT_FAILURE;
  load(argv[1]);
  const kad_detector_options options = {.struct_size = sizeof(options),
                                        .n_threads = 1,
                                        .batch = 4,
                                        .onnxruntime = argv[1],
                                        .log = count_log};
  paint_board(board, SIDE, SIDE, 3, 1);
  for (int i = 4; i < argc; ++i) fail_each_call(argv[i], &options);
  CHECK(told > 0);
  test_fault(argv[3], argv[4], options);
  test_providers(argv[4], argv[2], options);
  be_old(1);
  kad_detector* detector = NULL;
  CHECK_FAILS(kad_detector_open(argv[4], &options, &detector), KAD_ERROR_ONNXRUNTIME,
              "is ONNX Runtime 1.19.2: expected 1.20 or newer");
  return check_result();
}
