// The board's score by its map: the largest value, or, with a least area, that of the map's area
// opening.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/guard.hpp"
#include "board/labeller.hpp"
#include "image/image.hpp"

namespace kad {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// The largest value; NaN is never the larger one. In lanes, which the compiler keeps in registers.
float largest(const float* values, int64_t n) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, kNone);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  for (; i < n; ++i) lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The largest t at which {map >= t} has a component of `min_area` pixels, which is the largest
// value of the map's area opening (Vincent 1993). The bits of numbers above 0 are in the order of
// the numbers, and components grow as t falls, so it is found by halving.
float opened_peak(const float* map, int32_t height, int32_t width, int64_t min_area, float peak) {
  const auto reaches = [&](uint32_t bits) {
    const Labeller labeller(map, height, width, from_bits(bits), min_area);
    return labeller.largest_area() >= min_area;
  };
  uint32_t low = 0;
  uint32_t high;
  std::memcpy(&high, &peak, sizeof(high));
  while (low < high) {
    const uint32_t middle = low + (high - low + 1) / 2;
    if (reaches(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return from_bits(low);
}

void peak(const float* map, int32_t height, int32_t width, int64_t min_area_px, float* out_peak) {
  check_image_size(height, width);
  check_pointer(map, "map");
  check_pointer(out_peak, "out_peak");
  check_area(min_area_px);
  const float highest = largest(map, int64_t{height} * width);
  if (highest == kNone) {
    *out_peak = std::numeric_limits<float>::quiet_NaN();
  } else if (min_area_px == 1 || !(highest > 0.0F)) {
    *out_peak = highest;
  } else {
    *out_peak = opened_peak(map, height, width, min_area_px, highest);
  }
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_map_peak(const float* map, int32_t height, int32_t width,
                                   int64_t min_area_px, float* out_peak) {
  return kad::guard([&] { kad::peak(map, height, width, min_area_px, out_peak); });
}
