// Any bytes: a graph that stands alone, or an error with its status.
#include <cstdlib>

#include "kad/kad.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const kad_status status = kad_graph_check(data, static_cast<int64_t>(size));
  if (status != KAD_OK && status != KAD_ERROR_ARTIFACT_NETWORK) std::abort();
  if ((status == KAD_OK) != (kad_last_error()[0] == '\0')) std::abort();
  return 0;
}
