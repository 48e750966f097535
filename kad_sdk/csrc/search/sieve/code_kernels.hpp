// The arithmetic on the codes of a sieve (sieve.hpp), one implementation for each level. The rules
// of search_kernels.hpp for the files that implement this hold here too.
//
// Products of narrow codes are taken modulo 2^16 or 2^32: what they are compared with lies in a
// window that is narrower than that, so a row that must come through is never lost, and another one
// may come through by accident.
#pragma once

#include <cstdint>

#include "base/level.hpp"

namespace kad {

/// Rows of a panel of narrow codes.
constexpr int64_t kCodeRows = 32;

/// Narrow codes of a row are at most this, and are stored raised by kRaise.
constexpr int32_t kRowCode = 126;
constexpr int32_t kRaise = 128;

/// Narrow codes are compared at depths that are multiples of this, of every level's step_dims.
constexpr int64_t kDepthStep = 4;

/// Vectors of codes that `products` and `match` take together.
constexpr int64_t kCodeTile = 4;

/// Wide (16-bit) codes come in whole blocks of this many.
constexpr int64_t kWideBlock = 32;

/// Products of positions that are mixed are stored raised by this.
constexpr int32_t kMixRaise = 32768;

/// Narrow codes of a panel's rows up to a depth, in two pieces: (steps, kCodeRows, step_dims) each.
struct PanelCodes {
  const uint8_t* piece[2];
  int64_t steps[2];
};

/// A row comes through to a query when z = product - term is at least `limit`. What comes through
/// is at most `limit + span`, so modulo 2^16 it is told apart by (z - base) > top.
struct MatchLimit {
  int32_t limit;
  int16_t base;  // of limit + span - 32767
  int16_t top;   // 32766 - span
};

/// Where nothing can be claimed; kernels let by accident through it what they will.
constexpr MatchLimit kNoLimit = {INT32_MIN, 0, INT16_MAX};

/// A comparison of a panel with a row of queries.
struct MatchTask {
  PanelCodes rows;
  const int8_t* queries;  // (tiles, steps of both pieces, kCodeTile, step_dims)
  const int32_t* terms;   // (kCodeRows,)
  const MatchLimit* limits;
  int64_t n;  // a multiple of kCodeTile

  // Products that are mixed from those of positions and added; NULL for none.
  const uint16_t* mixed;  // (positions, kCodeRows), raised by kMixRaise
  const int32_t* near;    // (n,) positions
  const int32_t* far;
  bool half;  // mix halves, or three parts of near with one of far
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
  int64_t step_dims;   // dimensions of a row whose codes lie side by side
  int32_t query_code;  // largest magnitude of a query's narrow code
  int32_t query_bits;  // by how much its unit is coarser than the rows', as a power of two
  double dim_cost;     // of a dimension for one pair of a query and a row in `match`, in cycles

  /// out[v * kCodeRows + r] = starts[v] + product of vector v and row r, modulo 2^16, for n
  /// vectors, a multiple of kCodeTile.
  void (*products)(const PanelCodes& rows, const int8_t* vectors, const int16_t* starts, int64_t n,
                   uint16_t* out);

  /// out = mixes of near and far (n,): (near + far) / 2, or (3 near + far) / 4, rounded up by less
  /// than 1.
  void (*mix)(const uint16_t* near, const uint16_t* far, bool half, int64_t n, uint16_t* out);

  /// Set bit r of masks[q] when row r comes through to query q.
  void (*match)(const MatchTask& task, uint32_t* masks);

  /// For every vector and row of the panel: keep products - terms, modulo 2^16 and as a signed
  /// number, where it exceeds best (n, kCodeRows), and the panel's number with it.
  void (*keep_best)(const uint16_t* products, const int32_t* terms, int64_t n, uint16_t panel,
                    int16_t* best, uint16_t* panels);

  /// Write a pair of queries[i] and first_slot + r for every bit r of masks[i] that is `present`,
  /// where queries[i] is not negative; the end of what was written. `out` has room for 4 more.
  CodePair* (*collect)(const uint32_t* masks, const int32_t* queries, int64_t n, uint32_t present,
                       int32_t first_slot, CodePair* out);

  /// products[i] = integer product of the wide codes of pair i; queries (n, width) and rows (slots,
  /// width). Every partial sum must fit 32 bits.
  void (*pair_products)(const int16_t* queries, const int16_t* rows, const CodePair* pairs,
                        int64_t n, int64_t width, int32_t* products);

  /// Codes of values / scale, cut off at `largest` and at 32767. |values| / scale must stay below
  /// 2^22.
  Coded (*encode_narrow)(const float* values, int64_t n, float scale, int32_t largest,
                         int8_t* codes);
  Coded (*encode_wide)(const float* values, int64_t n, float scale, int16_t* codes);

  /// The same figures of codes that are given, multiples of 1/16 up to 127, n <= 256. norm2 is that
  /// of 16 times the codes.
  Coded (*compare_codes)(const float* values, const float* codes, int64_t n, float scale);

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
