// inspection.json: what is set on site, by the rules of kad_sdk/inspection.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/manifest.hpp"
#include "runtime/rules.hpp"

namespace kad {

constexpr const char* kInspectionName = "inspection.json";
constexpr uint64_t kInspectionLimit = 1 << 20;  // bytes

/// What is in force.
struct Inspection {
  ThresholdSettings thresholds;
  bool calibrated = false;  // the thresholds were found on site
  Rules rules;
};

/// Read and check what is set for a manifest of that SHA-256; `exported` are the thresholds of the
/// manifest, `name` is what errors call the file. Raises KAD_ERROR_ARTIFACT_VERSION, _MANIFEST, or
/// _HASH where it belongs to another manifest.
Inspection read_inspection(std::string_view text, const std::string& manifest_sha256,
                           const ThresholdSettings& exported, const std::string& name);

}  // namespace kad
