// What scoring a board gives.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/detector.hpp"

namespace kad {

/// A result that is being made; once handed out nothing in it changes.
struct Result {
  explicit Result(std::shared_ptr<const Detector> given) : detector(std::move(given)) {}

  /// A tile's score over its factor; NaN where nothing of it is judged.
  float judged(size_t i) const;
  /// The verdict, from the largest value of the map or the largest tile score; `peak` is the
  /// former. Raises KAD_ERROR_ANNOTATION where nothing of what decides is judged.
  void decide(float peak);
  /// A region of the frame, in px of the image.
  void add_region(const kad_region& region);

  std::shared_ptr<const Detector> detector;
  kad_result_facts facts = {};
  std::vector<int32_t> xy;        // (n, 2)
  std::vector<float> scores;      // (n,)
  std::vector<float> factors;     // (n,) by the rules; empty where there are none
  std::vector<float> embeddings;  // (n, E)
  std::unique_ptr<float[]> map;   // (image_height, image_width)
  std::vector<kad_region_result> regions;
};

}  // namespace kad

struct kad_result : kad::Result {
  using kad::Result::Result;
};
