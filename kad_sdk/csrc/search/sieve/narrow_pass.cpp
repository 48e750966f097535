#include "search/sieve/narrow_pass.hpp"

#include <algorithm>
#include <cmath>

#include "base/rounding.hpp"

namespace kad {
namespace {

constexpr double kUp = 1.0 + 0x1p-20;
constexpr double kWidestSpan = 65000.0;  // of products of rows that come through
constexpr double kRoundings = 8.0;       // of terms, mixes and limits together, in products
constexpr int64_t kMostCodes = 256;      // of a vector

}  // namespace

void shift_terms(const int32_t* norms2, int32_t shift, int32_t* terms) {
  if (shift >= 0) {
    const int32_t bits = std::min(shift, 31);
    for (int64_t r = 0; r < kCodeRows; ++r) terms[r] = norms2[r] >> bits;
    return;
  }
  for (int64_t r = 0; r < kCodeRows; ++r) {  // modulo 2^32
    terms[r] = shift <= -32 ? 0 : static_cast<int32_t>(static_cast<uint32_t>(norms2[r]) << -shift);
  }
}

NarrowPass::NarrowPass(const Sieve& sieve, const CodeKernels& kernels,
                       const QueryCoordinates& queries, int64_t depth, int32_t exponent)
    : sieve_(sieve),
      queries_(queries),
      kernels_(kernels),
      depth_(depth),
      exponent_(exponent),
      scale_(std::ldexp(sieve.unit(), exponent)) {}

void NarrowPass::begin(int64_t n_places) {
  places_.assign(static_cast<size_t>(n_places), -1);
  coded_.assign(static_cast<size_t>(n_places), CodedQuery{});
  limits_.assign(static_cast<size_t>(n_places), MatchLimit{});
  masks_.assign(static_cast<size_t>(n_places), 0);
}

NarrowPass::CodedQuery NarrowPass::coded(const Coded& codes, double extra_norm2,
                                         int32_t query) const {
  const float error = total_error(codes, queries_.length(query), queries_.error(query));
  return {static_cast<double>(codes.norm2) + extra_norm2,
          static_cast<double>(kRaise) * static_cast<double>(codes.sum), static_cast<double>(error)};
}

void NarrowPass::take(const std::vector<int32_t>& queries) {
  const Depth& depth = sieve_.depth(depth_);
  begin(round_up(static_cast<int64_t>(queries.size()), kCodeTile));
  row_places_ = 0;
  codes_.resize(n_places(), depth.dims(), kernels_.step_dims);
  for (size_t i = 0; i < queries.size(); ++i) {
    const int32_t query = queries[i];
    const float* coordinates = queries_.of(query);
    int8_t codes[kMostCodes];
    const Coded fine = kernels_.encode_narrow(coordinates, depth.fine, static_cast<float>(scale_),
                                              kernels_.query_code, codes);
    const Coded coarse =
        kernels_.encode_narrow(coordinates + sieve_.basis().fine_width(), depth.coarse,
                               static_cast<float>(scale_), kernels_.query_code, codes + depth.fine);
    codes_.put(static_cast<int64_t>(i), codes);
    places_[i] = query;
    coded_[i] = coded({fine.error2 + coarse.error2, fine.sum + coarse.sum, fine.norm2},
                      coarse.norm2, query);
  }
}

bool NarrowPass::take_window() {
  if (!take_positions()) return false;
  const AxisMix& columns = queries_.coarse()->columns();
  const auto width = static_cast<int64_t>(columns.near.size());
  row_places_ = round_up(width, kCodeTile);
  near_ = columns.near;
  far_ = columns.far;
  near_.resize(static_cast<size_t>(row_places_), 0);
  far_.resize(static_cast<size_t>(row_places_), 0);
  begin(queries_.n() / width * row_places_);
  codes_.resize(n_places(), sieve_.depth(depth_).fine, kernels_.step_dims);
  for (int64_t q = 0; q < queries_.n(); ++q) {
    take_patch(q, q / width * row_places_ + q % width);
  }
  return true;
}

// Codes of the positions. A product of two of them is at most that of their norms.
bool NarrowPass::take_positions() {
  const int64_t n = queries_.coarse()->n_positions(), dims = sieve_.depth(depth_).coarse;
  const int64_t padded = round_up(n, kCodeTile);
  position_codes_.resize(padded, dims, kernels_.step_dims);
  position_values_.resize(static_cast<size_t>(n * dims));
  starts_.assign(static_cast<size_t>(padded), 0);
  products_.resize(static_cast<size_t>(padded * kCodeRows));
  mixed_.resize(static_cast<size_t>(queries_.coarse()->n_columns() * kCodeRows));
  for (int64_t p = 0; p < n; ++p) {
    int8_t codes[kMostCodes];
    const Coded coded = kernels_.encode_narrow(
        queries_.position(p), dims, static_cast<float>(scale_), kernels_.query_code, codes);
    const double largest = std::sqrt(static_cast<double>(coded.norm2)) * sieve_.coarse_norm(depth_);
    if (largest >= kMixRaise - 1) return false;
    position_codes_.put(p, codes);
    for (int64_t i = 0; i < dims; ++i) {
      position_values_[static_cast<size_t>(p * dims + i)] = static_cast<float>(codes[i]);
    }
    starts_[static_cast<size_t>(p)] = static_cast<int16_t>(kMixRaise - kRaise * coded.sum);
  }
  return true;
}

// Codes of a patch's fine coordinates; its coarse ones are mixed from the codes of positions, by
// multiples of a sixteenth.
void NarrowPass::take_patch(int64_t patch, int64_t place) {
  const Depth& depth = sieve_.depth(depth_);
  const auto scale = static_cast<float>(scale_);
  int8_t codes[kMostCodes];
  float mixed[kMostCodes];
  const Coded fine =
      kernels_.encode_narrow(queries_.of(patch), depth.fine, scale, kernels_.query_code, codes);
  queries_.mix_positions(position_values_.data(), depth.coarse, patch, depth.coarse, mixed);
  const Coded coarse = kernels_.compare_codes(queries_.of(patch) + sieve_.basis().fine_width(),
                                              mixed, depth.coarse, scale);
  codes_.put(place, codes);
  const auto i = static_cast<size_t>(place);
  places_[i] = static_cast<int32_t>(patch);
  coded_[i] = coded({fine.error2 + coarse.error2, fine.sum, fine.norm2},
                    static_cast<double>(coarse.norm2) / 256.0, places_[i]);
}

void NarrowPass::set_limits(const QueryBlock& block, const SieveGroup& group) {
  shift_ = exponent_ - group.exponent + 1;
  always_.clear();
  const double units = 2.0 * scale_ * group.scale;
  const auto row_error = static_cast<double>(group.error[depth_]);
  for (size_t place = 0; place < places_.size(); ++place) {
    const int32_t query = places_[place];
    if (query < 0) continue;
    const CodedQuery& coded = coded_[place];
    const double reach = kUp * (block.reach(query) + coded.error + row_error);
    const double norm2 = coded.norm2 * scale_ * scale_, reach2 = reach * reach;
    const double least =
        (norm2 - reach2) / units + coded.raised - 1e-12 * (norm2 + reach2) / units - 1e-6;
    const double span = reach2 / units + kRoundings;
    if (!(span < kWidestSpan) || !(std::fabs(least) < 1e15)) {
      always_.push_back(static_cast<int32_t>(place));
      limits_[place] = kNoLimit;
      continue;
    }
    const auto limit = static_cast<int64_t>(std::floor(least));
    const auto width = static_cast<int64_t>(span);
    limits_[place] = {static_cast<int32_t>(limit), static_cast<int16_t>(limit + width - 32767),
                      static_cast<int16_t>(32766 - width)};
  }
}

int64_t NarrowPass::match(int64_t panel, CodePair* out) {
  int32_t terms[kCodeRows];
  shift_terms(sieve_.norms2(panel, depth_), shift_, terms);
  const MatchTask task = {sieve_.panel_codes(panel, depth_),
                          codes_.from(0),
                          terms,
                          limits_.data(),
                          n_places(),
                          nullptr,
                          nullptr,
                          nullptr,
                          false};
  if (row_places_ == 0) {
    kernels_.match(task, masks_.data());
  } else {
    match_window(task);
  }
  for (const int32_t place : always_) masks_[static_cast<size_t>(place)] = ~uint32_t{0};
  const uint32_t present = ~uint32_t{0} >> (kCodeRows - sieve_.panel_rows(panel));
  const auto first_slot = static_cast<int32_t>(panel * kCodeRows);
  return kernels_.collect(masks_.data(), places_.data(), n_places(), present, first_slot, out) -
         out;
}

void NarrowPass::match_window(MatchTask task) {
  const CoarseWindow& coarse = *queries_.coarse();
  const PanelCodes coarse_codes = {{task.rows.piece[1], nullptr}, {task.rows.steps[1], 0}};
  const auto n_positions = static_cast<int64_t>(starts_.size());
  kernels_.products(coarse_codes, position_codes_.from(0), starts_.data(), n_positions,
                    products_.data());
  task.rows.steps[1] = 0;
  task.n = row_places_;
  task.mixed = mixed_.data();
  task.near = near_.data();
  task.far = far_.data();
  task.half = coarse.columns().half;
  const int64_t row_values = coarse.n_columns() * kCodeRows;
  for (size_t y = 0; y < coarse.rows().near.size(); ++y) {
    const int64_t place = static_cast<int64_t>(y) * row_places_;
    kernels_.mix(products_.data() + coarse.rows().near[y] * row_values,
                 products_.data() + coarse.rows().far[y] * row_values, coarse.rows().half,
                 row_values, mixed_.data());
    task.queries = codes_.from(place);
    task.limits = limits_.data() + place;
    kernels_.match(task, masks_.data() + place);
  }
}

int64_t NarrowPass::products_per_row() const {
  const Depth& depth = sieve_.depth(depth_);
  if (row_places_ == 0) return n_places() * depth.dims();
  return n_places() * depth.fine + static_cast<int64_t>(starts_.size()) * depth.coarse;
}

}  // namespace kad
