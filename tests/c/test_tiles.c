// Planning tiles.
#include "check.h"

static kad_tile_grid make_grid(int32_t height, int32_t width) {
  kad_tile_grid grid = {.struct_size = sizeof(kad_tile_grid),
                        .image_height = height,
                        .image_width = width,
                        .tile = 224,
                        .stride = 112,
                        .cover_edges = 1};
  return grid;
}

static void test_published_annotation(void) {
  const kad_rect border = {617, 161, 3279, 3424};
  const kad_rect label = {659, 2231, 600, 1239};
  kad_tile_grid grid = make_grid(4730, 4074);
  grid.borders = &border;
  grid.n_borders = 1;
  int64_t all = 0;
  CHECK_FAILS(kad_tiles_plan(&grid, NULL, 0, &all), KAD_ERROR_BUFFER_TOO_SMALL,
              "call again with room for as many");
  CHECK(all == 29 * 30);  // 28 columns and 29 rows, one more of each flush with the far edge
  grid.labels = &label;
  grid.n_labels = 1;
  int64_t count = 0;
  const banded out = banded_new((size_t)all * 2 * sizeof(int32_t));
  CHECK_OK(kad_tiles_plan(&grid, banded_data(out), all, &count));
  CHECK(count > 0 && count < all);
  const int32_t* xy = banded_data(out);
  CHECK(xy[0] == 617 && xy[1] == 161);
  CHECK(xy[2 * count - 2] == 617 + 3279 - 224 && xy[2 * count - 1] == 161 + 3424 - 224);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t x = xy[2 * i];
    const int32_t y = xy[2 * i + 1];
    const int hits = x < label.x + label.width && x + 224 > label.x && y < label.y + label.height &&
                     y + 224 > label.y;
    CHECK(!hits);
  }
  banded_check_and_free(out);
}

static void test_buffer_of_the_right_size(void) {
  const kad_tile_grid grid = make_grid(336, 448);
  int32_t xy[2 * 6];
  int64_t count = 0;
  CHECK_FAILS(kad_tiles_plan(&grid, xy, 5, &count), KAD_ERROR_BUFFER_TOO_SMALL,
              "out_xy has room for 5 tiles, expected room for 6");
  CHECK(count == 6);
  CHECK_OK(kad_tiles_plan(&grid, xy, 6, &count));
  CHECK(count == 6 && xy[10] == 224 && xy[11] == 112);
}

static void test_bad_grids(void) {
  const kad_rect small = {0, 0, 223, 300};
  const kad_rect outside = {200, 0, 300, 300};
  kad_tile_grid grid = make_grid(336, 448);
  int64_t count = 7;
  CHECK_INVALID(kad_tiles_plan(NULL, NULL, 0, &count), "grid is NULL");
  CHECK(count == 0);
  CHECK_INVALID(kad_tiles_plan(&grid, NULL, 0, NULL), "out_count is NULL");
  CHECK_INVALID(kad_tiles_plan(&grid, NULL, 9, &count), "out_xy is NULL");
  CHECK_INVALID(kad_tiles_plan(&grid, NULL, -1, &count), "capacity");
  grid.struct_size = 4;
  CHECK_INVALID(kad_tiles_plan(&grid, NULL, 0, &count), "kad_tile_grid.struct_size is 4");
  grid = make_grid(336, 448);
  grid.cover_edges = 2;
  CHECK_INVALID(kad_tiles_plan(&grid, NULL, 0, &count), "cover_edges");
  grid = make_grid(336, 448);
  grid.n_borders = 1;
  CHECK_INVALID(kad_tiles_plan(&grid, NULL, 0, &count), "borders is NULL");
  grid.borders = &small;
  CHECK_FAILS(kad_tiles_plan(&grid, NULL, 0, &count), KAD_ERROR_TOO_SMALL, "300 x 223");
  grid.borders = &outside;
  CHECK_INVALID(kad_tiles_plan(&grid, NULL, 0, &count), "leaves the image");
  grid = make_grid(336, 223);
  CHECK_FAILS(kad_tiles_plan(&grid, NULL, 0, &count), KAD_ERROR_TOO_SMALL, "336 x 223");
  grid = make_grid(INT32_MAX, INT32_MAX);
  grid.stride = 1;
  CHECK_INVALID(kad_tiles_plan(&grid, NULL, 0, &count), "larger stride");
}

int main(void) {
  test_published_annotation();
  test_buffer_of_the_right_size();
  test_bad_grids();
  return check_result();
}
