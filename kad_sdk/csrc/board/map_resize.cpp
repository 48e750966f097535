// A board map at another size: from the frame that was scored to the pixels of the image.
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "image/image.hpp"
#include "search/features.hpp"

namespace kad {
namespace {

struct Sides {
  int32_t height;
  int32_t width;
};

// The weighted mean of the values that are there; NaN where they have less than half of the weight.
class Pixel {
 public:
  void add(float value, float weight) {
    if (std::isnan(value)) {
      whole_ = false;
    } else {
      sum_ += weight * value;
      weight_ += weight;
    }
  }

  float value() const {
    if (whole_) return sum_;  // its weight is 1, but for rounding
    return weight_ >= 0.5F ? sum_ / weight_ : std::numeric_limits<float>::quiet_NaN();
  }

 private:
  float sum_ = 0.0F;
  float weight_ = 0.0F;
  bool whole_ = true;
};

void resize_row(const float* map, int32_t width, const AxisTaps& rows, const AxisTaps& columns,
                size_t row, float* out) {
  const size_t n = columns.first.size();
  for (size_t x = 0; x < n; ++x) {
    Pixel pixel;
    for (int32_t i = 0; i < rows.count[row]; ++i) {
      const float* values = map + (int64_t{rows.first[row]} + i) * width + columns.first[x];
      for (int32_t j = 0; j < columns.count[x]; ++j) {
        pixel.add(values[j], rows.weight[2 * row + static_cast<size_t>(i)] *
                                 columns.weight[2 * x + static_cast<size_t>(j)]);
      }
    }
    out[x] = pixel.value();
  }
}

void resize(const float* map, Sides from, Sides to, int32_t n_threads, float* out) {
  check_image_size(from.height, from.width);
  check_image_size(to.height, to.width);
  check_threads(n_threads);
  check_count(from.height, from.width, "height");
  check_count(to.height, to.width, "out_height");
  check_pointer(map, "map");
  check_pointer(out, "out");
  const AxisTaps rows = make_taps(KAD_RESAMPLE_BILINEAR, from.height, to.height);
  const AxisTaps columns = make_taps(KAD_RESAMPLE_BILINEAR, from.width, to.width);
  parallel_for(to.height, n_threads, [&](int64_t y, int32_t) {
    resize_row(map, from.width, rows, columns, static_cast<size_t>(y), out + y * to.width);
  });
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_map_resize(const float* map, int32_t height, int32_t width,
                                     int32_t out_height, int32_t out_width, int32_t n_threads,
                                     float* out) {
  return kad::guard(
      [&] { kad::resize(map, {height, width}, {out_height, out_width}, n_threads, out); });
}
