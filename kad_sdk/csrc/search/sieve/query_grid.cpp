#include "search/sieve/query_grid.hpp"

#include <algorithm>

namespace kad {
namespace {

constexpr int64_t kLeastRow = 8;
constexpr int64_t kMostRow = 160;
constexpr int64_t kSamples = 16;
constexpr int64_t kComparedDims = 32;  // of the leading coordinates
constexpr double kLikeness = 0.8;      // of the mean distance: what counts as alike
constexpr int64_t kFewest = 32;        // of which nothing can be said

double distance2(const float* a, const float* b, int64_t n) {
  float lanes[4] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % 4] += (a[i] - b[i]) * (a[i] - b[i]);
  return static_cast<double>((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
}

double mean_distance2(const float* coordinates, int64_t n, int64_t width, int64_t apart) {
  const int64_t dims = std::min(width, kComparedDims);
  double sum = 0.0;
  for (int64_t i = 0; i < kSamples; ++i) {
    const float* query = coordinates + i * (n - apart) / kSamples * width;
    sum += distance2(query, query + apart * width, dims);
  }
  return sum / kSamples;
}

// Distances between queries of a row and the next, for rows of every length: the least, where it
// is; and the mean.
struct Likeness {
  double least = 0.0;
  double mean = 0.0;
  int64_t apart = 0;
};

Likeness most_alike(const float* coordinates, int64_t n, int64_t width) {
  const int64_t most = std::min(kMostRow, n / 4);
  Likeness found;
  for (int64_t apart = kLeastRow; apart <= most; ++apart) {
    const double distance = mean_distance2(coordinates, n, width, apart);
    if (found.apart == 0 || distance < found.least) {
      found.least = distance;
      found.apart = apart;
    }
    found.mean += distance / static_cast<double>(most - kLeastRow + 1);
  }
  return found;
}

}  // namespace

QueryGrid find_grid(const float* coordinates, int64_t n, int64_t width) {
  if (n < kFewest) return {n, 1, 1};
  const Likeness rows = most_alike(coordinates, n, width);
  if (mean_distance2(coordinates, n, width, 1) >= kLikeness * rows.mean) return {n, 1, 1};
  if (rows.least >= kLikeness * rows.mean) return {n, 1, 2};
  return {rows.apart, (n + rows.apart - 1) / rows.apart, 2};
}

}  // namespace kad
