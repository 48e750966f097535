// Refusing ONNX graphs that read other files, before a runtime sees them.
//
// The graph of an artifact is one file whose hash the manifest states. ONNX lets a tensor lie in
// another file instead (TensorProto.external_data), at any path, and ONNX Runtime lets a node name
// an engine to load (EPContext). Such a file would be neither listed nor hashed. The walk below
// goes through every message that can hold a tensor or a node; what it does not know it skips, as
// protobuf's own parsers do. Field numbers: onnx/onnx.proto.
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/guard.hpp"
#include "base/text.hpp"

namespace kad {
namespace {

constexpr int kMostNested = 100;  // as protobuf's parsers

enum class Message { model, graph, node, attribute, tensor, sparse_tensor, function, training };

enum class WireType { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

/// A field that holds a message: of which kind, in which kind.
struct Child {
  Message in;
  uint64_t field;
  Message kind;
};

constexpr Child kChildren[] = {
    {Message::model, 7, Message::graph},
    {Message::model, 20, Message::training},
    {Message::model, 25, Message::function},
    {Message::training, 1, Message::graph},
    {Message::training, 2, Message::graph},
    {Message::graph, 1, Message::node},
    {Message::graph, 5, Message::tensor},
    {Message::graph, 15, Message::sparse_tensor},
    {Message::function, 7, Message::node},
    {Message::function, 11, Message::attribute},
    {Message::node, 5, Message::attribute},
    {Message::attribute, 5, Message::tensor},
    {Message::attribute, 6, Message::graph},
    {Message::attribute, 10, Message::tensor},
    {Message::attribute, 11, Message::graph},
    {Message::attribute, 22, Message::sparse_tensor},
    {Message::attribute, 23, Message::sparse_tensor},
    {Message::sparse_tensor, 1, Message::tensor},
    {Message::sparse_tensor, 2, Message::tensor},
};
constexpr uint64_t kNodeOperator = 4;
constexpr uint64_t kTensorName = 8;
constexpr uint64_t kTensorExternalData = 13;
constexpr uint64_t kTensorDataLocation = 14;  // 0: in the graph

[[noreturn]] void refuse(const char* why) {
  fail(KAD_ERROR_ARTIFACT_NETWORK, "the graph %s; export the artifact again", why);
}

[[noreturn]] void malformed() { refuse("is no ONNX file: its protobuf is malformed"); }

/// Reads fields one after the other.
class WireFields {
 public:
  explicit WireFields(std::string_view data) : data_(data) {}

  bool next() {
    if (data_.empty()) return false;
    const uint64_t key = varint();
    if (key > UINT32_MAX) malformed();  // protobuf would drop the bits above: another field
    field = key >> 3;
    if (field == 0) malformed();
    switch (static_cast<WireType>(key & 7)) {
      case WireType::varint:
        value = varint();
        bytes = {};
        return true;
      case WireType::fixed64:
        take(8);
        return true;
      case WireType::fixed32:
        take(4);
        return true;
      case WireType::bytes:
        take(varint());
        return true;
    }
    malformed();  // groups are older than ONNX
  }

  uint64_t field = 0;
  uint64_t value = 0;      // of a varint, else 0
  std::string_view bytes;  // of anything else

 private:
  uint64_t varint() {
    uint64_t number = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (data_.empty()) malformed();
      const auto byte = static_cast<uint8_t>(data_.front());
      data_.remove_prefix(1);
      number |= shift < 64 ? static_cast<uint64_t>(byte & 0x7F) << shift : 0;
      if (byte < 0x80) return number;
    }
    malformed();
  }

  void take(uint64_t n) {
    if (n > data_.size()) malformed();
    value = 0;
    bytes = data_.substr(0, n);
    data_.remove_prefix(n);
  }

  std::string_view data_;
};

void check_tensor(std::string_view tensor) {
  std::string_view name;
  bool external = false;
  for (WireFields fields(tensor); fields.next();) {
    if (fields.field == kTensorName) name = fields.bytes;
    external |= fields.field == kTensorExternalData;
    external |= fields.field == kTensorDataLocation && fields.value != 0;
  }
  if (!external) return;
  fail(KAD_ERROR_ARTIFACT_NETWORK,
       "the graph's tensor '%s' lies in another file: expected all data in the graph itself; "
       "export the artifact again",
       shortened(name).c_str());
}

void walk(Message in, std::string_view message, int depth) {
  if (depth > kMostNested) refuse("is nested too deeply");
  if (in == Message::tensor) return check_tensor(message);
  for (WireFields fields(message); fields.next();) {
    if (in == Message::node && fields.field == kNodeOperator && fields.bytes == "EPContext") {
      refuse("has an EPContext node, which loads another file");
    }
    for (const Child& child : kChildren) {
      if (child.in == in && child.field == fields.field) walk(child.kind, fields.bytes, depth + 1);
    }
  }
}

void check_graph(std::string_view graph) {
  // The other format that ONNX Runtime tells by its bytes, and would read in place of protobuf.
  if (graph.size() >= 8 && graph.substr(4, 4) == "ORTM") refuse("is in ORT format, not in ONNX's");
  if (graph.empty()) refuse("is empty");
  walk(Message::model, graph, 0);
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_graph_check(const void* graph, int64_t n_bytes) {
  return kad::guard([&] {
    kad::check_count(n_bytes, 1, "n_bytes");
    if (n_bytes > 0) kad::check_pointer(graph, "graph");
    kad::check_graph({static_cast<const char*>(graph), static_cast<size_t>(n_bytes)});
  });
}
