// Any text: refused by name, or a document of which every value can be read.
#include "runtime/json.hpp"

namespace {

using kad::json::Kind;
using kad::json::Value;

size_t visit(Value value) {
  int64_t integer = 0;
  size_t n = 1;
  switch (value.kind()) {
    case Kind::object:
      for (const auto& [key, item] : value.members()) n += key.size() + visit(item);
      return n;
    case Kind::array:
      for (const Value item : value.items()) n += visit(item);
      return n;
    case Kind::string:
      return value.string().size();
    case Kind::integer:
      return value.fits(&integer) ? 1 : 2;
    case Kind::real:
      return value.number() > 0 ? 1 : 2;
    default:
      return value.text().size();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const kad::json::Document document({reinterpret_cast<const char*>(data), size});
    visit(document.root());
  } catch (const kad::json::Error&) {
  }
  return 0;
}
