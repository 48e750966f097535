// Rounding with a direction.
#pragma once

#include <cmath>
#include <cstdint>

namespace kad {

/// A quotient of a value that is 0 or more, rounded up.
inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

/// The smallest multiple of `step` that is not below `value`, which is 0 or more.
inline int64_t round_up(int64_t value, int64_t step) { return divide_up(value, step) * step; }

/// The float32 next to `value` in the direction of `towards`, an infinity; `value` itself where it
/// is one.
inline float round_to(double value, float towards) {
  const auto nearest = static_cast<float>(value);
  const bool past =
      towards > 0.0F ? static_cast<double>(nearest) < value : static_cast<double>(nearest) > value;
  return past ? std::nextafter(nearest, towards) : nearest;
}

}  // namespace kad
