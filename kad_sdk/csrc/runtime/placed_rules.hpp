// Rules that were set on site, brought to the frame that a board is scored in, and applied.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/rules.hpp"

namespace kad {

/// Rules in px of a frame.
struct PlacedRules {
  Size frame;
  std::vector<kad_rect> borders;
  std::vector<kad_rect> ignore;
  std::vector<kad_zone> zones;
  int32_t edge_margin_x = 0;
  int32_t edge_margin_y = 0;
  int64_t min_region_area = 0;

  /// Factors (n,) of tiles at xy (n, 2).
  void judge_tiles(const std::vector<int32_t>& xy, int32_t tile, std::vector<float>* factors) const;
  /// A map of the frame, in place.
  void judge_map(float* map) const;
};

/// Bring rules to a frame. Rectangles and the margin grow to whole px, as labels do; `borders` are
/// in px of the frame.
PlacedRules place_rules(const Rules& rules, Size image, Size frame,
                        const std::vector<kad_rect>& borders);

}  // namespace kad
