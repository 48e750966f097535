// Queries that go through the narrow codes of a sieve together.
//
// With a query's codes s in units of the sieve's unit times 2^exponent, D_q, and a row's y in units
// of D_m,
//
//   |x~ - y~| <= L = sqrt(T) + e_q + e_m   if and only if
//   s.y - |y|^2 D_m / (2 D_q) >= (|x~|^2 - L^2) / (2 D_q D_m),
//
// and the left side is at most |x~|^2 / (2 D_q D_m), whatever the row. D_q and D_m are powers of
// two apart, so the row's term is its squared norm, shifted.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/narrow_vectors.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/query_coordinates.hpp"
#include "search/sieve/sieve.hpp"

namespace kad {

/// Terms of a panel's rows, from the squared norms of their codes.
void shift_terms(const int32_t* norms2, int32_t shift, int32_t* terms);

class NarrowPass {
 public:
  /// Nothing yet, at a depth, with codes in units of the sieve's unit times 2^exponent. `kernels`
  /// are the sieve's, or work like them.
  NarrowPass(const Sieve& sieve, const CodeKernels& kernels, const QueryCoordinates& queries,
             int64_t depth, int32_t exponent);

  /// Take some of the queries, with codes of all coordinates.
  void take(const std::vector<int32_t>& queries);

  /// Take all patches of the queries' window, the coarse coordinates by way of their positions.
  /// False when products of positions might not fit 16 bits.
  bool take_window();

  /// The queries that were taken, and how far the codes of each may be from its coordinates.
  int64_t n_places() const { return static_cast<int64_t>(places_.size()); }
  int32_t query(int64_t place) const { return places_[static_cast<size_t>(place)]; }  // or -1
  double error(int64_t place) const { return coded_[static_cast<size_t>(place)].error; }
  double scale() const { return scale_; }

  /// Take no further account of the query at a place.
  void drop(int64_t place) { places_[static_cast<size_t>(place)] = -1; }

  /// Take each query's present limit, for the rows of a group.
  void set_limits(const QueryBlock& block, const SieveGroup& group);

  /// Write the pairs of the panel's rows that come through, and return their number. `out` takes
  /// kCodeRows pairs of each place and 4 more.
  int64_t match(int64_t panel, CodePair* out);

  /// Multiplications of codes for a panel, for each of its rows.
  int64_t products_per_row() const;

 private:
  struct CodedQuery {
    double norm2;   // of the codes, in units of scale^2
    double raised;  // what raising the rows' codes adds to every product
    double error;
  };

  void begin(int64_t n_places);
  CodedQuery coded(const Coded& codes, double extra_norm2, int32_t query) const;
  bool take_positions();
  void take_patch(int64_t patch, int64_t place);
  void match_window(MatchTask task);

  const Sieve& sieve_;
  const QueryCoordinates& queries_;
  const CodeKernels& kernels_;
  int64_t depth_;
  int32_t exponent_;
  double scale_;
  int32_t shift_ = 0;  // of the terms, for the present group
  NarrowVectors codes_;
  std::vector<int32_t> places_;     // the query, or -1
  std::vector<CodedQuery> coded_;   // of each place
  std::vector<MatchLimit> limits_;  // of each place
  std::vector<int32_t> always_;     // places to which all rows of the present group come through
  std::vector<uint32_t> masks_;

  // Of a window.
  int64_t row_places_ = 0;           // of a row of patches
  std::vector<int32_t> near_, far_;  // (row_places,) columns of positions
  NarrowVectors position_codes_;
  std::vector<float> position_values_;  // (positions, depth.coarse) the same codes
  std::vector<int16_t> starts_;         // (positions,)
  std::vector<uint16_t> products_;      // (positions, kCodeRows)
  std::vector<uint16_t> mixed_;         // (columns of positions, kCodeRows)
};

}  // namespace kad
