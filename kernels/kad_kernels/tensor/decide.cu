// The k nearest rows: those that may be among them by their points are measured in the defined
// arithmetic.

#include "common.cuh"

namespace {

constexpr int kPending = 8;  // rows that are measured together

struct List {  // the k nearest so far, one in each lane, ascending by distance, then row
  float dist;
  int row;
  int k;
  int lane;

  __device__ float bound() const { return __shfl_sync(kAll, dist, k - 1); }

  __device__ void enter(float d, int r) {
    if (__any_sync(kAll, row == r)) return;
    const bool before = dist < d || (dist == d && row < r);
    const int at = __popc(__ballot_sync(kAll, lane < k && before));
    if (at >= k) return;
    const float up_dist = __shfl_up_sync(kAll, dist, 1);
    const int up_row = __shfl_up_sync(kAll, row, 1);
    if (lane == at) dist = d, row = r;
    if (lane > at && lane < k) dist = up_dist, row = up_row;
  }
};

struct Query {  // what a warp needs to compare one query with the bank
  const float *values;
  const float *bank;
  const unsigned short *points;
  const float *norms2;
  int dims, n_rows, lane;
  float norm2, offset, scale, extra;
  uint4 pieces[4];  // of the query's point: every fourth, from the lane's number modulo 4 on

  __device__ float limit(float bound) const {
    if (bound < 0) return -1;  // a centre's own: nothing is nearer
    const float most = bound * scale + offset;
    return most * most * (1 + 16 * kUlp) + extra;
  }

  // Rows of a group that may be as near as `most` says: bit 4 r + p for row r + 8 p. `least`: the
  // least squared distance of the lane's rows, `bit` its row's.
  __device__ unsigned near_rows(int group, float most, float &least, int &bit) const {
    unsigned rows = 0;
    least = infinity();
    bit = lane & ~3;
#pragma unroll
    for (int p = 0; p < 2; p++) {
      const long long row = static_cast<long long>(group) * kGroup + p * 8 + (lane >> 2);
      const uint4 *from = reinterpret_cast<const uint4 *>(points + row * kPoint) + (lane & 3);
      float dot = 0;
#pragma unroll
      for (int i = 0; i < 4; i++) dot = dot_of_eight(pieces[i], __ldg(from + 4 * i), dot);
      dot += __shfl_xor_sync(kAll, dot, 1);
      dot += __shfl_xor_sync(kAll, dot, 2);
      const bool inside = row < n_rows;
      const float apart2 = norm2 + __ldg(norms2 + row) - 2 * dot;
      rows |= __ballot_sync(kAll, inside && !(apart2 > most) && !(lane & 3)) << p;
      if (inside && apart2 < least) least = apart2, bit = (lane & ~3) + p;
    }
    return rows;
  }

  // Measures the rows that the first `n` lanes hold, at most 8, and enters them.
  __device__ void enter_rows(int pending, int n, int first_row, List &list) const {
    const int half = lane >> 4;
    if (n <= 2) {
      const int own = __shfl_sync(kAll, pending, min(half, n - 1));
      const float *const row[1] = {bank + static_cast<long long>(own) * dims};
      float d[1];
      measure<1, 16>(values, row, dims, lane, d);
      for (int i = 0; i < n; i++)
        list.enter(__shfl_sync(kAll, d[0], 16 * i), first_row + __shfl_sync(kAll, pending, i));
      return;
    }
    const float *row[4];
    float d[4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
      const int own = __shfl_sync(kAll, pending, min(half * 4 + r, n - 1));
      row[r] = bank + static_cast<long long>(own) * dims;
    }
    measure<4, 8>(values, row, dims, lane, d);
#pragma unroll
    for (int i = 0; i < kPending; i++) {
      const float distance = __shfl_sync(kAll, d[i & 3], 16 * (i >> 2));
      if (i < n) list.enter(distance, first_row + __shfl_sync(kAll, pending, i));
    }
  }
};

__device__ int row_of(int group, int bit) { return group * kGroup + (bit >> 2) + 8 * (bit & 3); }

// Number of the lane that holds the least value.
__device__ int least_lane(float value, int lane) {
  int at = lane;
#pragma unroll
  for (int half = 16; half > 0; half /= 2) {
    const float other = __shfl_xor_sync(kAll, value, half);
    const int other_at = __shfl_xor_sync(kAll, at, half);
    if (other < value || (other == value && other_at < at)) value = other, at = other_at;
  }
  return __shfl_sync(kAll, at, 0);  // not a number: the first
}

}  // namespace

// A warp for each of n queries. point, norm2, slack: the queries'. bank_slack, bank_norm: the
// largest of the bank. least: as screen leaves it. relative: rounding of a measured distance.
// counts (2,): rows looked at as points, and measured, are added up. dist, index (n, k): results;
// known: they hold rows that are entered first (measured before, numbered below first_row).
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    decide(const float *rows, long long n, int dims, const float *bank, int bank_rows,
           const unsigned short *point, const float *norm2, const float *slack,
           const unsigned short *bank_point, const float *bank_norm2, float bank_slack,
           float bank_norm, float scale, float relative, const unsigned short *least, int n_tiles,
           long long padded, int k, int known, int first_row, float *dist, int *index,
           unsigned long long *counts) {
  const int lane = threadIdx.x & 31;
  const long long query = (static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x) >> 5;
  if (query >= n) return;
  Query q;
  q.values = rows + query * dims, q.bank = bank, q.points = bank_point, q.norms2 = bank_norm2;
  q.dims = dims, q.n_rows = bank_rows, q.lane = lane;
  q.norm2 = norm2[query];
  const float longest = sqrtf(q.norm2) * (1 + 8 * kUlp);
  q.offset = slack[query] + bank_slack;
  q.scale = scale * (1 + relative);
  q.extra = 16 * kStepError * longest * bank_norm + 64 * kUlp * (q.norm2 + bank_norm * bank_norm);
  const uint4 *from = reinterpret_cast<const uint4 *>(point + query * kPoint) + (lane & 3);
#pragma unroll
  for (int i = 0; i < 4; i++) q.pieces[i] = from[4 * i];
  List list{infinity(), kNobody, k, lane};
  const uint4 *tiles = reinterpret_cast<const uint4 *>(least) + query;  // 8 groups of a tile
  unsigned long long looked = 0, measured = 0;
  int pending = 0, n_pending = 0;  // rows to be measured, one in each lane

  if (known) {
    if (lane < k) list.dist = dist[query * k + lane], list.row = index[query * k + lane];
  }
  if (list.bound() == infinity()) {  // the best row of each of k groups that look near
    float nearest = infinity();
    int group = -1;
    for (int tile = lane; tile < n_tiles; tile += 32) {
      const uint4 eight = __ldg(tiles + tile * padded);
      const unsigned words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float v = __uint_as_float(i & 1 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
        const int own = tile * kGroups + i;
        // A group of padding alone looks near to a query beyond fp16.
        const bool inside = static_cast<long long>(own) * kGroup < bank_rows;
        if (inside && v < nearest) nearest = v, group = own;
      }
    }
    for (int i = 0; i < k; i++) {
      const int at = least_lane(nearest, lane);
      const int chosen = __shfl_sync(kAll, group, at);
      if (lane == at) nearest = infinity(), group = -1;
      if (chosen < 0) break;
      float value;
      int bit;
      q.near_rows(chosen, infinity(), value, bit);
      bit = __shfl_sync(kAll, bit, least_lane(value, lane));
      if (lane == n_pending) pending = row_of(chosen, bit);
      looked += kGroup, measured++;
      if (++n_pending < kPending) continue;
      q.enter_rows(pending, n_pending, first_row, list);
      n_pending = 0;
    }
    if (n_pending) q.enter_rows(pending, n_pending, first_row, list);
    n_pending = 0;
  }

  float most = q.limit(list.bound());
  for (int start = 0; start < n_tiles; start += 32) {
    const int tile = start + lane;
    unsigned groups = 0;
    if (tile < n_tiles) {
      const uint4 eight = __ldg(tiles + tile * padded);
      const unsigned words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float v = __uint_as_float(i & 1 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
        groups |= !(v > most) ? 1u << i : 0u;
      }
    }
    unsigned lanes = __ballot_sync(kAll, groups != 0);
    while (lanes) {
      const int at = __ffs(lanes) - 1;
      lanes &= lanes - 1;
      unsigned here = __shfl_sync(kAll, groups, at);
      while (here) {
        const int group = (start + at) * kGroups + __ffs(here) - 1;
        here &= here - 1;
        float value;
        int bit;
        unsigned near = q.near_rows(group, most, value, bit);
        looked += kGroup, measured += __popc(near);
        for (; near; near &= near - 1) {
          if (lane == n_pending) pending = row_of(group, __ffs(near) - 1);
          if (++n_pending < kPending) continue;
          q.enter_rows(pending, n_pending, first_row, list);
          n_pending = 0;
          most = q.limit(list.bound());
        }
      }
    }
  }
  if (n_pending) q.enter_rows(pending, n_pending, first_row, list);
  if (lane < k) {
    dist[query * k + lane] = list.dist;
    index[query * k + lane] = list.row;
  }
  if (lane == 0) {
    atomicAdd(counts, looked);
    atomicAdd(counts + 1, measured);
  }
}
