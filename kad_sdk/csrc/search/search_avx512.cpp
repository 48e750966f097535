// Search kernels for AVX-512 (F, BW, DQ, VL).
#include "search/search_kernels.hpp"
#include "search/search_transpose.hpp"

namespace kad {
namespace {

constexpr int64_t kQueries = 8;
constexpr int kVectors = 3;  // of 16 rows
constexpr int64_t kRows = 16 * kVectors;
constexpr int64_t kColumns = 32;

// Lanes below n, for 0 < n <= 16.
__mmask16 lanes_below(int64_t n) { return static_cast<__mmask16>(0xFFFFu >> (16 - n)); }

void combine(const float* const* x, const float* w, int64_t n_sources, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_below(n - i < 16 ? n - i : 16);
    __m512 sum = _mm512_mul_ps(_mm512_set1_ps(w[0]), _mm512_maskz_loadu_ps(lanes, x[0] + i));
    for (int64_t t = 1; t < n_sources; ++t) {
      const __m512 value = _mm512_maskz_loadu_ps(lanes, x[t] + i);
      sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_set1_ps(w[t]), value));
    }
    _mm512_mask_storeu_ps(out + i, lanes, sum);
  }
}

__m512 squared_difference(__m512 query, __m512 row) {
  const __m512 difference = _mm512_sub_ps(query, row);
  return _mm512_mul_ps(difference, difference);
}

// The tree of the defined arithmetic, and the root.
float finish_distance(__m512 sums) {
  const __m256 sums_8 =
      _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps(sums, 1));
  const __m128 sums_4 =
      _mm_add_ps(_mm256_castps256_ps128(sums_8), _mm256_extractf128_ps(sums_8, 1));
  const __m128 sums_2 = _mm_add_ps(sums_4, _mm_movehl_ps(sums_4, sums_4));
  const __m128 sum = _mm_add_ss(sums_2, _mm_shuffle_ps(sums_2, sums_2, 1));
  return _mm_cvtss_f32(_mm_sqrt_ss(sum));
}

// n distances at once, so that their chains of additions run side by side.
template <int n>
void distances_of(const float* const* queries, const float* const* rows, int64_t dims, float* out) {
  __m512 sums[n];
  for (int p = 0; p < n; ++p) sums[p] = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 16 <= dims; i += 16) {
    for (int p = 0; p < n; ++p) {
      const __m512 query = _mm512_loadu_ps(queries[p] + i);
      const __m512 row = _mm512_loadu_ps(rows[p] + i);
      sums[p] = _mm512_add_ps(sums[p], squared_difference(query, row));
    }
  }
  if (i < dims) {
    const __mmask16 lanes = lanes_below(dims - i);
    for (int p = 0; p < n; ++p) {
      const __m512 query = _mm512_maskz_loadu_ps(lanes, queries[p] + i);
      const __m512 row = _mm512_maskz_loadu_ps(lanes, rows[p] + i);
      sums[p] = _mm512_add_ps(sums[p], squared_difference(query, row));
    }
  }
  for (int p = 0; p < n; ++p) out[p] = finish_distance(sums[p]);
}

void distances(const float* const* queries, const float* const* rows, int64_t n, int64_t dims,
               float* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) distances_of<8>(queries + i, rows + i, dims, out + i);
  if (i + 4 <= n) {
    distances_of<4>(queries + i, rows + i, dims, out + i);
    i += 4;
  }
  if (i + 2 <= n) {
    distances_of<2>(queries + i, rows + i, dims, out + i);
    i += 2;
  }
  if (i < n) distances_of<1>(queries + i, rows + i, dims, out + i);
}

// One chain of at most kChainLength fused multiply-adds for each product of 8 queries and
// 16 * vectors rows.
template <int vectors>
inline __attribute__((always_inline)) void multiply_chain(const float* queries,
                                                          int64_t query_stride, const float* panel,
                                                          int64_t panel_stride, int64_t dims,
                                                          __m512 chain[kQueries][vectors]) {
#pragma GCC unroll 8
  for (int64_t q = 0; q < kQueries; ++q) {
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) chain[q][v] = _mm512_setzero_ps();
  }
  for (int64_t d = 0; d < dims; ++d, queries += query_stride, panel += panel_stride) {
    __m512 rows[vectors];
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) rows[v] = _mm512_loadu_ps(panel + 16 * v);
#pragma GCC unroll 8
    for (int64_t q = 0; q < kQueries; ++q) {
      const __m512 value = _mm512_set1_ps(queries[q]);
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) chain[q][v] = _mm512_fmadd_ps(value, rows[v], chain[q][v]);
    }
  }
}

// The sums of all chains, left in `chain`.
template <int vectors>
inline __attribute__((always_inline)) void multiply_chains(const float* queries,
                                                           int64_t query_stride, const float* panel,
                                                           int64_t panel_stride, int64_t dims,
                                                           __m512 chain[kQueries][vectors]) {
  alignas(64) float sums[kQueries * 16 * vectors];
  for (int64_t d = 0; d < dims; d += kChainLength) {
    const int64_t length = dims - d < kChainLength ? dims - d : kChainLength;
    multiply_chain<vectors>(queries + d * query_stride, query_stride, panel + d * panel_stride,
                            panel_stride, length, chain);
    const bool last = d + length == dims;
#pragma GCC unroll 8
    for (int64_t q = 0; q < kQueries; ++q) {
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) {
        float* sum = sums + (q * vectors + v) * 16;
        if (d > 0) chain[q][v] = _mm512_add_ps(chain[q][v], _mm512_load_ps(sum));
        if (!last) _mm512_store_ps(sum, chain[q][v]);
      }
    }
  }
}

void screen(const float* queries, const float* panel, int64_t dims, const float* row_terms,
            const float* query_terms, uint64_t* masks) {
  __m512 products[kQueries][kVectors];
  multiply_chains<kVectors>(queries, kQueries, panel, kRows, dims, products);
#pragma GCC unroll 8
  for (int64_t q = 0; q < kQueries; ++q) {
    const __m512 query_term = _mm512_set1_ps(query_terms[q]);
    uint64_t mask = 0;
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      const __m512 limit = _mm512_add_ps(_mm512_loadu_ps(row_terms + 16 * v), query_term);
      const __mmask16 kept = _mm512_cmp_ps_mask(products[q][v], limit, _CMP_NLT_UQ);
      mask |= static_cast<uint64_t>(kept) << (16 * v);
    }
    masks[q] = mask;
  }
}

void multiply(const float* queries, int64_t query_stride, const float* panel, int64_t panel_stride,
              int64_t dims, float* out, int64_t out_stride) {
  __m512 products[kQueries][kColumns / 16];
  multiply_chains<kColumns / 16>(queries, query_stride, panel, panel_stride, dims, products);
#pragma GCC unroll 8
  for (int64_t q = 0; q < kQueries; ++q) {
#pragma GCC unroll 2
    for (int v = 0; v < kColumns / 16; ++v) {
      _mm512_storeu_ps(out + q * out_stride + 16 * v, products[q][v]);
    }
  }
}

double norm2(const float* values, const float* centre, int64_t n) {
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes_below(n - i < 16 ? n - i : 16);
    __m512 difference = _mm512_maskz_loadu_ps(lanes, values + i);
    if (centre != nullptr) {
      difference = _mm512_sub_ps(difference, _mm512_maskz_loadu_ps(lanes, centre + i));
    }
    const __m512d first = _mm512_cvtps_pd(_mm512_castps512_ps256(difference));
    const __m512d second = _mm512_cvtps_pd(_mm512_extractf32x8_ps(difference, 1));
    low = _mm512_fmadd_pd(first, first, low);
    high = _mm512_fmadd_pd(second, second, high);
  }
  return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

}  // namespace

const SearchKernels kAvx512SearchKernels = {kQueries,  kRows, kColumns, 1.0 / 32.0, combine,
                                            distances, pack,  screen,   norm2,      multiply};

}  // namespace kad
