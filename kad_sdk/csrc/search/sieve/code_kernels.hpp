// The arithmetic on the codes of a sieve (sieve.hpp), one implementation for each level. Products
// of codes are integers, so they are the same everywhere. The rules of search_kernels.hpp for the
// files that implement this hold here too.
#pragma once

#include <cstdint>

#include "base/level.hpp"

namespace kad {

/// Layout of narrow (8-bit) codes, the same at every level: groups of 4 dimensions (a step), and in
/// a step the 4 codes of a row after those of the row before it.
constexpr int64_t kCodeRows = 48;
constexpr int64_t kCodeQueries = 8;
constexpr int64_t kStepDims = 4;

/// Wide (16-bit) codes come in whole blocks of this many.
constexpr int64_t kWideBlock = 32;

/// Columns that `project` makes at once; it takes kCodeQueries vectors.
constexpr int64_t kProjectColumns = 32;

/// A tile of narrow codes: kCodeQueries queries against kCodeRows rows.
struct CodeTile {
  const uint8_t* rows;     // (steps, kCodeRows, kStepDims), code + 128
  const uint8_t* last;     // (kCodeRows, kStepDims), code + 128: one more step, stored elsewhere
  const int8_t* queries;   // (steps + 1, kCodeQueries, kStepDims)
  int64_t steps;           // without the last
  const float* row_terms;  // (kCodeRows,)
  const float* slopes;     // (kCodeQueries,)
  const float* limits;     // (kCodeQueries,)
};

/// What belongs to the wide codes of a vector.
struct WideVector {
  float scale;  // of one unit of code
  float norm2;  // squared norm of the coded vector
  float error;  // how far it may be from the true one
};

/// A query and the slot of a row.
struct CodePair {
  int32_t query;
  int32_t slot;
};

/// What is known of n codes c_i of values v_i.
struct Coded {
  float error2;    // sum of (v_i - scale c_i)^2, good to 2^-20 of itself and 2^-44 sum v_i^2
  int32_t sum;     // of c_i
  uint32_t norm2;  // sum of c_i^2
};

struct CodeKernels {
  double step_cost;  // of a step for one pair of a query and a row in `match`, in cycles

  /// For every query q and row r set bit r of masks[q] when the integer product of their codes (the
  /// row's raised by 128) is at least slopes[q] * row_terms[r] + limits[q].
  void (*match)(const CodeTile& tile, uint64_t* masks);

  /// products[i] = integer product of the wide codes of pair i; queries (n, width) and rows (slots,
  /// width). Every partial sum must fit 32 bits.
  void (*pair_products)(const int16_t* queries, const int16_t* rows, const CodePair* pairs,
                        int64_t n, int64_t width, int32_t* products);

  /// out[v * out_stride + c] = integer product of vector v < kCodeQueries and column c <
  /// kProjectColumns. vectors is (pairs, kCodeQueries, 2) and columns (pairs, kProjectColumns, 2).
  /// Every partial sum must fit 32 bits.
  void (*project)(const int16_t* vectors, const int16_t* columns, int64_t pairs, int32_t* out,
                  int64_t out_stride);

  /// Codes of values / scale, cut off at 127 and 32767. |values| / scale must stay below 2^22.
  Coded (*encode_narrow)(const float* values, int64_t n, float scale, int8_t* codes);
  Coded (*encode_wide)(const float* values, int64_t n, float scale, int16_t* codes);

  float (*largest_magnitude)(const float* values, int64_t n);
};

extern const CodeKernels kScalarCodeKernels;
#if KAD_X86_LEVELS
extern const CodeKernels kAvx2CodeKernels;
extern const CodeKernels kAvx512CodeKernels;
extern const CodeKernels kAvx512VnniCodeKernels;
#endif

inline const CodeKernels& code_kernels(Level level) {
#if KAD_X86_LEVELS
  if (level == Level::avx512vnni) return kAvx512VnniCodeKernels;
  if (level == Level::avx512) return kAvx512CodeKernels;
  if (level == Level::avx2) return kAvx2CodeKernels;
#endif
  (void)level;
  return kScalarCodeKernels;
}

}  // namespace kad
