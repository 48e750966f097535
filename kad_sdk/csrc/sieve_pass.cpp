#include "sieve_pass.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

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

}  // namespace

SievePass::SievePass(const Sieve& sieve, const CodeKernels& kernels,
                     const std::vector<int32_t>& queries, int64_t depth, const float* coordinates,
                     const Rests* rests)
    : sieve_(sieve), kernels_(kernels), queries_(queries), depth_(depth) {
  const auto n = static_cast<int64_t>(queries.size());
  const int64_t places = (n + kCodeQueries - 1) / kCodeQueries * kCodeQueries;
  codes_.assign(static_cast<size_t>(places * (kDepths[depth] + kStepDims)), 0);
  slopes_.assign(static_cast<size_t>(places), 0.0F);
  limits_.assign(static_cast<size_t>(places), kNever);
  encoded_.resize(queries.size());
  for (int64_t place = 0; place < n; ++place) {
    const int64_t q = queries[static_cast<size_t>(place)];
    encode(place, coordinates + q * sieve.width(), rests[q]);
  }
}

void SievePass::encode(int64_t place, const float* coordinates, const Rests& rests) {
  const int64_t dims = kDepths[depth_];
  const float rest_length = rests.length[depth_];
  const float largest = largest_magnitude(coordinates, dims, std::fabs(rest_length));
  const float scale = std::max(largest, static_cast<float>(kSmallestCoordinate)) / 127.0F;
  int8_t codes[kDepths[kMostDepths - 1] + kStepDims] = {};
  double error2 = 0.0;
  encode_narrow(coordinates, dims, scale, codes, error2);
  encode_narrow(&rest_length, 1, scale, codes + dims + depth_, error2);
  const int64_t lane = place % kCodeQueries;
  int8_t* tile = codes_.data() + (place - lane) * (dims + kStepDims);
  int32_t sum = 0, norm2 = 0;
  for (int64_t i = 0; i < dims + kStepDims; ++i) {
    tile[(i / kStepDims * kCodeQueries + lane) * kStepDims + i % kStepDims] = codes[i];
    sum += codes[i];
    norm2 += int32_t{codes[i]} * int32_t{codes[i]};
  }
  const auto unit = static_cast<double>(scale);
  encoded_[static_cast<size_t>(place)] = {
      unit, unit * unit * norm2, 128.0 * sum,
      kUp * (std::sqrt(error2) + static_cast<double>(rests.error[depth_]))};
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

}  // namespace kad
