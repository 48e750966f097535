// Sketches: short vectors whose inner product is no smaller than that of the vectors they stand
// for.
//
// The bound
// ---------
// u = 2^-24. Let x' and y' be two vectors less the centre, rounded once, of lengths X and Y; Q the
// directions (r rows), e = |Q Q^T - I| (Frobenius, measured), p(x) the computed Q x'. A sketch is
// p(x) with one more coordinate c(x), the length of what the directions leave.
//
//   1. `multiply` makes each coordinate of p(x) by chains of g roundings (index.hpp), so
//      |p(x) - Q x'| <= n X with n = 1.1 g u sqrt(r).
//   2. x'.y' = Qx'.Qy' + x'(I - Q^T Q)y'. The singular values of Q lie within e of 1 (squared), so
//      x'(I - Q^T Q)y' <= |Px'| |Py'| + e X Y, where P projects onto what is at right angles to all
//      directions, and |Px'|^2 <= X^2 - (1 - e) |Qx'|^2 <= X^2 - |p(x)|^2 + (2 e + 3 n) X^2.
//      c(x) is the root of the last, rounded up.
//   3. So p(x).p(y) + c(x) c(y) >= x'.y' - (2.1 n + e) X Y, and what `screen` computes of it is
//      smaller by no more than 2.2 h u X Y, h the roundings of its chains for r + 1 dimensions.
//
// With steps 1 to 3 of index.hpp: a pair whose distance may be at most `dist` has a computed
// product
//   >= (1 - s) Y^2 / 2 + (1 - s) X^2 / 2 - (1 + s) T / 2      with s = (3 h + 16) u + 3 n + 2 e
// and T = squared_limit(dist). Without directions the sketch is x' itself, n = e = 0, h = g.
// Lengths are float64 sums. Vectors whose squared length leaves [1e-30, 1e37] get a term of -inf:
// products with them could underflow or overflow, so such pairs are always decided by their true
// distance.
#pragma once

#include <cstdint>
#include <vector>

#include "kad/kad.h"
#include "search/search_kernels.hpp"

namespace kad {

class SketchSpace {
 public:
  /// Reads the directions, and keeps no pointer. Raises KAD_ERROR_INVALID_ARGUMENT when they are
  /// not orthonormal.
  explicit SketchSpace(const kad_directions* directions);

  int64_t dims() const { return dims_; }
  int64_t width() const { return n_directions_ > 0 ? n_directions_ + 1 : dims_; }

  /// Sketches of n rows (n, dims), out (n, width); half_norms[i] = (1 - s) X^2 / 2, or -inf.
  void apply(const SearchKernels& kernels, const float* rows, int64_t n, float* out,
             double* half_norms) const;

  /// The part of the threshold that is a centre's.
  static float centre_term(double half_norm);

  /// The part that is a point's, whose distance to its nearest centre is `dist`: +inf for one that
  /// need not be compared any more.
  float point_term(double half_norm, float dist) const;

 private:
  void project(const SearchKernels& kernels, const float* rows, int64_t n, float* out) const;

  int64_t dims_ = 0;
  int64_t n_directions_ = 0;
  double projection_error_ = 0.0;      // n
  double orthonormality_error_ = 0.0;  // e
  double slack_ = 0.0;                 // s
  std::vector<float> centre_;          // (dims,) or empty
  std::vector<float> directions_;      // (n_directions, dims)
};

}  // namespace kad
