#include "base/zero_memory.hpp"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace kad {

Floats allocate_zeros(int64_t n) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const size_t bytes = static_cast<size_t>(n) * sizeof(float);
  const size_t padded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  Floats memory(static_cast<float*>(std::aligned_alloc(kHugePage, padded)));
  if (memory == nullptr) throw std::bad_alloc();
  // Advice: whether it is taken changes the speed only.
  if (bytes >= kHugePage) madvise(memory.get(), padded, MADV_HUGEPAGE);
  std::memset(memory.get(), 0, bytes);
  return memory;
}

}  // namespace kad
