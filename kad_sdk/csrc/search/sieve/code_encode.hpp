// Rounding to codes, for every level: loops over 16 lanes that the compiler turns into that file's
// instructions. Private to each file that includes it.
#pragma once

#include <cstdint>

#include "search/sieve/code_kernels.hpp"

namespace kad {
namespace {

constexpr int64_t kLanes = 16;

/// What 16 lanes have gathered.
struct CodedLanes {
  float error2[kLanes] = {};
  int32_t sum[kLanes] = {};
  uint32_t norm2[kLanes] = {};
};

inline Coded gathered(const CodedLanes& lanes) {
  Coded coded = {};
  for (int64_t j = 0; j < kLanes; ++j) {
    coded.error2 += lanes.error2[j];
    coded.sum += lanes.sum[j];
    coded.norm2 += lanes.norm2[j];
  }
  return coded;
}

inline __attribute__((always_inline)) int32_t encode_one(float value, float scale, float inverse,
                                                         float largest, float& error2) {
  constexpr float kShift = 12582912.0F;  // 1.5 * 2^23: the sum leaves no bits for a fraction
  float code = (value * inverse + kShift) - kShift;
  code = code < -largest ? -largest : code;
  code = code > largest ? largest : code;
  const float error = value - scale * code;
  error2 += error * error;
  return static_cast<int32_t>(code);
}

template <class Code>
inline Coded encode_with(const float* values, int64_t n, float scale, float largest, Code* codes) {
  const float inverse = 1.0F / scale;
  CodedLanes lanes;
  const auto encode = [&](int64_t i, int64_t j) {
    const int32_t code = encode_one(values[i], scale, inverse, largest, lanes.error2[j]);
    codes[i] = static_cast<Code>(code);
    lanes.sum[j] += code;
    lanes.norm2[j] += static_cast<uint32_t>(code * code);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) encode(i + j, j);
  }
  for (int64_t j = 0; i + j < n; ++j) encode(i + j, j);
  return gathered(lanes);
}

inline Coded encode_narrow(const float* values, int64_t n, float scale, int32_t largest,
                           int8_t* codes) {
  return encode_with(values, n, scale, static_cast<float>(largest), codes);
}

inline Coded encode_wide(const float* values, int64_t n, float scale, int16_t* codes) {
  return encode_with(values, n, scale, 32767.0F, codes);
}

inline Coded compare_codes(const float* values, const float* codes, int64_t n, float scale) {
  CodedLanes lanes;
  const auto compare = [&](int64_t i, int64_t j) {
    const float error = values[i] - scale * codes[i];
    lanes.error2[j] += error * error;
    const auto sixteenths = static_cast<int32_t>(16.0F * codes[i]);
    lanes.norm2[j] += static_cast<uint32_t>(sixteenths * sixteenths);
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) compare(i + j, j);
  }
  for (int64_t j = 0; i + j < n; ++j) compare(i + j, j);
  return gathered(lanes);
}

inline float largest_magnitude(const float* values, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      const float magnitude = __builtin_fabsf(values[i + j]);
      lanes[j] = magnitude > lanes[j] ? magnitude : lanes[j];
    }
  }
  for (int64_t j = 0; i + j < n; ++j) {
    const float magnitude = __builtin_fabsf(values[i + j]);
    lanes[j] = magnitude > lanes[j] ? magnitude : lanes[j];
  }
  float largest = 0.0F;
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

}  // namespace
}  // namespace kad
