// An opened artifact with its network and all that scores its tiles. Immutable.
#pragma once

#include <memory>
#include <string>

#include "runtime/artifact.hpp"
#include "runtime/log.hpp"
#include "runtime/network.hpp"
#include "runtime/scorer.hpp"

namespace kad {

struct Detector {
  Artifact artifact;
  kad_detector_options options = {};  // resolved: no field is 0 where 0 means a default
  double tile_threshold = 0.0;        // the caller's, or else the artifact's
  double map_threshold = 0.0;
  Graph graph;
  std::string network_path;
  std::string version;  // of ONNX Runtime
  std::unique_ptr<Network> network;
  std::unique_ptr<Scorer> scorer;

  const Manifest& manifest() const { return artifact.manifest; }
  bool makes_maps() const { return options.scores_only == 0; }
  bool in_windows() const { return manifest().patchcore.windows.has_value(); }
  bool decides_by_map() const { return artifact.thresholds.by_map; }
  const Rules& rules() const { return artifact.rules; }
  double threshold() const { return decides_by_map() ? map_threshold : tile_threshold; }
};

/// Raises KAD_ERROR_ARTIFACT_*, _ONNXRUNTIME, _PROVIDER, _INVALID_ARGUMENT.
std::shared_ptr<const Detector> open_detector(const std::string& path,
                                              const kad_detector_options& options);

}  // namespace kad

struct kad_detector {
  std::shared_ptr<const kad::Detector> shared;
};
