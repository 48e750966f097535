// What the library calls back, and how a call is ended from outside.
//   test_callbacks PATCHCORE CUTPASTE TILE_SCORE DENOISING
#define _DEFAULT_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "opened.h"

static int64_t network_calls;

static kad_status answer(void* context, const kad_network_batch* batch) {
  ++network_calls;
  const kad_status status = *(const kad_status*)context;
  return status == KAD_OK ? toy_network(NULL, batch) : status;
}

static void test_network_failures(void) {
  kad_status status = KAD_OK;
  kad_detector_options options = toy_options();
  options.network = answer;
  options.network_context = &status;
  kad_detector* detector = open_with(patchcore_path, &options);
  kad_session* session = session_of(detector);
  CHECK(network_calls == 0);  // an engine may be made of the facts of the opened detector
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  kad_result* result = NULL;
  status = KAD_ERROR_UNSUPPORTED;
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_NETWORK,
              "returned 4 (KAD_ERROR_UNSUPPORTED) for a batch of 4 tiles");
  status = KAD_ERROR_CANCELLED;
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_CANCELLED,
              "the caller's network");
  CHECK(result == NULL);
  status = KAD_OK;
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
}

typedef struct spoiler {
  int64_t seen;
  int64_t tile;    // whose output is spoiled, counted from the first call
  int64_t output;  // which one
} spoiler;

static kad_status spoil(void* context, const kad_network_batch* batch) {
  spoiler* mine = context;
  const kad_status status = toy_network(NULL, batch);
  const int64_t at = mine->tile - mine->seen;
  const kad_network_output* output = batch->outputs + mine->output;
  if (at >= 0 && at < batch->n_tiles) {
    output->data[at * output->channels * output->height * output->width] = NAN;
  }
  mine->seen += batch->n_tiles;
  return status;
}

// A network that gives NaN for one tile of the second batch, of a board and of tiles without one.
static void check_not_finite(const char* path, int64_t output, const char* words) {
  spoiler mine = {.output = output, .tile = 5};
  kad_detector_options options = toy_options();
  options.network = spoil;
  options.network_context = &mine;
  kad_detector* detector = open_with(path, &options);
  kad_session* session = session_of(detector);
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  const int32_t xy[12] = {0};
  float scores[6], patches[6 * 64];
  kad_result* result = NULL;
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_NOT_FINITE, words);
  CHECK(result == NULL);
  mine.seen = 0;
  CHECK_FAILS(kad_session_score_tiles(session, &image, xy, 6, scores, patches, NULL),
              KAD_ERROR_NOT_FINITE, words);
  mine.seen = 0;
  mine.tile = 1;
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_NOT_FINITE,
              strstr(words, ": ") + 2);
  kad_session_close(session);
  kad_detector_close(detector);
}

static void test_not_finite(void) {
  check_not_finite(patchcore_path, 0,
                   "in the batch that begins with tile 4: the base maps of tile 1 hold NaN or Inf");
  check_not_finite(cutpaste_path, 1,
                   "in the batch that begins with tile 4: embeddings: row 1 holds");
  check_not_finite(cutpaste_path, 2,
                   "in the batch that begins with tile 4: the network's output 'cam' of tile 1");
}

typedef struct progress {
  int64_t calls;
  int64_t last;
  int64_t stop_after;
} progress;

static int32_t count_progress(void* context, int64_t done, int64_t n_tiles) {
  progress* seen = context;
  CHECK(done > seen->last && done <= n_tiles);
  seen->last = done;
  return ++seen->calls == seen->stop_after ? 1 : 0;
}

static void* cancel_soon(void* session) {
  CHECK_OK(kad_session_cancel(session));
  return NULL;
}

static int32_t cancel_from_elsewhere(void* session, int64_t done, int64_t n_tiles) {
  pthread_t thread;
  (void)done;
  (void)n_tiles;
  CHECK(pthread_create(&thread, NULL, cancel_soon, session) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  return 0;
}

static void test_cancelling(void) {
  const kad_detector_options options = toy_options();
  kad_detector* detector = open_with(patchcore_path, &options);
  kad_session* session = session_of(detector);
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  kad_result* result = NULL;
  progress seen = {0};
  kad_score_request request = {
      .struct_size = sizeof(request), .progress = count_progress, .progress_context = &seen};
  CHECK_OK(kad_session_score_image(session, &image, &request, &result));
  CHECK(seen.last == facts_of(result).n_tiles && seen.calls == (seen.last + 3) / 4);
  kad_result_close(result);
  seen = (progress){.stop_after = 2};
  CHECK_FAILS(kad_session_score_image(session, &image, &request, &result), KAD_ERROR_CANCELLED,
              "progress");
  CHECK(result == NULL && seen.calls == 2);

  CHECK_INVALID(kad_session_cancel(NULL), "session is NULL");
  CHECK_OK(kad_session_cancel(session));
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_CANCELLED,
              "cancelled");
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  kad_result_close(result);
  result = NULL;
  request.progress = cancel_from_elsewhere;
  request.progress_context = session;
  CHECK_FAILS(kad_session_score_image(session, &image, &request, &result), KAD_ERROR_CANCELLED,
              "cancelled");
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
}

static kad_status paint_grey(void* context, const kad_denoise_frame* frame) {
  CHECK(frame->height == HEIGHT && frame->width == WIDTH);
  CHECK(frame->h == 3.0 && frame->h_color == 4.0);
  CHECK(frame->template_window == 7 && frame->search_window == 21);
  memset(frame->rgb, 200, (size_t)frame->height * (size_t)frame->width * 3);
  return *(const kad_status*)context;
}

static void test_denoising(void) {
  kad_detector* detector = NULL;
  kad_detector_options options = toy_options();
  CHECK_FAILS(kad_detector_open(denoising_path, &options, &detector),
              KAD_ERROR_ARTIFACT_UNSUPPORTED, "kad_detector_options.denoise");
  kad_status status = KAD_OK;
  options.denoise = paint_grey;
  options.denoise_context = &status;
  detector = open_with(denoising_path, &options);
  kad_session* session = session_of(detector);
  kad_image image = rgb_image(board, HEIGHT, WIDTH);
  kad_result* result = NULL;
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  const kad_result_facts facts = facts_of(result);
  kad_tile_result first = {.struct_size = sizeof(first)}, tile = {.struct_size = sizeof(tile)};
  CHECK_OK(kad_result_tile(result, 0, &first));
  for (int64_t i = 1; i < facts.n_tiles; ++i) {
    CHECK_OK(kad_result_tile(result, i, &tile));
    CHECK(tile.score == first.score);
  }
  kad_result_close(result);
  status = KAD_ERROR_INTERNAL;
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_UNSUPPORTED,
              "the caller's denoising returned 7");
  status = KAD_ERROR_CANCELLED;
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_CANCELLED,
              "denoising");
  image.pixel_format = KAD_PIXEL_RGB16;
  image.width = WIDTH / 2;
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_UNSUPPORTED,
              "works on 8-bit images");
  kad_session_close(session);
  kad_detector_close(detector);
}

static void keep_log(void* context, int32_t severity, const char* text) {
  CHECK(severity >= KAD_LOG_INFO && severity <= KAD_LOG_ERROR);
  char* all = context;
  strncat(all, text, 4000 - strlen(all));
}

// With ONNX Runtime itself, whose library the environment names.
static void test_log(void) {
  char text[4001] = "";
  const kad_detector_options options = {
      .struct_size = sizeof(options), .log = keep_log, .log_context = text};
  kad_detector* detector = open_with(patchcore_path, &options);
  CHECK(strstr(text, "all of the artifact is as its manifest says") != NULL);
  CHECK(strstr(text, "network.onnx runs on CPUExecutionProvider, ONNX Runtime 1.") != NULL);
  kad_session* session = session_of(detector);
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  kad_result* result = NULL;
  CHECK_OK(kad_session_cancel(session));
  CHECK_FAILS(kad_session_score_image(session, &image, NULL, &result), KAD_ERROR_CANCELLED, "");
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
}

typedef struct canceller {
  kad_session* session;
  atomic_int done;
} canceller;

static void* cancel_often(void* context) {
  canceller* mine = context;
  const struct timespec pause = {.tv_nsec = 300000};
  while (!atomic_load(&mine->done)) {
    CHECK_OK(kad_session_cancel(mine->session));
    nanosleep(&pause, NULL);
  }
  return NULL;
}

// At any moment, with ONNX Runtime itself: a call gives what it would, or says that it was
// cancelled.
static void test_cancelling_onnxruntime(void) {
  enum { WANTED = 30, MOST = 3000 };
  const kad_detector_options options = {.struct_size = sizeof(options), .n_threads = 2, .batch = 3};
  kad_detector* detector = open_with(cutpaste_path, &options);
  canceller other = {.session = session_of(detector)};
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  kad_result* result = NULL;
  CHECK_OK(kad_session_score_image(other.session, &image, NULL, &result));
  const float expected = facts_of(result).score;
  kad_result_close(result);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, cancel_often, &other) == 0);
  int cancelled = 0;
  for (int i = 0; cancelled < WANTED && i < MOST; ++i) {
    const kad_status status = kad_session_score_image(other.session, &image, NULL, &result);
    CHECK(status == KAD_OK || status == KAD_ERROR_CANCELLED);
    CHECK((result != NULL) == (status == KAD_OK));
    cancelled += status == KAD_ERROR_CANCELLED;
    if (result != NULL) CHECK(facts_of(result).score == expected);
    kad_result_close(result);
  }
  atomic_store(&other.done, 1);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(cancelled == WANTED);
  kad_session_score_image(other.session, &image, NULL, &result);  // one may be left
  kad_result_close(result);
  CHECK_OK(kad_session_score_image(other.session, &image, NULL, &result));
  CHECK(facts_of(result).score == expected);
  kad_result_close(result);
  kad_session_close(other.session);
  kad_detector_close(detector);
}

int main(int argc, char** argv) {
  begin(argc, argv);
  test_network_failures();
  test_not_finite();
  test_cancelling();
  test_denoising();
  test_log();
  test_cancelling_onnxruntime();
  return check_result();
}
