// Greedy k-center selection among points in memory, in lazy batches.
//
// Every point keeps its distance to the nearest centre as of the last flush, which can only be too
// large. The `inner` points, those with the largest of these, are kept exact centre by centre;
// while the farthest of them precedes all others, it is the farthest of all. Then the centres
// chosen meanwhile are flushed to all points, and the inner points are drawn anew.
#pragma once

#include <cstdint>
#include <vector>

#include "coreset/flush.hpp"

namespace kad {

/// A point's place in the order of greedy selection: the farthest first, ties to the lowest row.
struct Candidate {
  float dist;
  int64_t row;
  bool precedes(const Candidate& other) const {
    return dist > other.dist || (dist == other.dist && row < other.row);
  }
};

}  // namespace kad

struct kad_kcenter {
  kad_kcenter(const kad_directions* directions, const float* rows, int64_t n_rows,
              const float* first_dist, int64_t n_skipped, int32_t n_threads);

  /// See kad_kcenter_pick; *out_count, 0 before, counts points as they are chosen.
  void pick(int64_t wanted, const kad::Candidate& outside, int32_t n_threads, int64_t* out_rows,
            float* out_dist, int64_t* out_count);

  kad_kcenter_stats stats = {};

 private:
  void flush(int32_t n_threads);
  void draw();
  kad::Candidate find();
  void take(const kad::Candidate& chosen);
  const float* row(int64_t i) const { return points_ + i * space_.dims(); }

  kad::SketchSpace space_;
  const kad::SearchKernels& kernels_;
  const float* points_;  // (n, dims), the caller's
  int64_t n_;
  int64_t skipped_;
  int64_t block_floats_;            // packed sketches of a full block
  std::vector<float> sketches_;     // (blocks, block_floats)
  std::vector<double> half_norms_;  // (n,)
  std::vector<float> dist_;         // (n,) as of the last flush; negative for chosen points
  std::vector<float> terms_;        // (n, padded)
  std::vector<int64_t> pending_;    // chosen since the last flush

  bool drawn_ = false;
  std::vector<int64_t> inner_;            // rows, ascending
  std::vector<float> inner_points_;       // (inner, dims)
  std::vector<const float*> inner_rows_;  // (inner,) into inner_points_
  std::vector<float> inner_dist_;         // (inner,) exact
  kad::Candidate others_ = {};            // the first of those that are not inner
  std::vector<const float*> queries_;     // scratch
  std::vector<float> found_;              // scratch
  std::vector<int32_t> order_;            // scratch
};
