#include "runtime/log.hpp"

#include <cstdarg>

namespace kad {

void Log::tell(int32_t severity, const char* format, ...) const {
  if (function == nullptr) return;
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  format_text(text, sizeof(text), format, arguments);
  va_end(arguments);
  function(context, severity, text);
}

}  // namespace kad
