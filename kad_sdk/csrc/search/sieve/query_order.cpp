#include "search/sieve/query_order.hpp"

#include <algorithm>

namespace kad {
namespace {

constexpr int64_t kLeastRow = 8;
constexpr int64_t kMostRow = 160;
constexpr int64_t kSamples = 16;
constexpr int64_t kComparedDims = 32;   // of the leading coordinates
constexpr double kLikeness = 0.8;       // of the mean distance: what counts as alike
constexpr int64_t kRowSpacing = 64;     // of the first round's queries in a single row
constexpr int64_t kLatticeSpacing = 8;  // and in several

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

}  // namespace

int64_t row_length(const float* coordinates, int64_t n, int64_t width) {
  const int64_t most = std::min(kMostRow, n / 4);
  int64_t best = n;
  double least = 0.0, sum = 0.0;
  for (int64_t apart = kLeastRow; apart <= most; ++apart) {
    const double distance = mean_distance2(coordinates, n, width, apart);
    if (best == n || distance < least) {
      least = distance;
      best = apart;
    }
    sum += distance;
  }
  if (best == n) return n;
  return least < kLikeness * sum / static_cast<double>(most - kLeastRow + 1) ? best : n;
}

std::vector<QueryRound> query_rounds(int64_t n, int64_t row_length) {
  const int64_t first = row_length < n ? kLatticeSpacing : kRowSpacing;
  std::vector<QueryRound> rounds(1);
  for (int64_t s = first / 2; s > 0; s /= 2) {
    const int64_t down = row_length < n ? s * row_length : 0;
    rounds.push_back({{}, {-down - s, -down + s, down - s, down + s}});
    rounds.push_back({{}, {-s, s, -down, down}});
  }
  for (int64_t q = 0; q < n; ++q) {
    const int64_t x = q % row_length, y = q / row_length;
    const int64_t both = x | y | first;
    const int64_t s = both & -both;  // the largest power of two that divides both, up to `first`
    const bool centre = (x & s) != 0 && (y & s) != 0;
    size_t round = 0;
    for (int64_t spacing = first; spacing > s; spacing /= 2) round += 2;
    if (s < first) round -= centre ? 1 : 0;
    rounds[round].queries.push_back(static_cast<int32_t>(q));
  }
  return rounds;
}

}  // namespace kad
