#include "search/sieve/sieve_pass.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/prefetch.hpp"

namespace kad {
namespace {

constexpr float kNever = std::numeric_limits<float>::max();
constexpr double kDown = 1.0 - 0x1p-20;
constexpr double kUp = 1.0 + 0x1p-20;

// A float at most `value`, within the range in which slope * term + limit cannot become NaN.
float lower_float(double value) {
  if (!(value > -1e38)) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(std::min(value - std::fabs(value) * 0x1p-23, 1e38));
}

int32_t lowest_bit(uint64_t mask) {  // of a mask that is not 0
#if defined(__GNUC__)
  return __builtin_ctzll(mask);
#else
  int32_t bit = 0;
  while (((mask >> bit) & 1) == 0) ++bit;
  return bit;
#endif
}

}  // namespace

SievePass::SievePass(const Sieve& sieve, const CodeKernels& kernels,
                     const std::vector<int32_t>& queries, int64_t depth, const float* coordinates,
                     const Rests* rests)
    : sieve_(sieve), kernels_(kernels), queries_(queries), depth_(depth) {
  const auto n = static_cast<int64_t>(queries.size());
  const int64_t places = (n + kCodeQueries - 1) / kCodeQueries * kCodeQueries;
  codes_.assign(static_cast<size_t>(places * kDepths[depth]), 0);
  slopes_.assign(static_cast<size_t>(places), 0.0F);
  limits_.assign(static_cast<size_t>(places), kNever);
  encoded_.resize(queries.size());
  for (int64_t place = 0; place < n; ++place) {
    const int64_t q = queries[static_cast<size_t>(place)];
    encode(place, coordinates + q * sieve.width(), rests[q]);
  }
}

void SievePass::encode(int64_t place, const float* coordinates, const Rests& rests) {
  const int64_t n = kDepths[depth_];
  float values[kDepths[kMostDepths - 1]];
  int8_t codes[kDepths[kMostDepths - 1]];
  std::copy_n(coordinates, n - 1, values);
  values[n - 1] = rests.length[depth_];
  const float largest = kernels_.largest_magnitude(values, n);
  const float scale = std::max(largest, static_cast<float>(kShortest)) / 127.0F;
  const Coded coded = kernels_.encode_narrow(values, n, scale, codes);
  const int64_t lane = place % kCodeQueries;
  int8_t* tile = codes_.data() + (place - lane) * n;
  for (int64_t i = 0; i < n; i += kStepDims) {
    std::copy_n(codes + i, kStepDims, tile + i * kCodeQueries + lane * kStepDims);
  }
  const auto unit = static_cast<double>(scale);
  const double length = static_cast<double>(largest) * static_cast<double>(n);
  encoded_[static_cast<size_t>(place)] = {
      unit, unit * unit * coded.norm2, 128.0 * coded.sum,
      static_cast<double>(total_error(coded, length, rests.error[depth_]))};
  slopes_[static_cast<size_t>(place)] = static_cast<float>(kDown / unit);
}

// |x~ - y~| <= L = sqrt(T) + e_q + e_m, written for the integer product p of the codes:
// p >= (|x~|^2 - L^2) / (2 s_q s_m) + s_m |y^|^2 / (2 s_q).
void SievePass::set_limits(const QueryBlock& block, const SieveGroup& group) {
  const auto row_error = static_cast<double>(group.error[depth_]);
  for (size_t place = 0; place < queries_.size(); ++place) {
    const Encoded& query = encoded_[place];
    const double reach = kUp * (block.reach(queries_[place]) + query.error + row_error);
    const double units = 2.0 * query.scale * static_cast<double>(group.scale);
    const double slack = 1e-12 * (query.norm2 + reach * reach) / units;
    limits_[place] = lower_float((query.norm2 - reach * reach) / units + query.raised - slack);
  }
}

int64_t SievePass::match(int64_t panel, CodePair* out) const {
  CodeTile tile = {};
  sieve_.aim(panel, depth_, tile);
  const uint64_t present = ~uint64_t{0} >> (64 - sieve_.panel_rows(panel));
  const auto first_slot = static_cast<int32_t>(panel * kCodeRows);
  const auto n = static_cast<int64_t>(queries_.size());
  const int64_t wide_bytes = sieve_.width() * static_cast<int64_t>(sizeof(int16_t));
  CodePair* end = out;
  for (int64_t place = 0; place < n; place += kCodeQueries) {
    tile.queries = codes_.data() + place * kDepths[depth_];
    tile.slopes = slopes_.data() + place;
    tile.limits = limits_.data() + place;
    uint64_t masks[kCodeQueries];
    kernels_.match(tile, masks);
    for (int64_t i = place; i < std::min(place + kCodeQueries, n); ++i) {
      for (uint64_t mask = masks[i - place] & present; mask != 0; mask &= mask - 1) {
        const int32_t slot = first_slot + lowest_bit(mask);
        *end++ = {queries_[static_cast<size_t>(i)], slot};
        // Wide codes are next, and take longer to arrive than the next tile to compute.
        prefetch(sieve_.wide_codes() + slot * sieve_.width(), wide_bytes);
      }
    }
  }
  return end - out;
}

}  // namespace kad
