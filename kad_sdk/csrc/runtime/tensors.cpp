#include "runtime/tensors.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/guard.hpp"
#include "base/text.hpp"
#include "runtime/json.hpp"

namespace kad {
namespace {

using json::Kind;
using json::Value;

constexpr uint64_t kHeaderLimit = 1 << 20;  // bytes; our files hold a handful of tensors
constexpr size_t kMaxDims = 8;
constexpr int64_t kMaxSize = int64_t{1} << 62;

struct DtypeFacts {
  const char* name;
  Dtype dtype;
  uint64_t bytes;
};

constexpr DtypeFacts kDtypes[] = {{"F16", Dtype::f16, 2},
                                  {"F32", Dtype::f32, 4},
                                  {"I32", Dtype::i32, 4},
                                  {"I64", Dtype::i64, 8},
                                  {"U8", Dtype::u8, 1}};

const DtypeFacts& facts_of(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)]; }

[[noreturn]] void corrupt(const std::string& where, const std::string& what) {
  fail(KAD_ERROR_ARTIFACT_TENSORS, "%s: %s; copy the artifact again, or export it again",
       where.c_str(), what.c_str());
}

std::string in_quotes(const std::string& name) { return "tensor '" + shortened(name) + "'"; }

std::string to_text(const Shape& shape) {
  std::string text = "(";
  for (const int64_t size : shape) {
    text += (text.size() > 1 ? ", " : "") + (size == kAnyLength ? "any" : std::to_string(size));
  }
  return text + ")";
}

struct Entry {
  std::string name;
  Dtype dtype = Dtype::u8;
  Shape shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

std::vector<int64_t> read_sizes(Value value, size_t most, const std::string& where) {
  std::vector<int64_t> sizes;
  if (value.kind() != Kind::array) {
    corrupt(where, "expected lists as shape and data_offsets, got " + shortened(value.text(), 40));
  }
  for (const Value item : value.items()) {
    int64_t size = -1;
    if (!item.fits(&size) || size < 0 || size >= kMaxSize) {
      corrupt(where, "expected sizes in shape and data_offsets, got " + shortened(item.text(), 40));
    }
    sizes.push_back(size);
  }
  if (sizes.size() > most) {
    corrupt(where, "expected at most " + std::to_string(most) + " sizes, got " +
                       std::to_string(sizes.size()));
  }
  return sizes;
}

Dtype read_dtype(Value value, const std::string& where) {
  const std::string given = value.kind() == Kind::string ? value.string() : "";
  for (const DtypeFacts& facts : kDtypes) {
    if (given == facts.name) return facts.dtype;
  }
  corrupt(where, "expected a dtype of F16, F32, I32, I64, U8, got " + shortened(value.text(), 40));
}

// The bytes that a shape takes, checked against the room it was given.
void check_bytes(const Entry& entry, const std::string& where) {
  uint64_t bytes = facts_of(entry.dtype).bytes;
  const bool empty = std::count(entry.shape.begin(), entry.shape.end(), 0) > 0;
  bool overflow = false;
  for (const int64_t size : entry.shape) {
    if (empty) continue;
    overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes);
  }
  if (empty) bytes = 0;
  if (overflow || entry.end < entry.begin || entry.end - entry.begin != bytes) {
    corrupt(where, to_text(entry.shape) + " does not take the bytes " +
                       std::to_string(entry.begin) + " to " + std::to_string(entry.end));
  }
}

Entry read_entry(const Value::Member& member, const std::string& file) {
  const std::string where = file + ": " + in_quotes(member.key);
  const auto fields =
      member.value.kind() == Kind::object ? member.value.members() : std::vector<Value::Member>();
  Entry entry;
  entry.name = member.key;
  int found = 0;
  for (const auto& [key, value] : fields) {
    if (key == "dtype") {
      entry.dtype = read_dtype(value, where);
    } else if (key == "shape") {
      entry.shape = read_sizes(value, kMaxDims, where);
    } else if (key == "data_offsets") {
      const std::vector<int64_t> offsets = read_sizes(value, 2, where);
      if (offsets.size() != 2) {
        corrupt(where, "expected two offsets, got " + std::to_string(offsets.size()));
      }
      entry.begin = static_cast<uint64_t>(offsets[0]);
      entry.end = static_cast<uint64_t>(offsets[1]);
    } else {
      corrupt(where, "expected the keys dtype, shape, data_offsets, got " + shortened(key));
    }
    ++found;
  }
  if (found != 3) {
    corrupt(where, "expected the keys dtype, shape, data_offsets, got " + std::to_string(found) +
                       " of them");
  }
  check_bytes(entry, where);
  return entry;
}

void check_metadata(Value metadata, const std::string& file) {
  bool good = metadata.kind() == Kind::object;
  if (good) {
    for (const auto& [key, value] : metadata.members()) good &= value.kind() == Kind::string;
  }
  if (!good) corrupt(file, "__metadata__ must map strings to strings");
}

std::vector<Entry> read_header(std::string_view text, const std::string& file) {
  std::vector<Entry> entries;
  try {
    const json::Document document(text);
    if (document.root().kind() != Kind::object) corrupt(file, "header: expected a JSON object");
    for (const Value::Member& member : document.root().members()) {
      if (member.key == "__metadata__") {
        check_metadata(member.value, file);
      } else {
        entries.push_back(read_entry(member, file));
      }
    }
  } catch (const json::Error& error) {
    corrupt(file, std::string("header: ") + error.what());
  }
  return entries;
}

// No hole, no overlap, and the last tensor's end is the file's end.
void check_places(std::vector<Entry>* entries, uint64_t size, const std::string& file) {
  std::sort(entries->begin(), entries->end(), [](const Entry& a, const Entry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t position = 0;
  for (const Entry& entry : *entries) {
    if (entry.begin != position) {
      corrupt(file, in_quotes(entry.name) + " should begin at byte " + std::to_string(position) +
                        " of the data, begins at " + std::to_string(entry.begin) +
                        ": holes and overlaps are not allowed");
    }
    position = entry.end;
  }
  if (position != size) {
    corrupt(file, "the tensors take " + std::to_string(position) + " bytes, the file holds " +
                      std::to_string(size));
  }
}

uint64_t read_header_size(const uint8_t* data, uint64_t size, const std::string& file) {
  if (size < 8) corrupt(file, "expected at least 8 bytes, got " + std::to_string(size));
  uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = (header << 8) | data[i];
  if (header > std::min(kHeaderLimit, size - 8)) {
    corrupt(file, "the header's length is " + std::to_string(header) +
                      ": the file is truncated or is not a safetensors file");
  }
  return header;
}

bool all_finite(const float* values, int64_t n) {
  int64_t bad = 0;
  for (int64_t i = 0; i < n; ++i) bad += std::isfinite(values[i]) ? 0 : 1;
  return bad == 0;
}

void check_finite(const Tensor& tensor, const std::string& where) {
  if (all_finite(tensor.floats(), tensor.count())) return;
  const int64_t row_values = tensor.count() / tensor.shape[0];
  int64_t row = 0;
  while (all_finite(tensor.floats() + row * row_values, row_values)) ++row;
  corrupt(where, "expected finite numbers, got NaN or Inf in row " + std::to_string(row));
}

bool fits(const Shape& shape, const Shape& wanted) {
  bool same = shape.size() == wanted.size();
  for (size_t i = 0; same && i < wanted.size(); ++i) {
    same = wanted[i] == kAnyLength || wanted[i] == shape[i];
  }
  return same;
}

}  // namespace

int64_t Tensor::count() const { return static_cast<int64_t>(size_bytes / facts_of(dtype).bytes); }

Tensors parse_tensors(const uint8_t* data, uint64_t size, const std::string& name) {
  const uint64_t header_size = read_header_size(data, size, name);
  const uint64_t begin = 8 + header_size;
  std::vector<Entry> entries =
      read_header({reinterpret_cast<const char*>(data) + 8, header_size}, name);
  check_places(&entries, size - begin, name);
  Tensors tensors;
  for (const Entry& entry : entries) {
    if ((begin + entry.begin) % facts_of(entry.dtype).bytes != 0) {
      corrupt(name, in_quotes(entry.name) + " begins at byte " +
                        std::to_string(begin + entry.begin) +
                        ", not a multiple of its item's size");
    }
    tensors[entry.name] = {entry.dtype, entry.shape, data + begin + entry.begin,
                           entry.end - entry.begin};
  }
  return tensors;
}

void check_tensors(const Tensors& tensors, const TensorLayouts& layouts, const std::string& name) {
  for (const auto& [key, tensor] : tensors) {
    if (layouts.count(key) == 0) corrupt(name, in_quotes(key) + " does not belong there");
  }
  for (const auto& [key, layout] : layouts) {
    const auto found = tensors.find(key);
    if (found == tensors.end()) corrupt(name, in_quotes(key) + " is missing");
    const Tensor& tensor = found->second;
    const std::string where = name + ": " + in_quotes(key);
    if (tensor.dtype != layout.dtype || !fits(tensor.shape, layout.shape)) {
      corrupt(where, std::string("expected ") + facts_of(layout.dtype).name + " " +
                         to_text(layout.shape) + " by the manifest, got " +
                         facts_of(tensor.dtype).name + " " + to_text(tensor.shape));
    }
    if (tensor.dtype == Dtype::f32) check_finite(tensor, where);
  }
}

void check_indices(const Tensor& tensor, int64_t end, const std::string& where) {
  for (int64_t i = 0; i < tensor.count(); ++i) {
    const int64_t value = tensor.dtype == Dtype::i64 ? tensor.longs()[i] : tensor.ints()[i];
    if (value < 0 || value >= end) {
      corrupt(where, "expected values in 0.." + std::to_string(end - 1) + ", got " +
                         std::to_string(value));
    }
  }
}

}  // namespace kad
