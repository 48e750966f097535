// Hints that memory will be read.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define KAD_PREFETCH(address, locality) __builtin_prefetch(address, 0, locality)
#else
#define KAD_PREFETCH(address, locality) (void)(address)
#endif

namespace kad {

constexpr int64_t kCacheLine = 64;

/// Soon: into the nearest cache.
inline void prefetch(const void* memory, int64_t bytes) {
  const char* begin = static_cast<const char*>(memory);
  for (int64_t i = 0; i < bytes; i += kCacheLine) KAD_PREFETCH(begin + i, 3);
}

/// Later: into the second cache.
inline void prefetch_far(const void* memory, int64_t bytes) {
  const char* begin = static_cast<const char*>(memory);
  for (int64_t i = 0; i < bytes; i += kCacheLine) KAD_PREFETCH(begin + i, 2);
}

}  // namespace kad
