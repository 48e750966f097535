// Calling the stages of the C ABI from inside: a status becomes an exception again.
#pragma once

#include "base/guard.hpp"

namespace kad {

/// Raise what a stage failed with.
inline void check_stage(kad_status status) {
  if (status != KAD_OK) fail(status, "%s", kad_last_error());
}

/// Run the stages of a batch that begins with tile `first`: the tile that they say is not finite is
/// numbered in the batch.
template <class F>
void in_batch(int64_t first, F&& body) {
  try {
    body();
  } catch (const Error& error) {
    if (first == 0 || error.status != KAD_ERROR_NOT_FINITE) throw;
    fail(error.status, "in the batch that begins with tile %lld: %s", static_cast<long long>(first),
         error.text);
  }
}

}  // namespace kad
