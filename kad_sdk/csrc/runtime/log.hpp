// What happens, told to the caller's log.
#pragma once

#include "base/guard.hpp"
#include "kad/detector.h"

namespace kad {

struct Log {
  kad_log_fn function = nullptr;
  void* context = nullptr;

  void tell(int32_t severity, const char* format, ...) const KAD_PRINTF(3, 4);
};

}  // namespace kad
