// Sessions through the C ABI: tiles without a board, requests, and every way to fail at scoring.
//   test_sessions PATCHCORE CUTPASTE TILE_SCORE DENOISING
#define _DEFAULT_SOURCE
#include <stdint.h>

#include "opened.h"

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
  // Every corner is looked at before a tile is scored: this one is of the second batch.
  memset(banded_data(scores), 0xA5, (size_t)n * sizeof(float));
  xy[2 * 5] = WIDTH - 31;
  CHECK_INVALID(kad_session_score_tiles(session, &image, xy, n, banded_data(scores), NULL, NULL),
                "tile 5 ");
  CHECK(strstr(kad_last_error(), "leaves the image") != NULL);
  for (size_t i = 0; i < (size_t)n * sizeof(float); ++i) {
    CHECK(((const unsigned char*)banded_data(scores))[i] == 0xA5);
  }
  kad_image small = image;
  small.width = 31;
  CHECK_FAILS(kad_session_score_tiles(session, &small, xy, n, banded_data(scores), NULL, NULL),
              KAD_ERROR_TOO_SMALL, "smaller than one tile");
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
  request.n_labels = 0;
  request.reserved = 7;
  CHECK_INVALID(kad_session_score_image(session, &image, &request, &result),
                "kad_score_request.reserved must be 0, got 7");
  request.struct_size = 4;
  CHECK_INVALID(kad_session_score_image(session, &image, &request, &result), "struct_size");
  CHECK(result == NULL);
  CHECK_OK(kad_session_score_image(session, &image, NULL, &result));
  kad_result_close(result);
  kad_session_close(session);
  kad_detector_close(detector);
}

int main(int argc, char** argv) {
  begin(argc, argv);
  test_tiles();
  test_cutpaste_tiles();
  test_requests();
  return check_result();
}
