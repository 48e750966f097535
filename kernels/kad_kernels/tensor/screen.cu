// All pairs of two sets of points, on tensor cores: the least squared distance in each group of 16.

#include "common.cuh"

namespace {

// Copies a tile (128 points) to shared memory; a row's 16-byte pieces change places by its number,
// so that ldmatrix meets no conflicts.
__device__ void fetch_points(unsigned to, const unsigned short *points, int thread) {
  const char *from = reinterpret_cast<const char *>(points);
#pragma unroll
  for (int i = 0; i < kTile * 16 / kThreads; i++) {
    const int at = i * kThreads + thread, row = at >> 4, piece = at & 15;
    copy_async(to + row * kRowBytes + ((piece ^ (row & 7)) << 4), from + at * 16);
  }
}

__device__ void fetch_tile(unsigned to, const unsigned short *bank, const float *norm2,
                           long long tile, int thread) {
  fetch_points(to, bank + tile * kTile * kPoint, thread);
  if (thread < kTile / 4) copy_async(to + kTileBytes + thread * 16, norm2 + tile * kTile + thread * 4);
}

__device__ unsigned piece_address(unsigned tile, int row, int piece) {
  return tile + row * kRowBytes + ((piece ^ (row & 7)) << 4);
}

}  // namespace

// queries, query_norm2, bank, bank_norm2: as project leaves them. A block takes 128 queries
// (blockIdx.x) and tiles_each of the bank's n_tiles tiles (blockIdx.y).
// least (n_tiles, padded queries, 8): the upper 16 bits of the least squared distance of a group.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
    screen(const unsigned short *queries, const float *query_norm2, long long padded_queries,
           const unsigned short *bank, const float *bank_norm2, int n_tiles, int tiles_each,
           unsigned short *least) {
  extern __shared__ __align__(128) char shared[];
  const unsigned base = shared_address(shared);
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int first_query = (warp & 3) * 32, first_row = (warp >> 2) * 64;
  const long long query = static_cast<long long>(blockIdx.x) * kTile;
  const int begin = blockIdx.y * tiles_each;
  const int count = min(tiles_each, n_tiles - begin);
  if (count <= 0) return;

  fetch_points(base, queries + query * kPoint, thread);
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  unsigned a[2][8][4];
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int k = 0; k < 8; k++)
      load_matrices(a[m][k],
                    piece_address(base, first_query + m * 16 + (lane & 15), 2 * k + (lane >> 4)));
  float norms[2][2];
#pragma unroll
  for (int m = 0; m < 2; m++)
    for (int h = 0; h < 2; h++)
      norms[m][h] = query_norm2[query + first_query + m * 16 + h * 8 + (lane >> 2)];
  __syncthreads();

#pragma unroll
  for (int stage = 0; stage < kStages - 1; stage++) {
    if (stage < count) fetch_tile(base + stage * kStageBytes, bank, bank_norm2, begin + stage, thread);
    commit_copies();
  }
  for (int i = 0; i < count; i++) {
    wait_for_copies<kStages - 2>();
    __syncthreads();
    const int next = i + kStages - 1;
    if (next < count)
      fetch_tile(base + next % kStages * kStageBytes, bank, bank_norm2, begin + next, thread);
    commit_copies();
    const unsigned tile = base + i % kStages * kStageBytes;
    float c[2][8][4] = {};
#pragma unroll
    for (int k = 0; k < 8; k++) {
      unsigned b[4][4];
#pragma unroll
      for (int two = 0; two < 4; two++)
        load_matrices(b[two], piece_address(tile, first_row + two * 16 + (lane & 7) + ((lane >> 4) << 3),
                                            2 * k + ((lane >> 3) & 1)));
#pragma unroll
      for (int two = 0; two < 4; two++)
#pragma unroll
        for (int m = 0; m < 2; m++) {
          multiply(c[m][2 * two], a[m][k], b[two][0], b[two][1]);
          multiply(c[m][2 * two + 1], a[m][k], b[two][2], b[two][3]);
        }
    }
    const float *tile_norms =
        reinterpret_cast<const float *>(shared + i % kStages * kStageBytes + kTileBytes);
    float kept[2][2] = {};
#pragma unroll
    for (int two = 0; two < 4; two++) {
      const float2 n0 = *reinterpret_cast<const float2 *>(tile_norms + first_row + two * 16 + (lane & 3) * 2);
      const float2 n1 =
          *reinterpret_cast<const float2 *>(tile_norms + first_row + two * 16 + 8 + (lane & 3) * 2);
#pragma unroll
      for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const float *c0 = c[m][2 * two] + 2 * h, *c1 = c[m][2 * two + 1] + 2 * h;
          float v = fminf(fminf(fmaf(-2, c0[0], n0.x), fmaf(-2, c0[1], n0.y)),
                          fminf(fmaf(-2, c1[0], n1.x), fmaf(-2, c1[1], n1.y)));
          v = fminf(v, __shfl_xor_sync(kAll, v, 1));
          v = fminf(v, __shfl_xor_sync(kAll, v, 2));
          if ((lane & 3) == two) kept[m][h] = v;
        }
    }
    unsigned short *to = least + ((begin + i) * padded_queries + query) * kGroups + first_row / kGroup;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float v = fmaxf(kept[m][h] + norms[m][h], 0.0f);
        const int at = first_query + m * 16 + h * 8 + (lane >> 2);
        to[at * kGroups + (lane & 3)] = static_cast<unsigned short>(__float_as_uint(v) >> 16);
      }
  }
}
