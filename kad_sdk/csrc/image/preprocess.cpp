// Cut tiles out of an image and normalise them for the network.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "image/image.hpp"

namespace kad {
namespace {

struct Normalisation {
  float mean[3];
  float std[3];
  float full_scale;

  float apply(float value, int channel) const {
    return (value / full_scale - mean[channel]) / std[channel];
  }
};

Normalisation check_normalisation(const float* mean, const float* std, float full_scale) {
  check_pointer(mean, "mean");
  check_pointer(std, "std");
  Normalisation out{{}, {}, full_scale};
  for (int c = 0; c < 3; ++c) {
    if (!std::isfinite(mean[c]) || !std::isfinite(std[c])) {
      fail(KAD_ERROR_NOT_FINITE, "mean[%d] = %g and std[%d] = %g must be finite", c,
           static_cast<double>(mean[c]), c, static_cast<double>(std[c]));
    }
    if (std[c] <= 0.0F) {
      fail(KAD_ERROR_INVALID_ARGUMENT, "std[%d] must be above 0, got %g", c,
           static_cast<double>(std[c]));
    }
    out.mean[c] = mean[c];
    out.std[c] = std[c];
  }
  return out;
}

// 8-bit values: the 3 x 256 results are computed once, each with the formula of the header.
class Table8 {
 public:
  explicit Table8(const Normalisation& normalisation) {
    for (int c = 0; c < 3; ++c) {
      for (int v = 0; v < 256; ++v) value_[c][v] = normalisation.apply(static_cast<float>(v), c);
    }
  }

  void row(const ImageView& image, const uint8_t* pixels, int channel, int32_t n,
           float* out) const {
    const float* table = value_[channel];
    const uint8_t* values = pixels + image.rgb[channel];
    const int32_t step = image.samples;
    for (int32_t x = 0; x < n; ++x) out[x] = table[values[int64_t{x} * step]];
  }

 private:
  float value_[3][256];
};

class Direct16 {
 public:
  explicit Direct16(const Normalisation& normalisation) : normalisation_(normalisation) {}

  // A row may lie at any address, so values are copied out rather than read as uint16_t.
  void row(const ImageView& image, const uint8_t* pixels, int channel, int32_t n,
           float* out) const {
    const uint8_t* values = pixels + 2 * image.rgb[channel];
    const int64_t step = 2 * image.samples;
    for (int32_t x = 0; x < n; ++x) {
      uint16_t value = 0;
      std::memcpy(&value, values + x * step, sizeof(value));
      out[x] = normalisation_.apply(static_cast<float>(value), channel);
    }
  }

 private:
  Normalisation normalisation_;
};

// Rows [begin, end) of a rectangle.
template <class Converter>
void convert_rows(const ImageView& image, const kad_rect& rect, int32_t begin, int32_t end,
                  const Converter& converter, float* out) {
  const int64_t plane = int64_t{rect.height} * rect.width;
  const int64_t left = int64_t{rect.x} * image.samples * image.bytes_per_value;
  for (int32_t y = begin; y < end; ++y) {
    const uint8_t* pixels = image.row(int64_t{rect.y} + y) + left;
    for (int c = 0; c < 3; ++c) {
      converter.row(image, pixels, c, rect.width, out + c * plane + int64_t{y} * rect.width);
    }
  }
}

template <class Converter>
void convert_tiles(const ImageView& image, const int32_t* xy, int64_t n_tiles, int32_t tile,
                   const Converter& converter, int32_t n_threads, float* out) {
  const int64_t tile_values = 3 * int64_t{tile} * tile;
  parallel_for(n_tiles, n_threads, [&](int64_t i, int32_t) {
    const kad_rect rect = {xy[2 * i], xy[2 * i + 1], tile, tile};
    convert_rows(image, rect, 0, tile, converter, out + i * tile_values);
  });
}

void preprocess(const kad_image* image, const int32_t* xy, int64_t n_tiles, int32_t tile,
                const float* mean, const float* std, int32_t n_threads, float* out) {
  const ImageView view = check_image(image);
  check_tile_side(tile, view.height, view.width);
  check_threads(n_threads);
  const Normalisation normalisation = check_normalisation(mean, std, view.full_scale());
  check_count(n_tiles, 3 * int64_t{tile} * tile, "n_tiles");
  if (n_tiles == 0) return;
  check_pointer(xy, "xy");
  check_pointer(out, "out");
  check_tiles(xy, n_tiles, tile, view.height, view.width);
  if (view.bytes_per_value == 1) {
    convert_tiles(view, xy, n_tiles, tile, Table8(normalisation), n_threads, out);
  } else {
    convert_tiles(view, xy, n_tiles, tile, Direct16(normalisation), n_threads, out);
  }
}

template <class Converter>
void convert_window(const ImageView& image, const kad_rect& rect, const Converter& converter,
                    int32_t n_threads, float* out) {
  constexpr int32_t kRows = 32;
  parallel_for((rect.height - 1) / kRows + 1, n_threads, [&](int64_t strip, int32_t) {
    const auto begin = static_cast<int32_t>(strip) * kRows;
    const int32_t end = begin + std::min(kRows, rect.height - begin);  // heights go to 2^31 - 1
    convert_rows(image, rect, begin, end, converter, out);
  });
}

void preprocess_window(const kad_image* image, const kad_rect* rect, const float* mean,
                       const float* std, int32_t n_threads, float* out) {
  const ImageView view = check_image(image);
  check_pointer(rect, "rect");
  check_threads(n_threads);
  if (!lies_inside(*rect, view.height, view.width)) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "rect (x %d, y %d, width %d, height %d) is empty or leaves the image of %d x %d px "
         "(height x width)",
         rect->x, rect->y, rect->width, rect->height, view.height, view.width);
  }
  const Normalisation normalisation = check_normalisation(mean, std, view.full_scale());
  check_count(rect->height, 3 * int64_t{rect->width}, "rect.height");
  check_pointer(out, "out");
  if (view.bytes_per_value == 1) {
    convert_window(view, *rect, Table8(normalisation), n_threads, out);
  } else {
    convert_window(view, *rect, Direct16(normalisation), n_threads, out);
  }
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_preprocess(const kad_image* image, const int32_t* xy, int64_t n_tiles,
                                     int32_t tile, const float* mean, const float* std,
                                     int32_t n_threads, float* out) {
  return kad::guard([&] { kad::preprocess(image, xy, n_tiles, tile, mean, std, n_threads, out); });
}

extern "C" kad_status kad_preprocess_window(const kad_image* image, const kad_rect* rect,
                                            const float* mean, const float* std, int32_t n_threads,
                                            float* out) {
  return kad::guard([&] { kad::preprocess_window(image, rect, mean, std, n_threads, out); });
}
