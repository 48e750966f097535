// Common to the kernels of the tensor tier: formats, bounds, the defined arithmetic.
//
// Compiled by NVRTC, without the toolkit's headers, for sm_80 and later.

#pragma once

#include "instructions.cuh"

namespace {

constexpr int kPoint = 128;      // dimensions of a point: 127 directions, and the length of the rest
constexpr int kTile = 128;       // queries of a block, bank rows of a tile
constexpr int kGroup = 16;       // bank rows whose least distance is kept
constexpr int kGroups = kTile / kGroup;
constexpr int kThreads = 256;
constexpr int kStages = 3;       // tiles of the bank in shared memory
constexpr int kRowBytes = 2 * kPoint;
constexpr int kTileBytes = kTile * kRowBytes;
constexpr int kStageBytes = kTileBytes + kTile * 4;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kNobody = 0x7fffffff;
constexpr float kUlp = 1.0f / (1 << 23);
// A tensor core aligns 8 products and the sum so far, and cuts off: 9 errors below an ulp of the
// largest for 8 of K, twice as many for the 16 of an instruction.
constexpr float kStepError = 18 * kUlp;

__device__ float infinity() { return __int_as_float(0x7f800000); }

__device__ unsigned pair(unsigned short low, unsigned short high) {
  return static_cast<unsigned>(low) | static_cast<unsigned>(high) << 16;
}

// Inner product of eight pairs of halves, added to a sum.
__device__ float dot_of_eight(uint4 a, uint4 b, float sum) {
  const unsigned left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    sum = fmaf(from_half(left[i] & 0xffff), from_half(right[i] & 0xffff), sum);
    sum = fmaf(from_half(left[i] >> 16), from_half(right[i] >> 16), sum);
  }
  return sum;
}

// Distances of a query to kRows rows in each half of the warp, in the defined arithmetic: lane j of
// a half has partial sum j. kAhead groups of 16 dimensions are on their way at a time.
template <int kRows, int kAhead>
__device__ void measure(const float *query, const float *const (&row)[kRows], int dims, int lane,
                        float (&dist)[kRows]) {
  const int whole = dims & ~15;
  int dim = lane & 15;
#pragma unroll
  for (int r = 0; r < kRows; r++) dist[r] = 0;
  const auto add = [&](int r, float q, float b) {
    const float difference = __fsub_rn(q, b);
    dist[r] = __fadd_rn(dist[r], __fmul_rn(difference, difference));
  };
  for (; dim + 16 * (kAhead - 1) < whole; dim += 16 * kAhead) {
    float q[kAhead], b[kRows][kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      q[i] = __ldg(query + dim + 16 * i);
#pragma unroll
      for (int r = 0; r < kRows; r++) b[r][i] = __ldg(row[r] + dim + 16 * i);
    }
#pragma unroll
    for (int i = 0; i < kAhead; i++)
#pragma unroll
      for (int r = 0; r < kRows; r++) add(r, q[i], b[r][i]);
  }
  for (; dim < dims; dim += 16)
#pragma unroll
    for (int r = 0; r < kRows; r++) add(r, __ldg(query + dim), __ldg(row[r] + dim));
#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int half = 8; half > 0; half /= 2)
      dist[r] = __fadd_rn(dist[r], __shfl_down_sync(kAll, dist[r], half, 16));
    dist[r] = __fsqrt_rn(dist[r]);
  }
}

}  // namespace
