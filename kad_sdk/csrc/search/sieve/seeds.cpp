#include "search/sieve/seeds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "search/sieve/narrow_pass.hpp"

namespace kad {
namespace {

constexpr int64_t kDepth = 1;        // of the sieve's depths
constexpr int64_t kOwn = 8;          // rows taken of a cell,
constexpr int64_t kOfNeighbour = 4;  // and of each beside it
constexpr int64_t kEvery = 4;        // panel is looked at where no query helps another
constexpr int64_t kPerfect = 32700;  // what a row equal to the mean is given
constexpr int64_t kMostPanels = std::numeric_limits<uint16_t>::max();
constexpr int64_t kMostCodes = 256;  // of a vector

size_t size(int64_t value) { return static_cast<size_t>(value); }

void add_once(int32_t slot, std::vector<int32_t>& slots) {
  if (std::find(slots.begin(), slots.end(), slot) == slots.end()) slots.push_back(slot);
}

}  // namespace

void Seeds::find(const QueryCoordinates& queries, const QueryGrid& grid, int32_t exponent,
                 int64_t wanted) {
  grid_ = grid;
  cells_across_ = (grid.width + grid.cell - 1) / grid.cell;
  cells_down_ = (grid.height + grid.cell - 1) / grid.cell;
  products_ = 0;
  take_means(queries, exponent);
  compare(exponent);
  choose(wanted);
}

void Seeds::take_means(const QueryCoordinates& queries, int32_t exponent) {
  const int64_t n_cells = cells_across_ * cells_down_, width = sieve_.width();
  const CodeKernels& kernels = sieve_.codes();
  const Depth& depth = sieve_.depth(std::min(kDepth, sieve_.n_depths() - 1));
  const auto scale = static_cast<float>(std::ldexp(sieve_.unit(), exponent));
  n_places_ = (n_cells + kCodeTile - 1) / kCodeTile * kCodeTile;
  codes_.resize(n_places_, depth.dims(), kernels.step_dims);
  starts_.assign(size(n_places_), 0);
  std::vector<float> means(size(n_cells * width));
  std::vector<float> counts(size(n_cells));
  for (int64_t q = 0; q < queries.n(); ++q) {
    const int64_t cell = cell_of(q);
    counts[size(cell)] += 1.0F;
    const float* from = queries.of(q);
    float* to = means.data() + cell * width;
    for (int64_t i = 0; i < width; ++i) to[i] += from[i];
  }
  for (int64_t cell = 0; cell < n_cells; ++cell) {
    float* mean = means.data() + cell * width;
    const float share = 1.0F / std::max(counts[size(cell)], 1.0F);
    for (int64_t i = 0; i < width; ++i) mean[i] *= share;
    int8_t codes[kMostCodes];
    const Coded fine = kernels.encode_narrow(mean, depth.fine, scale, kernels.query_code, codes);
    const Coded coarse = kernels.encode_narrow(mean + sieve_.basis().fine_width(), depth.coarse,
                                               scale, kernels.query_code, codes + depth.fine);
    codes_.put(cell, codes);
    const int64_t norm2 = int64_t{fine.norm2} + int64_t{coarse.norm2};
    const int64_t sum = int64_t{fine.sum} + int64_t{coarse.sum};
    starts_[size(cell)] =
        static_cast<int16_t>(kPerfect - kRaise * sum - (norm2 << std::min(exponent, 30)) / 2);
  }
}

// Of every lane of the panels the best row, among those of the most frequent scale.
void Seeds::compare(int32_t exponent) {
  const CodeKernels& kernels = sieve_.codes();
  const int64_t depth = std::min(kDepth, sieve_.n_depths() - 1);
  products_of_panel_.resize(size(n_places_ * kCodeRows));
  best_.assign(size(n_places_ * kCodeRows), std::numeric_limits<int16_t>::min());
  panels_.assign(size(n_places_ * kCodeRows), 0);
  for (const SieveGroup& group : sieve_.groups()) {
    if (group.exponent > 0) break;
    for (int64_t panel = group.first_panel; panel < group.first_panel + group.n_panels; ++panel) {
      if (sieve_.panel_rows(panel) < kCodeRows || panel > kMostPanels) continue;
      if (grid_.cell == 1 && panel % kEvery != 0) continue;
      int32_t terms[kCodeRows];
      shift_terms(sieve_.norms2(panel, depth), exponent + 1, terms);
      kernels.products(sieve_.panel_codes(panel, depth), codes_.from(0), starts_.data(), n_places_,
                       products_of_panel_.data());
      kernels.keep_best(products_of_panel_.data(), terms, n_places_, static_cast<uint16_t>(panel),
                        best_.data(), panels_.data());
      products_ += n_places_ * kCodeRows * sieve_.depth(depth).dims();
    }
  }
}

void Seeds::sort_best(int64_t cell, int64_t most) {
  const int16_t* best = best_.data() + cell * kCodeRows;
  int32_t lanes[kCodeRows];
  for (int32_t i = 0; i < kCodeRows; ++i) lanes[i] = i;
  std::partial_sort(lanes, lanes + most, lanes + kCodeRows,
                    [&](int32_t a, int32_t b) { return best[a] > best[b]; });
  for (int64_t i = 0; i < most; ++i) {
    const int32_t panel = panels_[size(cell * kCodeRows + lanes[i])];
    const bool found = best[lanes[i]] > std::numeric_limits<int16_t>::min();
    sorted_[size(cell * most + i)] =
        found ? panel * static_cast<int32_t>(kCodeRows) + lanes[i] : -1;
  }
}

void Seeds::add_best(int64_t cell, int64_t most, std::vector<int32_t>& slots) const {
  for (int64_t i = cell * n_sorted_; i < cell * n_sorted_ + most; ++i) {
    if (sorted_[size(i)] >= 0) add_once(sorted_[size(i)], slots);
  }
}

void Seeds::choose(int64_t wanted) {
  const int64_t n_cells = cells_across_ * cells_down_;
  n_sorted_ = std::min(std::max(kOwn, wanted), kCodeRows);
  sorted_.resize(size(n_cells * n_sorted_));
  for (int64_t cell = 0; cell < n_cells; ++cell) sort_best(cell, n_sorted_);
  slots_.resize(size(n_cells));
  for (int64_t y = 0; y < cells_down_; ++y) {
    for (int64_t x = 0; x < cells_across_; ++x) {
      const int64_t cell = y * cells_across_ + x;
      std::vector<int32_t>& slots = slots_[size(cell)];
      slots.clear();
      add_best(cell, n_sorted_, slots);
      if (grid_.cell > 1) {
        if (x > 0) add_best(cell - 1, kOfNeighbour, slots);
        if (x + 1 < cells_across_) add_best(cell + 1, kOfNeighbour, slots);
        if (y > 0) add_best(cell - cells_across_, kOfNeighbour, slots);
        if (y + 1 < cells_down_) add_best(cell + cells_across_, kOfNeighbour, slots);
      }
      for (int64_t row = 0; static_cast<int64_t>(slots.size()) < wanted; ++row) {
        add_once(sieve_.slot(row), slots);
      }
    }
  }
}

}  // namespace kad
