// Search kernels for AVX2 and FMA.
#include "search/search_kernels.hpp"
#include "search/search_transpose.hpp"

namespace kad {
namespace {

constexpr int64_t kQueries = 4;
constexpr int kVectors = 3;  // of 8 rows
constexpr int64_t kRows = 8 * kVectors;
constexpr int64_t kColumns = 16;

void combine(const float* const* x, const float* w, int64_t n_sources, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256 sum = _mm256_mul_ps(_mm256_set1_ps(w[0]), _mm256_loadu_ps(x[0] + i));
    for (int64_t t = 1; t < n_sources; ++t) {
      sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_set1_ps(w[t]), _mm256_loadu_ps(x[t] + i)));
    }
    _mm256_storeu_ps(out + i, sum);
  }
  for (; i < n; ++i) {
    float sum = w[0] * x[0][i];
    for (int64_t t = 1; t < n_sources; ++t) sum += w[t] * x[t][i];
    out[i] = sum;
  }
}

// Lanes below n are ones, the others zero.
__m256i lanes_below(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}

__m256 squared_difference(__m256 query, __m256 row) {
  const __m256 difference = _mm256_sub_ps(query, row);
  return _mm256_mul_ps(difference, difference);
}

// The tree of the defined arithmetic over lanes 0-7 (low) and 8-15 (high), and the root.
float finish_distance(__m256 low, __m256 high) {
  const __m256 sums_8 = _mm256_add_ps(low, high);
  const __m128 sums_4 =
      _mm_add_ps(_mm256_castps256_ps128(sums_8), _mm256_extractf128_ps(sums_8, 1));
  const __m128 sums_2 = _mm_add_ps(sums_4, _mm_movehl_ps(sums_4, sums_4));
  const __m128 sum = _mm_add_ss(sums_2, _mm_shuffle_ps(sums_2, sums_2, 1));
  return _mm_cvtss_f32(_mm_sqrt_ss(sum));
}

// n distances at once, so that their chains of additions run side by side.
template <int n>
void distances_of(const float* const* queries, const float* const* rows, int64_t dims, float* out) {
  __m256 low[n], high[n];
  for (int p = 0; p < n; ++p) low[p] = high[p] = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 16 <= dims; i += 16) {
    for (int p = 0; p < n; ++p) {
      const float *query = queries[p] + i, *row = rows[p] + i;
      low[p] =
          _mm256_add_ps(low[p], squared_difference(_mm256_loadu_ps(query), _mm256_loadu_ps(row)));
      high[p] = _mm256_add_ps(
          high[p], squared_difference(_mm256_loadu_ps(query + 8), _mm256_loadu_ps(row + 8)));
    }
  }
  if (i < dims) {
    const __m256i mask_low = lanes_below(dims - i), mask_high = lanes_below(dims - i - 8);
    const int64_t high_at = dims - i > 8 ? i + 8 : i;  // stay inside the arrays
    for (int p = 0; p < n; ++p) {
      low[p] =
          _mm256_add_ps(low[p], squared_difference(_mm256_maskload_ps(queries[p] + i, mask_low),
                                                   _mm256_maskload_ps(rows[p] + i, mask_low)));
      high[p] = _mm256_add_ps(
          high[p], squared_difference(_mm256_maskload_ps(queries[p] + high_at, mask_high),
                                      _mm256_maskload_ps(rows[p] + high_at, mask_high)));
    }
  }
  for (int p = 0; p < n; ++p) out[p] = finish_distance(low[p], high[p]);
}

void distances(const float* const* queries, const float* const* rows, int64_t n, int64_t dims,
               float* out) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) distances_of<4>(queries + i, rows + i, dims, out + i);
  if (i + 2 <= n) {
    distances_of<2>(queries + i, rows + i, dims, out + i);
    i += 2;
  }
  if (i < n) distances_of<1>(queries + i, rows + i, dims, out + i);
}

// One chain of at most kChainLength fused multiply-adds for each product of 4 queries and
// 8 * vectors rows.
template <int vectors>
inline __attribute__((always_inline)) void multiply_chain(const float* queries,
                                                          int64_t query_stride, const float* panel,
                                                          int64_t panel_stride, int64_t dims,
                                                          __m256 products[kQueries][vectors]) {
  __m256 chain[kQueries][vectors];
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int v = 0; v < vectors; ++v) chain[q][v] = _mm256_setzero_ps();
  }
  for (int64_t d = 0; d < dims; ++d, queries += query_stride, panel += panel_stride) {
    __m256 rows[vectors];
    for (int v = 0; v < vectors; ++v) rows[v] = _mm256_loadu_ps(panel + 8 * v);
    for (int64_t q = 0; q < kQueries; ++q) {
      const __m256 value = _mm256_broadcast_ss(queries + q);
      for (int v = 0; v < vectors; ++v) chain[q][v] = _mm256_fmadd_ps(value, rows[v], chain[q][v]);
    }
  }
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int v = 0; v < vectors; ++v) products[q][v] = _mm256_add_ps(products[q][v], chain[q][v]);
  }
}

template <int vectors>
inline __attribute__((always_inline)) void multiply_chains(const float* queries,
                                                           int64_t query_stride, const float* panel,
                                                           int64_t panel_stride, int64_t dims,
                                                           __m256 products[kQueries][vectors]) {
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int v = 0; v < vectors; ++v) products[q][v] = _mm256_setzero_ps();
  }
  for (int64_t d = 0; d < dims; d += kChainLength) {
    const int64_t length = dims - d < kChainLength ? dims - d : kChainLength;
    multiply_chain<vectors>(queries + d * query_stride, query_stride, panel + d * panel_stride,
                            panel_stride, length, products);
  }
}

void screen(const float* queries, const float* panel, int64_t dims, const float* row_terms,
            const float* query_terms, uint64_t* masks) {
  __m256 products[kQueries][kVectors];
  multiply_chains<kVectors>(queries, kQueries, panel, kRows, dims, products);
  for (int64_t q = 0; q < kQueries; ++q) {
    uint64_t mask = 0;
    for (int v = 0; v < kVectors; ++v) {
      const __m256 limit =
          _mm256_add_ps(_mm256_loadu_ps(row_terms + 8 * v), _mm256_set1_ps(query_terms[q]));
      const __m256 kept = _mm256_cmp_ps(products[q][v], limit, _CMP_NLT_UQ);
      mask |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_ps(kept))) << (8 * v);
    }
    masks[q] = mask;
  }
}

void multiply(const float* queries, int64_t query_stride, const float* panel, int64_t panel_stride,
              int64_t dims, float* out, int64_t out_stride) {
  __m256 products[kQueries][kColumns / 8];
  multiply_chains<kColumns / 8>(queries, query_stride, panel, panel_stride, dims, products);
  for (int64_t q = 0; q < kQueries; ++q) {
    for (int64_t v = 0; v < kColumns / 8; ++v) {
      _mm256_storeu_ps(out + q * out_stride + 8 * v, products[q][v]);
    }
  }
}

double norm2(const float* values, const float* centre, int64_t n) {
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  for (int64_t i = 0; i < n; i += 8) {
    const __m256i lanes = lanes_below(n - i < 8 ? n - i : 8);
    __m256 difference = _mm256_maskload_ps(values + i, lanes);
    if (centre != nullptr) {
      difference = _mm256_sub_ps(difference, _mm256_maskload_ps(centre + i, lanes));
    }
    const __m256d first = _mm256_cvtps_pd(_mm256_castps256_ps128(difference));
    const __m256d second = _mm256_cvtps_pd(_mm256_extractf128_ps(difference, 1));
    low = _mm256_fmadd_pd(first, first, low);
    high = _mm256_fmadd_pd(second, second, high);
  }
  double sums[4];
  _mm256_storeu_pd(sums, _mm256_add_pd(low, high));
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

const SearchKernels kAvx2SearchKernels = {kQueries,  kRows, kColumns, 1.0 / 16.0, combine,
                                          distances, pack,  screen,   norm2,      multiply};

}  // namespace kad
