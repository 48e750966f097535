// Search kernels in plain C++: the baseline of every processor, and the model of the others.
#include <cmath>

#include "search/search_kernels.hpp"

namespace kad {
namespace {

constexpr int64_t kQueries = 4;
constexpr int64_t kRows = 8;
constexpr int64_t kColumns = 8;

void combine(const float* const* x, const float* w, int64_t n_sources, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = w[0] * x[0][i];
  for (int64_t t = 1; t < n_sources; ++t) {
    for (int64_t i = 0; i < n; ++i) out[i] += w[t] * x[t][i];
  }
}

float distance(const float* query, const float* row, int64_t dims) {
  float sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= dims; i += 16) {
    for (int64_t j = 0; j < 16; ++j) {
      const float difference = query[i + j] - row[i + j];
      sums[j] += difference * difference;
    }
  }
  for (int64_t j = 0; i + j < dims; ++j) {
    const float difference = query[i + j] - row[i + j];
    sums[j] += difference * difference;
  }
  for (int64_t half = 8; half >= 1; half /= 2) {
    for (int64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return std::sqrt(sums[0]);
}

void distances(const float* const* queries, const float* const* rows, int64_t n, int64_t dims,
               float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = distance(queries[i], rows[i], dims);
}

void pack(const float* rows, int64_t row_stride, int64_t n_rows, int64_t width, int64_t dims,
          const float* centre, float* out) {
  for (int64_t d = 0; d < dims; ++d) {
    const float offset = centre == nullptr ? 0.0F : centre[d];
    for (int64_t r = 0; r < n_rows; ++r) out[d * width + r] = rows[r * row_stride + d] - offset;
    for (int64_t r = n_rows; r < width; ++r) out[d * width + r] = 0.0F;
  }
}

void multiply_chain(const float* queries, int64_t query_stride, const float* panel,
                    int64_t panel_stride, int64_t dims, float* products) {
  float chain[kQueries * kRows] = {};
  for (int64_t d = 0; d < dims; ++d, queries += query_stride, panel += panel_stride) {
    for (int64_t q = 0; q < kQueries; ++q) {
      for (int64_t r = 0; r < kRows; ++r) chain[q * kRows + r] += queries[q] * panel[r];
    }
  }
  for (int64_t i = 0; i < kQueries * kRows; ++i) products[i] += chain[i];
}

void multiply_chains(const float* queries, int64_t query_stride, const float* panel,
                     int64_t panel_stride, int64_t dims, float* products) {
  for (int64_t d = 0; d < dims; d += kChainLength) {
    const int64_t length = dims - d < kChainLength ? dims - d : kChainLength;
    multiply_chain(queries + d * query_stride, query_stride, panel + d * panel_stride, panel_stride,
                   length, products);
  }
}

void screen(const float* queries, const float* panel, int64_t dims, const float* row_terms,
            const float* query_terms, uint64_t* masks) {
  float products[kQueries * kRows] = {};
  multiply_chains(queries, kQueries, panel, kRows, dims, products);
  for (int64_t q = 0; q < kQueries; ++q) {
    uint64_t mask = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      const bool excluded = products[q * kRows + r] < row_terms[r] + query_terms[q];
      mask |= static_cast<uint64_t>(!excluded) << r;
    }
    masks[q] = mask;
  }
}

double norm2(const float* values, const float* centre, int64_t n) {
  double sums[8] = {};
  for (int64_t i = 0; i < n; ++i) {
    const float difference = centre == nullptr ? values[i] : values[i] - centre[i];
    sums[i % 8] += static_cast<double>(difference) * static_cast<double>(difference);
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

void multiply(const float* queries, int64_t query_stride, const float* panel, int64_t panel_stride,
              int64_t dims, float* out, int64_t out_stride) {
  static_assert(kColumns == kRows, "multiply_chain makes kRows products of a query");
  float products[kQueries * kColumns] = {};
  multiply_chains(queries, query_stride, panel, panel_stride, dims, products);
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int64_t c = 0; c < kColumns; ++c) out[q * out_stride + c] = products[q * kColumns + c];
  }
}

}  // namespace

const SearchKernels kScalarSearchKernels = {kQueries,  kRows, kColumns, 0.2,   combine,
                                            distances, pack,  screen,   norm2, multiply};

}  // namespace kad
