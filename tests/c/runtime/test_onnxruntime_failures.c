// Each call of ONNX Runtime fails once: a status and a text, and nothing is lost.
//   test_onnxruntime_failures FAILING_LIBRARY UNREADABLE_GRAPH ARTIFACT...
#include <dlfcn.h>

#include "../check.h"
#include "toy_network.h"

enum { SIDE = 64, MOST_CALLS = 1000 };

static void (*arm)(long);
static int (*fired)(void);
static void (*be_old)(int);
static void (*have_cuda)(int);
static long (*live)(void);
static uint8_t board[SIDE * SIDE * 3];

static void load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) abort();
  *(void**)&arm = dlsym(library, "failing_arm");
  *(void**)&fired = dlsym(library, "failing_fired");
  *(void**)&be_old = dlsym(library, "failing_be_old");
  *(void**)&have_cuda = dlsym(library, "failing_have_cuda");
  *(void**)&live = dlsym(library, "failing_live");
}

// Opens and scores once; the first status that is not KAD_OK.
static kad_status open_and_score(const char* path, const kad_detector_options* options) {
  kad_detector* detector = NULL;
  kad_session* session = NULL;
  kad_result* result = NULL;
  const kad_image image = rgb_image(board, SIDE, SIDE);
  kad_status status = kad_detector_open(path, options, &detector);
  if (status == KAD_OK) status = kad_session_create(detector, &session);
  if (status == KAD_OK) status = kad_session_score_image(session, &image, NULL, &result);
  CHECK((status == KAD_OK) == (result != NULL));
  char text[512];
  snprintf(text, sizeof(text), "%s", kad_last_error());
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
  CHECK(live() == 0);
  if (status != KAD_OK) CHECK(strstr(text, "injected failure of ") != NULL);
  return status;
}

static void fail_each_call(const char* path, const kad_detector_options* options) {
  int failures = 0;
  long call = 0;
  for (; call < MOST_CALLS; ++call) {
    arm(call);
    const kad_status status = open_and_score(path, options);
    if (!fired()) break;
    failures += status != KAD_OK;
    const int of_the_runtime = status == KAD_ERROR_ONNXRUNTIME || status == KAD_ERROR_NETWORK ||
                               status == KAD_ERROR_ARTIFACT_NETWORK;
    CHECK(status == KAD_OK || of_the_runtime);
  }
  arm(-1);
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
  have_cuda(1);
  CHECK_FAILS(kad_detector_open(sound, &options, &detector), KAD_ERROR_PROVIDER,
              "(it has CUDAExecutionProvider)");
  options.provider = KAD_PROVIDER_CUDA;
  CHECK_FAILS(kad_detector_open(unreadable, &options, &detector), KAD_ERROR_ARTIFACT_NETWORK,
              "network.onnx: cannot be read by ONNX Runtime: ");
  CHECK_FAILS(kad_detector_open(sound, &options, &detector), KAD_ERROR_PROVIDER,
              "CUDAExecutionProvider cannot run the network here: ");
  have_cuda(0);
  CHECK(live() == 0);
}

int main(int argc, char** argv) {
  if (argc < 4) return EXIT_FAILURE;
  load(argv[1]);
  const kad_detector_options options = {
      .struct_size = sizeof(options), .n_threads = 1, .batch = 4, .onnxruntime = argv[1]};
  paint_board(board, SIDE, SIDE, 3, 1);
  for (int i = 3; i < argc; ++i) fail_each_call(argv[i], &options);
  test_fault(argv[2], argv[3], options);
  be_old(1);
  kad_detector* detector = NULL;
  CHECK_FAILS(kad_detector_open(argv[3], &options, &detector), KAD_ERROR_ONNXRUNTIME,
              "is ONNX Runtime 1.19.2: expected 1.20 or newer");
  return check_result();
}
