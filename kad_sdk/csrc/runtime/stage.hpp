// Calling the stages of the C ABI from inside: a status becomes an exception again.
#pragma once

#include "base/guard.hpp"

namespace kad {

/// Raise what a stage failed with.
inline void check_stage(kad_status status) {
  if (status != KAD_OK) fail(status, "%s", kad_last_error());
}

}  // namespace kad
