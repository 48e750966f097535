// The flush: many centres against many points, keeping each point's distance to its nearest centre.
#pragma once

#include <cstdint>
#include <vector>

#include "coreset/sketch.hpp"

namespace kad {

/// Points that one task compares with all centres.
constexpr int64_t kBlockPoints = 256;

/// Centres, sketched and laid out for `screen`.
class Centres {
 public:
  Centres(const SketchSpace& space, const SearchKernels& kernels, const float* rows, int64_t n);

  int64_t n() const { return n_; }
  int64_t panels() const { return (n_ + panel_rows_ - 1) / panel_rows_; }
  /// The bits of `screen`'s masks that stand for centres of panel p.
  uint64_t present(int64_t p) const {
    const int64_t left = n_ - p * panel_rows_;
    return ~uint64_t{0} >> (64 - (left < panel_rows_ ? left : panel_rows_));
  }
  const float* row(int64_t i) const { return rows_ + i * dims_; }
  const float* panel(int64_t p) const { return sketches_.data() + p * panel_rows_ * width_; }
  const float* terms(int64_t p) const { return terms_.data() + p * panel_rows_; }

 private:
  const float* rows_;  // (n, dims), the caller's
  int64_t n_;
  int64_t dims_;
  int64_t width_;
  int64_t panel_rows_;
  std::vector<float> sketches_;  // (panels, width, panel_rows)
  std::vector<float> terms_;     // (panels, panel_rows); +inf where there is no centre
};

/// Up to kBlockPoints points, and what is known of them.
struct PointBlock {
  const float* rows;  // (n, dims)
  int64_t n;
  const float* sketches;     // (n / tile_queries rounded up, width, tile_queries)
  const double* half_norms;  // (n,)
  float* dist;               // (n,) to the nearest centre so far; in and out
  float* terms;              // (n, padded to tile_queries) point_term of dist; in and out
};

/// Raise KAD_ERROR_NOT_FINITE that names the first of n rows (n, dims) with NaN or Inf.
void check_finite_rows(const float* rows, int64_t n, int64_t dims, int32_t n_threads,
                       const char* name);

/// Raise KAD_ERROR_NOT_FINITE that names the first of n distances that is NaN.
void check_distances(const float* dist, int64_t n);

/// Floats that `pack_sketches` writes for n points.
int64_t packed_floats(const SketchSpace& space, const SearchKernels& kernels, int64_t n);

/// Sketch n points (n, dims) as PointBlock wants them; `scratch` is used between.
void pack_sketches(const SketchSpace& space, const SearchKernels& kernels, const float* rows,
                   int64_t n, std::vector<float>& scratch, float* sketches, double* half_norms);

/// Lower the block's distances to those from `centres` where these are nearer. Returns the number
/// of pairs whose distance was taken.
int64_t lower_distances(const SketchSpace& space, const SearchKernels& kernels,
                        const Centres& centres, const PointBlock& block);

}  // namespace kad
