// Arrays one behind the other, each at a multiple of kArrayAlignment bytes from the first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/guard.hpp"

namespace kad {

constexpr size_t kArrayAlignment = 64;

class ByteWriter {
 public:
  template <class T>
  void put(const T* values, size_t n) {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto* from = reinterpret_cast<const uint8_t*>(values);
    bytes_.insert(bytes_.end(), from, from + n * sizeof(T));
    bytes_.resize((bytes_.size() + kArrayAlignment - 1) / kArrayAlignment * kArrayAlignment);
  }
  template <class T>
  void put(const T& value) {
    put(&value, 1);
  }

  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

/// Reads what a ByteWriter wrote. Raises KAD_ERROR_ARTIFACT_TENSORS where there is less of it.
class ByteReader {
 public:
  ByteReader(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  /// The next n values, where they lie.
  template <class T>
  const T* take(int64_t n) {
    static_assert(std::is_trivially_copyable_v<T> && kArrayAlignment % alignof(T) == 0);
    const size_t count = static_cast<size_t>(n), room = left_ / sizeof(T);
    if (n < 0 || count > room) {
      fail(KAD_ERROR_ARTIFACT_TENSORS,
           "the stored index ends within an array: expected %lld values of %zu bytes, room is for "
           "%zu; export the artifact again",
           static_cast<long long>(n), sizeof(T), room);
    }
    const size_t bytes =
        (count * sizeof(T) + kArrayAlignment - 1) / kArrayAlignment * kArrayAlignment;
    const auto* values = reinterpret_cast<const T*>(data_);
    const size_t step = bytes < left_ ? bytes : left_;
    data_ += step;
    left_ -= step;
    return values;
  }

  size_t left() const { return left_; }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace kad
