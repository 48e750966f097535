// The source of the board kernels. Each board_<level>.cpp defines KAD_BOARD_TABLE and KAD_LANES and
// includes this once. Lanes are independent pixels, multiplied and added without contraction: every
// level gives the same bits. Everything here has internal linkage, so no code for a newer processor
// can replace code of the same name elsewhere.

#include "board/board_kernels.hpp"

namespace kad {
namespace {

typedef float Vector __attribute__((vector_size(4 * KAD_LANES)));
constexpr int kVectors = kBlock / KAD_LANES;

struct Block {
  Vector part[kVectors];
};

inline Vector load(const float* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof(vector));
  return vector;
}

inline void store(const Block& block, float* to) {
  for (int i = 0; i < kVectors; ++i) {
    __builtin_memcpy(to + i * KAD_LANES, &block.part[i], sizeof(Vector));
  }
}

inline void add_scaled(const float* from, float weight, Block* sum) {
  for (int i = 0; i < kVectors; ++i) sum->part[i] += load(from + i * KAD_LANES) * weight;
}

void enlarge_row(const float* dist, const int32_t* first, const int32_t* count,
                 const int64_t* offset, const float* weights, int32_t n_blocks, float* out) {
  for (int32_t b = 0; b < n_blocks; ++b) {
    const float* block_weights = weights + offset[b];
    Block sum = {};
    for (int32_t j = 0; j < count[b]; ++j) {
      add_scaled(block_weights + j * kBlock, dist[first[b] + j], &sum);
    }
    store(sum, out + b * kBlock);
  }
}

inline void combine(const float* rows, int64_t stride, const float* weights, int32_t count,
                    Block* sum) {
  *sum = {};
  for (int32_t g = 0; g < count; ++g) add_scaled(rows + g * stride, weights[g], sum);
}

void add_row(const float* rows, int64_t stride, const float* weights, int32_t count, int32_t n,
             float* sum) {
  int32_t x = 0;
  for (; x + kBlock <= n; x += kBlock) {
    Block values;
    combine(rows + x, stride, weights, count, &values);
    for (int i = 0; i < kVectors; ++i) values.part[i] += load(sum + x + i * KAD_LANES);
    store(values, sum + x);
  }
  if (x == n) return;
  Block values;
  float tail[kBlock];
  combine(rows + x, stride, weights, count, &values);
  store(values, tail);
  for (int32_t i = 0; x + i < n; ++i) sum[x + i] += tail[i];
}

}  // namespace

const BoardKernels KAD_BOARD_TABLE = {enlarge_row, add_row};

}  // namespace kad
