#include "search/sieve/basis.hpp"

#include <algorithm>
#include <numeric>

#include "base/rounding.hpp"
#include "search/index.hpp"
#include "search/sieve/principal.hpp"

namespace kad {
namespace {

constexpr int64_t kMostPartWidth = 192;  // that are looked for in each part

int64_t first_fine(const SplitLayout& layout) {
  return layout.coarse_dims() > 0 && layout.coarse_first() == 0 ? layout.coarse_dims() : 0;
}

double captured(const PrincipalDirections& found, int64_t width) {
  return std::accumulate(found.variance.begin(), found.variance.begin() + width, 0.0);
}

}  // namespace

Basis::Basis(const kad_index& index, int64_t width, const SearchKernels& kernels, int32_t n_threads)
    : fine_first_(first_fine(index.layout)), coarse_first_(index.layout.coarse_first()) {
  const int64_t coarse_dims = index.layout.coarse_dims(), fine_dims = index.dims - coarse_dims;
  const auto directions = [&](int64_t first, int64_t dims, int64_t wanted) {
    return principal_directions(index.bank + first, index.rows, index.dims, dims,
                                index.centre.data() + first, wanted, kernels, n_threads);
  };
  const auto most = [&](int64_t part) {
    return std::min(round_up(part, kProjectColumns), coarse_dims > 0 ? kMostPartWidth : width);
  };
  const PrincipalDirections fine = directions(fine_first_, fine_dims, most(fine_dims));
  int64_t fine_width = most(fine_dims), coarse_width = 0;
  PrincipalDirections coarse;
  if (coarse_dims > 0) {
    coarse = directions(coarse_first_, coarse_dims, most(coarse_dims));
    const int64_t both =
        std::clamp(width, 2 * kProjectColumns, most(fine_dims) + most(coarse_dims));
    double best = -1.0;
    for (int64_t w = kProjectColumns; w < both; w += kProjectColumns) {
      if (w > most(fine_dims) || both - w > most(coarse_dims)) continue;
      const double sum = captured(fine, w) + captured(coarse, both - w);
      if (sum <= best) continue;
      best = sum;
      fine_width = w;
      coarse_width = both - w;
    }
    coarse_ = Projection(coarse.rows.data(), coarse_width, coarse_dims);
  }
  fine_ = Projection(fine.rows.data(), fine_width, fine_dims);
  variance_.assign(fine.variance.begin(), fine.variance.begin() + fine_width);
  variance_.insert(variance_.end(), coarse.variance.begin(),
                   coarse.variance.begin() + coarse_width);
}

Basis::Basis(const SplitLayout& layout, int64_t fine_width, const float* fine_columns,
             int64_t coarse_width, const float* coarse_columns)
    : fine_first_(first_fine(layout)), coarse_first_(layout.coarse_first()) {
  fine_ = Projection::from_columns(fine_columns, fine_width, layout.dims() - layout.coarse_dims());
  if (coarse_width > 0) {
    coarse_ = Projection::from_columns(coarse_columns, coarse_width, layout.coarse_dims());
  }
}

void Basis::apply(const SearchKernels& kernels, const float* packed, int64_t n, float* out) const {
  fine_.apply(kernels, packed + fine_first_ * kPackedVectors, kPackedVectors, n, out, width());
  if (coarse_.width() == 0) return;
  coarse_.apply(kernels, packed + coarse_first_ * kPackedVectors, kPackedVectors, n,
                out + fine_.width(), width());
}

double Basis::error(double length) const {
  constexpr double kUnderflow = 1e-20;  // what products may lose, for up to 65,536 dimensions
  return (fine_.relative_error() + (coarse_.width() > 0 ? coarse_.relative_error() : 0.0)) *
             length +
         kUnderflow;
}

}  // namespace kad
