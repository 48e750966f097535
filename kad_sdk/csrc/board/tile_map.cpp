#include "board/tile_map.hpp"

#include <algorithm>
#include <cmath>

#include "base/guard.hpp"
#include "board/board_kernels.hpp"

namespace kad {
namespace {

constexpr int32_t kMaxRadius = 1 << 15;  // px, as large as a tile may be

// Place of a pixel outside [0, n) after reflection at the edge pixels: -1 -> 1, n -> n - 2.
int32_t reflect_101(int32_t i, int32_t n) {
  if (n == 1) return 0;
  const int32_t period = 2 * (n - 1);
  const int32_t folded = ((i % period) + period) % period;
  return std::min(folded, period - folded);
}

std::vector<double> gaussian(double sigma, int32_t radius) {
  std::vector<double> kernel;
  double sum = 0.0;
  for (int32_t i = -radius; i <= radius; ++i) {
    kernel.push_back(radius == 0 ? 1.0 : std::exp(-0.5 * (i / sigma) * (i / sigma)));
    sum += kernel.back();
  }
  for (double& value : kernel) value /= sum;
  return kernel;
}

// Add `weight` times the bilinear row of a pixel that lies at `source` of the grid.
void add_bilinear(double source, double weight, std::vector<double>* row) {
  const auto grid = static_cast<int32_t>(row->size());
  const auto low = std::min(static_cast<int32_t>(source), grid - 1);
  const int32_t high = std::min(low + 1, grid - 1);
  const double fraction = source - low;
  (*row)[static_cast<size_t>(low)] += weight * (1.0 - fraction);
  (*row)[static_cast<size_t>(high)] += weight * fraction;
}

void append_row(const std::vector<double>& row, AxisMatrix* matrix) {
  const auto non_zero = [](double value) { return static_cast<float>(value) != 0.0F; };
  const auto begin = std::find_if(row.begin(), row.end(), non_zero);
  const auto end = std::find_if(row.rbegin(), row.rend(), non_zero).base();
  matrix->first.push_back(static_cast<int32_t>(begin - row.begin()));
  matrix->count.push_back(static_cast<int32_t>(end - begin));
  matrix->offset.push_back(static_cast<int64_t>(matrix->weights.size()));
  for (auto value = begin; value != end; ++value) {
    matrix->weights.push_back(static_cast<float>(*value));
  }
}

float weight_at(const AxisMatrix& matrix, int32_t i, int32_t patch) {
  const auto row = static_cast<size_t>(i);
  if (i >= matrix.tile || patch < matrix.first[row]) return 0.0F;
  if (patch >= matrix.first[row] + matrix.count[row]) return 0.0F;
  return matrix.weights[static_cast<size_t>(matrix.offset[row] + patch - matrix.first[row])];
}

void append_block(int32_t start, AxisMatrix* matrix) {
  const int32_t end = std::min(start + kBlock, matrix->tile);
  int32_t first = matrix->grid;
  int32_t last = 0;
  for (auto row = static_cast<size_t>(start); row < static_cast<size_t>(end); ++row) {
    first = std::min(first, matrix->first[row]);
    last = std::max(last, matrix->first[row] + matrix->count[row]);
  }
  matrix->block_first.push_back(first);
  matrix->block_count.push_back(last - first);
  matrix->block_offset.push_back(static_cast<int64_t>(matrix->block_weights.size()));
  for (int32_t patch = first; patch < last; ++patch) {
    for (int32_t lane = 0; lane < kBlock; ++lane) {
      matrix->block_weights.push_back(weight_at(*matrix, start + lane, patch));
    }
  }
}

// place(i) is where pixel i lies in the grid, 0 or above.
template <class Place>
AxisMatrix make_matrix(int32_t length, int32_t grid, double sigma, int32_t radius, Place&& place) {
  AxisMatrix matrix;
  matrix.tile = length;
  matrix.grid = grid;
  const std::vector<double> kernel = gaussian(sigma, radius);
  std::vector<double> row(static_cast<size_t>(grid));
  for (int32_t i = 0; i < length; ++i) {
    std::fill(row.begin(), row.end(), 0.0);
    for (int32_t k = -radius; k <= radius; ++k) {
      add_bilinear(place(reflect_101(i + k, length)), kernel[static_cast<size_t>(k + radius)],
                   &row);
    }
    append_row(row, &matrix);
  }
  for (int32_t start = 0; start < length; start += kBlock) append_block(start, &matrix);
  return matrix;
}

}  // namespace

void check_smoothing(int32_t radius, float sigma) {
  if (radius < 0 || radius > kMaxRadius) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "smoothing_radius must be 0 to %d px, got %d", kMaxRadius,
         radius);
  }
  if (radius > 0 && !(std::isfinite(sigma) && sigma > 0.0F)) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "smoothing_sigma must be finite and above 0 px when smoothing_radius is above 0, got %g",
         static_cast<double>(sigma));
  }
}

AxisMatrix make_axis_matrix(int32_t tile, int32_t grid, double sigma, int32_t radius) {
  return make_matrix(tile, grid, sigma, radius,
                     [&](int32_t i) { return std::max((i + 0.5) * grid / tile - 0.5, 0.0); });
}

AxisMatrix make_cell_matrix(int32_t start, int32_t length, int32_t cell, int32_t first,
                            int32_t grid, double sigma, int32_t radius) {
  return make_matrix(length, grid, sigma, radius, [&](int32_t i) {
    const double source = (double{1.0} * start + i + 0.5) / cell - 0.5 - first;
    return std::clamp(source, 0.0, grid - 1.0);
  });
}

}  // namespace kad
