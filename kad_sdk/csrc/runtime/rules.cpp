#include "runtime/rules.hpp"

#include <limits>

namespace kad {
namespace {

constexpr int64_t kMaxRuleSide = std::numeric_limits<int32_t>::max();
constexpr Range kZoneFactor = {0.01, 100.0};

kad_rect read_place(const std::vector<Item>& items) {
  const auto side = [&](size_t i, int64_t low) {
    return static_cast<int32_t>(read_integer(items[i].value, items[i].path, low, kMaxRuleSide));
  };
  return {side(0, 0), side(1, 0), side(2, 1), side(3, 1)};
}

kad_zone read_zone(Fields fields) {
  const kad_rect rect = read_place(fields.list("rect", 4));
  const double factor = fields.number("factor", kZoneFactor);
  fields.end();
  return {rect.x, rect.y, rect.width, rect.height, static_cast<float>(factor)};
}

}  // namespace

Rules read_rules(Fields fields) {
  Rules rules;
  for (const Item& item : fields.list("ignore")) {
    rules.ignore.push_back(read_place(read_list(item.value, item.path, 4)));
  }
  for (const Item& item : fields.list("zones")) {
    rules.zones.push_back(read_zone(Fields(item.value, item.path, false)));
  }
  rules.edge_margin = static_cast<int32_t>(fields.integer("edge_margin_px", 0, kMaxPixels));
  if (!fields.is_null("min_region_area_px")) {
    rules.min_region_area = fields.integer("min_region_area_px", 1, kMaxRuleSide);
  }
  fields.end();
  return rules;
}

}  // namespace kad
