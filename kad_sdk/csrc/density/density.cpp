// How far an embedding lies from the normal ones: Mahalanobis distance (equation 4.12 of the
// thesis, up to sign and constant), or a kernel density estimate as a distance.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <vector>

#include "base/guard.hpp"
#include "base/parallel.hpp"

namespace kad {
namespace {

constexpr int64_t kLanes = 8;

void check_row(const float* values, int64_t n, int64_t row, const char* name) {
  for (int64_t i = 0; i < n; ++i) {
    if (std::isfinite(values[i])) continue;
    fail(KAD_ERROR_NOT_FINITE, "%s: row %lld holds NaN or Inf: every value must be finite", name,
         static_cast<long long>(row));
  }
}

void check_finite(const float* values, int64_t rows, int64_t columns, const char* name) {
  for (int64_t i = 0; i < rows; ++i) check_row(values + i * columns, columns, i, name);
}

void check_gaussian(const kad_density& density) {
  check_pointer(density.mean, "density->mean");
  check_pointer(density.cholesky, "density->cholesky");
  check_finite(density.mean, 1, density.dims, "mean");
  for (int64_t i = 0; i < density.dims; ++i) {
    const float* row = density.cholesky + i * density.dims;
    check_row(row, i + 1, i, "cholesky");  // what is above the diagonal is not used
    const float value = row[i];
    if (!(value > 0.0F)) {
      fail(KAD_ERROR_INVALID_ARGUMENT,
           "cholesky: the diagonal must be above 0, got %g in row %lld: it is no Cholesky factor",
           static_cast<double>(value), static_cast<long long>(i));
    }
  }
}

void check_kernel(const kad_density& density) {
  if (density.n_samples < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "n_samples must be at least 1, got %lld",
         static_cast<long long>(density.n_samples));
  }
  check_count(density.n_samples, density.dims, "n_samples");
  const double width = 2.0 * density.bandwidth * density.bandwidth;
  if (!(density.bandwidth > 0.0 && width >= DBL_MIN && width <= DBL_MAX)) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "bandwidth must be above 0 and its square a normal number, got %g", density.bandwidth);
  }
  check_pointer(density.samples, "density->samples");
  check_finite(density.samples, density.n_samples, density.dims, "samples");
}

kad_density checked(const kad_density* given) {
  const kad_density density =
      read_struct(given, KAD_FIRST_SIZE(kad_density, bandwidth), "kad_density");
  if (density.dims < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "dims must be at least 1, got %lld",
         static_cast<long long>(density.dims));
  }
  check_count(density.dims, density.dims, "dims");
  switch (density.kind) {
    case KAD_DENSITY_GAUSSIAN:
      check_gaussian(density);
      break;
    case KAD_DENSITY_KERNEL:
      check_kernel(density);
      break;
    default:
      fail(KAD_ERROR_INVALID_ARGUMENT, "kind must be one of KAD_DENSITY_* (0 or 1), got %d",
           density.kind);
  }
  return density;
}

// |L^-1 (x - mean)| by forward substitution, terms in rising order.
double mahalanobis(const kad_density& density, const float* embedding, double* solved) {
  double sum = 0.0;
  for (int64_t i = 0; i < density.dims; ++i) {
    const float* row = density.cholesky + i * density.dims;
    double rest = static_cast<double>(embedding[i]) - static_cast<double>(density.mean[i]);
    for (int64_t j = 0; j < i; ++j) rest -= static_cast<double>(row[j]) * solved[j];
    solved[i] = rest / static_cast<double>(row[i]);
    sum += solved[i] * solved[i];
  }
  return std::sqrt(sum);
}

// |a - b|^2: dimension i goes to partial sum i mod 8 in rising order, then the 8 are added as a
// tree.
double squared_distance(const float* a, const float* b, int64_t dims) {
  double sums[kLanes] = {};
  const int64_t whole = dims / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const double d = static_cast<double>(a[i + lane]) - static_cast<double>(b[i + lane]);
      sums[lane] += d * d;
    }
  }
  for (int64_t i = whole; i < dims; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sums[i - whole] += d * d;
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

// sqrt(-2 b^2 log(1/S sum_i exp(-d_i^2 / (2 b^2)))). The smallest d_i^2 is taken out, so that
// nothing underflows: the rest is at most 1 in each term and exactly 1 in one.
double kernel_distance(const kad_density& density, const float* embedding, double* squares) {
  for (int64_t i = 0; i < density.n_samples; ++i) {
    const float* sample = density.samples + i * density.dims;
    squares[i] = squared_distance(embedding, sample, density.dims);
  }
  const double least = *std::min_element(squares, squares + density.n_samples);
  const double width = 2.0 * density.bandwidth * density.bandwidth;
  double sum = 0.0;
  for (int64_t i = 0; i < density.n_samples; ++i) sum += std::exp((least - squares[i]) / width);
  const double mean = std::min(sum / static_cast<double>(density.n_samples), 1.0);
  return std::sqrt(least - width * std::log(mean));
}

void score(const kad_density& density, const float* embeddings, int64_t n, int32_t n_threads,
           float* out) {
  const bool gaussian = density.kind == KAD_DENSITY_GAUSSIAN;
  const auto scratch = static_cast<size_t>(gaussian ? density.dims : density.n_samples);
  std::vector<std::vector<double>> rooms(static_cast<size_t>(worker_count(n, n_threads)),
                                         std::vector<double>(scratch));
  parallel_for(n, n_threads, [&](int64_t i, int32_t worker) {
    const float* embedding = embeddings + i * density.dims;
    double* room = rooms[static_cast<size_t>(worker)].data();
    const double distance = gaussian ? mahalanobis(density, embedding, room)
                                     : kernel_distance(density, embedding, room);
    if (!(distance <= static_cast<double>(FLT_MAX))) {
      fail(KAD_ERROR_NOT_FINITE, "the score of embedding %lld is %g: it does not fit float32",
           static_cast<long long>(i), distance);
    }
    out[i] = static_cast<float>(distance);
  });
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_density_score(const kad_density* density, const float* embeddings,
                                        int64_t n, int32_t n_threads, float* out_score) {
  return kad::guard([&] {
    const kad_density given = kad::checked(density);
    kad::check_count(n, given.dims, "n");
    kad::check_threads(n_threads);
    if (n == 0) return;
    kad::check_pointer(embeddings, "embeddings");
    kad::check_pointer(out_score, "out_score");
    kad::check_finite(embeddings, n, given.dims, "embeddings");
    kad::score(given, embeddings, n, n_threads, out_score);
  });
}
