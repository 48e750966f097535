// 8 x 8 transposition with AVX, for the files compiled with AVX2 or more. Everything here is
// private to the file that includes it: the same code, compiled for another instruction set, must
// not be merged with it by the linker.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace kad {
namespace {

inline void transpose_8x8(__m256 rows[8]) {
  const __m256 a0 = _mm256_unpacklo_ps(rows[0], rows[1]), a1 = _mm256_unpackhi_ps(rows[0], rows[1]);
  const __m256 a2 = _mm256_unpacklo_ps(rows[2], rows[3]), a3 = _mm256_unpackhi_ps(rows[2], rows[3]);
  const __m256 a4 = _mm256_unpacklo_ps(rows[4], rows[5]), a5 = _mm256_unpackhi_ps(rows[4], rows[5]);
  const __m256 a6 = _mm256_unpacklo_ps(rows[6], rows[7]), a7 = _mm256_unpackhi_ps(rows[6], rows[7]);
  const __m256 b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xEE);
  const __m256 b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xEE);
  const __m256 b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xEE);
  const __m256 b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xEE);
  rows[0] = _mm256_permute2f128_ps(b0, b4, 0x20);
  rows[1] = _mm256_permute2f128_ps(b1, b5, 0x20);
  rows[2] = _mm256_permute2f128_ps(b2, b6, 0x20);
  rows[3] = _mm256_permute2f128_ps(b3, b7, 0x20);
  rows[4] = _mm256_permute2f128_ps(b0, b4, 0x31);
  rows[5] = _mm256_permute2f128_ps(b1, b5, 0x31);
  rows[6] = _mm256_permute2f128_ps(b2, b6, 0x31);
  rows[7] = _mm256_permute2f128_ps(b3, b7, 0x31);
}

inline void pack_values(const float* rows, int64_t row_stride, int64_t n_rows, int64_t width,
                        int64_t d_begin, int64_t d_end, const float* centre, float* out) {
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t d = d_begin; d < d_end; ++d) {
      const float value = rows[r * row_stride + d];
      out[d * width + r] = centre == nullptr ? value : value - centre[d];
    }
  }
}

void pack(const float* rows, int64_t row_stride, int64_t n_rows, int64_t width, int64_t dims,
          const float* centre, float* out) {
  const int64_t dims_8 = dims & ~int64_t{7};
  int64_t r = 0;
  for (; r + 8 <= n_rows; r += 8) {
    const float* block = rows + r * row_stride;
    for (int64_t d = 0; d < dims_8; d += 8) {
      const __m256 offset = centre == nullptr ? _mm256_setzero_ps() : _mm256_loadu_ps(centre + d);
      __m256 values[8];
      for (int i = 0; i < 8; ++i) {
        values[i] = _mm256_loadu_ps(block + i * row_stride + d);
        if (centre != nullptr) values[i] = _mm256_sub_ps(values[i], offset);
      }
      transpose_8x8(values);
      for (int i = 0; i < 8; ++i) _mm256_storeu_ps(out + (d + i) * width + r, values[i]);
    }
    pack_values(block, row_stride, 8, width, dims_8, dims, centre, out + r);
  }
  pack_values(rows + r * row_stride, row_stride, n_rows - r, width, 0, dims, centre, out + r);
  for (int64_t d = 0; n_rows < width && d < dims; ++d) {
    for (int64_t pad = n_rows; pad < width; ++pad) out[d * width + pad] = 0.0F;
  }
}

}  // namespace
}  // namespace kad
