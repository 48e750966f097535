#include "image/image.hpp"

#include <cstddef>

#include "base/guard.hpp"

namespace kad {
namespace {

struct Format {
  int32_t samples;
  int32_t bytes_per_value;
  int32_t rgb[3];
};

// In the order of KAD_PIXEL_*.
constexpr Format kFormats[] = {
    {1, 1, {0, 0, 0}}, {3, 1, {0, 1, 2}}, {3, 1, {2, 1, 0}}, {4, 1, {0, 1, 2}},
    {4, 1, {2, 1, 0}}, {1, 2, {0, 0, 0}}, {3, 2, {0, 1, 2}}, {3, 2, {2, 1, 0}},
};
constexpr int32_t kFormatCount = sizeof(kFormats) / sizeof(kFormats[0]);

void check_row_stride(const kad_image& image, int64_t row_bytes) {
  int64_t total = 0;
  if (image.row_stride < row_bytes) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "image.row_stride is %lld bytes, expected at least %lld (width %d)",
         static_cast<long long>(image.row_stride), static_cast<long long>(row_bytes), image.width);
  }
  if (__builtin_mul_overflow(image.row_stride, static_cast<int64_t>(image.height), &total)) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "image.row_stride %lld times height %d overflows 64 bits",
         static_cast<long long>(image.row_stride), image.height);
  }
}

}  // namespace

void check_image_size(int32_t height, int32_t width) {
  if (height < 1 || width < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "image size must be at least 1 x 1, got %d x %d (height x width)", height, width);
  }
}

void check_tile_side(int32_t tile, int32_t height, int32_t width) {
  if (tile < 1 || tile > kMaxTile) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "tile must be 1 to %d px, got %d", kMaxTile, tile);
  }
  if (tile > height || tile > width) {
    fail(KAD_ERROR_TOO_SMALL,
         "the image is %d x %d px (height x width), smaller than one tile of %d x %d px", height,
         width, tile, tile);
  }
}

void check_tile_inside(int64_t number, const int32_t* xy, int32_t tile, int32_t height,
                       int32_t width) {
  if (xy[0] >= 0 && xy[1] >= 0 && xy[0] <= width - tile && xy[1] <= height - tile) return;
  fail(KAD_ERROR_INVALID_ARGUMENT,
       "tile %lld at x %d, y %d, side %d px, leaves the image of %d x %d px (height x width)",
       static_cast<long long>(number), xy[0], xy[1], tile, height, width);
}

bool lies_inside(const kad_rect& rect, int32_t height, int32_t width) {
  return rect.x >= 0 && rect.y >= 0 && rect.width >= 1 && rect.height >= 1 &&
         rect.width <= width - rect.x && rect.height <= height - rect.y;
}

void check_rectangles(const kad_rect* rectangles, int64_t n, const char* name, int32_t height,
                      int32_t width) {
  check_count(n, 2, name);
  if (n > 0) check_pointer(rectangles, name);
  for (int64_t i = 0; i < n; ++i) {
    const kad_rect& r = rectangles[i];
    if (lies_inside(r, height, width)) continue;
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "%s[%lld] = (x %d, y %d, width %d, height %d) is empty or leaves the image of %d x %d px "
         "(height x width)",
         name, static_cast<long long>(i), r.x, r.y, r.width, r.height, height, width);
  }
}

void check_border(const kad_rect& border, int64_t number, int32_t tile) {
  if (border.width >= tile && border.height >= tile) return;
  fail(KAD_ERROR_TOO_SMALL,
       "borders[%lld] is %d x %d px (height x width), smaller than one tile of %d x %d px",
       static_cast<long long>(number), border.height, border.width, tile, tile);
}

void check_tiles(const int32_t* xy, int64_t n, int32_t tile, int32_t height, int32_t width) {
  check_tile_side(tile, height, width);
  for (int64_t i = 0; i < n; ++i) check_tile_inside(i, xy + 2 * i, tile, height, width);
}

ImageView check_image(const kad_image* given) {
  const kad_image image = read_struct(given, KAD_FIRST_SIZE(kad_image, data), "kad_image");
  check_pointer(image.data, "image.data");
  check_image_size(image.height, image.width);
  if (image.pixel_format < 0 || image.pixel_format >= kFormatCount) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "image.pixel_format must be one of KAD_PIXEL_* (0 to %d), got %d", kFormatCount - 1,
         image.pixel_format);
  }
  const Format& format = kFormats[image.pixel_format];
  check_row_stride(image, int64_t{image.width} * format.samples * format.bytes_per_value);
  return {static_cast<const uint8_t*>(image.data),
          image.row_stride,
          image.height,
          image.width,
          format.samples,
          format.bytes_per_value,
          {format.rgb[0], format.rgb[1], format.rgb[2]}};
}

}  // namespace kad
