// Detectors through the C ABI: options, facts, results, and every way to fail at opening.
//   test_detector PATCHCORE CUTPASTE TILE_SCORE DENOISING
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "opened.h"

// A machine with more processors than one cpu_set_t holds: the system refuses that as too small.
enum { SHAM_PROCESSORS = 3000 };
static int is_large_machine = 0;

int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t* set) {
  memset(set, 0, bytes);
  if (!is_large_machine) return syscall(SYS_sched_getaffinity, process, bytes, set) < 0 ? -1 : 0;
  if (8 * bytes < SHAM_PROCESSORS) {
    errno = EINVAL;
    return -1;
  }
  for (int i = 0; i < SHAM_PROCESSORS; ++i) CPU_SET_S((size_t)i, bytes, set);
  return 0;
}

static int allowed_processors(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CHECK(sched_getaffinity(0, sizeof(set), &set) == 0);
  return CPU_COUNT(&set);
}

static void test_processors(void) {
  kad_detector_options options = toy_options();
  options.n_threads = 0;
  for (is_large_machine = 0; is_large_machine < 2; ++is_large_machine) {
    kad_detector* detector = open_with(cutpaste_path, &options);
    kad_detector_facts facts = {.struct_size = sizeof(facts)};
    CHECK_OK(kad_detector_info(detector, &facts));
    CHECK(facts.n_threads == (is_large_machine ? SHAM_PROCESSORS : allowed_processors()));
    kad_detector_close(detector);
  }
  is_large_machine = 0;
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
  const double thresholds[] = {0.0, -1.0, 1e39, 1e-46, NAN, INFINITY};
  for (int i = 0; i < 6; ++i) {
    bad = good;
    bad.tile_threshold = thresholds + i;
    CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "tile_threshold: expected");
    bad = good;
    bad.map_threshold = thresholds + i;
    CHECK_INVALID(kad_detector_open(patchcore_path, &bad, &detector), "map_threshold: expected");
  }
}

// Two-byte characters are whole, the only ones beside ASCII here.
static int is_utf8(const char* text) {
  for (const unsigned char* c = (const unsigned char*)text; *c != '\0'; ++c) {
    if (*c < 0x80) continue;
    if (*c != 0xC3 || c[1] != 0xA9) return 0;
    ++c;
  }
  return 1;
}

// Of a long text the reason is kept, and no half of a character.
static void test_long_paths(void) {
  const kad_detector_options options = toy_options();
  kad_detector* detector = NULL;
  char path[5000];
  for (size_t length = 400; length < 2000; ++length) {
    memset(path, 0, sizeof(path));
    for (size_t i = 0; i + 2 <= length; i += 2) memcpy(path + i, i % 200 == 0 ? "//" : "\u00e9", 2);
    memcpy(path, "/no", 3);
    CHECK_FAILS(kad_detector_open(path, &options, &detector), KAD_ERROR_ARTIFACT_NOT_FOUND,
                "give the path of one that kad-export made");
    CHECK(strncmp(kad_last_error(), "/no", 3) == 0);
    CHECK(is_utf8(kad_last_error() + 4));
    const int is_cut = strstr(kad_last_error(), " [...] ") != NULL;
    CHECK(is_cut == (strstr(kad_last_error(), path) == NULL));
  }
  memset(path, 'x', sizeof(path) - 1);
  path[sizeof(path) - 1] = '\0';
  CHECK_FAILS(kad_detector_open(path, &options, &detector), KAD_ERROR_ARTIFACT_NOT_FOUND,
              "expected a path shorter than 4096 bytes, got 4999");
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
  const double threshold = 7.0;
  other.tile_threshold = &threshold;
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
  CHECK_INVALID(kad_result_region(result, facts.n_regions, &region), "numbered from 0");
  CHECK_INVALID(kad_result_region(result, -1, &region), "region -1");
  kad_tile_result tile = {.struct_size = sizeof(tile)};
  CHECK_OK(kad_result_tile(result, facts.n_tiles - 1, &tile));
  CHECK(tile.x == WIDTH - 32 && tile.y == HEIGHT - 32);
  CHECK_INVALID(kad_result_tile(result, facts.n_tiles, &tile), "numbered from 0");
  CHECK_INVALID(kad_result_tile(NULL, 0, &tile), "result is NULL");
  kad_result_close(result);
  kad_result_close(NULL);
  kad_session_close(session);
  kad_session_close(NULL);
  kad_detector_close(detector);
}

int main(int argc, char** argv) {
  begin(argc, argv);
  test_options();
  test_long_paths();
  test_processors();
  test_onnxruntime();
  test_info();
  test_batches(patchcore_path);
  test_batches(cutpaste_path);
  test_results();
  return check_result();
}
