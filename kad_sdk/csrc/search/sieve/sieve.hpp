// The sieve: codes of a bank from which most rows can be proved too far away, at a fraction of the
// cost of their distances.
//
// The bound
// ---------
// Let v' be a vector less the bank's centre, and R a linear map that lengthens nothing, onto a few
// coordinates (basis.hpp). For any number of the coordinates, R_p,
//
//   |q' - m'| >= |R_p (q' - m')|,
//
// and with W = (I - R^T R)^(1/2), which is linear too, a = |W q'| = (|q'|^2 - |R q'|^2)^(1/2) and b
// likewise for m',
//
//   |q' - m'|^2 = |R (q' - m')|^2 + |W (q' - m')|^2 >= |R q' - R m'|^2 + (a - b)^2.
//
// So some coordinates, or all of them and the length of the rest, form vectors x and y with
// |q' - m'| >= |x - y|: nothing about R has to be exact but its norm.
//
// What is stored are codes: x~ = scale * (integers) with |x - x~| <= e, and therefore
//
//   |q - m| >= |x~ - y~| - e_q - e_m.
//
// e holds everything by which x~ may differ from x: the rounding to codes, measured; the error of
// the coordinates (projection.hpp); what that does to the length of the rest, which is a difference
// of squares; and the rounding of the centring itself, 2^-24 |v'|. A row whose bound exceeds the
// root of T (see index.hpp) cannot be among the k nearest, not even by a tie.
//
// Narrow codes have 8 bits and are compared for all pairs, at one of several depths; wide codes
// have 16 bits and all coordinates but the last, in whose place is the length of the rest less its
// mean, and are compared for the rows that the narrow ones leave.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "base/level.hpp"
#include "search/byte_arrays.hpp"
#include "search/sieve/basis.hpp"
#include "search/sieve/code_kernels.hpp"

struct kad_index;

namespace kad {

constexpr int64_t kMostDepths = 5;
constexpr int64_t kMostNarrow = 96;  // coordinates of a part that narrow codes hold
constexpr int32_t kMostRowExponent = 40;
constexpr int64_t kLeastRows = 1024;  // of a bank on which codes pay
constexpr int64_t kLeastDims = 64;
constexpr int64_t kMostDims = 65536;  // of which the error terms allow for
constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max() / 2;

/// No vector of wide codes is longer: products of two, and of parts of them, stay below 2^31.
constexpr int32_t kMostWideNorm = 32500;

/// Coordinates that narrow codes are compared by: the first of each part.
struct Depth {
  int64_t fine;
  int64_t coarse;

  int64_t dims() const { return fine + coarse; }
};

/// Rows of a group, at most.
constexpr int64_t kGroupRows = 1024;

/// Vectors longer than this are refused, and banks of vectors all shorter than that: products of
/// float32 could leave the range.
constexpr double kLongest = 1e15;
constexpr double kShortest = 1e-12;

/// The length of what the coordinates leave of a vector, less the sieve's shift, and how far the
/// vector of coordinates and length may be from the true one.
struct Rest {
  float length;
  float error;
};

/// Panels whose rows share a scale, the sieve's unit times 2^exponent.
struct SieveGroup {
  int64_t first_panel;
  int64_t n_panels;
  int32_t exponent;
  double scale;
  float error[kMostDepths];  // the largest e of a row
};

/// |x - x~| of codes of a vector of at most this length, known up to `error`.
float total_error(const Coded& coded, double length, double error);

class Sieve {
 public:
  /// The sieve of an index's bank, or null where it would not pay: few rows or dimensions, values
  /// of extreme size.
  static std::unique_ptr<const Sieve> make(const kad_index& index, Level level, int32_t n_threads);

  /// Write what `restore` reads: the sieve of an index that was built with Level::scalar.
  void store(ByteWriter& out) const;

  /// No fewer bytes than `store` writes for a bank of this size.
  int64_t most_stored_bytes() const;

  /// A sieve from what was stored, for the level in use. What is used as a place or as a size is
  /// checked, and so is the norm of R; what depends on the codes is computed from them; the errors
  /// e are taken as they are. Raises KAD_ERROR_ARTIFACT_TENSORS.
  static std::unique_ptr<const Sieve> restore(const kad_index& index, ByteReader& stored,
                                              int32_t n_threads);

  int64_t bytes() const;
  const Basis& basis() const { return basis_; }
  int64_t width() const { return basis_.width(); }

  /// The kernels that know the order of the codes.
  const CodeKernels& codes() const { return codes_; }

  int64_t n_depths() const { return static_cast<int64_t>(depths_.size()); }
  const Depth& depth(int64_t number) const { return depths_[static_cast<size_t>(number)]; }

  /// Scale of the rows of exponent 0, which are most.
  double unit() const { return unit_; }

  const std::vector<SieveGroup>& groups() const { return groups_; }
  const SieveGroup& group_of(int64_t panel) const;
  int64_t n_panels() const { return static_cast<int64_t>(panel_rows_.size()); }

  /// Rows of a panel, at most kCodeRows; the row in each of its slots; where a row is.
  int64_t panel_rows(int64_t panel) const { return panel_rows_[static_cast<size_t>(panel)]; }
  int32_t row(int64_t slot) const { return rows_[static_cast<size_t>(slot)]; }
  int32_t slot(int64_t row) const { return slots_[static_cast<size_t>(row)]; }

  /// A panel's codes at a depth, of the fine coordinates and of the coarse ones.
  PanelCodes panel_codes(int64_t panel, int64_t depth) const;

  /// Squared norms of these codes, (kCodeRows,).
  const int32_t* norms2(int64_t panel, int64_t depth) const {
    return norms2_.data() + (panel * n_depths() + depth) * kCodeRows;
  }

  /// The largest norm of a row's codes of the coarse coordinates at a depth.
  double coarse_norm(int64_t depth) const { return coarse_norms_[depth]; }

  const int16_t* wide_codes() const { return wide_codes_; }
  const WideVector& wide_row(int64_t slot) const { return wide_rows_[static_cast<size_t>(slot)]; }

  /// Rest of a vector of this squared length with these coordinates, known up to `error`.
  Rest rest(const float* coordinates, double norm2, double error) const;

  /// Wide codes of a vector, out (width,).
  WideVector encode_wide(const CodeKernels& kernels, const float* coordinates, double norm2,
                         const Rest& rest, int16_t* out) const;

 private:
  Sieve(const kad_index& index, Level level, int64_t width, int32_t n_threads);
  Sieve(const CodeKernels& codes, Basis basis) : codes_(codes), basis_(std::move(basis)) {}

  struct Bank;
  struct Facts;
  void choose_depths(double coarse_share);
  void encode(const kad_index& index, const SearchKernels& kernels, int32_t n_threads);
  void measure(const kad_index& index, const SearchKernels& kernels, Bank& bank, int32_t n_threads);
  void arrange(const Bank& bank);
  void add_group(int32_t exponent, const int32_t* rows, int64_t n);
  void place_rows(int64_t n);
  static float wide_norm2(float scale, double codes_norm2);
  static void check_facts(const Facts& facts, const kad_index& index);
  void restore_codes(ByteReader& stored, int32_t n_threads);
  void restore_narrow(const uint8_t* codes, int64_t panel, double* coarse_norms);
  void restore_wide(int64_t slot, float scale, float error);
  void encode_row(const Bank& bank, int64_t slot, SieveGroup& group, float* coarse_norms);

  const CodeKernels& codes_;
  Basis basis_;
  std::vector<Depth> depths_;
  double unit_ = 0.0;
  double shift_ = 0.0;
  double coarse_norms_[kMostDepths] = {};
  std::vector<SieveGroup> groups_;
  std::vector<int64_t> panel_rows_;      // (panels,)
  std::vector<int32_t> rows_;            // (slots,)
  std::vector<int32_t> slots_;           // (rows,) where each row is
  std::vector<uint8_t> narrow_codes_;    // (panels, steps of fine and coarse, kCodeRows, step_dims)
  std::vector<int32_t> norms2_;          // (panels, depths, kCodeRows)
  const int16_t* wide_codes_ = nullptr;  // (slots, width): own ones, or stored ones
  std::vector<int16_t> own_wide_codes_;
  std::vector<WideVector> wide_rows_;  // (slots,)
};

}  // namespace kad
