// Rows (n, D) to points of 128 dimensions in fp16. Two points are no farther apart than their rows,
// but for an error that is told with each: docs/gpu.md.

#include "common.cuh"

namespace {

constexpr int kProjected = 64;            // rows of a block
constexpr int kDepth = 32;                // dimensions in shared memory at a time
constexpr int kHalfRow = kDepth + 8;      // in halves, so that ldmatrix meets no conflicts
constexpr int kFloatRow = kPoint + 4;

union ProjectShared {
  struct {
    unsigned short high[kProjected][kHalfRow];
    unsigned short low[kProjected][kHalfRow];
    unsigned short directions[kPoint][kHalfRow];
  } in;
  float out[kProjected][kFloatRow];
};

__device__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAll, x, 1);
  return x + __shfl_xor_sync(kAll, x, 2);
}

// Eight values of a row, from `dim` on; zeros beyond its end.
__device__ void load_eight(float (&v)[8], const float *row, int dim, int dims) {
  if (dim + 8 <= dims && dims % 4 == 0) {
    const float4 a = *reinterpret_cast<const float4 *>(row + dim);
    const float4 b = *reinterpret_cast<const float4 *>(row + dim + 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    return;
  }
  for (int i = 0; i < 8; i++) v[i] = dim + i < dims ? row[dim + i] : 0.0f;
}

}  // namespace

// rows (n, dims) float32; mean (padded,) float32, zeros beyond dims; directions (128, padded) fp16,
// padded a multiple of 32, row 127 zeros: the rest's length, weighted (0 to 1), comes there.
// point (P, 128) fp16, norm2 (P,) its squared length, slack (P,) how far it may be from the true
// one; P is n rounded up to 128, points beyond n are zeros of infinite norm2. flag: not finite.
extern "C" __global__ void __launch_bounds__(kThreads)
    project(const float *rows, long long n, int dims, int padded, const float *mean, float scale,
            const unsigned short *directions, float inverse_sigma, float rest_weight,
            unsigned short *point, float *norm2, float *slack, int *flag) {
  __shared__ __align__(16) ProjectShared shared;
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int quarter = thread & 3, mine = thread >> 2;
  const long long row = static_cast<long long>(blockIdx.x) * kProjected + mine;
  const int first_row = (warp & 3) * 16, first_out = (warp >> 2) * 64;
  float total[8][4] = {};
  float length2 = 0;
  bool finite = true;

  for (int depth = 0; depth < padded; depth += kDepth) {
    float v[8];
    const int dim = depth + quarter * 8;
    if (row < n) load_eight(v, rows + row * dims, dim, dims);
    float part = 0;
    unsigned high[4], low[4];
    for (int i = 0; i < 8; i += 2) {
      float x[2];
      unsigned short h[2], l[2];
      for (int e = 0; e < 2; e++) {
        x[e] = row < n ? __fmul_rn(__fsub_rn(v[i + e], mean[dim + i + e]), scale) : 0.0f;
        finite &= row >= n || fabsf(v[i + e]) < infinity();
        part += x[e] * x[e];
        h[e] = to_half(x[e]);
        l[e] = to_half(x[e] - from_half(h[e]));
      }
      high[i / 2] = pair(h[0], h[1]);
      low[i / 2] = pair(l[0], l[1]);
    }
    length2 += part;
    __syncthreads();
    *reinterpret_cast<uint4 *>(&shared.in.high[mine][quarter * 8]) =
        make_uint4(high[0], high[1], high[2], high[3]);
    *reinterpret_cast<uint4 *>(&shared.in.low[mine][quarter * 8]) =
        make_uint4(low[0], low[1], low[2], low[3]);
    {
      const int out = thread >> 1, at = (thread & 1) * 16;
      const uint4 *from =
          reinterpret_cast<const uint4 *>(directions + static_cast<long long>(out) * padded + depth + at);
      uint4 *to = reinterpret_cast<uint4 *>(&shared.in.directions[out][at]);
      to[0] = from[0];
      to[1] = from[1];
    }
    __syncthreads();
    float sum[8][4] = {};
    // The low parts first: their sums are small, and little of them is cut off.
    for (int part = 0; part < 2; part++)
#pragma unroll
      for (int k = 0; k < kDepth; k += 16) {
        unsigned a[4];
        const auto &rows_in = part == 0 ? shared.in.low : shared.in.high;
        load_matrices(a, shared_address(&rows_in[first_row + (lane & 15)][k + (lane >> 4) * 8]));
#pragma unroll
        for (int two = 0; two < 4; two++) {
          unsigned b[4];
          const int b_row = first_out + two * 16 + (lane & 7) + ((lane >> 4) << 3);
          load_matrices(b, shared_address(&shared.in.directions[b_row][k + ((lane >> 3) & 1) * 8]));
          multiply(sum[2 * two], a, b[0], b[1]);
          multiply(sum[2 * two + 1], a, b[2], b[3]);
        }
      }
    // Flushed often, so that little is cut off.
#pragma unroll
    for (int i = 0; i < 8; i++)
      for (int e = 0; e < 4; e++) total[i][e] += sum[i][e];
  }

  __syncthreads();
#pragma unroll
  for (int i = 0; i < 8; i++)
    for (int e = 0; e < 4; e++)
      shared.out[first_row + (lane >> 2) + (e >> 1) * 8]
                [first_out + i * 8 + (lane & 3) * 2 + (e & 1)] = total[i][e] * inverse_sigma;
  __syncthreads();

  const float *z = shared.out[mine] + quarter * 32;
  float z2 = 0;
  for (int i = 0; i < 32; i++) z2 += z[i] * z[i];
  z2 = quad_sum(z2);
  length2 = quad_sum(length2);
  const float length = sqrtf(length2) * (1 + 16 * kUlp), z_length = sqrtf(z2) * (1 + 64 * kUlp);
  const float steps = 2.01f * kStepError + (padded / kDepth + 2) * (kUlp / 2);
  const float z_error = 2 * kUlp * (length + z_length) + sqrtf(static_cast<float>(dims)) * 0x1p-25f +
                        11.4f * steps * length;
  float rest = 0, rest_error = 0;
  if (rest_weight > 0) {
    const float rest2 = fmaxf(length2 - z2, 0.0f);
    const float wrong = (2 * z_length + z_error) * z_error + 80 * kUlp * z2 +
                        (padded / kDepth + 20) * kUlp * length2;
    rest = sqrtf(rest2);
    const float above = sqrtf(rest2 + wrong) - rest, below = rest - sqrtf(fmaxf(rest2 - wrong, 0.0f));
    rest_error = fmaxf(above, below) * (1 + 64 * kUlp) + 4 * kUlp * sqrtf(rest2 + wrong);
    rest *= rest_weight;
    rest_error = rest_error * rest_weight + kUlp * rest;
  }
  float lost2 = 0, rounded2 = 0;
  uint4 packed[4];
  unsigned *words = reinterpret_cast<unsigned *>(packed);
#pragma unroll
  for (int i = 0; i < 32; i += 2) {
    unsigned short h[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const float x = quarter * 32 + i + e == kPoint - 1 ? rest : z[i + e];
      h[e] = to_half(x);
      const float y = from_half(h[e]);
      lost2 += (x - y) * (x - y);
      rounded2 += y * y;
    }
    words[i / 2] = pair(h[0], h[1]);
  }
  lost2 = quad_sum(lost2);
  rounded2 = quad_sum(rounded2);
  uint4 *to = reinterpret_cast<uint4 *>(point + row * kPoint + quarter * 32);
  for (int i = 0; i < 4; i++) to[i] = row < n ? packed[i] : make_uint4(0, 0, 0, 0);
  if (!finite) atomicOr(flag, 1);
  if (quarter == 0) {
    norm2[row] = row < n ? rounded2 : infinity();
    slack[row] =
        (z_error + rest_error + sqrtf(lost2) + 2 * kUlp * length) * (1 + 256 * kUlp) + 0x1p-60f;
  }
}
