// A large array of zeros.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace kad {

struct FreeMemory {
  void operator()(float* memory) const { std::free(memory); }
};

using Floats = std::unique_ptr<float[], FreeMemory>;

/// n float32 zeros, on huge pages where the system allows it. The pages are touched here: faults
/// that several threads take in one array wait for each other, and cost more than the board's sums.
Floats allocate_zeros(int64_t n);

}  // namespace kad
