// The arithmetic of the search, one implementation for each level.
//
// Two kinds of kernel:
//   - defined arithmetic (`combine`, `distances`): the operations and their order are fixed, so the
//     results are bitwise the same at every level;
//   - screening arithmetic (the others): may differ in the last bits; its error is bounded in
//     index.hpp and sieve.hpp, and it only decides which rows need not be looked at.
//
// The files that implement this are compiled with instruction sets the processor may lack. They
// use nothing of the standard library that could be emitted as a shared inline function, and keep
// everything but their table in an unnamed namespace.
#pragma once

#include <cstdint>

#include "base/level.hpp"

namespace kad {

/// Steps after which `screen` closes a chain of additions and starts another one.
constexpr int64_t kChainLength = 256;

/// Largest panel_rows and tile_queries of any level; every `columns` divides 32.
constexpr int64_t kMaxPanelRows = 64;
constexpr int64_t kMaxTileQueries = 16;

struct SearchKernels {
  int64_t tile_queries;  // queries that `screen` takes at once
  int64_t panel_rows;    // bank rows that `screen` takes at once, at most 64
  int64_t columns;       // columns that `multiply` makes at once
  double dim_cost;       // of a dimension for one pair of a query and a row in `screen`, in cycles

  /// out[i] = w[0] * x[0][i], then + w[t] * x[t][i] for t = 1 .. n_sources - 1, i < n.
  void (*combine)(const float* const* x, const float* w, int64_t n_sources, int64_t n, float* out);

  /// out[i] = |queries[i] - rows[i]|: 16 partial sums s_j += (q_i - m_i)^2 for i = j mod 16 in
  /// rising i, multiply and add rounded one by one, then s_j += s_{j+8} (j < 8), s_j += s_{j+4} (j
  /// < 4), s_j += s_{j+2} (j < 2), s_0 += s_1, and the square root of s_0.
  void (*distances)(const float* const* queries, const float* const* rows, int64_t n, int64_t dims,
                    float* out);

  /// Interleave: out[d * width + r] = rows[r * row_stride + d] - centre[d] for r < n_rows and 0 for
  /// n_rows <= r < width. A NULL centre subtracts nothing.
  void (*pack)(const float* rows, int64_t row_stride, int64_t n_rows, int64_t width, int64_t dims,
               const float* centre, float* out);

  /// For every query q < tile_queries and row r < panel_rows, set bit r of masks[q] unless
  /// product(q, r) < row_terms[r] + query_terms[q]; a NaN sets it. queries is (dims, tile_queries)
  /// and panel (dims, panel_rows), as `pack` writes them.
  void (*screen)(const float* queries, const float* panel, int64_t dims, const float* row_terms,
                 const float* query_terms, uint64_t* masks);

  /// Sum of (values[i] - centre[i])^2, each difference rounded to float32; not finite when a value
  /// is not. A NULL centre subtracts nothing.
  double (*norm2)(const float* values, const float* centre, int64_t n);

  /// out[q * out_stride + c] = product(q, c) for q < tile_queries and c < columns, of
  /// queries[d * query_stride + q] and panel[d * panel_stride + c].
  void (*multiply)(const float* queries, int64_t query_stride, const float* panel,
                   int64_t panel_stride, int64_t dims, float* out, int64_t out_stride);
};

extern const SearchKernels kScalarSearchKernels;
#if KAD_X86_LEVELS
extern const SearchKernels kAvx2SearchKernels;
extern const SearchKernels kAvx512SearchKernels;
#endif

inline const SearchKernels& search_kernels(Level level) {
#if KAD_X86_LEVELS
  if (level >= Level::avx512) return kAvx512SearchKernels;
  if (level == Level::avx2) return kAvx2SearchKernels;
#endif
  (void)level;
  return kScalarSearchKernels;
}

}  // namespace kad
