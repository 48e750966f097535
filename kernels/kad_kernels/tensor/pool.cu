// Greedy k-center among the points of a pool, all steps in one launch: every block keeps its share
// of the points in shared memory, and the blocks meet after every step.

#include "common.cuh"

namespace {

constexpr int kPoolThreads = 512;
constexpr int kNoCentre = -1;
constexpr float kTaken = -1;  // distance of a centre: it is never chosen again

// A distance and a row as a number that is larger for what is chosen first; 0 for a centre.
__device__ unsigned long long rank(float dist, int row) {
  if (!(dist >= 0)) return 0;
  return static_cast<unsigned long long>(__float_as_uint(dist)) << 32 | (kAll - row);
}

__device__ unsigned long long larger(unsigned long long a, unsigned long long b) { return a > b ? a : b; }

// Waits until all blocks have come here `times` times.
__device__ void meet(unsigned *arrived, unsigned times) {
  __threadfence();
  atomicAdd(arrived, 1);
  while (load_acquire(arrived) < times * gridDim.x) {
  }
}

}  // namespace

// rows (n, dims); point, norm2, slack: as project leaves them; dist (n,): changed in place.
// last: the centre chosen last, or kNoCentre. The selection stops before a point that is not
// farther than outside_dist, or as far and from outside_row on. best (wanted,), arrived (1,) and
// counts (2,): zeros. picked_row, picked_dist (wanted,): filled from the front; n_picked (1,).
// A block has `each` of the rows. Launched so that all blocks run at the same time.
extern "C" __global__ void __launch_bounds__(kPoolThreads, 1)
    pick(const float *rows, int n, int dims, const unsigned short *point, const float *norm2,
         const float *slack, float longest, float scale, float relative, float absolute, int each,
         float *dist, int last, float outside_dist, int outside_row, int wanted,
         unsigned long long *best, unsigned *arrived, int *picked_row, float *picked_dist,
         int *n_picked, unsigned long long *counts) {
  extern __shared__ __align__(128) char shared[];
  uint4 *points = reinterpret_cast<uint4 *>(shared);  // (each, 16)
  float *norms = reinterpret_cast<float *>(points + each * 16);
  float *slacks = norms + each, *dists = slacks + each;
  int *due = reinterpret_cast<int *>(dists + each);
  __shared__ unsigned long long ranks[kPoolThreads / 32];
  __shared__ int n_due;
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, quarter = thread & 3;
  const int first = blockIdx.x * each, own = max(0, min(each, n - first));
  const uint4 *all = reinterpret_cast<const uint4 *>(point);

  for (int i = thread; i < own * 16; i += kPoolThreads) {
    const int row = i >> 4, piece = i & 15;
    points[row * 16 + (piece ^ ((row & 1) << 2))] = all[(static_cast<long long>(first) + row) * 16 + piece];
  }
  for (int i = thread; i < own; i += kPoolThreads)
    norms[i] = norm2[first + i], slacks[i] = slack[first + i], dists[i] = dist[first + i];
  unsigned long long measured = 0;
  int centre = last, step = 0;
  if (thread == 0) n_due = 0;
  __syncthreads();

  for (;; step++) {
    if (centre != kNoCentre) {
      uint4 mine[4];
      for (int i = 0; i < 4; i++) mine[i] = __ldg(all + static_cast<long long>(centre) * 16 + i * 4 + quarter);
      const float centre_norm2 = norm2[centre], centre_slack = slack[centre];
      const float error = 16 * kStepError * sqrtf(centre_norm2) * longest +
                          64 * kUlp * (centre_norm2 + longest * longest);
      if (thread == 0 && centre >= first && centre < first + own) dists[centre - first] = kTaken;
      __syncthreads();
      for (int start = 0; start < own; start += kPoolThreads / 4) {
        const int row = start + (thread >> 2);
        float dot = 0;
        if (row < own)
          for (int i = 0; i < 4; i++) {
            const uint4 theirs = points[row * 16 + ((i * 4 + quarter) ^ ((row & 1) << 2))];
            dot = dot_of_eight(mine[i], theirs, dot);
          }
        dot += __shfl_xor_sync(kAll, dot, 1);
        dot += __shfl_xor_sync(kAll, dot, 2);
        if (row < own && quarter == 0 && dists[row] > 0) {
          const float most = (dists[row] + absolute) * scale * (1 + relative) + slacks[row] + centre_slack;
          const float apart2 = norms[row] + centre_norm2 - 2 * dot;
          if (!(apart2 > most * most * (1 + 16 * kUlp) + error)) due[atomicAdd(&n_due, 1)] = row;
        }
      }
      __syncthreads();
      const int n_now = n_due;
      for (int i = 2 * warp; i < n_now; i += kPoolThreads / 16) {
        const int row = due[min(i + (lane >> 4), n_now - 1)];
        const float *const theirs[1] = {rows + (static_cast<long long>(first) + row) * dims};
        float d[1];
        measure<1, 24>(rows + static_cast<long long>(centre) * dims, theirs, dims, lane, d);
        if ((lane & 15) == 0 && d[0] < dists[row]) dists[row] = d[0];
      }
      measured += n_now;
      __syncthreads();
      if (thread == 0) n_due = 0;
    }
    unsigned long long farthest = 0;
    for (int i = thread; i < own; i += kPoolThreads) farthest = larger(farthest, rank(dists[i], first + i));
    for (int half = 16; half > 0; half /= 2)
      farthest = larger(farthest, __shfl_xor_sync(kAll, farthest, half));
    if (lane == 0) ranks[warp] = farthest;
    __syncthreads();
    if (step == wanted) break;
    if (thread == 0) {
      for (int i = 1; i < kPoolThreads / 32; i++) farthest = larger(farthest, ranks[i]);
      atomicMax(best + step, farthest);
      meet(arrived, step + 1);
      ranks[0] = atomicMax(best + step, 0ull);
    }
    __syncthreads();
    const unsigned long long chosen = ranks[0];
    const float d = __uint_as_float(static_cast<unsigned>(chosen >> 32));
    const int row = static_cast<int>(kAll - static_cast<unsigned>(chosen));
    if (chosen == 0 || !(d > outside_dist || (d == outside_dist && row < outside_row))) break;
    if (blockIdx.x == 0 && thread == 0) picked_row[step] = row, picked_dist[step] = d;
    centre = row;
  }
  for (int i = thread; i < own; i += kPoolThreads) dist[first + i] = dists[i];
  if (blockIdx.x == 0 && thread == 0) *n_picked = step;
  if (thread == 0) atomicAdd(counts, measured);
}
