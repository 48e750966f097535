// The detector through the C ABI: options, sessions, results, callbacks, and every way to fail.
//   test_detector PATCHCORE CUTPASTE TILE_SCORE DENOISING
#define _DEFAULT_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdint.h>

#include "../check.h"
#include "toy_network.h"

enum { HEIGHT = 80, WIDTH = 101 };

static const char* patchcore_path;
static const char* cutpaste_path;
static const char* tile_score_path;
static const char* denoising_path;
static uint8_t board[HEIGHT * WIDTH * 3];

static kad_detector* open_with(const char* path, const kad_detector_options* options) {
  kad_detector* detector = NULL;
  CHECK_OK(kad_detector_open(path, options, &detector));
  return detector;
}

static kad_session* session_of(const kad_detector* detector) {
  kad_session* session = NULL;
  CHECK_OK(kad_session_create(detector, &session));
  return session;
}

static kad_result_facts facts_of(const kad_result* result) {
  kad_result_facts facts = {.struct_size = sizeof(facts)};
  CHECK_OK(kad_result_info(result, &facts));
  return facts;
}

static void test_options(void) {
  kad_detector* detector = NULL;
  const kad_detector_options good = toy_options();
  CHECK_INVALID(kad_detector_open(NULL, &good, &detector), "path is NULL");
  CHECK_INVALID(kad_detector_open(patchcore_path, &good, NULL), "out_detector is NULL");
  CHECK_FAILS(kad_detector_open("/no/such.kad", &good, &detector), KAD_ERROR_ARTIFACT_NOT_FOUND,
              "/no/such.kad: expected an artifact");
  CHECK(detector == NULL);
  kad_detector_options bad = good;
  bad.struct_size = 8;
  CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "struct_size");
  for (int32_t provider = -1; provider <= 4; ++provider) {
    bad = good;
    bad.provider = provider;
    if (provider == KAD_PROVIDER_CALLER) continue;
    CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "provider");
  }
  bad = good;
  bad.network = NULL;
  CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "belong together");
  bad = good;
  bad.device_id = 1;
  CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "device_id");
  bad = good;
  bad.n_threads = -1;
  CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "got -1 and 4");
  bad = good;
  bad.batch = -2;
  CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "got 1 and -2");
  bad = good;
  bad.scores_only = 2;
  CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "scores_only must be 0 or 1");
  bad.scores_only = 1;
  CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "--board-score largest-tile");
  const double thresholds[] = {-1.0, NAN, INFINITY};
  for (int i = 0; i < 3; ++i) {
    bad = good;
    bad.tile_threshold = thresholds[i];
    CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "tile_threshold");
    bad = good;
    bad.map_threshold = thresholds[i];
    CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "map_threshold");
  }
}

static void test_onnxruntime(void) {
  kad_detector* detector = NULL;
  kad_detector_options options = {.struct_size = sizeof(options),
                                  .onnxruntime = "/no/libonnxruntime.so"};
  CHECK_FAILS(kad_detector_open(patchcore_path, &options, &detector), KAD_ERROR_ONNXRUNTIME,
              "/no/libonnxruntime.so");
  options.onnxruntime = "libm.so.6";
  CHECK_FAILS(kad_detector_open(patchcore_path, &options, &detector), KAD_ERROR_ONNXRUNTIME,
              "it has no OrtGetApiBase");
  options.onnxruntime = NULL;
  for (int32_t provider = KAD_PROVIDER_CUDA; provider <= KAD_PROVIDER_TENSORRT; ++provider) {
    options.provider = provider;
    CHECK_FAILS(kad_detector_open(patchcore_path, &options, &detector), KAD_ERROR_PROVIDER,
                "(it has ");
  }
}

static void test_info(void) {
  const kad_detector_options options = toy_options();
  kad_detector_facts facts = {.struct_size = sizeof(facts)};
  kad_detector* detector = open_with(patchcore_path, &options);
  CHECK_OK(kad_detector_info(detector, &facts));
  CHECK(facts.method == KAD_METHOD_PATCHCORE && facts.provider == KAD_PROVIDER_CALLER);
  CHECK(facts.n_threads == 1 && facts.batch == 4 && facts.makes_maps == 1);
  CHECK(facts.tile == 32 && facts.stride == 16 && facts.grid_height == 8 && facts.grid_width == 8);
  CHECK(facts.threshold == facts.map_threshold && facts.decides_by_map == 1);
  CHECK(facts.bank_rows == 60 && facts.embedding_dims == 0 && facts.min_region_area_px == 4);
  CHECK(strcmp(facts.network_input, "tiles") == 0 && strcmp(facts.onnxruntime, "") == 0);
  CHECK(strstr(facts.network_path, "network.onnx") != NULL);
  CHECK((int64_t)strlen(facts.manifest) == facts.manifest_bytes);
  CHECK(strstr(facts.manifest, "\"kad-artifact\"") != NULL);
  kad_detector_close(detector);

  kad_detector_options other = options;
  other.tile_threshold = 7.0;
  other.n_threads = 0;
  other.batch = 0;
  detector = open_with(cutpaste_path, &other);
  CHECK_OK(kad_detector_info(detector, &facts));
  CHECK(facts.method == KAD_METHOD_CUTPASTE && facts.tile_threshold == 7.0);
  CHECK(facts.n_threads >= 1 && facts.batch == 16 && facts.embedding_dims == 16);
  CHECK(strstr(facts.network_path, "explain.onnx") != NULL);
  CHECK_INVALID(kad_detector_info(NULL, &facts), "detector is NULL");
  CHECK_INVALID(kad_detector_info(detector, NULL), "is NULL");
  kad_detector_close(detector);
  kad_detector_close(NULL);
}

// Scores do not depend on batch and threads; a session carries nothing from board to board.
static void test_batches(const char* path) {
  float first = 0;
  for (int32_t batch = 1; batch <= 40; batch += 13) {
    kad_detector_options options = toy_options();
    options.batch = batch;
    options.n_threads = 1 + batch % 3;
    kad_detector* detector = open_with(path, &options);
    kad_session* session = session_of(detector);
    kad_detector_close(detector);  // the session keeps what it needs
    uint8_t other[50 * 60 * 3];
    paint_board(other, 50, 60, 9, 0);
    for (int i = 0; i < 3; ++i) {
      const kad_image image = i == 1 ? rgb_image(other, 50, 60) : rgb_image(board, HEIGHT, WIDTH);
      kad_result* result = NULL;
      CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
      const kad_result_facts facts = facts_of(result);
      CHECK(facts.image_height == image.height && facts.image_width == image.width);
      CHECK(facts.n_tiles > 0 && isfinite(facts.score) && facts.total_ms > 0);
      CHECK((facts.normalised_score >= 0.5) == (facts.anomalous == 1));
      if (batch == 1 && i == 0) first = facts.score;
      if (i != 1) CHECK(facts.score == first);
      if (i == 2) kad_session_close(session);  // the result lives on
      CHECK(facts.map != NULL && facts.map[0] == facts.map[0]);
      kad_result_close(result);
    }
  }
}

static void test_results(void) {
  const kad_detector_options options = toy_options();
  kad_detector* detector = open_with(patchcore_path, &options);
  kad_session* session = session_of(detector);
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  kad_result* result = NULL;
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  const kad_result_facts facts = facts_of(result);
  CHECK(facts.anomalous == 1 && facts.n_regions >= 1 && facts.embeddings == NULL);
  kad_region_result region = {.struct_size = sizeof(region)};
  CHECK_OK(kad_result_region(result, 0, &region));
  CHECK(region.peak == facts.score && region.area_px >= 4 && region.nearest_image != NULL);
  CHECK(facts.map[region.peak_y * WIDTH + region.peak_x] == region.peak);
  CHECK_INVALID(kad_result_region(result, facts.n_regions, &region), "the result has");
  CHECK_INVALID(kad_result_region(result, -1, &region), "region -1");
  kad_tile_result tile = {.struct_size = sizeof(tile)};
  CHECK_OK(kad_result_tile(result, facts.n_tiles - 1, &tile));
  CHECK(tile.x == WIDTH - 32 && tile.y == HEIGHT - 32);
  CHECK_INVALID(kad_result_tile(result, facts.n_tiles, &tile), "the result has");
  CHECK_INVALID(kad_result_tile(NULL, 0, &tile), "result is NULL");
  kad_result_close(result);
  kad_result_close(NULL);
  kad_session_close(session);
  kad_session_close(NULL);
  kad_detector_close(detector);
}

static void test_tiles(void) {
  const kad_detector_options options = toy_options();
  kad_detector* detector = open_with(patchcore_path, &options);
  kad_session* session = session_of(detector);
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  kad_result* result = NULL;
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  const int64_t n = facts_of(result).n_tiles;
  int32_t xy[2 * 64] = {0};
  CHECK(n <= 64);
  kad_tile_result tile = {.struct_size = sizeof(tile)};
  for (int64_t i = 0; i < n; ++i) {
    CHECK_OK(kad_result_tile(result, i, &tile));
    xy[2 * i] = tile.x;
    xy[2 * i + 1] = tile.y;
  }
  banded scores = banded_new((size_t)n * sizeof(float));
  banded patches = banded_new((size_t)n * 64 * sizeof(float));
  banded rows = banded_new((size_t)n * 64 * sizeof(int64_t));
  CHECK_OK(kad_session_score_tiles(session, &image, xy, n, banded_data(scores),
                                   banded_data(patches), banded_data(rows)));
  for (int64_t i = 0; i < n; ++i) {
    CHECK_OK(kad_result_tile(result, i, &tile));
    CHECK(((const float*)banded_data(scores))[i] == tile.score);
    for (int64_t p = 0; p < 64; ++p) {
      const int64_t row = ((const int64_t*)banded_data(rows))[i * 64 + p];
      CHECK(row >= 0 && row < 60);
      CHECK(((const float*)banded_data(patches))[i * 64 + p] >= 0);
    }
  }
  CHECK_OK(kad_session_score_tiles(session, &image, xy, n, banded_data(scores), NULL, NULL));
  CHECK_OK(kad_session_score_tiles(session, &image, NULL, 0, NULL, NULL, NULL));
  CHECK_INVALID(kad_session_score_tiles(session, &image, NULL, 1, banded_data(scores), NULL, NULL),
                "xy is NULL");
  xy[0] = WIDTH - 31;
  CHECK_INVALID(kad_session_score_tiles(session, &image, xy, 1, banded_data(scores), NULL, NULL),
                "leaves the image");
  banded_check_and_free(scores);
  banded_check_and_free(patches);
  banded_check_and_free(rows);
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
}

static void test_cutpaste_tiles(void) {
  kad_detector_options options = toy_options();
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  const int32_t xy[2] = {0, 0};
  float score = 0, patches[64] = {0};
  int64_t row = 0;
  kad_detector* detector = open_with(cutpaste_path, &options);
  kad_session* session = session_of(detector);
  CHECK_INVALID(kad_session_score_tiles(session, &image, xy, 1, &score, NULL, &row),
                "CutPaste has no memory bank");
  CHECK_OK(kad_session_score_tiles(session, &image, xy, 1, &score, patches, NULL));
  float peak = 0;
  for (int i = 0; i < 64; ++i) peak = patches[i] > peak ? patches[i] : peak;
  CHECK(peak == score);
  kad_session_close(session);
  kad_detector_close(detector);

  options.scores_only = 1;
  detector = open_with(tile_score_path, &options);
  session = session_of(detector);
  CHECK_INVALID(kad_session_score_tiles(session, &image, xy, 1, &score, patches, NULL),
                "opened with scores_only");
  kad_result* result = NULL;
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  const kad_result_facts facts = facts_of(result);
  CHECK(facts.map == NULL && facts.n_regions == 0 && facts.embeddings != NULL);
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
}

static void test_requests(void) {
  const kad_detector_options options = toy_options();
  kad_detector* detector = open_with(patchcore_path, &options);
  kad_session* session = session_of(detector);
  const kad_image image = rgb_image(board, HEIGHT, WIDTH);
  kad_result* result = NULL;
  CHECK_INVALID(kad_session_score_image(session, NULL, NULL, &result), "kad_image is NULL");
  CHECK_INVALID(kad_session_score_image(NULL, &image, NULL, &result), "session is NULL");
  CHECK_INVALID(kad_session_score_image(session, &image, NULL, NULL), "out_result is NULL");
  kad_image small = image;
  small.height = 31;
  CHECK_FAILS(kad_session_score_image(session, &small, NULL, &result), KAD_ERROR_TOO_SMALL,
              "give the whole board");
  kad_image wrong = image;
  wrong.pixel_format = 99;
  CHECK_INVALID(kad_session_score_image(session, &wrong, NULL, &result), "pixel_format");

  const kad_rect outside[] = {
      {0, 0, WIDTH + 1, 40}, {-1, 0, 40, 40}, {0, 0, 0, 40}, {INT32_MAX, 0, INT32_MAX, 40}};
  kad_score_request request = {.struct_size = sizeof(request), .n_borders = 1};
  CHECK_INVALID(kad_session_score_image(session, &image, &request, &result), "borders is NULL");
  for (int i = 0; i < 4; ++i) {
    request.borders = outside + i;
    CHECK_FAILS(kad_session_score_image(session, &image, &request, &result), KAD_ERROR_ANNOTATION,
                "borders[0]");
  }
  const kad_rect everything = {0, 0, WIDTH, HEIGHT};
  request.n_borders = 0;
  request.labels = &everything;
  request.n_labels = 1;
  CHECK_FAILS(kad_session_score_image(session, &image, &request, &result), KAD_ERROR_ANNOTATION,
              "touch every tile");
  request.n_labels = -1;
  CHECK_INVALID(kad_session_score_image(session, &image, &request, &result), "labels");
  request.struct_size = 4;
  CHECK_INVALID(kad_session_score_image(session, &image, &request, &result), "struct_size");
  CHECK(result == NULL);
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
}

// ---- callbacks
// ------------------------------------------------------------------------------------

static kad_status answer(void* context, const kad_network_batch* batch) {
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

int main(int argc, char** argv) {
  if (argc != 5) return EXIT_FAILURE;
  patchcore_path = argv[1];
  cutpaste_path = argv[2];
  tile_score_path = argv[3];
  denoising_path = argv[4];
  paint_board(board, HEIGHT, WIDTH, 1, 1);
  test_options();
  test_onnxruntime();
  test_info();
  test_batches(patchcore_path);
  test_batches(cutpaste_path);
  test_results();
  test_tiles();
  test_cutpaste_tiles();
  test_requests();
  test_network_failures();
  test_cancelling();
  test_denoising();
  test_log();
  return check_result();
}
