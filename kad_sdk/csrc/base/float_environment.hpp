// The floating-point state that the defined arithmetic needs.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace kad {

/// Round to nearest and keep denormals for as long as the object lives. A host process may have
/// set other modes (libraries linked with -ffast-math flush denormals for the whole thread), and
/// results must not depend on the host. Without SSE the host's modes stay as they are.
class FloatEnvironment {
 public:
#if defined(__SSE__)
  FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(kDefault); }
  ~FloatEnvironment() { _mm_setcsr(saved_); }
#else
  FloatEnvironment() {}
  ~FloatEnvironment() {}
#endif
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

#if defined(__SSE__)
 private:
  static constexpr unsigned kDefault = 0x1F80;  // all exceptions masked, no flushing, to nearest
  unsigned saved_;
#endif
};

}  // namespace kad
