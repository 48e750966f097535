// Calling the stages of the C ABI from inside: a status becomes an exception again.
#pragma once

#include "base/guard.hpp"

namespace kad {

/// Raise what a stage failed with.
inline void check_stage(kad_status status) {
  if (status != KAD_OK) fail(status, "%s", kad_last_error());
}

/// Fill as much of a caller's struct as that version of it has.
template <class T>
void write_struct(const T& filled, T* out, size_t smallest, const char* name) {
  check_pointer(out, name);
  check_struct_size(out->struct_size, smallest, name);
  const uint32_t size = out->struct_size;
  std::memcpy(out, &filled, size < sizeof(T) ? size : sizeof(T));
  out->struct_size = size;
}

}  // namespace kad
