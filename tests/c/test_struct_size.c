// Structs of other releases: the smallest accepted size is read and no byte more, a larger one is
// accepted, a smaller one is refused by name, and so is one that no struct can have.
#define _DEFAULT_SOURCE
#include <stdint.h>

#include "check.h"
#include "edge.h"

enum {
  LARGEST = 4096,
  UNSET = 0xA5A5A5  // what memory may hold that nobody has set
};

// The first release's sizes. They stay when fields are added.
enum {
  FIRST_IMAGE = 32,
  FIRST_TILE_GRID = 56,
  FIRST_BASE_MAPS = 64,
  FIRST_SCORE_OPTIONS = 32,
  FIRST_DENSITY = 56,
  FIRST_DIRECTIONS = 40,
  FIRST_KCENTER_STATS = 64,
  FIRST_BOARD_OPTIONS = 32,
  FIRST_MAP_RULES = 64,
  FIRST_WINDOWS_OPTIONS = 96,
  FIRST_REGION = 64
};

static kad_status create_board(const void* options) {
  kad_board* board = NULL;
  const kad_status status = kad_board_create(options, &board);
  kad_board_close(board);
  return status;
}

static kad_status create_windows(const void* options) {
  kad_windows* windows = NULL;
  const kad_status status = kad_windows_create(options, &windows);
  kad_windows_close(windows);
  return status;
}

static kad_status plan_tiles(const void* grid) {
  int64_t count = 0;
  int32_t xy[2] = {0};
  return kad_tiles_plan(grid, xy, 1, &count);
}

static kad_status resize(const void* image) {
  unsigned char out[3] = {0};
  return kad_image_resize(image, 1, 1, 1, out);
}

static kad_status make_features(const void* maps) {
  float out[1] = {0};
  return kad_patch_features(maps, 1, out);
}

static kad_status judge_map(const void* rules) {
  float map[1] = {1.0F};
  return kad_map_judge(map, 1, 1, rules);
}

static kad_status judge_tiles(const void* rules) {
  const int32_t xy[2] = {0, 0};
  float factor = 0.0F;
  return kad_tiles_judge(rules, 8, 8, xy, 1, 8, &factor);
}

static kad_status score_tiles(const void* options) {
  const float values[1] = {1.0F};
  const float* const data[1] = {values};
  const int32_t one[1] = {1};
  const kad_base_maps maps = {.struct_size = sizeof(kad_base_maps),
                              .grid_height = 1,
                              .grid_width = 1,
                              .n_tiles = 1,
                              .n_layers = 1,
                              .data = data,
                              .channels = one,
                              .heights = one,
                              .widths = one};
  kad_index* index = NULL;
  float dist = 0, score = 0;
  int64_t row = 0;
  CHECK_OK(kad_index_create(values, 1, 1, 1, &index));
  const kad_status status = kad_score_tiles(index, &maps, options, 1, &dist, &row, &score);
  kad_index_close(index);
  return status;
}

static kad_status score_density(const void* density) {
  const float embedding[1] = {3.0F};
  float out[1] = {0};
  return kad_density_score(density, embedding, 1, 1, out);
}

static kad_status flush(const void* directions) {
  const float point[1] = {3.0F};
  float dist[1] = {9.0F};
  return kad_kcenter_flush(directions, point, 1, point, 1, 1, dist, NULL);
}

static void check_sizes(kad_status (*call)(const void*), const void* newest, size_t first,
                        const char* name) {
  uint32_t* given = at_the_edge(newest, first);
  *given = (uint32_t)first;
  CHECK_OK(call(given));
  const uint32_t wrong[3] = {(uint32_t)first - 1, LARGEST + 1, UNSET};
  for (int i = 0; i < 3; ++i) {
    *given = wrong[i];
    CHECK_INVALID(call(given), name);
  }

  unsigned char larger[256] = {0};
  const uint32_t size = sizeof(larger);
  memcpy(larger, newest, first);
  memcpy(larger, &size, sizeof(size));
  CHECK_OK(call(larger));
}

static void test_inputs(void) {
  const unsigned char pixel = 7;
  const kad_image image = {.struct_size = sizeof(kad_image),
                           .pixel_format = KAD_PIXEL_GREY8,
                           .height = 1,
                           .width = 1,
                           .row_stride = 1,
                           .data = &pixel};
  check_sizes(resize, &image, FIRST_IMAGE, "kad_image.struct_size");

  const kad_tile_grid grid = {.struct_size = sizeof(kad_tile_grid),
                              .image_height = 8,
                              .image_width = 8,
                              .tile = 8,
                              .stride = 8};
  check_sizes(plan_tiles, &grid, FIRST_TILE_GRID, "kad_tile_grid.struct_size");

  const float values[1] = {1.0F};
  const float* const data[1] = {values};
  const int32_t one[1] = {1};
  const kad_base_maps maps = {.struct_size = sizeof(kad_base_maps),
                              .grid_height = 1,
                              .grid_width = 1,
                              .n_tiles = 1,
                              .n_layers = 1,
                              .data = data,
                              .channels = one,
                              .heights = one,
                              .widths = one};
  check_sizes(make_features, &maps, FIRST_BASE_MAPS, "kad_base_maps.struct_size");

  const kad_score_options scoring = {.struct_size = sizeof(kad_score_options),
                                     .reweighting = KAD_REWEIGHT_NONE};
  check_sizes(score_tiles, &scoring, FIRST_SCORE_OPTIONS, "kad_score_options.struct_size");

  const kad_density density = {.struct_size = sizeof(kad_density),
                               .kind = KAD_DENSITY_GAUSSIAN,
                               .dims = 1,
                               .mean = values,
                               .cholesky = values};
  const kad_directions directions = {.struct_size = sizeof(kad_directions), .dims = 1};
  check_sizes(flush, &directions, FIRST_DIRECTIONS, "kad_directions.struct_size");

  check_sizes(score_density, &density, FIRST_DENSITY, "kad_density.struct_size");

  const kad_board_options board = {.struct_size = sizeof(kad_board_options),
                                   .image_height = 8,
                                   .image_width = 8,
                                   .tile = 8,
                                   .grid_height = 2,
                                   .grid_width = 2};
  check_sizes(create_board, &board, FIRST_BOARD_OPTIONS, "kad_board_options.struct_size");

  const kad_windows_options windows = {.struct_size = sizeof(kad_windows_options),
                                       .image_height = 16,
                                       .image_width = 16,
                                       .window = 16,
                                       .align = 8,
                                       .patch = 4,
                                       .tile = 16};
  check_sizes(create_windows, &windows, FIRST_WINDOWS_OPTIONS, "kad_windows_options.struct_size");

  const kad_map_rules rules = {.struct_size = sizeof(kad_map_rules)};
  check_sizes(judge_map, &rules, FIRST_MAP_RULES, "kad_map_rules.struct_size");
  check_sizes(judge_tiles, &rules, FIRST_MAP_RULES, "kad_map_rules.struct_size");
  const kad_map_rules later = {.struct_size = sizeof(kad_map_rules), .reserved = 1};
  CHECK_INVALID(judge_map(&later), "kad_map_rules.reserved must be 0, got 1");
}

// kad_board_regions fills an array of the caller's structs, old or new.
static void test_regions(void) {
  const kad_board_options options = {.struct_size = sizeof(kad_board_options),
                                     .image_height = 4,
                                     .image_width = 4,
                                     .tile = 4,
                                     .grid_height = 1,
                                     .grid_width = 1};
  const int32_t xy[2] = {0, 0};
  const float dist[1] = {2.0F};
  float map[16] = {0};
  int64_t count = 0;
  kad_board* board = NULL;
  CHECK_OK(kad_board_create(&options, &board));
  CHECK_OK(kad_board_add(board, xy, 1, dist, NULL, 1));
  CHECK_OK(kad_board_map(board, 1, map));

  const kad_region empty = {0};
  kad_region* region = at_the_edge(&empty, FIRST_REGION);
  CHECK_OK(kad_board_regions(board, map, 1.0F, 1, FIRST_REGION, region, 1, &count));
  CHECK(count == 1 && region->area_px == 16 && region->bank_row == -1);
  CHECK_INVALID(kad_board_regions(board, map, 1.0F, 1, FIRST_REGION - 1, region, 1, &count),
                "kad_region.struct_size");
  CHECK_INVALID(kad_board_regions(board, map, 1.0F, 1, LARGEST + 1, region, 1, &count),
                "kad_region.struct_size");
  CHECK_INVALID(kad_board_regions(board, map, 1.0F, 1, UNSET, region, 1, &count),
                "set it to sizeof(kad_region)");

  unsigned char larger[FIRST_REGION + 256];
  memset(larger, 0xA5, sizeof(larger));
  CHECK_OK(kad_board_regions(board, map, 1.0F, 1, sizeof(larger), (kad_region*)larger, 1, &count));
  CHECK(((const kad_region*)larger)->area_px == 16);
  for (size_t i = sizeof(kad_region); i < sizeof(larger); ++i) CHECK(larger[i] == 0);
  kad_board_close(board);
}

// kad_kcenter_info fills as much of a caller's struct as it has.
static void test_kcenter_stats(void) {
  const kad_directions directions = {.struct_size = sizeof(kad_directions), .dims = 1};
  const float point[1] = {3.0F}, dist[1] = {9.0F};
  kad_kcenter* kcenter = NULL;
  CHECK_OK(kad_kcenter_create(&directions, point, 1, dist, 0, 1, &kcenter));
  const kad_kcenter_stats empty = {.struct_size = FIRST_KCENTER_STATS};
  kad_kcenter_stats* stats = at_the_edge(&empty, FIRST_KCENTER_STATS);
  CHECK_OK(kad_kcenter_info(kcenter, stats));
  CHECK(stats->struct_size == FIRST_KCENTER_STATS);
  stats->struct_size = FIRST_KCENTER_STATS - 1;
  CHECK_INVALID(kad_kcenter_info(kcenter, stats), "kad_kcenter_stats.struct_size");
  stats->struct_size = UNSET;
  CHECK_INVALID(kad_kcenter_info(kcenter, stats), "kad_kcenter_stats.struct_size");
  CHECK(stats->struct_size == UNSET);
  kad_kcenter_close(kcenter);
}

int main(void) {
  test_inputs();
  test_kcenter_stats();
  test_regions();
  return check_result();
}
