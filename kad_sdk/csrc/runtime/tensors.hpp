// A strict reader of safetensors files: the rules of kad_sdk/tensors.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace kad {

enum class Dtype { f16, f32, i32, i64, u8 };

using Shape = std::vector<int64_t>;

/// A tensor's place in a file's bytes.
struct Tensor {
  Dtype dtype = Dtype::u8;
  Shape shape;
  const uint8_t* data = nullptr;
  uint64_t size_bytes = 0;

  const float* floats() const { return reinterpret_cast<const float*>(data); }
  const int32_t* ints() const { return reinterpret_cast<const int32_t*>(data); }
  const int64_t* longs() const { return reinterpret_cast<const int64_t*>(data); }
  int64_t count() const;
};

constexpr int64_t kAnyLength = -1;

/// What a file's tensors must be; a side of the shape may be kAnyLength.
struct TensorLayout {
  Dtype dtype;
  Shape shape;
};

using Tensors = std::map<std::string, Tensor>;
using TensorLayouts = std::map<std::string, TensorLayout>;

/// The tensors of a safetensors file. `name` is what errors call it. Holes, overlaps, trailing
/// bytes, unknown dtypes, repeated names, unaligned tensors: KAD_ERROR_ARTIFACT_TENSORS.
Tensors parse_tensors(const uint8_t* data, uint64_t size, const std::string& name);

/// Check that exactly the tensors of the layout are there, and that floats are finite; raises
/// KAD_ERROR_ARTIFACT_TENSORS.
void check_tensors(const Tensors& tensors, const TensorLayouts& layouts, const std::string& name);

/// Check that the integers of a tensor lie in [0, end).
void check_indices(const Tensor& tensor, int64_t end, const std::string& where);

}  // namespace kad
