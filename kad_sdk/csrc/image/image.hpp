// A caller's image, checked, with its pixel format spelled out.
#pragma once

#include <cstdint>

#include "kad/kad.h"

namespace kad {

struct ImageView {
  const uint8_t* data;
  int64_t row_stride;  // bytes
  int32_t height;
  int32_t width;
  int32_t samples;          // values of a pixel: 1, 3 or 4
  int32_t bytes_per_value;  // 1 or 2
  int32_t rgb[3];           // which value of a pixel is red, green, blue

  float full_scale() const { return bytes_per_value == 1 ? 255.0F : 65535.0F; }
  const uint8_t* row(int64_t y) const { return data + y * row_stride; }
};

/// Check every field of the struct; raises kad::Error.
ImageView check_image(const kad_image* image);

/// Check that a tile lies inside an image; raises KAD_ERROR_INVALID_ARGUMENT that names it.
void check_tile_inside(int64_t number, const int32_t* xy, int32_t tile, int32_t height,
                       int32_t width);

/// Largest tile side: keeps every product of a tile's dimensions far inside 64 bits.
constexpr int32_t kMaxTile = 1 << 15;

/// Check that a tile side is at least 1, at most kMaxTile and at most the image's sides.
void check_tile_side(int32_t tile, int32_t height, int32_t width);

/// Check a tile side, and that n tiles at the corners xy (n, 2) lie inside an image.
void check_tiles(const int32_t* xy, int64_t n, int32_t tile, int32_t height, int32_t width);

/// Whether a rectangle has an inside, and lies in an image.
bool lies_inside(const kad_rect& rect, int32_t height, int32_t width);

/// Check that n rectangles lie inside an image; `name` is theirs in messages.
void check_rectangles(const kad_rect* rectangles, int64_t n, const char* name, int32_t height,
                      int32_t width);

/// Check that active area `number` holds a tile; raises KAD_ERROR_TOO_SMALL that names it.
void check_border(const kad_rect& border, int64_t number, int32_t tile);

/// Check that both sides of an image are at least 1.
void check_image_size(int32_t height, int32_t width);

}  // namespace kad
