#include "base/level.hpp"

#include <atomic>
#include <cstdint>

#include "base/guard.hpp"

#if KAD_X86_LEVELS
#include <cpuid.h>
#endif

namespace kad {
namespace {

#if KAD_X86_LEVELS

// Register state that the operating system saves, XCR0. In assembler,
// because the intrinsic would need -mxsave for this file.
uint64_t saved_state() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool has_all(uint64_t bits, uint64_t wanted) { return (bits & wanted) == wanted; }

Level best_level() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  constexpr uint32_t kFma = 1u << 12, kPopcnt = 1u << 23;
  constexpr uint32_t kOsXsave = 1u << 27, kAvx = 1u << 28, kF16c = 1u << 29;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Level::scalar;
  if (!has_all(c, kFma | kPopcnt | kOsXsave | kAvx | kF16c)) return Level::scalar;
  constexpr uint64_t kXmmYmm = 0x6, kOpmaskZmm = 0xE0;
  const uint64_t saved = saved_state();
  constexpr uint32_t kBmi = 1u << 3, kAvx2 = 1u << 5;
  constexpr uint32_t kAvx512 = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F DQ BW VL
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Level::scalar;
  if (!has_all(b, kBmi | kAvx2) || !has_all(saved, kXmmYmm)) return Level::scalar;
  if (!has_all(b, kAvx512) || !has_all(saved, kXmmYmm | kOpmaskZmm)) return Level::avx2;
  constexpr uint32_t kVnni = 1u << 11;
  return has_all(c, kVnni) ? Level::avx512vnni : Level::avx512;
}

#else

Level best_level() { return Level::scalar; }

#endif

Level detected_level() {
  static const Level level = best_level();
  return level;
}

std::atomic<int32_t> forced_level{KAD_LEVEL_AUTO};

void force_level(int32_t level) {
  if (level < KAD_LEVEL_AUTO || level > KAD_LEVEL_AVX512VNNI) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "level must be one of KAD_LEVEL_* (-1 to 3), got %d", level);
  }
  const auto best = static_cast<int32_t>(detected_level());
  if (level > best) {
    fail(KAD_ERROR_UNSUPPORTED, "level %d is not offered here: the best level is %d", level, best);
  }
  forced_level = level;
}

}  // namespace

Level current_level() {
  const int32_t forced = forced_level.load(std::memory_order_relaxed);
  return forced == KAD_LEVEL_AUTO ? detected_level() : static_cast<Level>(forced);
}

}  // namespace kad

extern "C" {

int32_t kad_cpu_level(void) { return static_cast<int32_t>(kad::current_level()); }

kad_status kad_cpu_level_force(int32_t level) {
  return kad::guard([&] { kad::force_level(level); });
}

}  // extern "C"
