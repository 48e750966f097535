// A block's queries as the sieve sees them: coordinates along the bank's principal directions, and
// wide codes.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/query_block.hpp"
#include "search/sieve/sieve.hpp"
#include "search/split.hpp"

namespace kad {

class QueryCoordinates {
 public:
  QueryCoordinates(const kad_index& index, const SearchKernels& kernels)
      : index_(index), sieve_(*index.sieve), kernels_(kernels) {}

  /// Take a block of vectors.
  void load(const QueryBlock& block);

  /// Take the coarse part of the positions below the block, which is the patches of a window: from
  /// their codes those of patches are mixed. False when the maps hold values too large for that,
  /// though the patches are none.
  bool load_positions(const CoarseWindow& coarse);

  int64_t n() const { return n_; }
  const float* of(int64_t q) const { return values_.data() + q * sieve_.width(); }

  /// How far the coordinates may be off, together with the rounding of the centring.
  double error(int64_t q) const { return errors_[static_cast<size_t>(q)]; }

  /// A bound on the length of a query less the centre.
  double length(int64_t q) const { return lengths_[static_cast<size_t>(q)]; }

  const int16_t* wide_codes() const { return wide_codes_.data(); }
  const WideVector& wide(int64_t q) const { return wide_[static_cast<size_t>(q)]; }

  /// The window that was taken, or null; coarse coordinates of its positions, (positions,
  /// coarse_width).
  const CoarseWindow* coarse() const { return coarse_; }
  const float* position(int64_t p) const {
    return positions_.data() + p * sieve_.basis().coarse_width();
  }

  /// out = (n,) mix of four of some positions' values (positions, stride), for a patch.
  void mix_positions(const float* values, int64_t stride, int64_t patch, int64_t n,
                     float* out) const;

 private:
  void encode_wide(const QueryBlock& block);

  const kad_index& index_;
  const Sieve& sieve_;
  const SearchKernels& kernels_;
  int64_t n_ = 0;
  const CoarseWindow* coarse_ = nullptr;
  std::vector<float> packed_;        // (dims, kPackedVectors)
  std::vector<float> values_;        // (n, width)
  std::vector<double> errors_;       // (n,)
  std::vector<double> lengths_;      // (n,)
  std::vector<float> positions_;     // (positions, coarse_width)
  std::vector<int16_t> wide_codes_;  // (n, width)
  std::vector<WideVector> wide_;     // (n,)
};

}  // namespace kad
