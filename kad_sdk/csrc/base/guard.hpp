// Errors inside the core are exceptions; at the C ABI they become a status and a text.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "base/float_environment.hpp"
#include "kad/kad.h"

namespace kad {

/// A failure with its status. The text has a fixed size, so that raising it allocates nothing.
struct Error : std::exception {
  kad_status status = KAD_ERROR_INTERNAL;
  char text[512] = {};
  const char* what() const noexcept override { return text; }
};

#if defined(__GNUC__)
#define KAD_PRINTF(format_at, arguments_at) __attribute__((format(printf, format_at, arguments_at)))
#else
#define KAD_PRINTF(format_at, arguments_at)
#endif

/// Format a text into `size` bytes. Of one that is longer the middle is left out: a text begins
/// with the path that it is about, which may be long, and ends with the reason and what to do.
void format_text(char* out, size_t size, const char* format, va_list arguments);

/// Raise an Error. The text says what is wrong, what was expected, what was given, what to do.
[[noreturn]] void fail(kad_status status, const char* format, ...) KAD_PRINTF(2, 3);

/// Raise KAD_ERROR_INVALID_ARGUMENT when a pointer is NULL.
inline void check_pointer(const void* pointer, const char* name) {
  if (pointer == nullptr) fail(KAD_ERROR_INVALID_ARGUMENT, "%s is NULL", name);
}

/// Raise KAD_ERROR_INVALID_ARGUMENT when a thread count is below 1.
inline void check_threads(int32_t n_threads) {
  if (n_threads < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "n_threads must be at least 1, got %d", n_threads);
  }
}

/// Bytes of a struct up to the end of `last`, the last field that the first release had: the
/// smallest struct_size that a caller may give. It stays when fields are added behind.
#define KAD_FIRST_SIZE(type, last) (offsetof(type, last) + sizeof(type::last))

/// No struct comes near it in any version. A larger struct_size was never set, and as many bytes of
/// the caller's would be overwritten.
constexpr uint32_t kLargestStruct = 4096;

/// Raise KAD_ERROR_INVALID_ARGUMENT when a struct is older than this library's first version, or
/// its size cannot be one.
inline void check_struct_size(uint32_t given, size_t smallest, const char* name) {
  if (given >= smallest && given <= kLargestStruct) return;
  fail(KAD_ERROR_INVALID_ARGUMENT,
       "%s.struct_size is %u, expected at least %zu and at most %u: set it to sizeof(%s)", name,
       given, smallest, kLargestStruct, name);
}

/// Copy as much of a caller's struct as both sides know; fields that an older caller lacks are 0.
template <class T>
T read_struct(const T* given, size_t smallest, const char* name) {
  check_pointer(given, name);
  check_struct_size(given->struct_size, smallest, name);
  T copy = {};
  std::memcpy(&copy, given, given->struct_size < sizeof(T) ? given->struct_size : sizeof(T));
  return copy;
}

/// Copy a struct into the `size` bytes of a caller's: of an older, smaller one what it has; in a
/// newer, larger one the fields that this library does not know become 0.
template <class T>
void copy_struct(const T& filled, void* out, size_t size) {
  std::memcpy(out, &filled, size < sizeof(T) ? size : sizeof(T));
  if (size > sizeof(T)) {
    std::memset(static_cast<unsigned char*>(out) + sizeof(T), 0, size - sizeof(T));
  }
}

/// Fill a caller's struct; its struct_size stays.
template <class T>
void write_struct(T filled, T* out, size_t smallest, const char* name) {
  check_pointer(out, name);
  check_struct_size(out->struct_size, smallest, name);
  filled.struct_size = out->struct_size;
  copy_struct(filled, out, filled.struct_size);
}

/// Raise KAD_ERROR_INVALID_ARGUMENT when a caller has set a field that is kept for later releases.
inline void check_reserved(int64_t reserved, const char* name) {
  if (reserved == 0) return;
  fail(KAD_ERROR_INVALID_ARGUMENT,
       "%s.reserved must be 0, got %lld: set all of the struct to 0 first", name,
       static_cast<long long>(reserved));
}

/// Raise KAD_ERROR_INVALID_ARGUMENT when a count is negative, or when that many items of
/// `item_values` values, of up to 8 bytes each, could not be addressed.
void check_count(int64_t count, int64_t item_values, const char* name);

/// Raise KAD_ERROR_BUFFER_TOO_SMALL when a caller's array, called `name`, has no room for what
/// there is: that many `items`.
void check_room(int64_t capacity, int64_t count, const char* name, const char* items);

/// Set this thread's last error text ("" clears it).
void set_last_error(const char* text) noexcept;

/// The guard of every entry point: runs `body`, lets no exception cross the C ABI. The rounding
/// mode is the default one meanwhile, also in threads that the body starts: they inherit it.
template <class F>
kad_status guard(F&& body) noexcept {
  const FloatEnvironment environment;
  try {
    std::forward<F>(body)();
    set_last_error("");
    return KAD_OK;
  } catch (const Error& error) {
    set_last_error(error.text);
    return error.status;
  } catch (const std::bad_alloc&) {
    set_last_error("out of memory");
    return KAD_ERROR_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    set_last_error(error.what());
    return KAD_ERROR_INTERNAL;
  } catch (...) {
    set_last_error("an exception of an unknown type");
    return KAD_ERROR_INTERNAL;
  }
}

}  // namespace kad
