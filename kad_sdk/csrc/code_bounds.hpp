// What follows the integer products in CodeKernels::bounds. Private to each file that includes it,
// where the compiler turns the loop into that file's instructions.
#pragma once

#include <cstdint>

#include "code_kernels.hpp"

namespace kad {
namespace {

constexpr int64_t kBoundsBlock = 64;  // a multiple of 4

/// Fill bounds for n <= kBoundsBlock rows whose products are known.
inline void finish_bounds(const WideQuery& query, const WideRow* rows, const int32_t* slots,
                          const int32_t* products, int64_t n, float* bounds) {
  float scale[kBoundsBlock], norm2[kBoundsBlock], error[kBoundsBlock];
  for (int64_t i = 0; i < n; ++i) {
    const WideRow& row = rows[slots[i]];
    scale[i] = row.scale;
    norm2[i] = row.norm2;
    error[i] = row.error;
  }
  for (int64_t i = 0; i < n; ++i) {
    const float product = 2.0F * query.scale * scale[i] * static_cast<float>(products[i]);
    const float distance2 = (query.norm2 + norm2[i]) - product;
    bounds[i] = __builtin_sqrtf(distance2 > 0.0F ? distance2 : 0.0F) - (query.error + error[i]);
  }
}

/// The body of CodeKernels::bounds, around a function that gives the products of 4 rows.
template <class Product4>
inline void bounds_with(const Product4& product_4, const WideQuery& query, const int16_t* codes,
                        const WideRow* rows, const int32_t* slots, int64_t n, int64_t width,
                        float* bounds) {
  int32_t products[kBoundsBlock];
  for (int64_t first = 0; first < n; first += kBoundsBlock) {
    const int64_t count = n - first < kBoundsBlock ? n - first : kBoundsBlock;
    for (int64_t i = 0; i < count; i += 4) {
      const int16_t* four[4];
      for (int64_t j = 0; j < 4; ++j) {  // the last rows repeat one
        const int64_t at = i + j < count ? i + j : i;
        four[j] = codes + int64_t{slots[first + at]} * width;
      }
      product_4(query.codes, four, width, products + i);
    }
    finish_bounds(query, rows, slots + first, products, count, bounds + first);
  }
}

}  // namespace
}  // namespace kad
