// Status, version and last error: the part of the C ABI that belongs to no stage.
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "base/guard.hpp"
#include "base/text.hpp"

namespace kad {
namespace {

thread_local char last_error[sizeof(Error::text)] = "";

}  // namespace

void format_text(char* out, size_t size, const char* format, va_list arguments) {
  constexpr char kGap[] = " [...] ";
  char whole[8192];
  std::vsnprintf(whole, sizeof(whole), format, arguments);
  const size_t length = std::strlen(whole);
  if (length < size) {
    std::memcpy(out, whole, length + 1);
    return;
  }
  size_t head = size / 4;
  size_t tail = length - (size - head - sizeof(kGap));
  while (head > 0 && continues_character(whole[head])) --head;  // no half of a UTF-8 character
  while (continues_character(whole[tail])) ++tail;
  std::snprintf(out, size, "%.*s%s%s", static_cast<int>(head), whole, kGap, whole + tail);
}

void fail(kad_status status, const char* format, ...) {
  Error error;
  error.status = status;
  va_list arguments;
  va_start(arguments, format);
  format_text(error.text, sizeof(error.text), format, arguments);
  va_end(arguments);
  throw error;
}

void check_count(int64_t count, int64_t item_values, const char* name) {
  if (count < 0) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "%s must not be negative, got %lld", name,
         static_cast<long long>(count));
  }
  if (item_values > 0 && count > INT64_MAX / 8 / item_values) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "%s is %lld: an array of that size cannot exist", name,
         static_cast<long long>(count));
  }
}

void check_room(int64_t capacity, int64_t count, const char* name, const char* items) {
  if (count <= capacity) return;
  fail(KAD_ERROR_BUFFER_TOO_SMALL,
       "%s has room for %lld %s, expected room for %lld: call again with room for as many", name,
       static_cast<long long>(capacity), items, static_cast<long long>(count));
}

void set_last_error(const char* text) noexcept {
  std::snprintf(last_error, sizeof(last_error), "%s", text);
}

}  // namespace kad

extern "C" {

uint32_t kad_abi_version(void) { return KAD_ABI_VERSION; }

const char* kad_version_string(void) { return KAD_VERSION_STRING; }

const char* kad_last_error(void) { return kad::last_error; }

const char* kad_status_name(kad_status status) {
  switch (status) {
    case KAD_OK:
      return "KAD_OK";
    case KAD_ERROR_INVALID_ARGUMENT:
      return "KAD_ERROR_INVALID_ARGUMENT";
    case KAD_ERROR_NOT_FINITE:
      return "KAD_ERROR_NOT_FINITE";
    case KAD_ERROR_OUT_OF_MEMORY:
      return "KAD_ERROR_OUT_OF_MEMORY";
    case KAD_ERROR_UNSUPPORTED:
      return "KAD_ERROR_UNSUPPORTED";
    case KAD_ERROR_BUFFER_TOO_SMALL:
      return "KAD_ERROR_BUFFER_TOO_SMALL";
    case KAD_ERROR_TOO_SMALL:
      return "KAD_ERROR_TOO_SMALL";
    case KAD_ERROR_INTERNAL:
      return "KAD_ERROR_INTERNAL";
    case KAD_ERROR_ARTIFACT_NOT_FOUND:
      return "KAD_ERROR_ARTIFACT_NOT_FOUND";
    case KAD_ERROR_ARTIFACT_VERSION:
      return "KAD_ERROR_ARTIFACT_VERSION";
    case KAD_ERROR_ARTIFACT_MANIFEST:
      return "KAD_ERROR_ARTIFACT_MANIFEST";
    case KAD_ERROR_ARTIFACT_LISTING:
      return "KAD_ERROR_ARTIFACT_LISTING";
    case KAD_ERROR_ARTIFACT_SIZE:
      return "KAD_ERROR_ARTIFACT_SIZE";
    case KAD_ERROR_ARTIFACT_HASH:
      return "KAD_ERROR_ARTIFACT_HASH";
    case KAD_ERROR_ARTIFACT_TENSORS:
      return "KAD_ERROR_ARTIFACT_TENSORS";
    case KAD_ERROR_ARTIFACT_NETWORK:
      return "KAD_ERROR_ARTIFACT_NETWORK";
    case KAD_ERROR_ARTIFACT_UNSUPPORTED:
      return "KAD_ERROR_ARTIFACT_UNSUPPORTED";
    case KAD_ERROR_ONNXRUNTIME:
      return "KAD_ERROR_ONNXRUNTIME";
    case KAD_ERROR_PROVIDER:
      return "KAD_ERROR_PROVIDER";
    case KAD_ERROR_NETWORK:
      return "KAD_ERROR_NETWORK";
    case KAD_ERROR_ANNOTATION:
      return "KAD_ERROR_ANNOTATION";
    case KAD_ERROR_CANCELLED:
      return "KAD_ERROR_CANCELLED";
    case KAD_ERROR_ARTIFACT_UNREADABLE:
      return "KAD_ERROR_ARTIFACT_UNREADABLE";
    default:
      return "unknown status";
  }
}

}  // extern "C"
