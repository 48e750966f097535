// The sieve: codes of a bank from which most rows can be proved too far away, at a fraction of the
// cost of their distances.
//
// The bound
// ---------
// Let v' be a vector less the bank's centre, and R the projection (projection.hpp), a linear map
// that lengthens nothing. With the first p rows R_p of it,
//
//   |q' - m'|^2 = |R_p (q' - m')|^2 + |W (q' - m')|^2 >= |R_p q' - R_p m'|^2 + (a - b)^2,
//
// where W = (I - R_p^T R_p)^(1/2) is linear too, a = |W q'| = (|q'|^2 - |R_p q'|^2)^(1/2) and b
// likewise for m'. So the p coordinates and the length of the rest form vectors x and y of p + 1
// numbers with |q' - m'| >= |x - y|: nothing about R has to be exact but its norm.
//
// What is stored are codes: x~ = scale * (integers) with |x - x~| <= e, and therefore
//
//   |q - m| >= |x~ - y~| - e_q - e_m.
//
// e holds everything by which x~ may differ from x: the rounding to codes, measured; the error of
// the coordinates (projection.hpp); what that does to the length of the rest, which is a difference
// of squares; and the rounding of the centring itself, 2^-24 |v'|. Products of codes are exact
// integers. A row whose bound exceeds the root of T (see index.hpp) cannot be among the k nearest,
// not even by a tie.
//
// Narrow codes have 8 bits and are compared for all pairs, at one of several depths; wide codes
// have 16 bits and more coordinates, and are compared for the rows that the narrow ones leave. Of n
// codes of either kind n - 1 are coordinates, and the last is the length of the rest, less its
// mean.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "search/sieve/code_kernels.hpp"
#include "search/sieve/projection.hpp"

struct kad_index;

namespace kad {

constexpr int64_t kMostDepths = 4;
constexpr int64_t kDepths[kMostDepths] = {32, 48, 64, 96};  // in codes
constexpr int64_t kMostWidth = 256;

/// Rows of a group, at most.
constexpr int64_t kGroupRows = 16 * kCodeRows;

/// Vectors longer than this are refused, and banks of vectors all shorter than that: products of
/// float32 could leave the range.
constexpr double kLongest = 1e15;
constexpr double kShortest = 1e-12;

/// For each depth, then for the wide codes: the length of what the coordinates leave, less the
/// sieve's shift, and how far the vector of coordinates and length may be from the true one.
struct Rests {
  float length[kMostDepths + 1];
  float error[kMostDepths + 1];
};

/// Panels whose rows share a scale.
struct SieveGroup {
  int64_t first_panel;
  int64_t n_panels;
  float scale;
  float error[kMostDepths];  // the largest e of a row
};

/// |x - x~| of codes of a vector of at most this length, known up to `error`.
float total_error(const Coded& coded, double length, float error);

class Sieve {
 public:
  /// The sieve of an index's bank, or null where it would not pay: few rows or dimensions, values
  /// of extreme size.
  static std::unique_ptr<const Sieve> make(const kad_index& index, int32_t n_threads);

  int64_t bytes() const;
  int64_t n_depths() const { return n_depths_; }
  int64_t width() const { return projection_.width(); }
  const Projection& projection() const { return projection_; }
  const std::vector<SieveGroup>& groups() const { return groups_; }

  int64_t n_panels() const { return static_cast<int64_t>(panel_rows_.size()); }
  const SieveGroup& group_of(int64_t panel) const;

  /// Rows of a panel, at most kCodeRows; the row in each of its slots.
  int64_t panel_rows(int64_t panel) const { return panel_rows_[static_cast<size_t>(panel)]; }
  int32_t row(int64_t slot) const { return rows_[static_cast<size_t>(slot)]; }
  int32_t slot(int64_t row) const { return slots_[static_cast<size_t>(row)]; }

  /// Point a tile at a panel's codes at a depth.
  void aim(int64_t panel, int64_t depth, CodeTile& tile) const;

  const int16_t* wide_codes() const { return wide_codes_.data(); }
  const WideVector& wide_row(int64_t slot) const { return wide_rows_[static_cast<size_t>(slot)]; }

  /// Rests of a vector with these coordinates, known up to `error`, and this squared length.
  Rests rests(const float* coordinates, double norm2, float error) const;

  /// Wide codes of a vector, out (width,).
  WideVector encode_wide(const CodeKernels& kernels, const float* coordinates, double norm2,
                         const Rests& rests, int16_t* out) const;

 private:
  Sieve(const kad_index& index, int64_t width, int32_t n_threads);

  struct Bank;
  void encode(const kad_index& index, int32_t n_threads);
  void measure(const kad_index& index, Bank& bank, int32_t n_threads);
  void arrange(const Bank& bank);
  void encode_row(const CodeKernels& kernels, const Bank& bank, int64_t slot, SieveGroup& group);

  Projection projection_;
  int64_t n_depths_ = 0;
  int64_t steps_ = 0;  // of the deepest narrow codes, without the last
  double shift_[kMostDepths + 1] = {};
  std::vector<SieveGroup> groups_;
  std::vector<int64_t> panel_rows_;    // (panels,)
  std::vector<int32_t> rows_;          // (slots,)
  std::vector<int32_t> slots_;         // (rows,) where each row is
  std::vector<uint8_t> narrow_codes_;  // (panels, steps + a last one for each depth, kCodeRows, 4)
  std::vector<float> row_terms_;       // (panels, depths, kCodeRows)
  std::vector<int16_t> wide_codes_;    // (slots, width)
  std::vector<WideVector> wide_rows_;  // (slots,)
};

}  // namespace kad
