// The source of the board kernels. Each board_<level>.cpp defines KAD_BOARD_TABLE and KAD_LANES and
// includes this once. Lanes are independent pixels, multiplied and added without contraction: every
// level gives the same bits. Everything here has internal linkage, so no code for a newer processor
// can replace code of the same name elsewhere.

#include "board_kernels.hpp"

namespace kad {
namespace {

typedef float Vector __attribute__((vector_size(4 * KAD_LANES)));
constexpr int kVectors = kBlock / KAD_LANES;

struct Block {
  Vector part[kVectors];
};

inline void load(const float* from, Block* block) {
  __builtin_memcpy(block, from, sizeof(Block));
}

inline void store(const Block& block, float* to) { __builtin_memcpy(to, &block, sizeof(Block)); }

inline void add_scaled(const float* from, float weight, Block* sum) {
  Block values;
  load(from, &values);
  for (int i = 0; i < kVectors; ++i) sum->part[i] += values.part[i] * weight;
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
    Block total;
    combine(rows + x, stride, weights, count, &values);
    load(sum + x, &total);
    for (int i = 0; i < kVectors; ++i) total.part[i] += values.part[i];
    store(total, sum + x);
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
