#include "runtime/placed_rules.hpp"

#include <algorithm>

#include "runtime/prepare.hpp"
#include "runtime/stage.hpp"

namespace kad {
namespace {

// a * b / c, up to whole numbers.
int64_t scaled_up(int64_t a, int64_t b, int64_t c) { return (a * b + c - 1) / c; }

// No more than the frame has.
int32_t placed_margin(int32_t margin, int32_t frame_side, int32_t image_side) {
  const int64_t scaled = scaled_up(margin, frame_side, image_side);
  return static_cast<int32_t>(std::min<int64_t>(scaled, frame_side));
}

// The part of a rectangle inside the image, in px of the frame; false where there is none.
bool place(const kad_rect& rect, Size image, Size frame, kad_rect* out) {
  if (rect.x >= image.width || rect.y >= image.height) return false;
  const kad_rect inside = {rect.x, rect.y, std::min(rect.width, image.width - rect.x),
                           std::min(rect.height, image.height - rect.y)};
  *out = scale_rect(inside, image, frame, true);
  return true;
}

kad_map_rules stage_rules(const PlacedRules& placed) {
  kad_map_rules rules = {};
  rules.struct_size = sizeof(rules);
  rules.edge_margin_x = placed.edge_margin_x;
  rules.edge_margin_y = placed.edge_margin_y;
  rules.borders = placed.borders.data();
  rules.n_borders = static_cast<int64_t>(placed.borders.size());
  rules.ignored = placed.ignore.data();
  rules.n_ignored = static_cast<int64_t>(placed.ignore.size());
  rules.zones = placed.zones.data();
  rules.n_zones = static_cast<int64_t>(placed.zones.size());
  return rules;
}

}  // namespace

PlacedRules place_rules(const Rules& rules, Size image, Size frame,
                        const std::vector<kad_rect>& borders) {
  PlacedRules placed;
  placed.frame = frame;
  placed.borders = borders;
  kad_rect rect;
  for (const kad_rect& one : rules.ignore) {
    if (place(one, image, frame, &rect)) placed.ignore.push_back(rect);
  }
  for (const kad_zone& zone : rules.zones) {
    if (!place({zone.x, zone.y, zone.width, zone.height}, image, frame, &rect)) continue;
    placed.zones.push_back({rect.x, rect.y, rect.width, rect.height, zone.factor});
  }
  placed.edge_margin_x = placed_margin(rules.edge_margin, frame.width, image.width);
  placed.edge_margin_y = placed_margin(rules.edge_margin, frame.height, image.height);
  placed.min_region_area = rules.min_region_area;
  if (frame.height != image.height || frame.width != image.width) {
    placed.min_region_area = scaled_up(rules.min_region_area, int64_t{frame.height} * frame.width,
                                       int64_t{image.height} * image.width);
  }
  return placed;
}

void PlacedRules::judge_tiles(const std::vector<int32_t>& xy, int32_t tile,
                              std::vector<float>* factors) const {
  const kad_map_rules rules = stage_rules(*this);
  const auto n = static_cast<int64_t>(xy.size() / 2);
  factors->resize(static_cast<size_t>(n));
  check_stage(
      kad_tiles_judge(&rules, frame.height, frame.width, xy.data(), n, tile, factors->data()));
}

void PlacedRules::judge_map(float* map) const {
  const kad_map_rules rules = stage_rules(*this);
  check_stage(kad_map_judge(map, frame.height, frame.width, &rules));
}

}  // namespace kad
