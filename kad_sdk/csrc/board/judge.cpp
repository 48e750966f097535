// What an inspector sets, applied to a board: places that are not judged, and places with a
// threshold of their own. After it one threshold holds for the whole map, and for all tiles.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/guard.hpp"
#include "image/image.hpp"

namespace kad {
namespace {

constexpr float kUnjudged = 0.0F;  // in place of a factor

/// The part of a rectangle that lies in the board: begin and end of its columns and rows.
struct Part {
  int64_t left, right, top, bottom;

  bool has_row(int64_t y) const { return y >= top && y < bottom && left < right; }
  bool touches(const Part& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
  bool holds(const Part& other) const {
    return left <= other.left && right >= other.right && top <= other.top && bottom >= other.bottom;
  }
};

class Judge {
 public:
  Judge(const kad_map_rules& rules, int32_t height, int32_t width)
      : height_(height), width_(width) {
    const int64_t mx = rules.edge_margin_x, my = rules.edge_margin_y;
    const kad_rect whole = {0, 0, width, height};
    const kad_rect* areas = rules.n_borders > 0 ? rules.borders : &whole;
    has_margin_ = mx > 0 || my > 0;
    for (int64_t i = 0; has_margin_ && i < std::max<int64_t>(rules.n_borders, 1); ++i) {
      const kad_rect& area = areas[i];
      inner_.push_back(part(area.x + mx, area.y + my, area.width - 2 * mx, area.height - 2 * my));
    }
    for (int64_t i = 0; i < rules.n_ignored; ++i) {
      const kad_rect& rect = rules.ignored[i];
      ignored_.push_back(part(rect.x, rect.y, rect.width, rect.height));
    }
    for (int64_t i = 0; i < rules.n_zones; ++i) {
      const kad_zone& zone = rules.zones[i];
      zones_.push_back(part(zone.x, zone.y, zone.width, zone.height));
      zone_factors_.push_back(zone.factor);
    }
  }

  /// Whether the factor is 1 in all of a place.
  bool is_plain(const Part& place) const {
    const auto touches = [&](const Part& part) { return part.touches(place); };
    const auto holds = [&](const Part& part) { return part.holds(place); };
    return std::none_of(zones_.begin(), zones_.end(), touches) &&
           std::none_of(ignored_.begin(), ignored_.end(), touches) &&
           (!has_margin_ || std::any_of(inner_.begin(), inner_.end(), holds));
  }

  /// Factors of the pixels [left, right) of row y, kUnjudged where they are not judged; NULL where
  /// no rule touches the row.
  const float* factors(int64_t y, int64_t left, int64_t right) {
    const auto has_row = [y](const Part& part) { return part.has_row(y); };
    const bool plain = !has_margin_ && std::none_of(zones_.begin(), zones_.end(), has_row) &&
                       std::none_of(ignored_.begin(), ignored_.end(), has_row);
    if (plain) return nullptr;
    left_ = left;
    right_ = right;
    row_.assign(static_cast<size_t>(right - left), 1.0F);
    set_zones(y);
    for (const Part& part : ignored_) {
      if (part.has_row(y)) fill(part.left, part.right, kUnjudged);
    }
    if (has_margin_) set_margins(y);
    return row_.data();
  }

 private:
  Part part(int64_t x, int64_t y, int64_t width, int64_t height) const {
    const auto inside = [](int64_t v, int64_t side) { return std::clamp<int64_t>(v, 0, side); };
    return {inside(x, width_), inside(x + width, width_), inside(y, height_),
            inside(y + height, height_)};
  }

  /// Columns of the board that lie in the row's part, as places in it.
  template <class F>
  void for_each(int64_t left, int64_t right, F&& change) {
    for (int64_t x = std::max(left, left_); x < std::min(right, right_); ++x) {
      change(row_[static_cast<size_t>(x - left_)]);
    }
  }

  void fill(int64_t left, int64_t right, float value) {
    for_each(left, right, [value](float& factor) { factor = value; });
  }

  // The smallest of the zones over a pixel, which may be above 1.
  void set_zones(int64_t y) {
    constexpr float kNoZone = std::numeric_limits<float>::infinity();
    for (const Part& zone : zones_) {
      if (zone.has_row(y)) fill(zone.left, zone.right, kNoZone);
    }
    for (size_t i = 0; i < zones_.size(); ++i) {
      if (!zones_[i].has_row(y)) continue;
      const float own = zone_factors_[i];
      for_each(zones_[i].left, zones_[i].right,
               [own](float& factor) { factor = std::min(factor, own); });
    }
  }

  void set_margins(int64_t y) {
    inside_.assign(row_.size(), 0);
    for (const Part& part : inner_) {
      if (!part.has_row(y)) continue;
      for (int64_t x = std::max(part.left, left_); x < std::min(part.right, right_); ++x) {
        inside_[static_cast<size_t>(x - left_)] = 1;
      }
    }
    for (size_t i = 0; i < row_.size(); ++i) {
      if (inside_[i] == 0) row_[i] = kUnjudged;
    }
  }

  int64_t height_;
  int64_t width_;
  bool has_margin_ = false;
  std::vector<Part> inner_;  // active areas without their margins
  std::vector<Part> ignored_;
  std::vector<Part> zones_;
  std::vector<float> zone_factors_;
  int64_t left_ = 0;  // the part of a row that is looked at
  int64_t right_ = 0;
  std::vector<float> row_;
  std::vector<uint8_t> inside_;
};

template <class T>
void check_places(const T* places, int64_t n, const char* name) {
  check_count(n, sizeof(T), name);
  if (n > 0) check_pointer(places, name);
  for (int64_t i = 0; i < n; ++i) {
    if (places[i].width >= 1 && places[i].height >= 1) continue;
    fail(KAD_ERROR_INVALID_ARGUMENT, "%s[%lld]: expected a size of at least 1 x 1 px, got %d x %d",
         name, static_cast<long long>(i), places[i].width, places[i].height);
  }
}

kad_map_rules check_rules(const kad_map_rules* given) {
  const kad_map_rules rules =
      read_struct(given, KAD_FIRST_SIZE(kad_map_rules, n_zones), "kad_map_rules");
  check_reserved(rules.reserved, "kad_map_rules");
  if (rules.edge_margin_x < 0 || rules.edge_margin_y < 0) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "edge_margin_x and _y must be at least 0 px, got %d and %d",
         rules.edge_margin_x, rules.edge_margin_y);
  }
  check_places(rules.borders, rules.n_borders, "borders");
  check_places(rules.ignored, rules.n_ignored, "ignored");
  check_places(rules.zones, rules.n_zones, "zones");
  for (int64_t i = 0; i < rules.n_zones; ++i) {
    const float factor = rules.zones[i].factor;
    if (std::isfinite(factor) && factor > 0.0F) continue;
    fail(KAD_ERROR_INVALID_ARGUMENT, "zones[%lld].factor must be finite and above 0, got %g",
         static_cast<long long>(i), static_cast<double>(factor));
  }
  return rules;
}

void judge_map(float* map, int32_t height, int32_t width, const kad_map_rules* given) {
  check_image_size(height, width);
  check_pointer(map, "map");
  Judge judge(check_rules(given), height, width);
  for (int64_t y = 0; y < height; ++y) {
    const float* factors = judge.factors(y, 0, width);
    if (factors == nullptr) continue;
    float* values = map + y * width;
    for (int64_t x = 0; x < width; ++x) {
      values[x] = factors[x] == kUnjudged ? std::numeric_limits<float>::quiet_NaN()
                                          : values[x] / factors[x];
    }
  }
}

// The smallest factor of a tile's judged pixels.
float tile_factor(Judge* judge, int64_t left, int64_t top, int64_t tile) {
  if (judge->is_plain({left, left + tile, top, top + tile})) return 1.0F;
  float smallest = std::numeric_limits<float>::infinity();
  for (int64_t y = top; y < top + tile; ++y) {
    const float* factors = judge->factors(y, left, left + tile);
    if (factors == nullptr) {
      smallest = std::min(smallest, 1.0F);
      continue;
    }
    for (int64_t x = 0; x < tile; ++x) {
      if (factors[x] != kUnjudged) smallest = std::min(smallest, factors[x]);
    }
  }
  return std::isinf(smallest) ? kUnjudged : smallest;
}

void judge_tiles(const kad_map_rules* given, int32_t height, int32_t width, const int32_t* xy,
                 int64_t n, int32_t tile, float* out_factor) {
  check_image_size(height, width);
  check_tile_side(tile, height, width);
  check_count(n, 2, "n_tiles");
  if (n > 0) {
    check_pointer(xy, "xy");
    check_pointer(out_factor, "out_factor");
  }
  Judge judge(check_rules(given), height, width);
  for (int64_t i = 0; i < n; ++i) {
    check_tile_inside(i, xy + 2 * i, tile, height, width);
    out_factor[i] = tile_factor(&judge, xy[2 * i], xy[2 * i + 1], tile);
  }
}

}  // namespace
}  // namespace kad

extern "C" {

kad_status kad_map_judge(float* map, int32_t height, int32_t width, const kad_map_rules* rules) {
  return kad::guard([&] { kad::judge_map(map, height, width, rules); });
}

kad_status kad_tiles_judge(const kad_map_rules* rules, int32_t height, int32_t width,
                           const int32_t* xy, int64_t n_tiles, int32_t tile, float* out_factor) {
  return kad::guard([&] { kad::judge_tiles(rules, height, width, xy, n_tiles, tile, out_factor); });
}

}  // extern "C"
