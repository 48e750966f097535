// The two inner loops of the board stage, once per instruction-set level with equal arithmetic.
//
// Plain pointers and fixed-width integers only: the files that implement this are compiled for
// newer processors, and must not emit a standard-library function that others could link to.
#pragma once

#include <cstdint>

#include "base/level.hpp"

namespace kad {

/// Pixels that the kernels handle at a time; buffers they write are padded to a multiple of it.
constexpr int32_t kBlock = 16;

struct BoardKernels {
  /// One grid row of distances to one enlarged row: out[x] = sum_j w[j][x] * dist[j], j rising, for
  /// n_blocks blocks of kBlock pixels, with AxisMatrix's block layout.
  void (*enlarge_row)(const float* dist, const int32_t* first, const int32_t* count,
                      const int64_t* offset, const float* weights, int32_t n_blocks, float* out);

  /// One pixel row of a tile map, added to the board: sum[x] += sum_g w[g] * rows[g][x], g rising,
  /// for x in [0, n); rows has `stride` floats a row, a multiple of kBlock and at least n.
  void (*add_row)(const float* rows, int64_t stride, const float* weights, int32_t count, int32_t n,
                  float* sum);
};

extern const BoardKernels kBoardScalar;
extern const BoardKernels kBoardAvx2;
extern const BoardKernels kBoardAvx512;

inline const BoardKernels& board_kernels() {
#if KAD_X86_LEVELS
  if (current_level() >= Level::avx512) return kBoardAvx512;
  if (current_level() == Level::avx2) return kBoardAvx2;
#endif
  return kBoardScalar;
}

}  // namespace kad
