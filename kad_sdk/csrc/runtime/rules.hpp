// What an inspector sets, by the rules of kad_sdk/rules.py.
#pragma once

#include <cstdint>
#include <vector>

#include "kad/kad.h"
#include "runtime/fields.hpp"

namespace kad {

struct Rules {
  std::vector<kad_rect> ignore;  // px of the image
  std::vector<kad_zone> zones;
  int32_t edge_margin = 0;      // px
  int64_t min_region_area = 0;  // px; 0: as exported

  bool any() const {
    return !ignore.empty() || !zones.empty() || edge_margin > 0 || min_region_area > 0;
  }
};

/// Read and check rules; raises SchemaError.
Rules read_rules(Fields fields);

}  // namespace kad
