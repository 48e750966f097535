// The entries of a manifest, as in kad_sdk/manifest_entries.py; each function reads and checks one.
#pragma once

#include <string>

#include "runtime/fields.hpp"
#include "runtime/manifest.hpp"

namespace kad {

/// Any JSON, at most 8 levels deep and with finite numbers.
void check_free(json::Value value, const std::string& path, int depth = 0);

PreprocessingSettings read_preprocessing(Fields fields);
MapSettings read_map(Fields fields);
ThresholdSettings read_thresholds(Fields fields);
void check_training(Fields fields);

/// The keys that every method's network has; the method takes its own and calls `end`.
void read_network(Fields* network, Manifest* manifest);
/// The same for the golden tiles: the tolerances are the method's.
void read_golden(Fields* golden, Manifest* manifest);

/// PatchCore's mode, and its windows where it is that; from format 1.3 on.
void read_mode(Fields* patchcore, PatchCoreSettings* settings);
/// That mode and windows agree with the rest.
void check_mode(const Manifest& manifest);

/// The method's own entries; nothing is left to check but what `Manifest` has in common.
void read_patchcore(Fields* fields, Manifest* manifest);
void read_cutpaste(Fields* fields, Manifest* manifest);

}  // namespace kad
