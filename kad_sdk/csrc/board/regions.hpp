// Defect regions of a map; what explains each is told by whoever made the map.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/guard.hpp"
#include "board/labeller.hpp"
#include "kad/kad.h"

namespace kad {

inline kad_region to_region(const Component& component) {
  kad_region region = {};
  region.x = component.left;
  region.y = component.top;
  region.width = component.right - component.left;
  region.height = component.bottom - component.top;
  region.peak_x = component.peak_x;
  region.peak_y = component.peak_y;
  region.peak = component.peak;
  region.area_px = component.area;
  return region;
}

/// What a caller asks for, and where it goes.
struct RegionRequest {
  float threshold;
  int64_t min_area_px;
  uint32_t region_size;
  kad_region* out;
  int64_t capacity;
  int64_t* out_count;
};

/// Regions of a map (height, width), by falling peak; explain(region) fills in their patch.
template <class Explain>
void find_regions(const float* map, int32_t height, int32_t width, const RegionRequest& request,
                  Explain&& explain) {
  check_pointer(map, "map");
  check_struct_size(request.region_size, KAD_FIRST_SIZE(kad_region, bank_row), "kad_region");
  if (std::isnan(request.threshold)) {
    fail(KAD_ERROR_NOT_FINITE,
         "threshold is NaN: expected the number from which on a value of the map is part of a "
         "region");
  }
  check_area(request.min_area_px);
  check_count(request.capacity, request.region_size, "capacity");
  if (request.capacity > 0) check_pointer(request.out, "out_regions");
  const Labeller labeller(map, height, width, request.threshold);
  const std::vector<Component> components = labeller.components(request.min_area_px);
  *request.out_count = static_cast<int64_t>(components.size());
  check_room(request.capacity, *request.out_count, "out_regions", "regions");
  auto* out = reinterpret_cast<unsigned char*>(request.out);
  for (const Component& component : components) {
    kad_region region = to_region(component);
    explain(&region);
    copy_struct(region, out, request.region_size);
    out += request.region_size;
  }
}

}  // namespace kad
