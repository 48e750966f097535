// Any bytes: tensors that lie inside them, one behind the other, or an error with its status.
#include <cstdlib>
#include <cstring>

#include "base/guard.hpp"
#include "runtime/tensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    uint64_t bytes = 0;
    for (const auto& [name, tensor] : kad::parse_tensors(data, size, "x.safetensors")) {
      if (tensor.data < data || tensor.data + tensor.size_bytes > data + size) std::abort();
      bytes += tensor.size_bytes;
    }
    uint64_t header = 0;
    std::memcpy(&header, data, sizeof(header));
    if (bytes + sizeof(header) + header != size) std::abort();  // no holes, no overlaps
  } catch (const kad::Error& error) {
    if (error.status != KAD_ERROR_ARTIFACT_TENSORS || error.text[0] == '\0') std::abort();
  }
  return 0;
}
