// Board map and regions.
#include <fenv.h>
#include <math.h>

#include "check.h"

enum { HEIGHT = 70, WIDTH = 61 };

static kad_board_options make_options(int32_t tile) {
  kad_board_options options = {.struct_size = sizeof(kad_board_options),
                               .image_height = HEIGHT,
                               .image_width = WIDTH,
                               .tile = tile,
                               .grid_height = (tile + 2) / 3,
                               .grid_width = (tile + 1) / 2,
                               .smoothing_radius = 5,
                               .smoothing_sigma = 2.0F};
  return options;
}

// A constant grid stays constant: the weights of every output pixel sum to 1.
static void test_constant_tiles(int32_t tile) {
  const kad_board_options options = make_options(tile);
  const int64_t patches = (int64_t)options.grid_height * options.grid_width;
  kad_board* board = NULL;
  CHECK_OK(kad_board_create(&options, &board));
  float* dist = malloc(2 * (size_t)patches * sizeof(float));
  if (dist == NULL) abort();
  for (int64_t i = 0; i < 2 * patches; ++i) dist[i] = i < patches ? 1.0F : 3.0F;
  const int32_t xy[4] = {0, 0, WIDTH - tile, HEIGHT - tile};
  CHECK_OK(kad_board_add(board, xy, 2, dist, NULL, 2));
  const banded out = banded_new(HEIGHT * WIDTH * sizeof(float));
  CHECK_OK(kad_board_map(board, 2, banded_data(out)));
  const float* map = banded_data(out);
  for (int32_t y = 0; y < HEIGHT; ++y) {
    for (int32_t x = 0; x < WIDTH; ++x) {
      const float value = map[y * WIDTH + x];
      const int first = y < tile && x < tile;
      const int second = y >= HEIGHT - tile && x >= WIDTH - tile;
      const float expected = first && second ? 2.0F : first ? 1.0F : 3.0F;
      CHECK(first || second ? fabsf(value - expected) < 1e-5F : isnan(value));
    }
  }
  banded_check_and_free(out);
  free(dist);
  kad_board_close(board);
}

static void test_every_tile_side(void) {
  for (int32_t tile = 1; tile <= WIDTH; ++tile) test_constant_tiles(tile);
}

// A host may round as it likes: the core's results and the host's mode both stay what they are.
static void test_rounding_mode_of_the_host(void) {
  enum { PATCHES = 7 * 10 };
  kad_board_options options = make_options(20);
  float dist[2 * PATCHES];
  for (size_t i = 0; i < 2 * PATCHES; ++i) dist[i] = 1.0F / (float)(i + 3);
  const int32_t xy[4] = {0, 0, 10, 7};
  static float map[2][HEIGHT * WIDTH];
  for (int turn = 0; turn < 2; ++turn) {
    const int mode = turn == 0 ? FE_TONEAREST : FE_UPWARD;
    CHECK(fesetround(mode) == 0);
    kad_board* board = NULL;
    CHECK_OK(kad_board_create(&options, &board));
    CHECK_OK(kad_board_add(board, xy, 2, dist, NULL, 2));
    CHECK_OK(kad_board_map(board, 2, map[turn]));
    kad_board_close(board);
    CHECK(fegetround() == mode);
  }
  fesetround(FE_TONEAREST);
  CHECK(memcmp(map[0], map[1], sizeof(map[0])) == 0);
}

static kad_board* make_spotted_board(float* map) {
  kad_board_options options = make_options(60);
  options.smoothing_radius = 0;
  options.grid_height = options.grid_width = 2;
  kad_board* board = NULL;
  CHECK_OK(kad_board_create(&options, &board));
  const int32_t xy[4] = {0, 0, 1, 10};
  const float dist[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  const int64_t index[8] = {10, 20, 30, 40, 50, 60, 70, 80};
  CHECK_OK(kad_board_add(board, xy, 2, dist, index, 1));
  CHECK_OK(kad_board_map(board, 1, map));
  return board;
}

static void test_regions(void) {
  static float map[HEIGHT * WIDTH];
  kad_board* board = make_spotted_board(map);
  memset(map, 0, sizeof(map));
  map[5 * WIDTH + 5] = 2.0F;  // three pixels joined by a corner
  map[5 * WIDTH + 6] = 3.0F;
  map[6 * WIDTH + 7] = 3.0F;
  map[50 * WIDTH + 40] = 9.0F;  // one pixel
  int64_t count = 0;
  CHECK_FAILS(kad_board_regions(board, map, 2.0F, 1, sizeof(kad_region), NULL, 0, &count),
              KAD_ERROR_BUFFER_TOO_SMALL, "expected room for 2: call again");
  CHECK(count == 2);
  const banded out = banded_new(2 * (sizeof(kad_region) + 8));  // a newer caller's larger struct
  CHECK_OK(
      kad_board_regions(board, map, 2.0F, 1, sizeof(kad_region) + 8, banded_data(out), 2, &count));
  kad_region first;
  kad_region second;
  const unsigned char* bytes = banded_data(out);
  memcpy(&first, bytes, sizeof(first));
  memcpy(&second, bytes + sizeof(kad_region) + 8, sizeof(second));
  for (size_t i = 0; i < 8; ++i) CHECK(bytes[sizeof(kad_region) + i] == 0);
  CHECK(first.peak_x == 40 && first.peak_y == 50 && first.area_px == 1);
  CHECK(first.tile == 1 && first.patch == 3 && first.bank_row == 80);
  CHECK(first.peak == 9.0F && first.distance == 8.0F);
  CHECK(second.x == 5 && second.y == 5 && second.width == 3 && second.height == 2);
  CHECK(second.area_px == 3 && second.peak_x == 6 && second.peak_y == 5);
  CHECK(second.tile == 0 && second.patch == 0 && second.bank_row == 10);
  banded_check_and_free(out);
  CHECK_OK(kad_board_regions(board, map, 2.0F, 4, sizeof(kad_region), NULL, 0, &count));
  CHECK(count == 0);
  kad_board_close(board);
}

static void test_bad_boards(void) {
  kad_board* board = NULL;
  kad_board_options options = make_options(16);
  CHECK_INVALID(kad_board_create(NULL, &board), "options is NULL");
  CHECK_INVALID(kad_board_create(&options, NULL), "out_board is NULL");
  options.struct_size = 8;
  CHECK_INVALID(kad_board_create(&options, &board), "kad_board_options.struct_size");
  options = make_options(16);
  options.grid_width = 17;
  CHECK_INVALID(kad_board_create(&options, &board), "grid must be 1 to 16");
  options = make_options(16);
  options.smoothing_sigma = -1.0F;
  CHECK_INVALID(kad_board_create(&options, &board), "got -1");
  options = make_options(62);
  CHECK_FAILS(kad_board_create(&options, &board), KAD_ERROR_TOO_SMALL, "70 x 61");
  options = make_options(16);
  options.image_height = options.image_width = INT32_MAX;
  CHECK_INVALID(kad_board_create(&options, &board), "cannot exist");
  CHECK(board == NULL);
}

static void test_bad_additions(void) {
  static float map[HEIGHT * WIDTH];
  kad_board* board = make_spotted_board(map);
  const int32_t xy[2] = {0, 0};
  const int32_t outside[2] = {2, 0};
  const float dist[4] = {1, 2, 3, 4};
  const float nan[4] = {1, 2, NAN, 4};
  CHECK_INVALID(kad_board_add(NULL, xy, 1, dist, NULL, 1), "board is NULL");
  CHECK_INVALID(kad_board_add(board, NULL, 1, dist, NULL, 1), "xy is NULL");
  CHECK_INVALID(kad_board_add(board, xy, 1, NULL, NULL, 1), "dist is NULL");
  CHECK_INVALID(kad_board_add(board, xy, -1, dist, NULL, 1), "n_tiles");
  CHECK_INVALID(kad_board_add(board, xy, INT64_MAX, dist, NULL, 1), "cannot exist");
  CHECK_INVALID(kad_board_add(board, xy, 1, dist, NULL, 0), "n_threads");
  CHECK_INVALID(kad_board_add(board, outside, 1, dist, NULL, 1), "tile 0 at x 2");
  CHECK_FAILS(kad_board_add(board, xy, 1, nan, NULL, 1), KAD_ERROR_NOT_FINITE, "patch 2");
  CHECK_OK(kad_board_add(board, NULL, 0, NULL, NULL, 1));
  static float after[HEIGHT * WIDTH];
  CHECK_OK(kad_board_map(board, 1, after));
  CHECK(memcmp(map, after, sizeof(map)) == 0);
  CHECK_INVALID(kad_board_map(NULL, 1, after), "board is NULL");
  CHECK_INVALID(kad_board_map(board, 1, NULL), "out_map is NULL");
  kad_board_close(board);
}

static void test_bad_regions(void) {
  static float map[HEIGHT * WIDTH];
  kad_board* board = make_spotted_board(map);
  const uint32_t size = sizeof(kad_region);
  kad_region region;
  int64_t count = 0;
  CHECK_INVALID(kad_board_regions(NULL, map, 1, 1, size, &region, 1, &count), "board is NULL");
  CHECK_INVALID(kad_board_regions(board, NULL, 1, 1, size, &region, 1, &count), "map is NULL");
  CHECK_INVALID(kad_board_regions(board, map, 1, 1, size, &region, 1, NULL), "out_count is NULL");
  CHECK_INVALID(kad_board_regions(board, map, 1, 1, size, NULL, 1, &count), "out_regions is NULL");
  CHECK_INVALID(kad_board_regions(board, map, 1, 1, size - 1, &region, 1, &count), "kad_region");
  CHECK_INVALID(kad_board_regions(board, map, 1, 0, size, &region, 1, &count), "min_area_px");
  CHECK_FAILS(kad_board_regions(board, map, NAN, 1, size, &region, 1, &count), KAD_ERROR_NOT_FINITE,
              "threshold is NaN: expected the number");
  map[0 * WIDTH + 60] = 100.0F;  // right of both tiles
  CHECK_INVALID(kad_board_regions(board, map, 50, 1, size, &region, 1, &count), "x 60, y 0");
  kad_board_close(board);
}

int main(void) {
  check_at_every_level(test_every_tile_side);
  check_at_every_level(test_rounding_mode_of_the_host);
  test_regions();
  test_bad_boards();
  test_bad_additions();
  test_bad_regions();
  return check_result();
}
